"""The moves that a run may make. Pure: no clock, no network; every function gets the time it needs.

::

    lock -> first -> wave -> soak -> gate -> wave ... -> last -> end
                       |                |
                       +--> halt <------+          (a limit, a person, the deadline)
                              |
                              +--> undo --> last --> end

    end -> lock -> undo --> last --> end                (somebody rolls back a run that has ended)

Each returns the state to write over the one before, or raises RunRefused.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import msgspec

from lightlink.errors import RunRefused
from lightlink.runs.model.plan_model import duration
from lightlink.runs.model.records import Approved, Attention, RunPlan, RunState, Verdict, with_attention

if TYPE_CHECKING:
    from lightlink.runs.model.records import StageName, StateName

_STATE_AT: dict[StageName, StateName] = {
    "lock": "queued",
    "first": "running",
    "wave": "running",
    "soak": "soaking",
    "gate": "waiting",
    "hold": "held",
    "halt": "stopping",
    "undo": "rolling_back",
    "last": "running",
}
_VERDICTS: dict[str, Verdict] = {
    "stop": "failed",
    "continue": "failed",
    "rollback": "rollback",
    "rollback_wave": "rollback_wave",
}
_FINAL: dict[Verdict, StateName] = {"": "completed", "failed": "failed", "cancelled": "cancelled"}
_ROLLBACKS = ("rollback", "rollback_wave")
_BEFORE_THE_DEADLINE = frozenset({"lock", "first", "wave", "soak", "gate", "hold"})


def started(run: RunPlan) -> RunState:
    """Return a run's first state."""
    plan = run.plan
    stage: StageName = "lock" if plan.locks else _beginning(run)
    return RunState(
        run_id=run.run_id,
        state=_STATE_AT[stage],
        stage=stage,
        event="started",
        plan=plan.name,
        started_by=run.started_by,
        started_at=run.created_at,
        digest=run.digest,
        targets=len(run.targets),
        by=run.started_by,
        at=run.created_at,
        reason=run.reason,
        deadline=run.created_at + timedelta(seconds=plan.seconds),
    )


# What goes on by itself -----------------------------------------------------------------------------------------------


def went_on(
    run: RunPlan, state: RunState, at: datetime, counts: dict[str, int] | None = None, idle: bool = False
) -> RunState:
    """Return what follows a stage that is over, and went well; after one that was ``idle`` nobody waits."""
    counts = state.counts if counts is None else counts
    if state.stage == "lock":
        return _to(state, "undo" if state.verdict in _ROLLBACKS else _beginning(run), at, "locked")
    if state.stage == "first":
        return _to(state, "wave" if run.waves else "last", at, "first steps done")
    if state.stage == "wave":
        state = _replace(state, counts=counts)
        if state.wave + 1 >= len(run.waves):
            return _to(state, "last", at, "wave done")
        if idle and state.wave < state.passed:  # whoever was to approve has done so before
            return _next_wave(state, at, "wave done")
        if run.plan.soak_seconds:
            until = at + timedelta(seconds=run.plan.soak_seconds)
            return _to(state, "soak", at, "wave done", until=until)
        return _after_soak(run, state, at, "wave done")
    if state.stage == "soak":
        return _after_soak(run, state, at, "soaked")
    return ended(state, at)


def held(state: RunState, at: datetime, until: datetime | None, reason: str) -> RunState:
    """Return a run whose next wave may not begin yet; without ``until`` nobody knows when it may."""
    return _to(state, "hold", at, "held", until=until, reason=reason)


def let_go(state: RunState, at: datetime) -> RunState:
    """Return a run whose next wave may begin now."""
    return _to(state, "wave", at, "let go", reason="")


def _after_soak(run: RunPlan, state: RunState, at: datetime, event: str) -> RunState:
    gate = run.plan.between
    if gate is None:
        return _next_wave(state, at, event)
    return _to(state, "gate", at, event, until=at + timedelta(seconds=duration(gate.expires)), approvals=[])


def _next_wave(state: RunState, at: datetime, event: str, by: str = "") -> RunState:
    return _to(state, "wave", at, event, by=by, wave=state.wave + 1)


def halted(run: RunPlan, state: RunState, at: datetime, reason: str, event: str = "stopped", by: str = "") -> RunState:
    """Return that nothing more is begun, because too much failed, the time is over, or somebody rejected."""
    verdict = _VERDICTS[run.plan.on_failure]
    return _halt(state, at, event, by=by, reason=reason, verdict=verdict)


def overdue(run: RunPlan, state: RunState, at: datetime) -> RunState:
    """Return that nothing more is begun, because the run's time is over."""
    if state.verdict:  # it has ended before, and was to be rolled back
        return given_up(state, at, f"its locks were not free within {run.plan.seconds:g} s: nothing was taken back")
    return halted(run, state, at, f"it took longer than {run.plan.seconds:g} s")


def settled(state: RunState, at: datetime, counts: dict[str, int]) -> RunState:
    """Return what follows once all that was running when the run was halted has ended."""
    state = _replace(state, counts=counts)
    if state.verdict in _ROLLBACKS:
        return _to(state, "undo", at, "rolling back", state="rolling_back")
    return _to(state, "last", at, "stopped", state="stopping")


