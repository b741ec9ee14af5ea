"""Connecting: keywords, waiting for a server at boot, connecting at the first use, secrets as text and functions."""

from __future__ import annotations

import inspect
import logging
import signal
import threading
import time
from typing import TYPE_CHECKING, Any

import attrs
import pytest
from helpers.ports import free_port
from helpers.waiting import eventually

import lightlink
from lightlink.commands import Agent, CommandManager
from lightlink.errors import AuthenticationError, ClosedError, ConnectError, InvalidOption
from lightlink.server import EmbeddedServer

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import StartPython, StartServer


@pytest.fixture
def later() -> EmbeddedServer:
    """A server whose address is known before it is there."""
    return EmbeddedServer(port=free_port())


# Keywords -------------------------------------------------------------------------------------------------------------


def test_every_setting_is_a_keyword_of_connect() -> None:
    keywords = set(inspect.signature(lightlink.connect).parameters)
    assert keywords == {field.name for field in attrs.fields(lightlink.ConnectOptions)} - {"servers"} | {
        "url",
        "context",
    }


@pytest.mark.parametrize(
    "make",
    [
        lambda: lightlink.Service("math", worker=3),
        lambda: Agent("press", "nats://127.0.0.1:1", worker=3),
        lambda: lightlink.Service("math").use(worker=3),
        lambda: lightlink.ConnectOptions.resolve(worker=3),
    ],
)
def test_an_unknown_setting_is_refused_with_the_one_meant(make: Any) -> None:
    with pytest.raises(InvalidOption, match=r"worker: no such setting; did you mean workers\?"):
        make()


def test_a_client_is_made_by_connect_and_says_so() -> None:
    with pytest.raises(InvalidOption, match=r"use lightlink\.connect"):
        lightlink.Client("nats://127.0.0.1:4222")  # type: ignore[arg-type]


# Waiting --------------------------------------------------------------------------------------------------------------


def test_a_server_is_waited_for(later: EmbeddedServer, caplog: pytest.LogCaptureFixture) -> None:
    url = f"nats://127.0.0.1:{later.port}"

    def start() -> None:
        eventually(lambda: "waiting for one" in caplog.text)
        later.start()

    starting = threading.Thread(target=start)
    starting.start()
    try:
        with lightlink.connect(url, wait=60) as client:
            client.flush()
    finally:
        starting.join(30)
        later.stop()
    said = [record.getMessage() for record in caplog.records if "waiting for one" in record.getMessage()]
    assert len(said) == 1
    assert "connection refused" in said[0]


def test_the_error_comes_at_once_or_after_the_wait(later: EmbeddedServer) -> None:
    url = f"nats://127.0.0.1:{later.port}"
    for wait in (None, 0, 0.3):
        started = time.monotonic()
        with pytest.raises(ConnectError, match="connection refused"):
            lightlink.connect(url, wait=wait)
        assert time.monotonic() - started >= (wait or 0)


def test_a_refusal_is_not_waited_out(fresh_server: StartServer) -> None:
    server = fresh_server(config="authorization { token: secret }")
    with pytest.raises(AuthenticationError):
        lightlink.connect(server.url, wait=60)


@pytest.mark.parametrize("wait", [-1, "1", True, float("nan")])
def test_a_wait_that_cannot_be_is_refused(wait: Any) -> None:
    with pytest.raises(InvalidOption, match="wait"):
        lightlink.connect("nats://127.0.0.1:1", wait=wait)


def test_services_and_agents_wait_by_default(later: EmbeddedServer, prefix: str) -> None:
    url = f"nats://127.0.0.1:{later.port}"
    service, agent = lightlink.Service(prefix, url), Agent(prefix, url)
    service.rpc("add")(lambda a, b: a + b)
    agent.command("work")(lambda: "done")
    starts = [threading.Thread(target=each.start) for each in (service, agent)]
    for each in starts:
        each.start()
    later.start()
    try:
        for each in starts:
            each.join(60)
            assert not each.is_alive()
        with lightlink.connect(url) as client, CommandManager(client) as manager:
            assert client.call(prefix, "add", {"a": 1, "b": 2}) == 3
            assert manager.send(prefix, "work").result(30) == "done"
    finally:
        service.stop()
        agent.stop()
        later.stop()


def test_services_and_agents_that_are_not_to_wait_do_not(later: EmbeddedServer, prefix: str) -> None:
    url = f"nats://127.0.0.1:{later.port}"
    for make in (lightlink.Service, Agent):
        with pytest.raises(ConnectError):
            make(prefix, url, wait=0).start()


@pytest.mark.parametrize("how", ["start", "run"])
@pytest.mark.parametrize("kind", [lightlink.Service, Agent])
def test_a_stop_ends_the_wait(kind: Any, how: str, later: EmbeddedServer, prefix: str) -> None:
    waiting = kind(prefix, f"nats://127.0.0.1:{later.port}")
    ended: list[object] = []

    def go() -> None:
        try:
            ended.append(getattr(waiting, how)())
        except ClosedError as exc:
            ended.append(exc)

    thread = threading.Thread(target=go)
    thread.start()
    eventually(lambda: waiting._client is not None)
    waiting.stop()
    thread.join(30)
    assert not thread.is_alive()
    assert isinstance(ended[0], ClosedError if how == "start" else type(None))


