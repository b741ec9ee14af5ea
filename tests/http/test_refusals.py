"""Each refusal, over real HTTP: the right status, and JSON that names what was wrong."""

from __future__ import annotations

import contextlib
import json
import socket
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
from helpers.http import HttpProcess
from helpers.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import StartProxy, StartServer
    from helpers.http import Answer, Http

    from lightlink.server import EmbeddedServer

COMMAND = {"client_id": "a1", "command_type": "restart"}


@pytest.fixture(scope="module")
def running(server: EmbeddedServer) -> Iterator[HttpProcess]:
    with HttpProcess(server.url) as process:
        yield process


@pytest.fixture
def http(running: HttpProcess) -> Http:
    return running.http


# Bodies ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "body", "error"),
    [
        ("/api/command", {"command_type": "x"}, "client_id: is missing"),
        ("/api/command", {"client_id": "a1"}, "command_type: is missing"),
        ("/api/command", {**COMMAND, "client_id": 5}, "client_id: expected str, got int"),
        ("/api/command", {**COMMAND, "client_id": "a.b"}, "client_id: expected str matching regex '^[A-Za-z0-9_-]+$'"),
        ("/api/command", {**COMMAND, "client_id": "a\n"}, "invalid client id 'a\\n'"),
        ("/api/command", {**COMMAND, "client_id": "a" * 201}, "client_id: expected str of length <= 200"),
        ("/api/command", {**COMMAND, "command_type": ""}, "command_type: expected str of length >= 1"),
        ("/api/command", {**COMMAND, "timeout": "5"}, "timeout: expected float, got str"),
        ("/api/command", {**COMMAND, "timeout": -1}, "timeout: expected float >= 0"),
        ("/api/command", {**COMMAND, "timeout": True}, "timeout: expected float, got bool"),
        ("/api/command", {**COMMAND, "timeout": 1e300}, "timeout: expected float <= 604800"),
        ("/api/command", {**COMMAND, "priority": 1.5}, "priority: expected int, got float"),
        ("/api/command", {**COMMAND, "priority": 2**70}, "priority: "),
        ("/api/command", {**COMMAND, "idempotency_key": 1}, "idempotency_key: expected str | null, got int"),
        ("/api/command", {**COMMAND, "queue": "no"}, "queue: expected bool, got str"),
        ("/api/command", {**COMMAND, "que": False}, "que: unknown; known are: client_id, command_type"),
        ("/api/command", [], "the body: expected object, got array"),
        ("/api/command", "text", "the body: expected object, got str"),
        ("/api/command/multi", {"command_type": "x"}, "client_ids: give either client_ids or labels"),
        (
            "/api/command/multi",
            {"command_type": "x", "client_ids": ["a"], "labels": {"a": "b"}},
            "client_ids: give either client_ids or labels",
        ),
        ("/api/command/multi", {"command_type": "x", "client_ids": []}, "client_ids: expected array of length >= 1"),
        ("/api/command/multi", {"command_type": "x", "client_ids": ["ok", "not ok"]}, "client_ids[1]: expected str"),
        ("/api/command/multi", {"command_type": "x", "client_ids": "a1"}, "client_ids: expected array, got str"),
        ("/api/command/multi", {"command_type": "x", "labels": {"a": 1}}, "labels[...]: expected str, got int"),
        ("/api/command/multi", {"command_type": "x", "client_ids": ["a"], "wait": 1}, "wait: expected bool, got int"),
        ("/api/command/some-id/cancel", {"reason": 1}, "reason: expected str, got int"),
        ("/api/command/some-id/cancel", {"why": "x"}, "why: unknown; known are: reason"),
        ("/api/send", {"type": "x"}, "client_id: is missing"),
        ("/api/send", {"client_id": "a1", "type": "x", "wait_ack": None}, "wait_ack: expected bool, got null"),
        ("/api/broadcast", {"type": ""}, "type: expected str of length >= 1"),
        ("/api/broadcast", {"type": "x", "client_id": "a1"}, "client_id: unknown; known are: type, payload"),
    ],
)
def test_a_field_that_is_wrong_is_named(http: Http, path: str, body: Any, error: str) -> None:
    answer = http.post(path, body)

    assert answer.status == 400
    assert answer.error.startswith(error)


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"", "the body is empty; send a JSON object"),
        (b"{", "the body is not JSON: "),
        (b"\xff\xfe", "the body is not JSON: "),
        (b'{"client_id": "\xff"}', "the body is not JSON: "),
        (b'{"client_id": "\\ud800"}', "the body is not JSON: "),
        (b'{"payload": NaN}', "the body is not JSON: "),
        (b'{"payload": 1e999}', "the body is not JSON: "),
        (b'{"a": 1} {"b": 2}', "the body is not JSON: JSON is malformed: "),
    ],
)
def test_a_body_that_is_not_json_is_refused(http: Http, data: bytes, error: str) -> None:
    answer = http.request("POST", "/api/command", data, headers={"Content-Type": "application/json"})

    assert answer.status == 400
    assert answer.error.startswith(error)


