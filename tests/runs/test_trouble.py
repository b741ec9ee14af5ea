"""What nobody has foreseen: a run is tried again, comes to its end all the same, and people are told."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import attrs
import pytest
from helpers.commands import FAST
from helpers.waiting import eventually

from lightlink.errors import PlanInvalid, RunRefused
from lightlink.protocol import subjects
from lightlink.runs import Plan, RunState, active, trouble
from lightlink.runs.work import StageWork

if TYPE_CHECKING:
    from helpers.runs import RunWorld


def broken(*_: Any, **__: Any) -> Any:
    raise ValueError("as nobody has foreseen")


def send(work: StageWork, _: int | None) -> None:
    if work.stage.waiting:
        broken()


def test_a_run_whose_work_breaks_stops_at_its_deadline(world: RunWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(StageWork, "send", send)
    run = world.orchestrator().start(Plan("p", targets=["a0"], timeout=1.5).step("info", "info"))
    assert run.wait(20) == "failed"
    state = run.refresh()
    assert state.reason == "could not go on in its 1.5 s: ValueError: as nobody has foreseen"
    assert [each.reason for each in state.attention] == [state.reason]
    assert world.done == []


def test_a_run_that_cannot_even_be_stopped_ends(world: RunWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody can say that nothing of it begins any more, so it is not called cancelled."""
    monkeypatch.setattr(active, "wave_lanes", broken)
    run = world.orchestrator().start(Plan("p", targets=["a0"], timeout=4).step("info", "info"))
    eventually(lambda: run.state == "running")
    run.cancel("enough")
    assert run.wait(20) == "failed"
    (told,) = run.attention
    assert told.reason == "could not go on while stopping: ValueError: as nobody has foreseen"
    assert [state.event for state in run.history()] == ["started", "cancelled", "given up"]


def test_what_breaks_for_a_while_is_only_tried_again(world: RunWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    world.agents("a0")
    tries, real = iter(range(3)), StageWork.send
    monkeypatch.setattr(trouble, "_BROKEN_SECONDS", 0.1)

    def send_at_last(work: StageWork, room: int | None) -> None:
        (real if next(tries, 9) > 1 else broken)(work, room)

    monkeypatch.setattr(StageWork, "send", send_at_last)
    run = world.orchestrator().start(Plan("p", targets=["a0"]).step("info", "info"))
    assert run.wait(20) == "completed"
    assert next(tries, None) is None
    assert run.attention == []


@pytest.mark.parametrize("data", [None, b"{}"])
def test_a_run_whose_plan_is_gone_or_unreadable_ends(world: RunWorld, data: bytes | None) -> None:
    ops = world.orchestrator(work=False)
    runs, at = ops._ports.runs, ops.now()
    if data is not None:
        world.client().publish(subjects.run_plan("r"), data)
        eventually(lambda: runs.read("LIGHTLINK_RUNS", subjects.run_plan("r")) is not None)
    until = at + timedelta(seconds=0 if data is not None else 3600)
    runs.write_state(RunState(run_id="r", state="running", stage="wave", event="started", at=at, deadline=until), 0)
    world.orchestrator("other")
    eventually(lambda: runs.state("r")[0].ended)
    state, _ = runs.state("r")
    assert (state.state, state.event, state.attention_total) == ("failed", "given up", 1)


def test_a_run_that_is_paused_for_too_long_ends_and_says_so(world: RunWorld) -> None:
    """What its commands came to is forgotten by then: whoever went on would do again what is done."""
    world.options = attrs.evolve(FAST, retention=1.0)
    ops = world.orchestrator()
    plan = Plan("p", targets=["a0"], timeout=1, lock="firmware").step("info", "info")
    with pytest.raises(PlanInvalid, match="timeout: is longer than what runs do is kept: 1 s"):
        ops.check(Plan("p", targets=["a0"], timeout=2).step("info", "info"))
    run = ops.start(plan)
    run.pause("lunch")
    assert run.wait(20) == "failed"
    (told,) = run.attention
    assert told.reason.startswith("was paused until what it has done was kept no longer")
    for refused in (run.resume, run.retry, run.rollback):
        with pytest.raises(RunRefused):
            refused()
    eventually(lambda: ops.locks() == {})
