"""Runs that are stopped in their last steps, or of which nothing is heard any more, end."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest
from helpers.waiting import eventually

from lightlink.runs import Plan, active
from lightlink.runs.work import StageWork

if TYPE_CHECKING:
    from helpers.runs import RunWorld


@pytest.mark.parametrize(("move", "end"), [("cancel", "cancelled"), ("rollback", "rolled_back")])
def test_a_last_step_that_waits_begins_no_more(world: RunWorld, move: str, end: str) -> None:
    world.agents("a0")
    ops = world.orchestrator()
    plan = Plan("p", targets=["a0"]).step("install", "install", undo=("undo.install", None))
    plan.step("report", "verify", once=True, targets=["hq"]).step("more", "verify", once=True, targets=["a0"])
    plan.step("clean", "info", once=True, targets=["a0"], always=True)
    run = ops.start(plan)
    eventually(lambda: any(each.client_id == "hq" for each in ops.list(batch_id=run.run_id)))
    getattr(run, move)("enough")
    assert run.wait(20) == end
    assert world.of("info") == ["a0"]
    world.agents("hq")
    assert ops.start(Plan("next", targets=["hq"]).step("info", "info")).wait(20) == "completed"
    assert world.of("verify") == []


@pytest.mark.parametrize(("move", "end"), [("cancel", "cancelled"), ("rollback", "rolled_back")])
def test_a_step_that_is_always_done_is_waited_for(world: RunWorld, move: str, end: str) -> None:
    world.agents("a0")
    world.gates["info"] = threading.Event()
    run = world.orchestrator().start(
        Plan("p", targets=["a0"])
        .step("install", "install", undo=("undo.install", None))
        .step("clean", "info", once=True, targets=["a0"], always=True)
        .step("tell", "verify", once=True, targets=["a0"], always=True)
    )
    eventually(lambda: world.of("info") == ["a0"])
    getattr(run, move)("enough")
    eventually(lambda: run.refresh().stage == "last")
    world.gates["info"].set()
    assert run.wait(20) == end
    assert (world.of("info"), world.of("verify")) == (["a0"], ["a0"])


def test_a_rollback_that_stands_still_is_given_up(world: RunWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    world.agents("a0")
    plan = Plan("p", targets=["a0"], timeout=1.0, lock="firmware")
    plan.step("install", "install", timeout=0.1, undo=("undo.install", None))
    ops = world.orchestrator()
    run = ops.start(plan)
    assert run.wait(20) == "completed"
    monkeypatch.setattr(active, "_SILENT_SECONDS", 0.0)
    monkeypatch.setattr(StageWork, "send", lambda *_: None)  # a fault that nobody has foreseen
    run.rollback("no")
    assert run.wait(20) == "rollback_incomplete"
    assert [each.reason for each in run.attention] == [
        "nothing more was heard of what was under way while rolling_back"
    ]
    eventually(lambda: not ops.locks())