def undone(run: RunPlan, state: RunState, at: datetime, attention: list[Attention]) -> RunState:
    """Return what follows a rollback, with what it could not take back."""
    if run.kept_until is not None and at > run.kept_until:
        why = f"what was done is known in full only until {run.kept_until}: there may be more to take back"
        attention = [*attention, Attention("", "", why)]
    state = with_attention(state, attention)
    return _to(state, "last", at, "rolled back" if not attention else "rollback incomplete", state="rolling_back")


def ended(state: RunState, at: datetime, failed: str = "") -> RunState:
    """Return the end of a run; ``failed`` says why its last steps have failed, where they have."""
    name: StateName
    if state.verdict in _ROLLBACKS:
        name = "rollback_incomplete" if state.attention_total else "rolled_back"
    elif failed and not state.verdict:
        name = "failed"
    else:
        name = _FINAL[state.verdict]
    reason = failed if failed and not state.verdict else state.reason
    return _to(state, "end", at, name, state=name, reason=reason)


# What nobody has foreseen ---------------------------------------------------------------------------------------------


def tried_until(run: RunPlan | None, state: RunState, *, is_outage: bool = False) -> datetime | None:
    """Return until when it is tried to go on with a run that something keeps going wrong with; None for ever.

    That is its deadline; what comes after that (stopping, taking back, last steps) has as much time once more, and
    more of it while the store is not there (``is_outage``): it is not to be left out. ``run`` is None where its plan
    cannot be read.
    """
    if state.state == "paused" or (run is None and is_outage):
        return None
    if run is None or state.stage in _BEFORE_THE_DEADLINE:
        return state.deadline
    return run.kept_until if is_outage else state.at + timedelta(seconds=run.plan.seconds)


def in_trouble(run: RunPlan | None, state: RunState, at: datetime, what: str) -> RunState:
    """Return what becomes of a run that went wrong until its time was over; where it is stopping already, its end."""
    if run is not None and state.stage in _BEFORE_THE_DEADLINE and not state.verdict:
        why = f"could not go on in its {run.plan.seconds:g} s: {what}"
        return halted(run, with_attention(state, [Attention("", "", why)]), at, why)
    return given_up(state, at, f"could not go on while {state.state}: {what}")


def paused_too_long(run: RunPlan, state: RunState, at: datetime) -> RunState:
    """Return the end of a run that was paused until nobody could tell any more what it has done."""
    return given_up(state, at, f"was paused until what it has done was kept no longer, at {run.kept_until}")


def given_up(state: RunState, at: datetime, why: str) -> RunState:
    """Return the end of a run that people have to look at: what it has begun may go on, and is not taken back."""
    state = with_attention(state, [Attention("", "", why)])
    name: StateName = "rollback_incomplete" if state.verdict in _ROLLBACKS else "failed"
    return _to(state, "end", at, "given up", state=name, reason=why)


# What people do -------------------------------------------------------------------------------------------------------


def approved(run: RunPlan, state: RunState, at: datetime, by: str, comment: str, digest: str | None) -> RunState:
    """Return what an approval makes of a run that waits at a gate."""
    gate = _gate(run, state, "approve", by, digest)
    if any(each.by == by for each in state.approvals):
        raise RunRefused(run.run_id, "approve", f"{by} has approved already")
    approvals = [*state.approvals, Approved(by, at, comment)]
    if len(approvals) < gate.count:
        return _replace(state, event="approved", by=by, at=at, approvals=approvals)
    return _next_wave(_replace(state, approvals=approvals), at, "approved", by)


def rejected(run: RunPlan, state: RunState, at: datetime, by: str, comment: str, digest: str | None) -> RunState:
    """Return what a rejection makes of a run that waits at a gate."""
    _gate(run, state, "reject", by, digest)
    return halted(run, state, at, f"rejected by {by}" + (f": {comment}" if comment else ""), "rejected", by)


def _gate(run: RunPlan, state: RunState, operation: str, by: str, digest: str | None) -> Any:
    gate = run.plan.between
    if state.stage != "gate" or state.state != "waiting" or gate is None:
        raise RunRefused(run.run_id, operation, f"it is {state.state}, and waits for nobody's approval")
    if digest is not None and digest != run.digest:
        raise RunRefused(run.run_id, operation, f"what was looked at is another plan: {digest}, not {run.digest}")
    if gate.by and by not in gate.by:
        raise RunRefused(run.run_id, operation, f"{by!r} is none of those who may: {', '.join(gate.by)}")
    if gate.not_by == "starter" and by == run.started_by:
        raise RunRefused(run.run_id, operation, f"{by!r} has started it, and another is to look at it")
    return gate


def paused(run: RunPlan, state: RunState, at: datetime, by: str, reason: str) -> RunState:
    """Return a run in which nothing more is begun, for now; the clocks of its soak, gate and deadline stand still."""
    if state.ended or state.state in ("paused", "stopping", "rolling_back"):
        raise RunRefused(run.run_id, "pause", f"it is {state.state}")
    remaining = {
        name: max((instant - at).total_seconds(), 0.0)
        for name, instant in (("until", state.until), ("deadline", state.deadline))
        if instant is not None
    }
    changes: dict[str, Any] = {"until": None, "deadline": None, "remaining": remaining}
    return _replace(
        state, state="paused", paused_from=state.state, event="paused", by=by, at=at, reason=reason, **changes
    )


