"""Plans, runs and schedules over real HTTP."""

from __future__ import annotations

import json
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest
from helpers.http import Http, HttpProcess
from helpers.runs import RunWorld
from helpers.waiting import eventually
from werkzeug.test import Client as WsgiClient

from lightlink.http import create_app
from lightlink.runs import Plan, Window

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from conftest import StartServer

READER, PLANNER, BOSS, BERLIN = "reader-0123456789", "planner-0123456789", "boss-0123456789abc", "berlin-0123456789"
TOKENS = {
    "tokens": [
        {"name": "reader", "scope": ["read"], "token": READER},
        {"name": "planner", "scope": ["read", "plan"], "token": PLANNER},
        {"name": "boss", "scope": ["read", "approve"], "token": BOSS},
        {"name": "berlin", "scope": ["read", "plan"], "token": BERLIN, "clients": ["berlin-*"]},
    ]
}
PLAN: dict[str, Any] = {
    "name": "firmware",
    "params": {"version": "str"},
    "targets": ["a0", "a1"],
    "waves": [1, "rest"],
    "between": {"by": ["boss"], "not_by": "starter", "expires": "1m"},
    "steps": [{"name": "install", "command": "install", "payload": {"version": "${params.version}"}}],
}


@pytest.fixture
def world(fresh_server: StartServer) -> Iterator[RunWorld]:
    with RunWorld(fresh_server().url) as world:
        world.agents("a0", "a1")
        yield world


@pytest.fixture
def running(world: RunWorld, tmp_path: Path) -> Iterator[HttpProcess]:
    path = tmp_path / "tokens.json"
    path.write_text(json.dumps(TOKENS))
    with HttpProcess(world.url, "--tokens", str(path)) as process:
        yield process


def as_(running: HttpProcess, token: str) -> Http:
    return Http(running.url, token)


def test_a_run_is_checked_started_approved_and_read(running: HttpProcess, world: RunWorld) -> None:
    planner, boss = as_(running, PLANNER), as_(running, BOSS)
    checked = planner.post("/api/plans/check", {"plan": PLAN, "params": {"version": "4"}}).json
    assert checked["waves"] == [["a0"], ["a1"]]
    assert "messages" not in checked
    body = {"plan": PLAN, "params": {"version": "4"}, "messages": True}
    first, second = planner.post("/api/plans/check", body).json["messages"]
    assert (first["wave"], first["client_id"], first["what"], first["error"]) == (1, "a0", "install", "")
    assert (second["wave"], second["client_id"], second["payload"]) == (2, "a1", {"version": "4"})
    body = {"plan": PLAN, "params": {"version": "4"}, "reason": "CHG-1", "idempotency_key": "CHG-1"}
    run = planner.post("/api/runs", body).json["run"]
    assert planner.post("/api/runs", body).json["run"]["run_id"] == run["run_id"]
    path = f"/api/runs/{run['run_id']}"
    eventually(lambda: boss.get(path).json["run"]["state"] == "waiting")
    assert [each["run_id"] for each in boss.get("/api/runs?state=waiting").json["runs"]] == [run["run_id"]]
    refused = planner.post(f"{path}/approve", {})
    assert (refused.status, "may not approve" in refused.error) == (403, True)
    assert boss.post(f"{path}/approve", {"digest": "another"}).status == 409
    boss.post(f"{path}/approve", {"digest": checked["digest"], "comment": "fine"})
    eventually(lambda: boss.get(path).json["run"]["state"] == "completed")
    details = boss.get(path).json
    assert details["steps"] == {"install": {"done": 2}}
    assert [target["outcome"] for target in details["targets"]] == ["done", "done"]
    assert details["plan"]["name"] == "firmware"
    events = [(each["event"], each["by"]) for each in boss.get(f"{path}/history").json["states"]]
    assert events[0] == ("started", "planner")
    assert ("approved", "boss") in events
    assert world.of("install") == ["a0", "a1"]
    metrics = boss.get("/metrics").body.decode()
    assert 'command_runs{state="completed"} 1.0' in metrics


def test_people_decide_over_http(running: HttpProcess) -> None:
    planner = as_(running, PLANNER)
    run = planner.post("/api/runs", {"plan": PLAN, "params": {"version": "4"}}).json["run"]
    path = f"/api/runs/{run['run_id']}"
    eventually(lambda: planner.get(path).json["run"]["state"] == "waiting")
    assert planner.post(f"{path}/pause", {"reason": "lunch"}).json["run"]["state"] == "paused"
    assert planner.post(f"{path}/resume").json["run"]["state"] == "waiting"
    assert planner.post(f"{path}/cancel", {"reason": "enough"}).json["run"]["state"] == "stopping"
    eventually(lambda: planner.get(path).json["run"]["state"] == "cancelled")
    assert planner.post(f"{path}/cancel").status == 409
    planner.post(f"{path}/retry")
    eventually(lambda: planner.get(path).json["run"]["state"] == "waiting")
    assert as_(running, BOSS).post(f"{path}/reject", {"comment": "no"}).json["run"]["reason"] == "rejected by boss: no"
    eventually(lambda: planner.get(path).json["run"]["state"] == "failed")
    planner.post(f"{path}/rollback")
    eventually(lambda: planner.get(path).json["run"]["state"] == "rolled_back")


