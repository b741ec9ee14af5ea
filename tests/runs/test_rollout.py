"""samples/rollout.yaml from its start to its end with 50 agents at three sites: by the command line, and over HTTP."""

from __future__ import annotations

import importlib.util
import json
import signal
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from helpers.http import Http, HttpProcess, tokens_file
from helpers.runs import RunWorld
from helpers.waiting import eventually

from lightlink.cli import main
from lightlink.runs import Plan

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import StartPython, StartServer

SAMPLES = Path(__file__).parents[2] / "samples"
FILE = str(SAMPLES / "rollout.yaml")
PLANNER, BOSS = "planner-0123456789abcdef", "boss-0123456789abcdef"


class Fleet:
    """The sample's sensors, and what headquarters hear."""

    def __init__(self, world: RunWorld, sample: Any) -> None:
        self.world = world
        self.heard: list[str] = []
        self.sensors = [sample.Sensor(number) for number in range(sample.SENSORS)]
        hq = world.agent("hq")
        hq.register("report.send", lambda text: self.heard.append(text))  # noqa: PLW0108 - its parameter has a name
        client = world.client(name="sensors")
        self.agents = [hq, *(sensor.agent(client) for sensor in self.sensors)]
        for agent in self.agents:
            agent.start(timeout=30)

    def stop(self) -> None:
        for agent in self.agents:
            agent.stop()

    @property
    def versions(self) -> set[str]:
        return {sensor.version for sensor in self.sensors}


@pytest.fixture
def fleet(fresh_server: StartServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fleet]:
    monkeypatch.syspath_prepend(str(SAMPLES))
    spec = importlib.util.spec_from_file_location("rollout", SAMPLES / "rollout.py")
    assert spec is not None
    assert spec.loader is not None
    sample = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sample)
    with RunWorld(fresh_server().url) as world:
        world.orchestrator("first", work=False)  # which makes the streams as these tests want them
        fleet = Fleet(world, sample)
        yield fleet
        fleet.stop()


def test_by_the_command_line(fleet: Fleet, python: StartPython, capsys: pytest.CaptureFixture[str]) -> None:
    def cli(*args: str, code: int = 0) -> str:
        assert main([*args, f"--url={fleet.world.url}"]) == code
        return capsys.readouterr().out

    def roll_out(version: str, code: int) -> dict[str, Any]:
        """Start it, approve as the boss what waits, and return what is known at its end."""
        params = json.dumps({"version": version})
        digest = cli("plan", "check", FILE, params).split("digest: ")[1].strip()
        run_id = cli("plan", "start", FILE, params, "--no-wait", "--by", "ada", "--reason", f"CHG-{version}").strip()

        def at(state: str, wave: int) -> bool:
            found = json.loads(cli("runs", "show", run_id, "--json"))["run"]
            return (found["state"], found.get("wave", 0)) == (state, wave)

        for wave in (0, 1):
            eventually(partial(at, "waiting", wave), 60)
            assert main(["runs", "approve", run_id, "--by", "ada", f"--url={fleet.world.url}"]) == 1
            assert "none of those who may: boss" in capsys.readouterr().err
            cli("runs", "approve", run_id, "--by", "boss", "--digest", digest, "--comment", f"wave {wave + 1} is fine")
        cli("runs", "watch", run_id, "--timeout", "120", code=code)
        return dict(json.loads(cli("runs", "show", run_id, "--json")))

    worker = python(
        "from lightlink.cli import main; import sys; sys.exit(main())", "runs", "work", "--url", fleet.world.url
    )
    bad = roll_out("4", 1)
    assert bad["run"]["state"] == "rolled_back"
    assert (
        bad["run"]["reason"] == "verify on sensor-17: its result is not as expected: ${result.ok} is false, not == true"
    )
    assert fleet.versions == {"3"}
    good = roll_out("5", 0)
    assert good["steps"]["install"] == {"done": 50}
    assert fleet.versions == {"5"}
    worker.signal(signal.SIGTERM)
    assert worker.wait().returncode == 128 + signal.SIGTERM
    assert [text.split(":")[0] for text in fleet.heard] == ["firmware 4", "firmware 5"]


def test_over_http(fleet: Fleet, tmp_path: Path) -> None:
    tokens = tokens_file(
        tmp_path / "tokens.json",
        {"name": "planner", "token": PLANNER, "scope": ["read", "plan"]},
        {"name": "boss", "token": BOSS, "scope": ["read", "approve"]},
    )
    plan = msgspec.to_builtins(Plan.load(FILE))
    with HttpProcess(fleet.world.url, "--tokens", str(tokens)) as running:
        planner, boss = Http(running.url, PLANNER), Http(running.url, BOSS)
        assert planner.post("/api/stored-plans", {"plan": plan}).status == 200

        def roll_out(version: str) -> dict[str, Any]:
            body = {"plan": "firmware", "params": {"version": version}}
            digest = planner.post("/api/plans/check", body).json["digest"]
            run_id = planner.post("/api/runs", body).json["run"]["run_id"]
            path = f"/api/runs/{run_id}"

            def at(state: str, wave: int) -> bool:
                found = boss.get(path).json["run"]
                return (found["state"], found["wave"]) == (state, wave)

            for wave in (1, 2):
                eventually(partial(at, "waiting", wave), 60)
                assert planner.post(f"{path}/approve").status == 403
                assert boss.post(f"{path}/approve", {"digest": "of another"}).status == 409
                assert boss.post(f"{path}/approve", {"digest": digest}).status == 200
            eventually(lambda: boss.get(path).json["run"]["state"] in ("completed", "failed", "rolled_back"), 60)
            return dict(boss.get(path).json)

        bad = roll_out("4")
        assert (bad["run"]["state"], bad["run"]["started_by"]) == ("rolled_back", "planner")
        assert {each["client_id"] for each in bad["targets"] if each["outcome"] == "failed"} == {"sensor-17"}
        assert fleet.versions == {"3"}
        assert roll_out("5")["run"]["state"] == "completed"
        assert fleet.versions == {"5"}
    assert [text.split(":")[0] for text in fleet.heard] == ["firmware 4", "firmware 5"]
