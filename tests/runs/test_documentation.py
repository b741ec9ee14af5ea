"""The how-to page: its code runs, and its plan is the sample's."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from helpers.docs import blocks, shell_lines
from helpers.waiting import eventually

from lightlink.cli import main
from lightlink.runs import Plan

if TYPE_CHECKING:
    import pytest
    from helpers.runs import RunWorld

PAGE = "how-to/runs.md"
ROLLOUT = Path(__file__).parents[2] / "samples" / "rollout.yaml"


def test_the_first_block_rolls_out(
    world: RunWorld, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    start_sensors(world)
    monkeypatch.setenv("LIGHTLINK_URL", world.url)
    world.orchestrator("other")  # which makes the streams as these tests want them
    code = blocks(PAGE, "python")[0].replace('run.wait_for("waiting")\n', "approve_next(run)\n")

    def approve_next(run: Any) -> None:
        """The page approves one gate, as its plan has two waves of one agent each and one of the rest."""
        assert run.wait_for("waiting", timeout=20) == "waiting"
        run.approve(by="boss")
        assert run.wait_for("running", timeout=20) == "running"
        assert run.wait_for("waiting", timeout=20) == "waiting"

    exec(compile(code, PAGE, "exec"), {"approve_next": approve_next})
    printed = capsys.readouterr().out
    assert "waves=[['s0'], ['s1'], ['s2']]" in printed
    assert "completed {'done': 3}" in printed


def test_the_second_block_is_an_agent(world: RunWorld) -> None:
    found: dict[str, Any] = {}
    code = blocks(PAGE, "python")[1].replace('Agent("press")', f'Agent("press", {world.url!r})')
    ops = world.orchestrator()
    exec(compile(code, PAGE, "exec"), found)
    with found["agent"]:
        promise = ops.send("press", "config.set", {"name": "mode", "value": "night"})
        assert promise.result(10) == {"was": "day"}
        ops.undo(promise.command_id).result(10)
        assert found["settings"] == {"mode": "day"}


def test_the_lines_roll_out_too(
    world: RunWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    start_sensors(world)
    world.orchestrator("other")
    monkeypatch.setenv("LIGHTLINK_URL", world.url)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rollout.yaml").write_text(ROLLOUT.read_text())
    check, start, waiting, approve, work = (shlex.split(line, comments=True)[1:] for line in shell_lines(PAGE, "light"))
    assert work == ["runs", "work"]  # what world.orchestrator does

    def type_(line: list[str]) -> str:
        assert main(line) == 0
        return capsys.readouterr().out

    assert "wave 1: 1 of 3: s0" in type_(check)
    run_id = type_([*start, "--no-wait"]).strip()
    eventually(lambda: run_id in type_(waiting))
    type_([run_id if word == "RUN" else word for word in approve])


def start_sensors(world: RunWorld) -> None:
    """Start the agents that the page's plan is for."""
    for number in range(3):
        agent = world.agent(f"s{number}", labels={"kind": "sensor", "site": "berlin"})
        agent.register("firmware.info", lambda: {"version": "3"})
        agent.register("firmware.install", lambda version: version)
        agent.register("firmware.verify", lambda: {"ok": True})
        agent.start(timeout=10)
    hq = world.agent("hq")
    hq.register("report.send", lambda text="": None)
    hq.start(timeout=10)


def test_the_sample_is_the_plan_of_the_page() -> None:
    plan = Plan.load(ROLLOUT)
    assert [step.name for step in plan.steps] == ["before", "install", "verify", "report"]
