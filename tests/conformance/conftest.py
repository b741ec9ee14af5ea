"""A server of the folder's own, whose agents give a sign of life each fraction of a second."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from helpers.commands import FAST
from helpers.raw import RawPeer

import lightlink
from lightlink.server import EmbeddedServer

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="package")
def quick_url() -> Iterator[str]:
    """The address of a server with the streams of commands, made for quick heartbeats."""
    with EmbeddedServer() as server:
        with lightlink.connect(server.url) as client, lightlink.CommandManager(client, store=FAST) as manager:
            manager.store.ensure_streams()
        yield server.url


@pytest.fixture
def judging(quick_url: str) -> Iterator[lightlink.Client]:
    """The client of a judge."""
    with lightlink.connect(quick_url, name="judge") as client:
        yield client


@pytest.fixture
def stranger(quick_url: str) -> Iterator[RawPeer]:
    """The connection of a program under test that knows nothing of LightLink."""
    with RawPeer(quick_url) as peer:
        yield peer