@pytest.mark.parametrize("closed", [True, False])
def test_a_body_that_is_nested_too_deep_is_refused(http: Http, closed: bool) -> None:
    deep = "[" * 100_000 + ("]" * 100_000 if closed else "")

    answer = http.request(
        "POST", "/api/command", b'{"payload": ' + deep.encode() + b"}", headers={"Content-Type": "application/json"}
    )

    assert (answer.status, answer.error) == (400, "the body is nested deeper than 64")


def test_brackets_in_a_text_are_not_depth(http: Http, prefix: str) -> None:
    answer = http.post("/api/command", {"client_id": prefix, "command_type": "x", "payload": '[{"\\' * 500})

    assert answer.status == 200


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", "application/jsonp", ""])
def test_a_body_of_another_type_is_refused(http: Http, content_type: str) -> None:
    answer = http.request("POST", "/api/command", json.dumps(COMMAND).encode(), headers={"Content-Type": content_type})

    assert answer.status == 415
    assert answer.error == f"Content-Type is {content_type or 'missing'}; send application/json"


def test_json_with_a_charset_is_taken(http: Http, prefix: str) -> None:
    body = {"client_id": prefix, "command_type": "x"}
    answer = http.post("/api/command", body, headers={"Content-Type": "Application/JSON; charset=utf-8"})

    assert answer.status == 200


def test_a_packed_body_is_refused(http: Http) -> None:
    answer = http.post("/api/command", COMMAND, headers={"Content-Encoding": "gzip"})

    assert answer.status == 415
    assert answer.error.startswith("Content-Encoding")


def test_a_body_that_is_too_large_is_refused(http: Http) -> None:
    answer = http.post("/api/command", {**COMMAND, "payload": "x" * (1024 * 1024)})

    assert (answer.status, answer.error) == (413, "the body has more than 1048576 bytes")


def test_a_body_without_a_length_is_refused_beyond_the_limit_too(http: Http) -> None:
    pieces = (b'{"payload": "' + b"x" * 1024 * 1024, b"x" * 1024)

    answer = http.request("POST", "/api/command", iter(pieces), headers={"Content-Type": "application/json"})

    assert (answer.status, answer.error) == (413, "the body has more than 1048576 bytes")


def test_a_huge_body_is_refused_without_being_read(http: Http) -> None:
    head = b"POST /api/command HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999\r\n\r\n"

    reply = http.send_raw(head)

    assert reply.startswith(b"HTTP/1.1 413 ")
    assert json.loads(reply.partition(b"\r\n\r\n")[2])["success"] is False


def test_a_payload_that_nats_would_not_take_is_refused(http: Http) -> None:
    # Small enough to be read, but more is stored than was sent.
    answer = http.post("/api/command", {**COMMAND, "payload": "x" * (1024 * 1024 - 100)})

    assert answer.status == 413
    assert "the server takes at most 1048576" in answer.error


