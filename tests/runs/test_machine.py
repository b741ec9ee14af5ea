"""The moves of a run: whatever people do, in whatever order, it ends, and never leaves its end by itself."""

from __future__ import annotations

import random
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightlink.errors import RunRefused
from lightlink.runs import Approval, Plan
from lightlink.runs.model import machine
from lightlink.runs.model.records import ENDED, Attention, RunPlan, Target

if TYPE_CHECKING:
    from collections.abc import Callable

    from lightlink.runs.model.records import RunState

NOON = datetime(2026, 1, 1, 12, tzinfo=timezone.utc)
KEPT = timedelta(days=7)


def run_of(**options: Any) -> RunPlan:
    plan = Plan("p", targets=["a", "b", "c"], waves=[1, "rest"], **options).step("one", "x")
    plan.step("last", "x", once=True, targets=["a"], always=True)
    targets = [Target(name) for name in "abc"]
    run = RunPlan(run_id="r", plan=plan, targets=targets, started_by="ada", created_at=NOON, digest="d")
    return msgspec.structs.replace(run, kept_until=NOON + KEPT)


def works(run: RunPlan, state: RunState, at: datetime, dice: random.Random) -> RunState:
    """Return what the runner would write next, if what it waits for went well or badly."""
    if state.stage == "halt":
        return machine.settled(state, at, {"done": 1})
    if state.stage == "undo":
        found = [Attention("a", "one", "?")] if dice.random() < 0.3 else []
        return machine.undone(run, state, at, found)
    if state.stage == "last":
        return machine.ended(state, at, "it failed" if dice.random() < 0.2 else "")
    if state.stage == "gate":
        return machine.halted(run, state, at, "nobody came", "expired")
    if state.stage == "hold":
        return machine.let_go(state, at)
    if state.stage == "lock" and dice.random() < 0.2:
        return machine.overdue(run, state, at)
    if state.stage in ("first", "wave") and dice.random() < 0.2:
        return machine.halted(run, state, at, "too many failures")
    return machine.went_on(run, state, at, {"done": 1})


PEOPLE: dict[str, Callable[[RunPlan, Any, datetime], Any]] = {
    "approve": lambda run, state, at: machine.approved(run, state, at, "bob", "", "d"),
    "reject": lambda run, state, at: machine.rejected(run, state, at, "bob", "", None),
    "pause": lambda run, state, at: machine.paused(run, state, at, "bob", ""),
    "resume": lambda run, state, at: machine.resumed(run, state, at, "bob"),
    "cancel": lambda run, state, at: machine.cancelled(run, state, at, "bob", ""),
    "rollback": lambda run, state, at: machine.rollback_asked(run, state, at, "bob", ""),
    "retry": lambda run, state, at: machine.retried(run, state, at, "bob"),
}


@settings(max_examples=200, deadline=None)
@given(
    st.randoms(use_true_random=False),
    st.sampled_from(["stop", "rollback", "rollback_wave", "continue"]),
    st.sampled_from([None, Approval(), Approval(count=2, by=["bob", "eve"], not_by="starter")]),
    st.sampled_from([0, 60]),
    st.sampled_from([[], "lock"]),
)
def test_a_run_ends_whatever_people_do(
    dice: random.Random, on_failure: str, between: Approval | None, soak: int, lock: Any
) -> None:
    run = run_of(on_failure=on_failure, between=between, soak=soak, lock=lock)
    at, state = NOON, machine.started(run)
    for _ in range(30):
        at += timedelta(seconds=dice.randint(1, 90))
        before = state
        if dice.random() < 0.4:
            name = dice.choice(sorted(PEOPLE))
            try:
                state = PEOPLE[name](run, state, at)
            except RunRefused as exc:
                assert exc.run_id == "r"  # noqa: PT017 - it may be refused or not
        elif not state.ended and state.state != "paused":
            state = works(run, state, at, dice)
        check(run, before, state)
    for _ in range(40):  # left alone it comes to its end
        if state.state == "paused":
            state = machine.resumed(run, state, at, "bob")
        elif not state.ended:
            state = works(run, state, at, dice)
    assert state.state in ENDED
    if state.state == "rolled_back":
        assert state.attention_total == 0


def check(run: RunPlan, before: RunState, state: RunState) -> None:
    assert 0 <= state.wave < len(run.waves)
    assert state.ended == (state.stage == "end")
    if before.ended and state is not before:
        assert state.event in ("rollback asked", "retried")
    if state.verdict and before.verdict:
        assert state.verdict == before.verdict or before.ended
    if state.state == "paused":
        assert state.until is None
        assert state.deadline is None
    elif state.stage in ("lock", "first", "wave", "soak", "gate", "hold"):
        assert state.deadline is not None  # from a halt on commands' own deadlines bound it


