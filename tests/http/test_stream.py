"""Server-sent events of every change, over real HTTP."""

from __future__ import annotations

import signal
import threading
from typing import TYPE_CHECKING, Any

import flask
import pytest
from helpers.http import Events, Http, HttpProcess, tokens_file
from helpers.waiting import eventually

import lightlink
from lightlink.commands import Agent, CommandContext, CommandManager
from lightlink.http import Limits, Token, create_app
from lightlink.http.flask import blueprint
from lightlink.http.server import HttpServer
from lightlink.runs import Orchestrator

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from conftest import StartServer

    from lightlink.server import EmbeddedServer

ALL = {"scope": ["read", "send", "data"]}
OPS: dict[str, Any] = {"name": "ops", "token": "ops-0123456789abcdef", **ALL}
OTHER: dict[str, Any] = {"name": "other", "token": "other-0123456789abcdef", **ALL}


@pytest.fixture(scope="module")
def running(server: EmbeddedServer) -> Iterator[HttpProcess]:
    with HttpProcess(server.url) as process:
        yield process


@pytest.fixture
def http(running: HttpProcess) -> Http:
    return running.http


@pytest.fixture
def client(url: str) -> Iterator[lightlink.Client]:
    with lightlink.connect(url) as connected:
        yield connected


def send(http: Http, client_id: str, command_type: str = "add", **payload: Any) -> str:
    body = {"client_id": client_id, "command_type": command_type, "payload": payload}
    return str(http.post("/api/command", body).json["command_id"])


def adder(client: lightlink.Client, client_id: str) -> Agent:
    agent = Agent(client_id, client, workers=1)

    @agent.command("add")
    def add(a: int, b: int) -> int:
        return a + b

    return agent


def test_every_change_of_a_command_is_told(http: Http, client: lightlink.Client, prefix: str) -> None:
    with http.open(f"/api/commands/stream?client_id={prefix}") as opened:
        events = iter(Events(opened))
        command_id = send(http, prefix, a=1, b=2)
        # The audit hears of requests and of statuses on two ways: a request that comes after its status is not told.
        told = [next(events)]
        with adder(client, prefix):
            told += [next(events), next(events)]

    assert [command["command_id"] for _, command in told] == [command_id] * 3
    assert [command["status"] for _, command in told] == ["pending", "executing", "completed"]
    assert told[-1][1]["result"] == 3
    assert told[-1][1] == http.get(f"/api/command/{command_id}").json["command"]
    ids = [int(number) for number, _ in told]
    assert ids == sorted(set(ids))


def test_progress_is_told_in_the_stream(http: Http, client: lightlink.Client, prefix: str) -> None:
    agent = Agent(prefix, client)
    may_end = threading.Event()

    @agent.command("work")
    def work(context: CommandContext) -> None:
        context.progress(0.5, "half")
        may_end.wait(30)

    with http.open(f"/api/commands/stream?client_id={prefix}") as opened, agent:
        events = iter(Events(opened))
        send(http, prefix, "work")
        for _, command in events:
            if "progress" in command:
                break
        assert (command["status"], command["progress"]) == ("executing", {"fraction": 0.5, "note": "half"})
        may_end.set()


def test_a_stream_tells_of_one_client_only_if_asked_to(http: Http, prefix: str) -> None:
    with http.open(f"/api/commands/stream?client_id={prefix}_b") as opened:
        events = iter(Events(opened))
        send(http, f"{prefix}_a")
        wanted = send(http, f"{prefix}_b")

        assert next(events)[1]["command_id"] == wanted


def test_a_stream_tells_of_one_status_only_if_asked_to(http: Http, client: lightlink.Client, prefix: str) -> None:
    with (
        http.open(f"/api/commands/stream?client_id={prefix}&status=completed") as opened,
        adder(client, prefix),
    ):
        events = iter(Events(opened))
        sent = [send(http, prefix, a=number, b=1) for number in range(3)]
        told = [next(events)[1] for _ in range(3)]

    assert {command["status"] for command in told} == {"completed"}
    assert [command["command_id"] for command in told] == sent


