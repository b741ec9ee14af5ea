"""Views of plans, runs and schedules."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs
import msgspec
from msgspec import UNSET
from werkzeug.exceptions import NotFound
from werkzeug.exceptions import NotImplemented as HttpNotImplemented

from lightlink.errors import InvalidName, RunNotFound
from lightlink.http.run_schemas import (
    MessageView,
    OnePlan,
    OneRun,
    PlanChecked,
    PlanList,
    PlanView,
    Removed,
    RunDetails,
    RunHistory,
    RunList,
    RunView,
    ScheduleList,
    ScheduleView,
    TargetView,
)
from lightlink.http.views.stream import look_seconds, respond
from lightlink.protocol import codec
from lightlink.runs import Orchestrator, Plan, Window
from lightlink.runs.model.times import next_time

if TYPE_CHECKING:
    from werkzeug.wrappers import Response

    from lightlink.http.call import Call
    from lightlink.runs import PlanRun, RunState, Schedule, StoredPlan

# Of so many runs is looked whether an agent is part of them.
_MOST_OF_AGENT = 20
_WHAT = "plans and runs"


def check_plan(call: Call) -> PlanChecked:
    """Tell what a plan would do now."""
    found = _orchestrator(call).check(_plan(call), call.body.params, targets=_targets(call))
    told = attrs.asdict(found, recurse=False, filter=lambda field, _: field.name != "messages")
    messages = [MessageView(**attrs.asdict(each, recurse=False)) for each in found.messages]
    return PlanChecked(total=found.targets, messages=messages if call.body.messages else UNSET, **told)


def list_plans(call: Call) -> PlanList:
    """List all stored plans."""
    return PlanList(plans=[_plan_view(each) for each in _orchestrator(call).plans()])


def store_plan(call: Call) -> OnePlan:
    """Keep a plan under its name."""
    stored = _orchestrator(call).store_plan(Plan.of(call.body.plan), by=call.issued_by)
    return OnePlan(plan=_plan_view(stored))


def remove_plan(call: Call) -> Removed:
    """Remove a stored plan."""
    if not _orchestrator(call).remove_plan(call.path["name"], by=call.issued_by):
        raise NotFound(f"Plan not found: {call.path['name']}")
    return Removed()


def start_run(call: Call) -> OneRun:
    """Start a run of a plan."""
    body = call.body
    run = _orchestrator(call).start(
        _plan(call),
        body.params,
        targets=_targets(call),
        reason=body.reason,
        idempotency_key=body.idempotency_key,
        issued_by=call.issued_by,
    )
    return OneRun(run=run_view(run.refresh()))


def list_runs(call: Call) -> RunList:
    """List runs, latest change first."""
    query = call.query
    orchestrator = _orchestrator(call)
    # The targets of a run are read one run after the other, and may be ten thousand.
    most = query.limit if query.client_id is UNSET else min(query.limit, _MOST_OF_AGENT)
    states = orchestrator.runs(state=query.state or None, plan=query.plan or None, limit=most)
    if query.client_id is not UNSET:
        states = [each for each in states if query.client_id in _targets_of(call, orchestrator, each.run_id)]
    return RunList(total=len(states), runs=[run_view(state) for state in states])


def _targets_of(call: Call, orchestrator: Orchestrator, run_id: str) -> frozenset[str]:
    """Return the targets of a run, which never change; none of one that is kept no longer."""

    def read() -> frozenset[str]:
        try:
            return frozenset(orchestrator.run(run_id).target_ids)
        except RunNotFound:
            return frozenset()

    found: frozenset[str] = call.app.recent.get(("targets", run_id), read)
    return found


def get_run(call: Call) -> RunDetails:
    """Look at a run: its plan, its steps, its targets."""
    run = _run(call)
    state, steps = run.refresh(), run.steps()
    targets = [TargetView(**attrs.asdict(target)) for target in run.targets()]
    plan = msgspec.to_builtins(run.plan)
    return RunDetails(run=run_view(state), plan=plan, params=run.params, steps=steps, targets=targets)


def get_run_history(call: Call) -> RunHistory:
    """Look at every state that a run has come to."""
    return RunHistory(states=[run_view(state) for state in _run(call).history()])


def approve_run(call: Call) -> OneRun:
    """Approve what waits at a gate."""
    body = call.body
    state = _run(call).approve(body.comment, by=call.issued_by, digest=body.digest or None)
    return OneRun(run=run_view(state))


def reject_run(call: Call) -> OneRun:
    """Reject what waits at a gate."""
    body = call.body
    state = _run(call).reject(body.comment, by=call.issued_by, digest=body.digest or None)
    return OneRun(run=run_view(state))


def pause_run(call: Call) -> OneRun:
    """Have nothing new begin."""
    return OneRun(run=run_view(_run(call).pause(call.body.reason, by=call.issued_by)))


def resume_run(call: Call) -> OneRun:
    """Let a paused run go on."""
    return OneRun(run=run_view(_run(call).resume(by=call.issued_by)))


def cancel_run(call: Call) -> OneRun:
    """End a run."""
    return OneRun(run=run_view(_run(call).cancel(call.body.reason, by=call.issued_by)))


def rollback_run(call: Call) -> OneRun:
    """Take back what a run has done."""
    return OneRun(run=run_view(_run(call).rollback(call.body.reason, by=call.issued_by)))


def retry_run(call: Call) -> OneRun:
    """Try again what has failed or was left."""
    return OneRun(run=run_view(_run(call).retry(by=call.issued_by)))


def list_schedules(call: Call) -> ScheduleList:
    """List all schedules."""
    orchestrator = _orchestrator(call)
    return ScheduleList(schedules=[_schedule_view(each, orchestrator) for each in orchestrator.schedules()])


def add_schedule(call: Call) -> ScheduleList:
    """Have a plan run by the clock."""
    body = call.body
    orchestrator = _orchestrator(call)
    window = body.window
    made = orchestrator.schedule(
        body.name,
        _plan(call),
        body.params,
        cron=body.cron,
        tz=body.tz,
        overlap=body.overlap,
        missed=body.missed,
        window=None if window is UNSET else Window(window.opens, window.hours, window.tz),
        issued_by=call.issued_by,
    )
    return ScheduleList(schedules=[_schedule_view(made, orchestrator)])


def remove_schedule(call: Call) -> Removed:
    """Remove a schedule."""
    if not _orchestrator(call).unschedule(call.path["name"], by=call.issued_by):
        raise NotFound(f"Schedule not found: {call.path['name']}")
    return Removed()


def stream_runs(call: Call) -> Response:
    """Tell of every state that a run comes to, from now on."""
    orchestrator = _orchestrator(call)
    call.take_seat()
    try:
        watcher = orchestrator.watch_runs()
    except BaseException:
        call.app.room.leave()
        raise

    def tell() -> bytes:
        state = watcher.get(look_seconds(call))
        return b"" if state is None else run_event(state)

    return respond(call, tell, watcher.close)


# ----------------------------------------------------------------------------------------------------------------------


def run_view(state: RunState) -> RunView:
    """Return how a run is shown."""
    names = ("run_id", "plan", "state", "event", "targets", "started_by", "started_at", "by", "at", "reason", "digest")
    return RunView(
        **{name: getattr(state, name) for name in names},
        wave=state.wave + 1,
        counts=state.counts,
        approvals=msgspec.to_builtins(state.approvals),
        attention=msgspec.to_builtins(state.attention),
        attention_total=state.attention_total,
        until=state.until or UNSET,
        deadline=state.deadline or UNSET,
    )


def run_event(state: RunState) -> bytes:
    """Return a run's state as an event."""
    return b"event: run\ndata: %b\n\n" % codec.encode_json(run_view(state))