def test_what_cannot_be_done_is_said(running: HttpProcess, world: RunWorld) -> None:
    planner, reader, berlin = as_(running, PLANNER), as_(running, READER), as_(running, BERLIN)
    bad = planner.post("/api/runs", {"plan": {**PLAN, "waves": [0]}, "params": {"version": "4"}})
    assert (bad.status, "waves[0]" in bad.error) == (400, True)
    assert planner.post("/api/runs", {"plan": PLAN}).status == 400
    assert planner.get("/api/runs/nonsense").status == 404
    assert planner.get("/api/runs?state=odd").status == 400
    assert reader.post("/api/runs", {"plan": PLAN, "params": {"version": "4"}}).status == 403
    assert "not good for all clients" in berlin.get("/api/runs").error
    app = create_app(world.manager(), open_to_all=True)
    answer = WsgiClient(app).get("/api/runs")
    assert answer.status_code == 501
    assert "Orchestrator" in (answer.json or {})["error"]


def test_schedules_come_and_go(running: HttpProcess, world: RunWorld) -> None:
    planner = as_(running, PLANNER)
    body = {"name": "nightly", "plan": PLAN, "params": {"version": "4"}, "cron": "30 2 * * *", "tz": "Europe/Berlin"}
    planner.post("/api/schedules", body)
    (schedule,) = planner.get("/api/schedules").json["schedules"]
    assert (schedule["name"], schedule["by"], schedule["plan"]) == ("nightly", "planner", "firmware")
    assert planner.post("/api/schedules", {**body, "cron": "whenever"}).status == 400
    window = {"opens": "Sat 22:00", "hours": 6, "tz": "Europe/Berlin"}
    planner.post("/api/schedules", {**body, "window": window})
    (made,) = world.orchestrator(work=False).schedules()
    assert made.plan.window == Window("Sat 22:00", 6, "Europe/Berlin")
    refused = planner.post("/api/schedules", {**body, "window": {**window, "hours": 0}})
    assert (refused.status, "window: must be more than 0" in refused.error) == (400, True)
    assert planner.request("DELETE", "/api/schedules/nightly").status == 200
    assert planner.request("DELETE", "/api/schedules/nightly").status == 404


def test_plans_are_stored_and_started_by_name(running: HttpProcess) -> None:
    planner = as_(running, PLANNER)
    assert as_(running, READER).post("/api/stored-plans", {"plan": PLAN}).status == 403
    stored = planner.post("/api/stored-plans", {"plan": PLAN}).json["plan"]
    assert (stored["name"], stored["by"], stored["plan"]["steps"][0]["name"]) == ("firmware", "planner", "install")
    assert planner.post("/api/stored-plans", {"plan": {**PLAN, "waves": [0]}}).status == 400
    (listed,) = planner.get("/api/stored-plans").json["plans"]
    assert listed == stored
    started = planner.post("/api/runs", {"plan": "firmware", "params": {"version": "4"}}).json["run"]
    assert started["plan"] == "firmware"
    assert planner.request("DELETE", "/api/stored-plans/firmware").status == 200
    assert planner.request("DELETE", "/api/stored-plans/firmware").status == 404
    missing = planner.post("/api/runs", {"plan": "firmware", "params": {"version": "4"}})
    assert (missing.status, missing.error) == (404, "no plan is stored as 'firmware'")


def test_states_of_runs_are_streamed(running: HttpProcess, world: RunWorld) -> None:
    request = urllib.request.Request(f"{running.url}/api/runs/stream", headers={"Authorization": f"Bearer {READER}"})
    with urllib.request.urlopen(request, timeout=20) as stream:
        while b": connected" not in stream.readline():
            pass
        run = world.orchestrator().start(Plan("p", targets=["a0"]).step("info", "info"))
        seen: list[dict[str, Any]] = []
        while not seen or seen[-1]["state"] != "completed":
            line = stream.readline()
            if line.startswith(b"data: "):
                seen.append(json.loads(line[6:]))
    assert {each["run_id"] for each in seen} == {run.run_id}
    assert seen[0]["event"] == "started"