RUNS = """
    import signal, sys, threading
    import lightlink
    from lightlink.commands import Agent

    kind, url = sys.argv[1:]
    made = {"service": lightlink.Service, "agent": Agent}[kind]("patient", url)
    print("waits", flush=True)
    made.run()
"""


@pytest.mark.parametrize("kind", ["service", "agent"])
def test_ctrl_c_ends_the_wait(python: StartPython, later: EmbeddedServer, kind: str) -> None:
    process = python(RUNS, kind, f"nats://127.0.0.1:{later.port}")
    process.wait_line("waits")
    eventually(lambda: "waiting for one" in process.stderr)
    process.signal(signal.SIGINT)
    assert process.wait().returncode != 0
    assert "KeyboardInterrupt" in process.stderr


# Lazy -----------------------------------------------------------------------------------------------------------------


def test_a_lazy_client_connects_at_its_first_use(later: EmbeddedServer) -> None:
    client = lightlink.connect(f"nats://127.0.0.1:{later.port}", lazy=True)
    assert client.status is lightlink.Status.CONNECTING
    with pytest.raises(ConnectError):
        client.flush()
    with later:
        client.flush()
        assert client.status is lightlink.Status.CONNECTED
        client.close()
    assert client.status is lightlink.Status.CLOSED


def test_a_lazy_client_never_used_is_closed_without_a_server() -> None:
    with lightlink.connect("nats://127.0.0.1:1", lazy=True):
        pass


def test_threads_that_first_use_a_lazy_client_share_it(fresh_server: StartServer) -> None:
    server = fresh_server()
    with lightlink.connect(server.url, lazy=True) as client:
        barrier = threading.Barrier(8)

        def use() -> None:
            barrier.wait(30)
            client.flush()

        threads = [threading.Thread(target=use) for _ in range(8)]
        for each in threads:
            each.start()
        for each in threads:
            each.join(30)
        assert server.log_file.read_text().count("Client connection created") <= 2  # the greeting was tried, too


def test_a_wrong_setting_is_refused_before_connecting() -> None:
    with pytest.raises(InvalidOption):
        lightlink.connect("http://127.0.0.1:1", lazy=True)


# Secrets --------------------------------------------------------------------------------------------------------------

SEED = "SUAM4D7MQQX2NQ6RCQ6QZ7R7QJQ3L2D6YV6K4ZV3V3QF2JZQ6X5T2Q7K3A"


@pytest.mark.parametrize("option", ["creds", "nkey"])
@pytest.mark.parametrize(
    "text",
    [
        SEED,
        f"{SEED}\n",
        f"-----BEGIN NATS USER JWT-----\nabc.def\n------END NATS USER JWT------\n\n{SEED}",
        f"hidden\n{SEED}",
    ],
)
def test_a_secret_given_as_text_is_in_no_message(option: str, text: str) -> None:
    with pytest.raises((InvalidOption, ConnectError)) as caught:
        lightlink.connect("nats://127.0.0.1:1", **{option: text})  # type: ignore[arg-type]
    assert SEED not in str(caught.value)
    options = lightlink.ConnectOptions(**{option: text})  # type: ignore[arg-type]
    assert SEED not in repr(options)


def test_a_function_is_asked_for_a_secret_at_each_connect(fresh_server: StartServer, tmp_path: Path) -> None:
    config = tmp_path / "nats.conf"
    secrets = ["first", "second"]
    config.write_text("authorization { token: first }")
    server = fresh_server(config=config)
    with lightlink.connect(server.url, token=lambda: secrets[0]) as client:
        client.flush()
        config.write_text("authorization { token: second }")
        secrets.pop(0)
        server.restart()
        assert client.wait_connected(30)
        client.flush()


def test_a_function_that_fails_is_said_and_tried_again(
    fresh_server: StartServer, caplog: pytest.LogCaptureFixture
) -> None:
    server = fresh_server(config="authorization { user: app, password: right }")
    fails = [True]

    def ask() -> str:
        if fails[0]:
            raise OSError("the vault is sealed")
        return "right"

    with pytest.raises(ConnectError, match="the vault is sealed"):
        lightlink.connect(server.url, user="app", password=ask)
    fails[:] = [False]
    with lightlink.connect(server.url, user="app", password=ask) as client:
        fails[:] = [True]
        server.restart()
        eventually(lambda: client.status is lightlink.Status.RECONNECTING)
        fails[:] = [False]
        assert client.wait_connected(30)
    assert [record for record in caplog.records if record.levelno > logging.WARNING] == []


# Looking at a connection ----------------------------------------------------------------------------------------------


def test_a_lazy_client_is_connected_by_its_first_ping(url: str) -> None:
    with lightlink.connect(url, lazy=True) as client:
        assert (client.is_connected, client.server) == (False, None)
        assert client.ping() > 0
        assert (client.is_connected, client.server) == (True, url)
    assert (client.is_connected, client.server) == (False, None)
    with pytest.raises(ClosedError):
        client.ping()


def test_a_ping_leaves_what_a_flush_is_to_report(fresh_server: StartServer) -> None:
    user = "{ user: u, password: p, permissions { publish: '_INBOX.>' } }"
    server = fresh_server(config=f"authorization {{ users: [{user}] }}")
    with lightlink.connect(server.url, user="u", password="p") as client:
        client.publish("forbidden", 1)
        assert client.ping() > 0
        with pytest.raises(lightlink.PermissionDenied, match="forbidden"):
            client.flush()