@pytest.mark.parametrize("by", ["ada", "joe"])
def test_only_those_who_may_approve(by: str) -> None:
    run = run_of(between=Approval(by=["ada", "bob"], not_by="starter"))
    state = machine.started(run)
    while state.stage != "gate":
        state = machine.went_on(run, state, NOON)
    with pytest.raises(RunRefused):
        machine.approved(run, state, NOON, by, "", None)
    assert machine.approved(run, state, NOON, "bob", "", None).wave == 1


def test_a_pause_stops_the_clocks() -> None:
    run = run_of(soak=60)
    state = machine.went_on(run, machine.started(run), NOON)
    assert state.until == NOON + timedelta(seconds=60)
    paused = machine.paused(run, state, NOON + timedelta(seconds=20), "bob", "lunch")
    resumed = machine.resumed(run, paused, NOON + timedelta(hours=5), "bob")
    assert resumed.until == NOON + timedelta(hours=5, seconds=40)
    assert (resumed.deadline, state.deadline) == (NOON + timedelta(hours=29, seconds=-20), NOON + timedelta(days=1))


def test_what_is_forgotten_is_not_done_again_nor_taken_back() -> None:
    run = run_of(timeout="5d")
    state = machine.went_on(run, machine.started(run), NOON)
    paused = machine.paused(run, state, NOON, "bob", "lunch")
    late = machine.resumed(run, paused, NOON + timedelta(days=6), "bob")
    assert late.deadline == NOON + KEPT  # it had five days left, of which one is known in full
    failed = machine.ended(state, NOON, "it failed")
    assert machine.retried(run, failed, NOON + timedelta(days=6), "bob").deadline == NOON + KEPT
    for move, before in (("resumed", paused), ("retried", failed)):
        with pytest.raises(RunRefused, match="kept until 2026-01-08"):
            getattr(machine, move)(run, before, NOON + KEPT, "bob")
    with pytest.raises(RunRefused, match="kept until 2026-01-08"):
        machine.rollback_asked(run, failed, NOON + KEPT, "bob", "")
    asked = machine.rollback_asked(run, failed, NOON, "bob", "")
    ends = [machine.ended(machine.undone(run, asked, NOON + age, []), NOON + age) for age in (KEPT, KEPT * 2)]
    assert [(each.state, each.attention_total) for each in ends] == [("rolled_back", 0), ("rollback_incomplete", 1)]


def test_what_goes_wrong_is_tried_until_its_time_is_over() -> None:
    run = run_of(timeout=60, on_failure="rollback")
    state = machine.started(run)
    assert machine.tried_until(run, state) == machine.tried_until(run, state, is_outage=True) == state.deadline
    at = NOON + timedelta(seconds=61)
    halted = machine.in_trouble(run, state, at, "it broke")
    assert (halted.stage, halted.reason) == ("halt", "could not go on in its 60 s: it broke")
    assert machine.tried_until(run, halted) == at + timedelta(seconds=60)
    assert machine.tried_until(run, halted, is_outage=True) == run.kept_until
    end = machine.in_trouble(run, halted, at, "it broke again")
    assert (end.state, end.attention_total) == ("rollback_incomplete", 2)
    cancelled = machine.cancelled(run, state, NOON, "bob", "enough")
    end = machine.in_trouble(run, cancelled, at, "it broke")
    assert end.state == "failed"  # nobody can say that nothing begins any more
    assert machine.tried_until(None, state, is_outage=True) is None
    assert machine.tried_until(run, machine.paused(run, state, NOON, "bob", "")) is None


def test_a_rollback_that_gets_no_locks_tells_people() -> None:
    run = run_of(lock="firmware", on_failure="rollback", timeout=60)
    ended = machine.ended(machine.started(run), NOON)
    asked = machine.rollback_asked(run, ended, NOON, "bob", "as it was")
    assert (asked.state, asked.stage, asked.deadline) == ("rolling_back", "lock", NOON + timedelta(seconds=60))
    assert machine.went_on(run, asked, NOON).stage == "undo"
    at = NOON + timedelta(seconds=61)
    for late in (machine.overdue(run, asked, at), machine.in_trouble(run, asked, at, "it broke")):
        assert (late.state, late.attention_total) == ("rollback_incomplete", 1)
        assert machine.rollback_asked(run, late, NOON + timedelta(seconds=70), "bob", "").stage == "lock"
