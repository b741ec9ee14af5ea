"""What readers of the documentation have: a folder, and a server of their own."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pytest
from helpers.pages import Reader

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import StartServer


class Read(Protocol):
    def __call__(self, page: str, *, server: bool = True, **options: Any) -> Reader: ...


@pytest.fixture
def read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fresh_server: StartServer) -> Iterator[Read]:
    """Read a page from its first line to its last, in a folder of the test's own.

    LIGHTLINK_URL names a server that nobody else uses, unless there is to be no ``server``.
    """
    for name in ("LIGHTLINK_URL", "NATS_URL", "LIGHTLINK_TLS_CA", "LIGHTLINK_TLS_CERT", "LIGHTLINK_TLS_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    monkeypatch.chdir(tmp_path)
    # Commands that run in this process set handlers.
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    with contextlib.ExitStack() as stack:

        def start(page: str, *, server: bool = True, **options: Any) -> Reader:
            if server:
                monkeypatch.setenv("LIGHTLINK_URL", fresh_server().url)
            return stack.enter_context(Reader(page, tmp_path, **options))

        yield start
    for number, handler in before.items():
        signal.signal(number, handler)
