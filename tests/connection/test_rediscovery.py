"""Servers that were told of, refusals, and permissions that come and go: what a client makes of them."""

from __future__ import annotations

import os
import queue
import signal
import threading
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from helpers.waiting import eventually

import lightlink
from lightlink.connection.dialing.dial import Backoff
from lightlink.errors import AuthenticationError, PermissionDenied

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import StartServer

    from lightlink.server import EmbeddedServer

FAST: dict[str, Any] = {"reconnect_wait": 0.02, "reconnect_wait_max": 0.05}


# Servers that were told of ------------------------------------------------------------------------------------------


def told_of(client: lightlink.Client) -> list[str]:
    return [each.uri.netloc for each in client._connection.session.nc._server_pool if each.discovered]


def tell(client: lightlink.Client, urls: list[str]) -> None:
    """Have the client read an INFO with these servers in it, as from its own server."""
    nc = client._connection.session.nc
    info = dict(nc._server_info, connect_urls=urls)
    client._connection.run(nc._process_info, info)


def test_a_refusal_by_a_server_told_of_skips_that_server(fresh_server: StartServer) -> None:
    strangers = [fresh_server(config="authorization { token: another }") for _ in range(3)]
    server = fresh_server()
    errors: list[Exception] = []
    with lightlink.connect(server.url, on_error=errors.append, refusal_timeout=0, **FAST) as client:
        tell(client, [f"127.0.0.1:{each.port}" for each in strangers])
        assert len(told_of(client)) == 3
        server.kill()
        eventually(lambda: told_of(client) == [])  # each has refused us once
        assert client.status is lightlink.Status.RECONNECTING
        server.start()
        assert client.wait_connected(30)
        client.flush()
    assert errors == []


def test_the_servers_known_are_those_told_of_last(url: str) -> None:
    with lightlink.connect(url) as client:
        for number in range(2000):
            tell(client, [f"127.0.0.1:{10_000 + number}", f"127.0.0.1:{20_000 + number}"])
        assert sorted(told_of(client)) == ["127.0.0.1:11999", "127.0.0.1:21999"]


def test_without_discovery_nobody_else_is_connected_to(url: str) -> None:
    with lightlink.connect(url, discover=False) as client:
        tell(client, ["127.0.0.1:1", "127.0.0.1:2"])
        assert told_of(client) == []


def test_the_servers_given_take_turns_with_all_that_were_told_of() -> None:
    options = lightlink.ConnectOptions(servers=("nats://a:1", "nats://b:1"))
    choose = Backoff(options)
    names = ["a:1", "b:1", *(f"x{number}:1" for number in range(100))]
    servers = [SimpleNamespace(uri=SimpleNamespace(netloc=name)) for name in names]
    chosen = [choose(servers, {})[0].uri.netloc for _ in range(8)]  # type: ignore[arg-type]
    assert chosen == ["a:1", "x0:1", "b:1", "x1:1", "a:1", "x2:1", "b:1", "x3:1"]


# Refusals -----------------------------------------------------------------------------------------------------------


def test_an_exchange_of_secrets_is_outlived(fresh_server: StartServer, tmp_path: Path) -> None:
    config = tmp_path / "nats.conf"
    config.write_text("authorization { token: first }")
    server = fresh_server(config=config)
    secret = ["first"]
    with lightlink.connect(server.url, token=lambda: secret[0], **FAST) as client:
        config.write_text("authorization { token: second }")
        server.restart()
        session = client._connection.session
        eventually(lambda: session._refusals >= 5)
        assert client.status is lightlink.Status.RECONNECTING
        secret[0] = "second"
        assert client.wait_connected(30)
        client.flush()


def test_who_is_refused_for_longer_than_that_is_closed(fresh_server: StartServer, tmp_path: Path) -> None:
    config = tmp_path / "nats.conf"
    config.write_text("authorization { token: first }")
    server = fresh_server(config=config)
    started = time.monotonic()
    with lightlink.connect(server.url, token="first", refusal_timeout=0.5, **FAST) as client:
        config.write_text("authorization { token: second }")
        server.restart()
        eventually(lambda: client.status is lightlink.Status.CLOSED)
        assert time.monotonic() - started >= 0.5
        with pytest.raises(AuthenticationError):
            client.flush()


# Permissions that come and go ---------------------------------------------------------------------------------------


def users(*allowed: str) -> str:
    subjects = ", ".join(f'"{each}"' for each in ("_INBOX.>", *allowed))
    return f"""
        authorization {{ users = [
            {{ user: app, password: a, permissions: {{ publish: ">", subscribe: [{subjects}] }} }}
            {{ user: ops, password: o }}
        ] }}
    """


def test_a_subscription_allowed_again_is_heard_again(fresh_server: StartServer, tmp_path: Path) -> None:
    config = tmp_path / "nats.conf"
    both = users("news", "more", "$SRV.>")
    config.write_text(both)
    server = fresh_server(config=config)
    reported: queue.SimpleQueue[Exception] = queue.SimpleQueue()
    heard = threading.Event()
    service = lightlink.Service("math", server.url, user="app", password="a")
    service.rpc("add")(lambda a, b: a + b)
    with (
        lightlink.connect(server.url, user="app", password="a", on_error=reported.put) as client,
        lightlink.connect(server.url, user="ops", password="o") as ops,
        service,
    ):
        client.subscribe("news", lambda _: heard.set())
        config.write_text(users("more"))
        _reload(server)
        error = reported.get(timeout=30)
        assert isinstance(error, PermissionDenied)
        assert (error.operation, error.subject) == ("subscribe", "news")
        with pytest.raises(lightlink.ServiceUnavailable):
            ops.call("math", "add", {"a": 1, "b": 2}, timeout=30)
        config.write_text(both)
        _reload(server)

        def is_heard() -> bool:
            ops.publish("news", 1)
            return heard.wait(0.2)

        eventually(is_heard)
        eventually(lambda: _answers(ops))
        assert reported.empty()
        assert [each._connection.session.losses for each in (client, service.client)] == [0, 0]


def _answers(client: lightlink.Client) -> bool:
    try:
        return bool(client.call("math", "add", {"a": 1, "b": 2}, timeout=30) == 3)
    except lightlink.ServiceUnavailable:
        return False


def test_replies_are_heard_again_when_an_inbox_is_allowed_again(fresh_server: StartServer, tmp_path: Path) -> None:
    config = tmp_path / "nats.conf"
    config.write_text(users("news"))
    server = fresh_server(config=config)
    service = lightlink.Service("math", server.url, user="ops", password="o")
    service.rpc("add")(lambda a, b: a + b)
    with lightlink.connect(server.url, user="app", password="a") as client, service:
        assert _answers(client)
        config.write_text(users("news").replace('"_INBOX.>", ', ""))
        _reload(server)
        eventually(lambda: client._connection.session.inbox_denied)
        with pytest.raises(PermissionDenied):
            client.call("math", "add", {"a": 1, "b": 2}, timeout=30)
        config.write_text(users("news"))
        _reload(server)
        eventually(lambda: client._connection.session.inbox_denied is None)
        assert _answers(client)


def _reload(server: EmbeddedServer) -> None:
    before = server.log_file.read_text().count("Reloaded server configuration")
    os.kill(server.pid, signal.SIGHUP)
    eventually(lambda: server.log_file.read_text().count("Reloaded server configuration") > before)
