"""Counts of the last while, the audit and the services that run, over real HTTP."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from helpers.http import Http, HttpProcess, tokens_file
from helpers.runs import RunWorld
from helpers.waiting import eventually

import lightlink
from lightlink.concurrency.threads import has_ended
from lightlink.http.recent import Recent

if TYPE_CHECKING:
    from collections.abc import Iterator
    from concurrent.futures import Future
    from pathlib import Path

    from conftest import StartServer

OPS, MINE = "ops-0123456789abcdef", "mine-0123456789abcdef"


@pytest.fixture
def world(fresh_server: StartServer) -> Iterator[RunWorld]:
    with RunWorld(fresh_server().url) as world:
        world.agents("good", "bad")
        world.failing.add(("bad", "install"))
        yield world


@pytest.fixture
def running(world: RunWorld, tmp_path: Path) -> Iterator[HttpProcess]:
    tokens = tokens_file(
        tmp_path / "tokens.json",
        {"name": "ops", "scope": ["read", "send"], "token": OPS},
        {"name": "mine", "scope": ["read"], "token": MINE, "clients": ["good"]},
    )
    with HttpProcess(world.url, f"--tokens={tokens}", token=OPS) as process:
        for client_id in ("good", "bad", "bad"):
            body = {"client_id": client_id, "command_type": "install"}
            command_id = process.http.post("/api/command", body).json["command_id"]
            assert process.http.get(f"/api/command/{command_id}?wait=20").status == 200
        process.http.post("/api/command", {"client_id": "away", "command_type": "install"})
        yield process


def test_commands_are_counted_by_status_time_and_error(running: HttpProcess) -> None:
    found = running.http.get("/api/commands/summary").json

    assert found["counts"] == {"completed": 1, "failed": 2, "pending": 1}
    (failure,) = found["failures"]
    assert (failure["command_type"], failure["count"]) == ("install", 2)
    assert "install is broken here" in failure["error"]
    assert len(found["stretches"]) == 60
    sums = {name: sum(each[name] for each in found["stretches"]) for name in ("completed", "failed", "open")}
    assert sums == {"completed": 1, "failed": 2, "open": 1}


def test_a_limited_token_counts_its_own_only(running: HttpProcess) -> None:
    assert running.http.get("/api/commands/summary").json["total"] == 4
    limited = Http(running.url, MINE)

    assert limited.get("/api/commands/summary").json["counts"] == {"completed": 1}
    assert limited.get("/api/audit").status == 403
    assert limited.get("/api/services").status == 403
    assert limited.get("/api/server").status == 403


def test_commands_are_listed_by_labels_and_counted_by_agent(running: HttpProcess, world: RunWorld) -> None:
    world.manager(sweep_interval=None).assign_labels("lamp-1", {"kind": "lamp"})
    eventually(lambda: running.http.get("/api/agents?label=kind=lamp").json["total"] == 1)
    body = {"client_id": "lamp-1", "command_type": "info"}
    sent = [running.http.post("/api/command", body).json["command_id"] for _ in range(2)]

    def found(query: str) -> list[str]:
        return [each["command_id"] for each in running.http.get(f"/api/commands?{query}").json["commands"]]

    assert found("label=kind=lamp") == sent[::-1]
    assert found("label=kind=lamp&client_id=lamp-1&status=pending&limit=1") == sent[1:]
    assert found("label=kind=lamp&client_id=away") == found("label=kind=none") == []
    assert running.http.get("/api/commands?label=lamp").status == 400
    (agent,) = running.http.get("/api/agents?label=kind=lamp&queue=true").json["agents"]
    assert agent["queue"] == 2
    assert "queue" not in running.http.get("/api/agents").json["agents"][0]
    # What a token is not good for does not count.
    assert Http(running.url, MINE).get("/api/commands?label=kind=lamp").json["commands"] == []


def test_the_server_tells_its_clock_and_how_full_its_streams_are(running: HttpProcess, world: RunWorld) -> None:
    found = running.http.get("/api/server").json

    assert f"nats://{found['server']}" == world.url
    assert 0 < found["round_trip"] < 2
    assert abs(found["clock_behind"]) < 2
    streams = {each["name"]: each for each in found["streams"]}
    assert streams["LIGHTLINK_COMMANDS"]["messages"] == 4
    assert 0 < streams["LIGHTLINK_COMMANDS"]["bytes"] < streams["LIGHTLINK_COMMANDS"]["max_bytes"]


def test_the_audit_tells_who_did_what(running: HttpProcess) -> None:
    def entries() -> list[tuple[str, str]]:
        found = running.http.get("/api/audit").json["entries"]
        return [(each["kind"], each["by"]) for each in found if each["client_id"] == "away"]

    assert eventually(entries) == [("request", "ops")]
    assert running.http.get("/api/audit?limit=1").json["total"] == 1


def test_services_are_listed_with_what_they_have_done(running: HttpProcess, world: RunWorld) -> None:
    service = lightlink.Service("math", world.url)

    @service.rpc
    def half(number: float) -> float:
        """Halve a number."""
        return number / 2

    with service, lightlink.connect(world.url) as client:
        client.call("math", "half", {"number": 3})
        (found,) = running.http.get("/api/services").json["services"]

    (method,) = found["methods"]
    assert (found["name"], len(found["instances"])) == ("math", 1)
    assert (method["name"], method["text"], method["requests"]) == ("half", "Halve a number.", 1)
    assert method["arguments"]["required"] == ["number"]
    assert method["p99"] == pytest.approx(method["average"], rel=0.01)  # one request
    assert method["rate"] > 0


def test_what_took_long_is_told_again_for_a_while() -> None:
    now = [100.0]
    recent, made = Recent(lambda: now[0]), list[int]()

    def slow() -> int:
        now[0] += 2.0
        made.append(1)
        return len(made)

    assert recent.get("a", slow) == 1
    now[0] += 7.9
    assert recent.get("a", slow) == 1
    assert recent.get("b", slow) == 2
    now[0] += 0.2
    assert recent.get("a", slow) == 3


def test_a_failure_is_shared_by_all_who_wait_for_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or each would wait for as long as the one before, and no thread of the server were left."""
    recent, asked, waiting, fail = Recent(), list[int](), list[int](), threading.Event()

    def wait(future: Future[object]) -> bool:
        waiting.append(1)
        return has_ended(future)

    def answer() -> int:
        asked.append(1)
        assert fail.wait(30)
        raise lightlink.StoreUnavailable("reading", "no answer")

    def ask(_: int) -> BaseException:
        with pytest.raises(lightlink.StoreUnavailable, match="no answer") as caught:
            recent.get("agents", answer)
        return caught.value

    monkeypatch.setattr("lightlink.http.recent.has_ended", wait)
    with ThreadPoolExecutor(5) as pool:
        asking = [pool.submit(ask, number) for number in range(5)]
        eventually(lambda: len(waiting) == 4)
        fail.set()
        errors = [each.result(30) for each in asking]

    assert len(asked) == 1
    assert len({id(error) for error in errors}) == 5  # each with a traceback of its own
    assert recent.get("agents", lambda: 7) == 7