def test_a_stream_tells_of_all_clients(http: Http, prefix: str) -> None:
    with http.open("/api/commands/stream") as opened:
        events = iter(Events(opened))
        sent = {send(http, f"{prefix}_{number}") for number in range(3)}
        seen: set[str] = set()
        while not sent <= seen:
            seen.add(next(events)[1]["command_id"])


def test_who_comes_again_misses_nothing(http: Http, prefix: str) -> None:
    path = f"/api/commands/stream?client_id={prefix}"
    with http.open(path) as opened:
        events = iter(Events(opened))
        send(http, prefix)
        last, _ = next(events)
    missed = [send(http, prefix) for _ in range(3)]

    with http.open(path, headers={"Last-Event-ID": last}) as opened:
        events = iter(Events(opened))
        assert [next(events)[1]["command_id"] for _ in missed] == missed


def test_who_comes_again_to_another_process_misses_nothing(url: str, http: Http, prefix: str) -> None:
    path = f"/api/commands/stream?client_id={prefix}"
    with http.open(path) as opened:
        events = iter(Events(opened))
        send(http, prefix)
        last, _ = next(events)
    missed = send(http, prefix)

    with HttpProcess(url) as other, other.http.open(path, headers={"Last-Event-ID": last}) as opened:
        assert next(iter(Events(opened)))[1]["command_id"] == missed


def test_a_last_event_of_a_store_that_was_lost_is_no_obstacle(http: Http, prefix: str) -> None:
    with http.open(f"/api/commands/stream?client_id={prefix}", headers={"Last-Event-ID": "9" * 15}) as opened:
        events = iter(Events(opened))
        sent = send(http, prefix)

        assert next(events)[1]["command_id"] == sent


def test_a_stream_goes_on_after_an_outage_of_nats(fresh_server: StartServer, prefix: str) -> None:
    nats = fresh_server()
    with HttpProcess(nats.url) as running, running.http.open("/api/commands/stream", timeout=50) as opened:
        events = iter(Events(opened))
        before = send(running.http, prefix)
        assert next(events)[1]["command_id"] == before
        nats.kill()
        nats.start()
        eventually(lambda: running.http.get("/health").status == 200, timeout=30)
        after = send(running.http, prefix)

        assert next(events)[1]["command_id"] == after


def test_a_server_that_is_asked_to_stop_ends_its_streams(url: str, prefix: str) -> None:
    # Of nobody: what other tests have sent may come to its end now.
    with HttpProcess(url) as running, running.http.open(f"/api/commands/stream?client_id={prefix}") as opened:
        events = Events(opened)
        running.process.signal(signal.SIGTERM)

        assert list(events) == []
        assert running.process.wait().returncode == 0


def test_a_stream_that_nobody_reads_any_more_ends(url: str) -> None:
    with HttpProcess(url, "--max-waiting=1") as running:
        for _ in range(3):
            with running.http.open("/api/commands/stream") as opened:
                Events(opened)
            eventually(lambda: b"command_waiting_requests 0.0" in running.http.get("/metrics").body)


def test_a_quiet_stream_shows_that_it_lives(client: lightlink.Client, prefix: str) -> None:
    with CommandManager(client) as manager:
        app = create_app(manager, limits=Limits(heartbeat=0.05))
        environ = {
            "REQUEST_METHOD": "GET",
            "PATH_INFO": "/api/commands/stream",
            "QUERY_STRING": f"client_id={prefix}",
            "REMOTE_ADDR": "127.0.0.1",
            "SERVER_NAME": "localhost",
            "SERVER_PORT": "80",
            "wsgi.url_scheme": "http",
        }
        body: Any = app(environ, lambda status, headers: None)
        try:
            pieces = iter(body)
            assert [next(pieces) for _ in range(3)] == [b"retry: 2000\n: connected\n\n", b": \n\n", b": \n\n"]
            assert app.room.taken == 1
        finally:
            body.close()
        assert app.room.taken == 0


def test_a_stream_dropped_before_it_is_read_gives_its_seat_back(client: lightlink.Client) -> None:
    with CommandManager(client) as manager:
        app = create_app(manager)
        environ = {
            "REQUEST_METHOD": "HEAD",
            "PATH_INFO": "/api/commands/stream",
            "REMOTE_ADDR": "127.0.0.1",
            "SERVER_NAME": "localhost",
            "SERVER_PORT": "80",
            "wsgi.url_scheme": "http",
        }
        body: Any = app(environ, lambda status, headers: None)
        body.close()

        assert app.room.taken == 0


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    return tokens_file(tmp_path / "tokens.json", OPS, OTHER)


