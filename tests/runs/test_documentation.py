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
    from conftest import StartPython
    from helpers.runs import RunWorld

PAGE = "how-to/runs.md"
ROLLOUT = Path(__file__).parents[2] / "samples" / "rollout.yaml"


def test_the_first_block_rolls_out(
    world: RunWorld, python: StartPython, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LIGHTLINK_URL", world.url)
    world.orchestrator("other")  # which makes the streams as these tests want them
    start_sensors(python)
    exec(compile(blocks(PAGE, "python")[1], PAGE, "exec"), {})
    printed = capsys.readouterr().out
    assert "waves=[['s0'], ['s1'], ['s2']]" in printed
    assert "completed {'done': 3}" in printed


def test_the_block_on_undo_is_an_agent(world: RunWorld) -> None:
    found: dict[str, Any] = {}
    code = blocks(PAGE, "python")[2].replace('Agent("press")', f'Agent("press", {world.url!r})')
    ops = world.orchestrator()
    exec(compile(code, PAGE, "exec"), found)
    with found["agent"]:
        promise = ops.send("press", "config.set", {"name": "mode", "value": "night"})
        assert promise.result(10) == {"was": "day"}
        ops.undo(promise.command_id).result(10)
        assert found["settings"] == {"mode": "day"}


def test_the_lines_roll_out_too(
    world: RunWorld,
    python: StartPython,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("LIGHTLINK_URL", world.url)
    world.orchestrator("other")
    start_sensors(python)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rollout.yaml").write_text(blocks(PAGE, "yaml")[0])
    work, check, start, waiting, approve = (shlex.split(line, comments=True)[1:] for line in shell_lines(PAGE, "light"))
    assert work == ["runs", "work"]  # what world.orchestrator does

    def type_(line: list[str]) -> str:
        assert main(line) == 0
        return capsys.readouterr().out

    assert "wave 1: 1 of 3: s0" in type_(check)
    run_id = type_(start).strip()
    eventually(lambda: run_id in type_(waiting))
    type_([run_id if word == "RUN" else word for word in approve])


def start_sensors(python: StartPython) -> None:
    """Start the agents that the page's plan is for, as the page has them."""
    sensors = python(blocks(PAGE, "python")[0])
    eventually(lambda: sensors.has_ended or "sensors are there" in sensors.stdout)
    assert "sensors are there" in sensors.stdout, sensors.stderr


def test_the_sample_is_the_plan_of_the_page() -> None:
    assert ROLLOUT.read_text().endswith(blocks(PAGE, "yaml")[0].split("\n", 1)[1])
    plan = Plan.load(ROLLOUT)
    assert [step.name for step in plan.steps] == ["before", "install", "verify", "report"]