def resumed(run: RunPlan, state: RunState, at: datetime, by: str) -> RunState:
    """Return a paused run that goes on."""
    if state.state != "paused" or state.paused_from is None:
        raise RunRefused(run.run_id, "resume", f"it is {state.state}")
    _refuse_forgotten(run, "resume", at)
    instants = {name: at + timedelta(seconds=seconds) for name, seconds in state.remaining.items()}
    if "deadline" in instants:
        instants["deadline"] = _bounded(run, instants["deadline"])
    changes: dict[str, Any] = {"remaining": {}, "paused_from": None, **instants}
    return _replace(state, state=state.paused_from, event="resumed", by=by, at=at, **changes)


def cancelled(run: RunPlan, state: RunState, at: datetime, by: str, reason: str) -> RunState:
    """Return a run that somebody no longer wants."""
    if state.ended or state.verdict:
        raise RunRefused(run.run_id, "cancel", f"it is {state.state}")
    return _halt(state, at, "cancelled", by=by, reason=reason, verdict="cancelled")


def rollback_asked(run: RunPlan, state: RunState, at: datetime, by: str, reason: str) -> RunState:
    """Return a run that is to be rolled back, be it under way or ended; what could not be undone is tried again.

    One that has ended takes its locks again, and waits for them whatever ``on_locked`` says, as long as a run may take.
    """
    if state.state in ("rolled_back", "rolling_back") or (state.verdict and not state.ended):
        raise RunRefused(run.run_id, "roll back", f"it is {state.state}")
    common: dict[str, Any] = {"by": by, "reason": reason, "verdict": "rollback"}
    if not state.ended:
        return _halt(state, at, "rollback asked", **common)
    _refuse_forgotten(run, "roll back", at)
    again: dict[str, Any] = {"attention": [], "attention_total": 0, "undo_epoch": state.undo_epoch + 1}
    if not run.plan.locks:
        return _to(state, "undo", at, "rollback asked", **common, **again)
    deadline = _bounded(run, at + timedelta(seconds=run.plan.seconds))
    return _to(state, "lock", at, "rollback asked", state="rolling_back", deadline=deadline, **common, **again)


def retried(run: RunPlan, state: RunState, at: datetime, by: str) -> RunState:
    """Return a run that stopped, and now tries again what has failed or was not begun, from the wave it had come to."""
    if state.state not in ("failed", "cancelled", "completed"):
        raise RunRefused(run.run_id, "retry", f"it is {state.state}, not failed or cancelled")
    _refuse_forgotten(run, "retry", at)
    deadline = _bounded(run, at + timedelta(seconds=run.plan.seconds))
    stage: StageName = "lock" if run.plan.locks else _beginning(run)
    changes: dict[str, Any] = {"attention": [], "attention_total": 0}  # whoever tries again has seen it
    changes |= {"verdict": "", "epoch": state.epoch + 1, "deadline": deadline, "wave": 0, "reason": ""}
    changes["halted_in"] = None
    changes["passed"] = max(state.passed, state.wave)
    return _to(state, stage, at, "retried", by=by, **changes)


# ----------------------------------------------------------------------------------------------------------------------


def _refuse_forgotten(run: RunPlan, operation: str, at: datetime) -> None:
    """Raise RunRefused where what the run has done is kept no longer: it would be done again, or not taken back."""
    if run.kept_until is not None and at >= run.kept_until:
        raise RunRefused(run.run_id, operation, f"what it has done was kept until {run.kept_until}: start another run")


def _bounded(run: RunPlan, deadline: datetime) -> datetime:
    return deadline if run.kept_until is None else min(deadline, run.kept_until)


def _beginning(run: RunPlan) -> StageName:
    """Return the first stage in which something is done."""
    return "first" if run.plan.first_steps else "wave" if run.waves else "last"


def _halt(state: RunState, at: datetime, event: str, **changes: Any) -> RunState:
    return _to(state, "halt", at, event, halted_in=state.stage, **changes)


def _to(before: RunState, /, stage: StageName, at: datetime, event: str, **changes: Any) -> RunState:
    changes.setdefault("state", _STATE_AT.get(stage, before.state))
    changes.setdefault("until", None)
    changes.setdefault("by", "")
    return _replace(before, stage=stage, at=at, event=event, paused_from=None, remaining={}, **changes)


def _replace(before: RunState, /, **changes: Any) -> RunState:
    return msgspec.structs.replace(before, **changes)


__all__ = [
    "approved",
    "cancelled",
    "ended",
    "given_up",
    "halted",
    "held",
    "in_trouble",
    "let_go",
    "overdue",
    "paused",
    "paused_too_long",
    "rejected",
    "resumed",
    "retried",
    "rollback_asked",
    "settled",
    "started",
    "tried_until",
    "undone",
    "went_on",
]