@pytest.fixture
def guarded(client: lightlink.Client, tokens: Path) -> Iterator[str]:
    """The address of a server that asks the file of tokens again soon."""
    urls: list[str] = []
    with Orchestrator(client, sweep_interval=None) as manager:
        app = create_app(manager, tokens=tokens, limits=Limits(heartbeat=0.05))
        with HttpServer(app, "127.0.0.1:0", urls.append):
            yield urls[0]


@pytest.mark.parametrize(
    ("path", "how"),
    [
        ("/api/commands/stream", "revoked"),
        ("/api/events", "narrowed"),
        ("/api/runs/stream", "removed"),
        ("/api/tail", "damaged"),
    ],
)
def test_a_stream_ends_with_the_token_it_was_opened_with(
    guarded: str, tokens: Path, prefix: str, path: str, how: str
) -> None:
    with Http(guarded, OPS["token"]).open(path) as opened, Http(guarded, OTHER["token"]).open(path) as other:
        ended, goes_on = Events(opened), Events(other)
        if how == "removed":
            tokens.unlink()
        elif how == "damaged":
            tokens.write_text("{")
        else:
            changed = [] if how == "revoked" else [{**OPS, "clients": ["berlin-*"]}]
            tokens_file(tokens, OTHER, *changed)

        while ended.line():
            pass
        if how in ("revoked", "narrowed"):
            sent = send(Http(guarded, OTHER["token"]), prefix)
            assert sent in (command["command_id"] for _, command in goes_on)
    status = Http(guarded, OPS["token"]).get("/api/commands").status
    assert status == (200 if how == "narrowed" else 401)


def test_a_session_hears_no_more_than_its_token(guarded: str, tokens: Path) -> None:
    http = Http(guarded)
    answer = http.post("/console/session", {"token": OPS["token"]}, headers={"Sec-Fetch-Site": "same-origin"})
    cookie = answer.headers["Set-Cookie"].partition(";")[0]
    with http.open("/api/events", headers={"Cookie": cookie}) as opened:
        events = Events(opened)
        tokens_file(tokens, OTHER)

        while events.line():
            pass


def test_who_waits_is_told_nothing_once_the_token_is_revoked(
    guarded: str, tokens: Path, client: lightlink.Client, prefix: str
) -> None:
    command_id = send(Http(guarded, OPS["token"]), prefix, a=1, b=2)
    with Http(guarded, OPS["token"]).open(f"/api/command/{command_id}?wait=60") as opened:
        eventually(lambda: b"command_waiting_requests 1.0" in Http(guarded, OTHER["token"]).get("/metrics").body)
        tokens_file(tokens, OTHER)
        with Http(guarded, OTHER["token"]).open("/api/runs/stream") as other:
            heartbeat = Events(other)
            while heartbeat.line() != ": \n":
                pass
        with adder(client, prefix):
            assert opened.answer().status == 401


def test_a_stream_in_a_flask_site_asks_within_its_context(client: lightlink.Client, prefix: str) -> None:
    site = flask.Flask("site")
    site.config["SECRET"] = "sesame"
    token = Token(name="me", scope={"read"})
    with CommandManager(client) as manager:
        app = create_app(
            manager,
            tokens=lambda secret: token if secret == flask.current_app.config["SECRET"] else None,
            limits=Limits(heartbeat=0.05),
        )
        site.register_blueprint(blueprint(app), url_prefix="/lightlink")
        path = f"/lightlink/api/commands/stream?client_id={prefix}"
        with site.test_client().get(path, headers={"Authorization": "Bearer sesame"}) as response:
            pieces = response.iter_encoded()
            assert [next(pieces) for _ in range(3)] == [b"retry: 2000\n: connected\n\n", b": \n\n", b": \n\n"]
            site.config["SECRET"] = "changed"
            assert set(pieces) <= {b": \n\n"}  # it ends
