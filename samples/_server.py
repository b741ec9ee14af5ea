"""Where the samples find NATS: at the URL on the command line or in the environment, else in a server of their own."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TYPE_CHECKING

import lightlink

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def nats_url() -> Iterator[str]:
    """Yield the URL to connect to."""
    given = sys.argv[1] if len(sys.argv) > 1 else os.environ.get("LIGHTLINK_URL") or os.environ.get("NATS_URL")
    if given:
        yield given
        return
    with lightlink.EmbeddedServer() as server:
        yield server.url