def _schedule_view(schedule: Schedule, orchestrator: Orchestrator) -> ScheduleView:
    names = ("name", "cron", "tz", "overlap", "missed", "by", "run_id", "error")
    return ScheduleView(
        **{name: getattr(schedule, name) for name in names},
        plan=schedule.plan.name,
        next=next_time(schedule.cron, schedule.tz, orchestrator.now()),
        last=schedule.last or UNSET,
    )


def _orchestrator(call: Call) -> Orchestrator:
    """Return what starts runs; raises the HTTP errors 403 and 501."""
    # A run tells of all its targets and what is sent to them.
    call.check_unlimited(_WHAT)
    manager = call.manager
    if not isinstance(manager, Orchestrator):
        raise HttpNotImplemented("runs are not served here: the app was given a CommandManager, not an Orchestrator")
    return manager


def _run(call: Call) -> PlanRun:
    try:
        return _orchestrator(call).run(call.path["run_id"])
    except InvalidName:
        raise NotFound(f"Run not found: {call.path['run_id']}") from None


def _plan(call: Call) -> Plan | str:
    plan = call.body.plan
    return plan if isinstance(plan, str) else Plan.of(plan)


def _plan_view(stored: StoredPlan) -> PlanView:
    return PlanView(
        name=stored.name,
        version=stored.plan.version,
        by=stored.by,
        at=stored.at,
        plan=msgspec.to_builtins(stored.plan),
    )


def _targets(call: Call) -> list[str] | None:
    targets: Any = call.body.targets
    return None if targets is UNSET else targets
