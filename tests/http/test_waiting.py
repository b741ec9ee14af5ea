"""Waiting for commands over HTTP: woken by the result, many at a time, and through the end of a process."""

from __future__ import annotations

import http.client
import re
import signal
import statistics
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from helpers.http import HttpProcess
from helpers.waiting import eventually

import lightlink
from lightlink.commands import Agent, CommandManager

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import StartServer
    from helpers.http import Http


@pytest.fixture
def running(url: str) -> Iterator[HttpProcess]:
    with HttpProcess(url) as process:
        yield process


@pytest.fixture
def client(url: str) -> Iterator[lightlink.Client]:
    with lightlink.connect(url) as connected:
        yield connected


class Gate:
    """An agent whose commands end when the test says so."""

    def __init__(self, client: lightlink.Client, client_id: str, workers: int = 1) -> None:
        self.opened = threading.Event()
        self.agent = Agent(client_id, client, workers=workers)

        @self.agent.command("pass")
        def wait_and_pass(number: int = 0) -> int:
            self.opened.wait(30)
            return number


@pytest.fixture
def gate(client: lightlink.Client, prefix: str) -> Iterator[Gate]:
    made = Gate(client, prefix)
    with made.agent:
        yield made
        made.opened.set()


def send(http: Http, client_id: str, number: int = 0) -> str:
    body = {"client_id": client_id, "command_type": "pass", "payload": {"number": number}}
    return str(http.post("/api/command", body).json["command_id"])


def waiting(http: Http) -> int:
    """How many requests wait, by the server's own count."""
    found = re.search(rb"^command_waiting_requests (\d+)", http.get("/metrics").body, re.MULTILINE)
    assert found is not None
    return int(found[1])


def test_a_wait_ends_with_the_result_and_not_with_the_next_look(
    running: HttpProcess, gate: Gate, client: lightlink.Client
) -> None:
    overtaken = 0
    with CommandManager(client) as manager, ThreadPoolExecutor(1) as pool:
        for number in range(5):
            gate.opened.clear()
            command_id = send(running.http, gate.agent.client_id, number)
            promise = manager.promise(command_id)
            poll = pool.submit(running.http.get, f"/api/command/{command_id}?wait=20")
            eventually(lambda: waiting(running.http) == 1)
            gate.opened.set()
            assert promise.result(20) == number
            # A promise in Python is awake. If the poll were not woken too but looked now and then, a good many requests
            # would be answered before it is.
            for _ in range(30):
                running.http.get("/api/clients")
            overtaken += not poll.done()
            assert poll.result(20).json["command"]["result"] == number

    assert overtaken <= 1


@pytest.mark.slow
def test_half_of_all_waits_end_within_50_ms_of_the_result(
    running: HttpProcess, gate: Gate, client: lightlink.Client
) -> None:
    lags = []
    with CommandManager(client) as manager, ThreadPoolExecutor(1) as pool:
        for number in range(50):
            gate.opened.clear()
            command_id = send(running.http, gate.agent.client_id, number)
            promise = manager.promise(command_id)
            poll = pool.submit(_timed_get, running.http, f"/api/command/{command_id}?wait=20")
            eventually(lambda: waiting(running.http) == 1)
            gate.opened.set()
            promise.result(20)
            ended = time.monotonic()
            lags.append(poll.result(20) - ended)

    assert statistics.median(lags) < 0.05


def _timed_get(http_: Http, path: str) -> float:
    http_.get(path)
    return time.monotonic()


def test_two_hundred_wait_while_others_are_answered(running: HttpProcess, gate: Gate) -> None:
    ids = [send(running.http, gate.agent.client_id, number) for number in range(100)]
    polls = [running.http.open(f"/api/command/{command_id}?wait=60") for command_id in ids * 2]
    try:
        eventually(lambda: waiting(running.http) == 200, timeout=30)
        assert running.http.get("/health").status == 200
        assert running.http.get(f"/api/command/{ids[-1]}").json["command"]["status"] == "pending"
        gate.opened.set()
        results = [poll.answer().json["command"]["result"] for poll in polls]
    finally:
        for poll in polls:
            poll.close()

    assert results == [*range(100), *range(100)]
    assert waiting(running.http) == 0


