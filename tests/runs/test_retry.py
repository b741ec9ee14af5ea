"""Runs that were tried again: what all tries have done is seen, and taken back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from lightlink.runs import Plan

if TYPE_CHECKING:
    from helpers.runs import RunWorld

NAMES = ["a0", "a1", "a2"]


def install(**options: object) -> Plan:
    """Return a plan whose only step in the waves is taken back wherever it was begun."""
    plan = Plan("p", targets=NAMES, waves=[1, 1, 1], **options)  # type: ignore[arg-type]
    undo = ("undo.install", {"version": "3"})
    return plan.step("install", "install", {"version": "4"}, undo=undo, undo_on="begun")


@pytest.mark.parametrize("held", ["before a wave", "by a lock"])
def test_a_retry_that_did_not_get_far_is_rolled_back_whole(world: RunWorld, held: str) -> None:
    world.agents(*NAMES)
    world.failing.add(("a2", "install"))
    ops = world.orchestrator()
    run = ops.start(install(lock=[] if held == "before a wave" else "x", on_locked="fail"))
    assert run.wait(20) == "failed"
    if held == "before a wave":
        ops.freeze("Christmas")
        run.retry()
        assert run.wait_for("held", timeout=20) == "held"
    else:
        ops.freeze("Christmas")
        holder = ops.start(Plan("other", targets=["a0"], lock="x").step("info", "info"))
        assert holder.wait_for("held", timeout=20) == "held"
        run.retry()
        assert run.wait(20) == "failed"
        holder.cancel()
        assert holder.wait(20) == "cancelled"
    assert {each.client_id: each.outcome for each in run.targets()} | {"a2": ""} == {
        "a0": "done",
        "a1": "done",
        "a2": "",
    }
    run.rollback("no")
    assert run.wait_for("rolled_back", timeout=20) == "rolled_back"
    assert sorted(world.of("undo.install")) == NAMES


def test_a_run_that_first_failed_before_its_waves_is_rolled_back(world: RunWorld) -> None:
    world.agents("hq", *NAMES)
    world.failing.add(("hq", "info"))
    plan = Plan("p", targets=NAMES).step("ask", "info", once=True, targets=["hq"])
    plan.steps += install().steps
    run = world.orchestrator().start(plan)
    assert run.wait(20) == "failed"
    assert {each.outcome for each in run.targets()} == {"left"}
    world.failing.clear()
    run.retry()
    assert run.wait(20) == "completed"
    assert {each.outcome for each in run.targets()} == {"done"}
    run.rollback("no")
    assert run.wait(20) == "rolled_back"
    assert sorted(world.of("undo.install")) == NAMES