# Queries --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("/api/commands?limit=0", "limit: expected int >= 1"),
        ("/api/commands?limit=1001", "limit: expected int <= 1000"),
        ("/api/commands?limit=ten", "limit: expected int, got str"),
        ("/api/commands?after=yesterday", "after: expected str matching regex '^[0-9]+$'"),
        ("/api/commands?after=" + "9" * 30, "after: expected str of length <= 18"),
        ("/api/commands?status=running", "status: invalid enum value 'running'"),
        ("/api/commands?client_id=a.b", "client_id: expected str matching"),
        ("/api/commands?limit=1&limit=2", "limit: is given 2 times"),
        ("/api/commands?page=0", "page: expected int >= 1"),
        ("/api/commands?where=2", "where: unknown; known are: client_id, label, status, command_type, batch_id, last"),
        ("/api/commands/stream?status=done", "status: invalid enum value 'done'"),
        ("/api/commands/stream?limit=1", "limit: unknown; known are: client_id, status"),
        ("/api/command/x?wait=-1", "wait: expected float >= 0"),
        ("/api/command/x?wait=301", "wait: expected float <= 300"),
        ("/api/command/x?wait=nan", "wait: expected float >= 0"),
        ("/api/command/x?wait=soon", "wait: expected float, got str"),
        ("/api/clients?limit=1", "limit: unknown; known are: none"),
        ("/health?deep=1", "deep: unknown; known are: none"),
    ],
)
def test_a_parameter_that_is_wrong_is_named(http: Http, path: str, error: str) -> None:
    answer = http.get(path)

    assert answer.status == 400
    assert answer.error.startswith(error)


def test_a_last_event_that_cannot_be_is_refused(http: Http) -> None:
    answer = http.get("/api/commands/stream", headers={"Last-Event-ID": "the last"})

    assert (answer.status, answer.error) == (400, "Last-Event-ID: must be the id of an event")


# Paths and methods ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/api/command", {"POST"}),
        ("DELETE", "/api/command/some-id", {"GET", "HEAD"}),
        ("GET", "/api/command/some-id/cancel", {"POST"}),
        ("POST", "/api/commands", {"GET", "HEAD"}),
        ("PUT", "/api/clients", {"GET", "HEAD"}),
        ("POST", "/health", {"GET", "HEAD"}),
        ("OPTIONS", "/api/broadcast", {"POST"}),
        ("GET", "/api/command/multi", {"POST"}),
    ],
)
def test_another_method_is_refused_with_those_that_are_allowed(
    http: Http, method: str, path: str, allowed: set[str]
) -> None:
    answer = http.request(method, path)

    assert (answer.status, answer.error) == (405, f"{method} is not for {path}")
    assert set(answer.headers["Allow"].split(", ")) == allowed


def test_a_batch_of_an_impossible_time_is_not_found(http: Http) -> None:
    http.post("/api/command", {"client_id": "nobody", "command_type": "x"})
    answer = http.get("/api/batch/ffffffff-ffff-7fff-bfff-ffffffffffff")
    assert (answer.status, answer.error) == (404, "Batch not found: ffffffff-ffff-7fff-bfff-ffffffffffff")


@pytest.mark.parametrize("path", ["/none", "/api", "/api/", "/api/commands/", "/api/command/a%2Fb", "/é"])
def test_what_does_not_exist_is_not_found(http: Http, path: str) -> None:
    answer = http.get(path.replace("é", "%C3%A9"))

    assert answer.status == 404
    assert answer.error.startswith("there is no /")


def test_a_head_has_no_body(http: Http) -> None:
    answer = http.request("HEAD", "/health")

    assert (answer.status, answer.body) == (200, b"")


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/9.9 no\r\n\r\n",
        b"GET /health HTTP/1.1\r\nbad header\r\n\r\n",
        b"GET / HTTP/1.1\r\nX: " + b"y" * 40_000 + b"\r\n\r\n",
    ],
)
def test_what_is_not_http_is_refused_in_json(http: Http, data: bytes) -> None:
    reply = http.send_raw(data)

    head, _, body = reply.partition(b"\r\n\r\n")
    assert head.split()[1] in (b"400", b"431")
    assert b"Content-Type: application/json" in head
    assert json.loads(body)["success"] is False