def test_beyond_the_limit_a_wait_is_refused_and_nothing_else(url: str, prefix: str) -> None:
    with HttpProcess(url, "--max-waiting=2") as running:
        command_id = send(running.http, prefix)
        with (
            running.http.open(f"/api/command/{command_id}?wait=60"),
            running.http.open(f"/api/command/{command_id}?wait=60"),
        ):
            eventually(lambda: waiting(running.http) == 2)

            refused = running.http.get(f"/api/command/{command_id}?wait=60")
            streamed = running.http.get("/api/commands/stream")

            assert (refused.status, refused.error) == (503, "2 requests wait already; try again later")
            assert refused.headers["Retry-After"] == "1"
            assert streamed.status == 503
            assert running.http.get(f"/api/command/{command_id}").status == 200


def test_many_are_not_sent_without_room_to_wait_for_them(url: str, prefix: str) -> None:
    with HttpProcess(url, "--max-waiting=1") as running:
        command_id = send(running.http, prefix)
        with running.http.open(f"/api/command/{command_id}?wait=60"):
            eventually(lambda: waiting(running.http) == 1)
            many = {"client_ids": [prefix], "command_type": "pass"}

            assert running.http.post("/api/command/multi", many).status == 503
            assert running.http.get(f"/api/commands?client_id={prefix}").json["total"] == 1
            assert running.http.post("/api/command/multi", many | {"wait": False}).status == 200


def test_whoever_hangs_up_waits_no_more(url: str, prefix: str) -> None:
    with HttpProcess(url, "--max-waiting=1") as running:
        command_id = send(running.http, prefix)
        for _ in range(3):
            with running.http.open(f"/api/command/{command_id}?wait=60"):
                eventually(lambda: waiting(running.http) == 1)
            eventually(lambda: waiting(running.http) == 0)


def test_a_command_outlives_the_process_it_was_sent_through(url: str, gate: Gate) -> None:
    with HttpProcess(url) as first:
        command_id = send(first.http, gate.agent.client_id, 7)
        with first.http.open(f"/api/command/{command_id}?wait=60") as poll:
            eventually(lambda: waiting(first.http) == 1)
            first.process.signal(signal.SIGKILL)
            first.process.wait()
            with pytest.raises((http.client.HTTPException, ConnectionError)):
                poll.answer()
    with HttpProcess(url) as second:
        assert second.http.get(f"/api/command/{command_id}").json["command"]["status"] == "executing"
        with second.http.open(f"/api/command/{command_id}?wait=60") as poll:
            eventually(lambda: waiting(second.http) == 1)
            gate.opened.set()
            command = poll.answer().json["command"]

    assert (command["status"], command["result"]) == ("completed", 7)


def test_a_server_that_is_asked_to_stop_answers_those_who_wait(running: HttpProcess, prefix: str) -> None:
    command_id = send(running.http, prefix)
    with running.http.open(f"/api/command/{command_id}?wait=60") as poll:
        eventually(lambda: waiting(running.http) == 1)
        running.process.signal(signal.SIGTERM)
        answer = poll.answer()
        finished = running.process.wait()

    assert (answer.status, answer.json["command"]["status"]) == (200, "pending")
    assert finished.returncode == 0
    assert "Traceback" not in finished.stderr


def test_a_wait_lasts_through_an_outage_of_nats(fresh_server: StartServer, prefix: str) -> None:
    nats = fresh_server()
    with HttpProcess(nats.url) as running, lightlink.connect(nats.url) as client:
        gate = Gate(client, prefix)
        with gate.agent:
            command_id = send(running.http, prefix, 5)
            with running.http.open(f"/api/command/{command_id}?wait=60", timeout=70) as poll:
                eventually(lambda: waiting(running.http) == 1)
                nats.restart()
                gate.opened.set()
                command = poll.answer().json["command"]

    assert (command["status"], command["result"]) == ("completed", 5)


def test_waiting_for_many_leaves_the_others_answered(running: HttpProcess, gate: Gate) -> None:
    body = {"client_ids": [gate.agent.client_id], "command_type": "pass", "payload": {"number": 3}}
    with ThreadPoolExecutor(1) as pool:
        together = pool.submit(running.http.post, "/api/command/multi", body)
        eventually(lambda: waiting(running.http) == 1)
        assert running.http.get("/health").status == 200
        gate.opened.set()
        answer = together.result(20)

    assert answer.json["results"][0]["result"] == 3
    assert waiting(running.http) == 0
