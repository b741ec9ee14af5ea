"""The lifecycle of a command, by itself."""

from __future__ import annotations

import itertools
from datetime import datetime, timedelta, timezone
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightlink.commands import model
from lightlink.commands.model import IllegalMove, RequestRecord, StatusRecord

NOON = datetime(2026, 1, 1, 12, tzinfo=timezone.utc)


def at(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def request(timeout: float = 30.0, **facts: Any) -> RequestRecord:
    named: dict[str, Any] = {"command_id": "c1", "client_id": "a1", "command_type": "restart", "created_at": NOON}
    return RequestRecord(**{**named, "timeout": timeout, **facts})


EXECUTING = model.claimed(None, at(1), "one")
COMPLETED = model.ended(EXECUTING, model.COMPLETED, at(2), by="one", result=1)
FAILED = model.ended(EXECUTING, model.FAILED, at(2), by="one", error="no")
TIMED_OUT = model.expired(request(), EXECUTING, at(31), by="one")
LAST = [None, EXECUTING, COMPLETED, FAILED, TIMED_OUT]

LEGAL = {
    (model.PENDING, model.EXECUTING),
    (model.PENDING, model.FAILED),
    (model.PENDING, model.TIMEOUT),
    (model.EXECUTING, model.EXECUTING),
    (model.EXECUTING, model.COMPLETED),
    (model.EXECUTING, model.FAILED),
    (model.EXECUTING, model.TIMEOUT),
}


@pytest.mark.parametrize("current", LAST)
@pytest.mark.parametrize("following", model.STATUSES)
def test_exactly_the_moves_of_the_design_are_legal(current: StatusRecord | None, following: model.StatusName) -> None:
    record = StatusRecord(status=following, at=at(3))
    before = model.PENDING if current is None else current.status
    if (before, following) in LEGAL:
        assert model.check_move(current, record) is record
    else:
        with pytest.raises(IllegalMove):
            model.check_move(current, record)


@pytest.mark.parametrize("current", [COMPLETED, FAILED, TIMED_OUT])
def test_no_move_leads_out_of_an_end(current: StatusRecord) -> None:
    moves = [
        lambda: model.claimed(current, at(3), "two"),
        lambda: model.ended(current, current.status, at(3)),
        lambda: model.rejected(current, at(3), "two", "no"),
        lambda: model.interrupted(current, at(3), "two"),
        lambda: model.cancelled(current, at(3), "m", ""),
        lambda: model.expired(request(), current, at(60)),
    ]
    for move in moves:
        with pytest.raises(IllegalMove):
            move()


def test_a_late_result_is_put_beside_the_end() -> None:
    late = model.with_late_result(TIMED_OUT, {"x": 1}, at(40))
    assert late.late
    assert late.late_result == {"x": 1}
    unchanged = msgspec.structs.replace(late, at=TIMED_OUT.at, late=False, late_result=None)
    assert unchanged == TIMED_OUT


@pytest.mark.parametrize("current", [EXECUTING, COMPLETED])
def test_only_an_end_without_a_result_can_have_a_late_one(current: StatusRecord) -> None:
    with pytest.raises(IllegalMove):
        model.with_late_result(current, 1, at(40))


def test_a_command_nobody_took_ends_at_its_deadline() -> None:
    seen = [model.fold(request(30), None, at(seconds)) for seconds in (40, 4000)]
    assert {(each.status, each.status_detail, each.completed_at) for each in seen} == {
        ("timeout", "delivery_timeout", at(30))
    }
    assert not seen[0].outcome_unknown


def test_a_command_that_runs_too_long_ends_as_execution_timeout() -> None:
    seen = model.fold(request(30), EXECUTING, at(40))
    assert (seen.status, seen.status_detail, seen.attempt, seen.instance) == ("timeout", "execution_timeout", 1, "one")
    assert seen.outcome_unknown
    assert not model.expired(request(30), EXECUTING, at(30), by="one").outcome_unknown


def test_others_leave_a_command_to_its_agent_for_a_moment() -> None:
    moment = model.GRACE.total_seconds() / 2
    assert model.fold(request(30), EXECUTING, at(30 + moment)).status == "executing"
    assert model.status_at(request(30), None, at(30 + moment)) == "pending"


@given(st.sampled_from(LAST), st.floats(-10, 100))
def test_the_status_alone_is_that_of_the_whole_command(current: StatusRecord | None, seconds: float) -> None:
    assert model.status_at(request(), current, at(seconds)) == model.fold(request(), current, at(seconds)).status


def test_a_reader_that_saw_an_end_sees_no_other_later() -> None:
    for current in LAST:
        seen = [model.fold(request(30), current, at(seconds)).status for seconds in range(0, 100, 5)]
        ends = [status for status in seen if status in model.ENDED]
        assert len(set(ends)) <= 1
        assert seen[len(seen) - len(ends) :] == ends


# What an agent does with a delivery -----------------------------------------------------------------------------------


def decide(current: StatusRecord | None, *, idempotent: bool = False, begun: bool = False, when: float = 5) -> object:
    return model.on_delivery(request(30), current, "two", idempotent, begun, at(when))


def test_a_new_command_is_claimed() -> None:
    decision = decide(None)
    assert isinstance(decision, model.Run)
    assert (decision.claim.status, decision.claim.attempt, decision.claim.instance) == ("executing", 1, "two")


def test_a_command_that_ended_is_left_alone() -> None:
    for current in (COMPLETED, FAILED, TIMED_OUT):
        assert decide(current) == model.Ignore()


def test_a_command_of_a_dead_instance_is_interrupted() -> None:
    decision = decide(EXECUTING)
    assert isinstance(decision, model.Settle)
    status = decision.status
    assert (status.status, status.status_detail, status.outcome_unknown) == ("failed", "interrupted", True)


def test_an_idempotent_command_of_a_dead_instance_is_run_again() -> None:
    decision = decide(EXECUTING, idempotent=True)
    assert isinstance(decision, model.Run)
    assert (decision.claim.attempt, decision.claim.instance) == (2, "two")


def test_an_overdue_command_is_refused() -> None:
    decision = decide(None, when=31)
    assert isinstance(decision, model.Settle)
    assert decision.status.status_detail == "delivery_timeout"


def test_a_claim_whose_acknowledgement_was_lost_is_run_once() -> None:
    own = model.claimed(None, at(1), "two")
    decision = decide(own)
    assert isinstance(decision, model.Run)
    assert (decision.claim.attempt, decision.claim.started_at) == (1, at(1))
    again = decide(own, begun=True)
    assert isinstance(again, model.Settle)
    assert again.status.status_detail == "interrupted"


@pytest.mark.parametrize("idempotent", [False, True])
def test_a_command_cancelled_meanwhile_is_not_run_again(idempotent: bool) -> None:
    wanted = model.cancelled(EXECUTING, at(2), "manager", "no more")
    decision = decide(wanted, idempotent=idempotent)
    assert isinstance(decision, model.Settle)
    assert (decision.status.status_detail, decision.status.outcome_unknown) == ("cancelled", True)
    assert decision.status.error == "cancelled while its agent was gone: no more"


def test_a_claim_cancelled_before_it_ran_did_not_run() -> None:
    wanted = model.cancelled(model.claimed(None, at(1), "two"), at(2), "manager", "")
    decision = decide(wanted)
    assert isinstance(decision, model.Settle)
    assert (decision.status.status_detail, decision.status.outcome_unknown) == ("cancelled", False)


# Records on the wire --------------------------------------------------------------------------------------------------

TEXT = st.text(max_size=20)
TIMES = st.datetimes(timezones=st.just(timezone.utc))
RECORDS = st.builds(
    StatusRecord,
    status=st.sampled_from(model.STATUSES),
    at=TIMES,
    by=TEXT,
    status_detail=TEXT,
    instance=TEXT,
    attempt=st.integers(0, 99),
    started_at=st.none() | TIMES,
    completed_at=st.none() | TIMES,
    result=st.none() | st.integers(-(2**53), 2**53) | TEXT | st.lists(st.booleans()),
    error=TEXT,
    cancel_requested=st.booleans(),
    late_result=st.none() | TEXT,
)


@given(RECORDS)
def test_a_status_survives_the_wire(record: StatusRecord) -> None:
    assert msgspec.json.decode(msgspec.json.encode(record), type=StatusRecord) == record


@given(st.lists(st.sampled_from(["claim", "cancel", "end", "expire", "reject", "interrupt"]), max_size=8))
def test_any_sequence_of_moves_is_legal_or_refused(moves: list[str]) -> None:
    current: StatusRecord | None = None
    seen = [model.PENDING]
    for number, move in enumerate(moves):
        try:
            current = apply(move, current, at(number))
        except IllegalMove:
            continue
        seen.append(current.status)
    assert set(itertools.pairwise(seen)) <= LEGAL
    assert sum(status in model.ENDED for status in seen) <= 1


def apply(move: str, current: StatusRecord | None, when: datetime) -> StatusRecord:
    if move == "claim":
        return model.claimed(current, when, "one")
    if move == "cancel":
        return model.cancelled(current, when, "manager", "")
    if move == "expire":
        return model.expired(request(), current, when)
    if move == "reject":
        return model.rejected(current, when, "one", "no")
    if current is None:
        raise IllegalMove("a pending command has no agent")
    return model.interrupted(current, when, "two") if move == "interrupt" else model.ended(current, "completed", when)
