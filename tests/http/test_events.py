"""One stream of all that a page shows live, over real HTTP."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from helpers.http import Events, Http, HttpProcess, tokens_file
from helpers.runs import RunWorld
from helpers.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from conftest import StartProxy, StartServer

OPS, ONE = "ops-0123456789abcdef", "one-0123456789abcdef"
PLAN: dict[str, Any] = {"name": "hello", "targets": ["a0"], "steps": [{"name": "say", "command": "install"}]}


@pytest.fixture
def world(fresh_server: StartServer) -> Iterator[RunWorld]:
    with RunWorld(fresh_server().url) as world:
        yield world


def told(opened: Events) -> Iterator[tuple[str, Any]]:
    """Yield the type and the data of each event."""
    kind = ""
    for line in iter(opened.line, ""):
        name, _, value = line.rstrip("\n").partition(": ")
        if name == "event":
            kind = value
        if name == "data":
            yield kind, json.loads(value)


def test_commands_runs_and_the_link_are_told_of(world: RunWorld, proxy: StartProxy) -> None:
    world.agents("a0")
    way = proxy(world.url)
    with HttpProcess(way.url) as running, running.http.open("/api/events") as opened:
        events = told(Events(opened))
        run_id = running.http.post("/api/runs", {"plan": PLAN}).json["run"]["run_id"]
        kinds: set[str] = set()
        state = ""
        while state != "completed" or kinds < {"command", "run"}:
            kind, data = next(events)
            kinds.add(kind)
            if kind == "run":
                assert data["run_id"] == run_id
                state = data["state"]

        way.refuse()
        way.cut()
        assert next(data for kind, data in events if kind == "link") == {"connected": False}
        way.accept()
        assert next(data for kind, data in events if kind == "link") == {"connected": True}


def test_who_comes_again_misses_no_command(world: RunWorld) -> None:
    with HttpProcess(world.url) as running:
        with running.http.open("/api/events") as opened:
            events = iter(Events(opened))
            running.http.post("/api/command", {"client_id": "a", "command_type": "one"})
            last, _ = next(events)
        running.http.post("/api/command", {"client_id": "a", "command_type": "two"})

        with running.http.open("/api/events", headers={"Last-Event-ID": last}) as opened:
            _, data = next(iter(Events(opened)))

    assert data["command_type"] == "two"


def test_a_limited_token_is_told_of_its_own_only(world: RunWorld, tmp_path: Path) -> None:
    world.agents("a0")
    path = tokens_file(
        tmp_path / "tokens.json",
        {"name": "ops", "scope": ["read", "send", "plan"], "token": OPS},
        {"name": "one", "scope": ["read"], "token": ONE, "command_types": ["mine"]},
    )
    with HttpProcess(world.url, f"--tokens={path}", token=OPS) as running:
        assert Http(running.url).get("/api/events").status == 401
        with Http(running.url, ONE).open("/api/events") as opened:
            events = told(Events(opened))
            run_id = running.http.post("/api/runs", {"plan": PLAN}).json["run"]["run_id"]
            eventually(lambda: running.http.get(f"/api/runs/{run_id}").json["run"]["state"] == "completed")
            running.http.post("/api/command", {"client_id": "b", "command_type": "mine"})
            kind, data = next(events)

    assert (kind, data["command_type"]) == ("command", "mine")
