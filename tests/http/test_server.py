"""The HTTP server on the lifecycle that all servers have."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest
from helpers.http import Http
from helpers.waiting import eventually

from lightlink.errors import NotReady
from lightlink.http import create_app
from lightlink.http.server import CannotListen, HttpServer

if TYPE_CHECKING:
    from lightlink.commands import CommandManager


def test_it_starts_and_stops_without_a_signal(manager: CommandManager) -> None:
    """Also off the main thread, where no signal comes."""
    urls: list[str] = []
    server = HttpServer(create_app(manager), "127.0.0.1:0", urls.append)
    running = threading.Thread(target=server.run)
    running.start()
    (url,) = eventually(lambda: urls)
    assert Http(url).get("/health").status == 200
    with pytest.raises(NotReady, match="running already"):
        server.start()
    with pytest.raises(CannotListen):
        HttpServer(create_app(manager), url.removeprefix("http://")).start()

    server.stop()
    server.stop()
    running.join(30)
    assert not running.is_alive()
    assert server.stage.value == "stopped"
    with pytest.raises(ConnectionRefusedError):
        Http(url).get("/health")