# NATS -----------------------------------------------------------------------------------------------------------------

EVERYTHING: tuple[tuple[str, str, Any], ...] = (
    ("GET", "/api/commands", None),
    ("GET", "/api/command/some-id", None),
    ("GET", "/api/command/some-id?wait=30", None),
    ("GET", "/api/clients", None),
    ("GET", "/api/clients/a1", None),
    ("GET", "/api/batch/some-id", None),
    ("GET", "/api/commands/stream", None),
    ("POST", "/api/command", COMMAND),
    ("POST", "/api/command", {**COMMAND, "queue": False}),
    ("POST", "/api/command/some-id/cancel", {}),
    ("POST", "/api/command/multi", {"client_ids": ["a1"], "command_type": "x"}),
    ("POST", "/api/command/multi", {"labels": {"a": "b"}, "command_type": "x"}),
    ("POST", "/api/send", {"client_id": "a1", "type": "x"}),
    ("POST", "/api/broadcast", {"type": "x"}),
)


def ask(http: Http, method: str, path: str, body: Any) -> Answer:
    return http.get(path) if method == "GET" else http.post(path, body)


def test_without_nats_every_call_says_so_and_none_hangs(fresh_server: StartServer) -> None:
    nats = fresh_server()
    with HttpProcess(nats.url) as running:
        assert running.http.get("/health").status == 200
        nats.stop()
        eventually(lambda: running.http.get("/health").status == 503)

        sick = running.http.get("/health")
        assert sick.error.startswith("reaching NATS failed: the connection is reconnecting")
        assert sick.json["status"] == "unavailable"
        with ThreadPoolExecutor(len(EVERYTHING)) as pool:
            answers = list(pool.map(lambda call: ask(running.http, *call), EVERYTHING))
        assert [answer.status for answer in answers] == [503] * len(EVERYTHING)
        assert {answer.error for answer in answers} == {"reaching NATS failed: the connection is reconnecting"}
        # Whoever watches the server still can.
        scraped = running.http.get("/metrics")
        assert scraped.status == 200
        assert b"command_store_reachable 0.0" in scraped.body
        assert b"command_agents_online" not in scraped.body


@pytest.mark.slow
def test_when_nats_falls_silent_every_call_says_so(proxy: StartProxy) -> None:
    between = proxy()
    with HttpProcess(between.url) as running:
        between.pause()
        with ThreadPoolExecutor(len(EVERYTHING) + 1) as pool:
            health = pool.submit(running.http.get, "/health")
            answers = list(pool.map(lambda call: ask(running.http, *call), EVERYTHING))
        # Of a message that has left nobody knows whether its agent has got it.
        expected = [504 if path == "/api/send" else 503 for _, path, _ in EVERYTHING]
        assert [answer.status for answer in answers] == expected
        assert all(answer.error for answer in answers)
        assert health.result().status == 503


def test_with_nats_back_everything_goes_on(fresh_server: StartServer, prefix: str) -> None:
    nats = fresh_server()
    with HttpProcess(nats.url) as running:
        body = {"client_id": prefix, "command_type": "x"}
        command_id = running.http.post("/api/command", body).json["command_id"]
        nats.restart()
        eventually(lambda: running.http.get("/health").status == 200, timeout=30)

        assert running.http.get(f"/api/command/{command_id}").json["command"]["status"] == "pending"
        assert running.http.post("/api/command", body).status == 200


def test_without_jetstream_it_does_not_start(fresh_server: StartServer) -> None:
    nats = fresh_server(jetstream=False)

    with pytest.raises(AssertionError, match="error: making stream LIGHTLINK_COMMANDS failed: "):
        HttpProcess(nats.url)


def test_half_sent_requests_keep_nobody_out(running: HttpProcess) -> None:
    host, port = urlsplit(running.url).hostname, urlsplit(running.url).port
    with contextlib.ExitStack() as stack:
        for _ in range(600):
            half = stack.enter_context(socket.create_connection((host or "", port or 0), 30))
            half.sendall(b"POST /api/command HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\n{")
        assert running.http.get("/health").status == 200
