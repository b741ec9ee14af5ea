"""The managing side with runs: start plans, and work on whatever run there is, beside any number of others."""

from __future__ import annotations

import heapq
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal

import attrs
import msgspec

from lightlink.commands import AuditEntry, CommandManager
from lightlink.commands.manager.batch import Limits
from lightlink.commands.store import checks
from lightlink.commands.store.audit import RUN
from lightlink.concurrency.scheduler import every
from lightlink.concurrency.workers import WorkerPool
from lightlink.errors import AgentOffline, InvalidOption, PlanInvalid, PlanNotFound
from lightlink.protocol.ids import new_id
from lightlink.runs.calls import CallExecutor
from lightlink.runs.definitions import Definitions, Freeze, Schedule, StoredPlan
from lightlink.runs.locks import names_of_locks
from lightlink.runs.model import machine
from lightlink.runs.model.checks import check_params, needs_labels, unknown_types
from lightlink.runs.model.plan import Plan, one_step_plan
from lightlink.runs.model.preview import PlannedMessage, messages_of
from lightlink.runs.model.records import STATES, RunPlan, Target, digest_of, run_id_of
from lightlink.runs.model.references import MissingReference
from lightlink.runs.model.times import next_time
from lightlink.runs.plan_run import PlanRun
from lightlink.runs.runner import Runner
from lightlink.runs.scheduler import EVERY_SECONDS, Scheduler
from lightlink.runs.store import Lock, RunStore, run_id
from lightlink.runs.watch import RunWatcher
from lightlink.runs.work import Ports

if TYPE_CHECKING:
    import builtins
    from collections.abc import Iterable, Iterator, Mapping
    from datetime import datetime

    from lightlink.client import Client
    from lightlink.commands import AgentRecord, Presence
    from lightlink.runs.model.plan_model import Targets, Window
    from lightlink.runs.model.records import RunState

_WORKERS = 4
_CALLERS = 8
_STOP_SECONDS = 2.0


@attrs.frozen
class PlanCheck:
    """What a plan would do now: the targets of each wave, who of them is offline, and how many failures are borne.

    ``messages`` are what it would send, one for each target and step, if every condition held and nothing failed.
    """

    waves: list[list[str]]
    offline: list[str]
    failures_allowed: int
    locks: list[str]
    digest: str
    messages: list[PlannedMessage] = attrs.field(repr=False)

    @property
    def targets(self) -> int:
        """How many agents it is about."""
        return sum(map(len, self.waves))


class Orchestrator(CommandManager):
    """A command manager that also starts runs of plans, and works on them together with all other orchestrators.

    Takes what `CommandManager` takes; with ``work=False`` it only starts and follows runs. A run is nobody's own: when
    an orchestrator dies, another goes on with it within the store's ``ack_wait``.
    """

    def __init__(self, client: Client, *, work: bool = True, **options: Any) -> None:
        self._works = work
        super().__init__(client, **options)

    def _open(self) -> None:
        # Before all that may fail: `close` ends what has begun by then.
        self._runner: Runner | None = None
        self._run_pool = WorkerPool(f"lightlink-runs-{self.name}", _WORKERS)
        self._call_pool = WorkerPool(f"lightlink-run-calls-{self.name}", _CALLERS)
        super()._open()
        client, options = self._client, self._store.options
        runs = RunStore(self._store)
        definitions = Definitions(self._store)
        calls = CallExecutor(
            runs,
            self.name,
            lambda service, method, args, timeout: client.call(service, method, args, timeout=timeout),
            client.state,
        )
        self._definitions = definitions
        self._ports = Ports(
            name=self.name,
            commands=self._store,
            runs=runs,
            definitions=definitions,
            follower=self._follower,
            canceller=self._canceller,
            calls=calls,
            pool=self._run_pool,
            call_pool=self._call_pool,
        )
        try:
            runs.ensure()
            definitions.ensure()
            if self._works:
                self._run_pool.start()
                self._runner = Runner(self._ports, options.ack_wait)
                self._runner.start()
                scheduler = Scheduler(definitions, runs, self._prepared)
                self._periodic.append(every(EVERY_SECONDS, scheduler.look))
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Stop following, and leave the runs to others; commands go on. Idempotent."""
        super().close()

    def _end(self) -> None:
        if self._runner is not None:
            self._runner.stop(_STOP_SECONDS)
        super()._end()
        self._run_pool.stop(_STOP_SECONDS)
        self._call_pool.stop(_STOP_SECONDS)

    # Runs -------------------------------------------------------------------------------------------------------------

    def check(
        self,
        plan: Plan | str,
        params: Mapping[str, Any] | None = None,
        *,
        targets: Iterable[str] | None = None,
    ) -> PlanCheck:
        """Return what a plan would do now, without doing any of it.

        Raises PlanInvalid with all that is wrong, PlanNotFound, AgentOffline, and the errors of `agents`.
        """
        plan = self._plan_of(plan)
        run, offline = self._prepare(plan, params, targets, "", "", None)
        return PlanCheck(
            waves=[[target.client_id for target in wave] for wave in run.waves],
            offline=offline,
            failures_allowed=plan.failures_allowed(len(run.targets)),
            locks=names_of_locks(run),
            digest=run.digest,
            messages=messages_of(run),
        )

    def start(
        self,
        plan: Plan | str,
        params: Mapping[str, Any] | None = None,
        *,
        targets: Iterable[str] | None = None,
        reason: str = "",
        idempotency_key: str | None = None,
        issued_by: str | None = None,
    ) -> PlanRun:
        """Start a run of a plan, and return it once it is stored: from then on it goes on, whoever dies.

        ``plan`` may be the name of a stored one; ``targets`` replaces those of the plan. With an ``idempotency_key``,
        starting again returns the first run. ``issued_by`` is who starts it, by default this manager. Raises
        PlanInvalid with all that is wrong, PlanNotFound, AgentOffline where the plan refuses offline targets,
        PayloadTooLarge, EncodeError, StoreUnavailable, ClosedError.
        """
        self._refuse_closed()
        checks.text("reason", reason, may_be_empty=True)
        by = self.name if issued_by is None else checks.text("issued_by", issued_by)
        run, _ = self._prepare(self._plan_of(plan), params, targets, by, reason, idempotency_key)
        stored = self._ports.runs.create(run, machine.started)
        if stored.plan.name != run.plan.name:
            raise InvalidOption("idempotency_key", f"was used for a run of {stored.plan.name!r}", idempotency_key)
        return PlanRun(self._ports, stored)

    def run(self, run_id_: str) -> PlanRun:
        """Return a run that was started before, by whomever; raises RunNotFound, InvalidName, StoreUnavailable."""
        self._refuse_closed()
        return PlanRun(self._ports, self._ports.runs.plan(run_id(run_id_)))

    def runs(self, *, state: str | None = None, plan: str | None = None, limit: int = 100) -> builtins.list[RunState]:
        """Return the last states of runs, latest change first: of those in one state, or of one plan.

        Raises InvalidOption, StoreUnavailable.
        """
        self._refuse_closed()
        if state is not None and state not in STATES:
            raise InvalidOption("state", f"must be one of {', '.join(STATES)}", state)
        found = [each for each, _ in reversed(self._ports.runs.states())]
        return [each for each in found if state in (None, each.state) and plan in (None, each.plan)][:limit]

    def is_worked_on(self) -> bool:
        """Tell whether any orchestrator waits for work on runs at the moment; without one they do not go on.

        Raises StoreUnavailable, PermissionDenied.
        """
        self._refuse_closed()
        return self._ports.runs.is_pulled_from()

    def watch_runs(self) -> RunWatcher:
        """Follow every state that any run comes to, from now on; close it when done."""
        self._refuse_closed()
        return RunWatcher(self._connection)

    def audit(self, command_id: str | None = None, since: datetime | None = None) -> Iterator[AuditEntry]:
        """Yield what `CommandManager.audit` does and, unless it is of one command, what happened to runs, by time.

        Who started, approved, paused, cancelled or rolled back what, when and why.
        """
        entries = super().audit(command_id, since)
        if command_id is not None:
            return entries
        return heapq.merge(entries, self._run_entries(since), key=lambda entry: entry.at)

    def _run_entries(self, since: datetime | None) -> Iterator[AuditEntry]:
        entries = heapq.merge(self._run_states(), self._run_deeds(), key=lambda entry: entry.at)
        return (entry for entry in entries if since is None or entry.at >= since)

    def _run_states(self) -> Iterator[AuditEntry]:
        for state, _ in self._ports.runs.history():
            yield AuditEntry(
                at=state.at,
                command_id="",
                client_id="",
                kind=RUN,
                by=state.by,
                status=state.state,
                command_type=state.plan,
                run_id=state.run_id,
                event=state.event,
                reason=state.reason,
                digest=state.digest,
            )

    def _run_deeds(self) -> Iterator[AuditEntry]:
        """Yield what was done that is no step of a run: locks taken away, plans stored, schedules, freezes."""
        common: dict[str, Any] = {"command_id": "", "client_id": "", "kind": RUN, "status": ""}
        unlocks = (
            AuditEntry(at=lock.at, by=lock.by, event="unlocked", run_id=lock.from_run, reason=lock.name, **common)
            for lock in self._ports.runs.unlocks()
        )
        deeds = (
            AuditEntry(at=each.at, by=each.by, event=each.event, command_type=each.about, reason=each.reason, **common)
            for each in self._definitions.deeds()
        )
        return heapq.merge(unlocks, deeds, key=lambda entry: entry.at)

    # Plans that are kept ----------------------------------------------------------------------------------------------

    def store_plan(self, plan: Plan, *, by: str | None = None) -> StoredPlan:
        """Keep a plan under its name, over one that was kept before; `start`, `check` and `schedule` take the name.

        Raises PlanInvalid with all that is wrong, StoreUnavailable.
        """
        self._refuse_closed()
        plan = self._plan_of(plan).checked()
        stored = StoredPlan(name=plan.name, plan=plan, by=by or self.name, at=self.now())
        self._definitions.write_plan(stored)
        return stored

    def plans(self) -> builtins.list[StoredPlan]:
        """Return all stored plans, by name."""
        self._refuse_closed()
        return self._definitions.plans()

    def plan(self, name: str) -> Plan:
        """Return a stored plan; raises PlanNotFound."""
        self._refuse_closed()
        stored = self._definitions.plan(checks.text("plan", name))
        if stored is None or stored.removed:
            raise PlanNotFound(name)
        return stored.plan

    def remove_plan(self, name: str, *, by: str | None = None) -> bool:
        """Remove a stored plan; tell whether there was one. Its runs and schedules go on."""
        try:
            plan = self.plan(name)
        except PlanNotFound:
            return False
        word = StoredPlan(name=name, plan=plan, by=by or self.name, at=self.now(), removed=True)
        self._definitions.write_plan(word)
        return True

    # By the clock -----------------------------------------------------------------------------------------------------

    def schedule(
        self,
        name: str,
        plan: Plan | str,
        params: Mapping[str, Any] | None = None,
        *,
        cron: str,
        tz: str = "UTC",
        overlap: Literal["skip", "allow"] = "skip",
        missed: Literal["skip", "run"] = "skip",
        window: Window | None = None,
        issued_by: str | None = None,
    ) -> Schedule:
        """Have a plan run by the clock from now on, once for each time however many orchestrators there are.

        ``cron`` are five fields in the time zone ``tz``. While a run of it goes on the next is left out, unless
        ``overlap="allow"``. A time at which no orchestrator was there is left out, or made up for (the last of several)
        with ``missed="run"``. With a ``window`` waves of its runs begin only then, whatever the plan says. A schedule
        of the same name is replaced: a run of that one counts as its own, and so does what it missed where ``cron`` and
        ``tz`` stay. So a program may make it at each start. Of a stored plan it takes what is stored now.
        Raises PlanInvalid, PlanNotFound, InvalidOption.
        """
        self._refuse_closed()
        plan = self._plan_of(plan)
        plan = (plan if window is None else msgspec.structs.replace(plan, window=window)).checked()
        next_time(checks.text("cron", cron), checks.text("tz", tz), self.now())
        for option, value, choices in (("overlap", overlap, ("skip", "allow")), ("missed", missed, ("skip", "run"))):
            if value not in choices:
                raise InvalidOption(option, f"must be one of {', '.join(choices)}", value)
        made = Schedule(
            name=checks.text("name", name),
            plan=plan,
            params=check_params(plan, params),
            cron=cron,
            tz=tz,
            overlap=overlap,
            missed=missed,
            by=self.name if issued_by is None else checks.text("issued_by", issued_by),
            at=self.now(),
        )
        return self._definitions.replace_schedule(made.name, lambda before: _following(made, before))

    def schedules(self) -> builtins.list[Schedule]:
        """Return all schedules, by name."""
        self._refuse_closed()
        return [each for each, _ in self._definitions.schedules()]

    def unschedule(self, name: str, *, by: str | None = None) -> bool:
        """Remove a schedule; tell whether there was one. Runs that it has started go on."""
        self._refuse_closed()
        found = self._definitions.schedule(name)
        if found is None or found.removed:
            return False
        removed = msgspec.structs.replace(found, removed=True, by=by or self.name, at=self.now())
        self._definitions.write_schedule(removed)
        return True

    def freeze(self, reason: str = "", *, until: datetime | None = None, by: str | None = None) -> None:
        """Let no wave of any run begin, until an instant or until `thaw`; what has begun, and rollbacks, go on."""
        self._refuse_closed()
        checks.text("reason", reason, may_be_empty=True)
        until = checks.aware("until", until)
        frozen = Freeze(is_on=True, by=by or self.name, at=self.now(), reason=reason, until=until)
        self._definitions.write_freeze(frozen)

    def thaw(self, *, by: str | None = None) -> bool:
        """End a freeze; tell whether there was one."""
        self._refuse_closed()
        found = self._definitions.freeze()
        if found.is_on:
            thawed = Freeze(is_on=False, by=by or self.name, at=self.now())
            self._definitions.write_freeze(thawed)
        return found.is_on

    def locks(self) -> dict[str, str]:
        """Return which run has each lock that is taken."""
        self._refuse_closed()
        return self._ports.runs.locks()

    def unlock(self, name: str, *, by: str | None = None) -> bool:
        """Take a lock from the run that has it, whatever that does; tell whether one had it. The audit says who did."""
        self._refuse_closed()
        holder = self.locks().get(name)
        if holder is None:
            return False
        left = Lock(name, by=by or self.name, at=self.now(), from_run=holder)
        return self._ports.runs.take_away(holder, left)

    def send_many(self, client_ids: Any, command_type: str, payload: Any = None, **options: Any) -> Any:
        """Send a command to many agents, as `CommandManager.send_many` does.

        With ``durable=True`` by a run, which is returned: its limits hold, and it goes on, when this process dies. It
        takes ``labels``, ``offline``, ``timeout``, ``priority``, ``max_concurrency``, ``max_failures``, ``issued_by``,
        and at least one agent.
        """
        if not options.pop("durable", False):
            return super().send_many(client_ids, command_type, payload, **options)
        issued_by = options.pop("issued_by", None)
        for option in ("repeat", "headers"):
            if option in options:
                raise InvalidOption(option, "is not for a durable send", options[option])
        self._refuse_closed()
        given = {name: options.get(name) for name in ("max_concurrency", "max_failures")}
        Limits(repeat=1, **given)
        targets = self._targets(client_ids, options.pop("labels", None), options.pop("offline", False))
        if not targets:
            raise InvalidOption("client_ids", "a durable send needs at least one agent", targets)
        plan = one_step_plan(targets, command_type, payload, kept=self._kept_seconds, **options)
        return self.start(plan, issued_by=issued_by)

    # ------------------------------------------------------------------------------------------------------------------

    @property
    def _kept_seconds(self) -> float:
        """How long all that a run does is kept."""
        return min(self._store.options.retention, self._store.options.audit_retention)

    def _plan_of(self, plan: Plan | str) -> Plan:
        """Return a plan, or the one that is stored under a name."""
        if isinstance(plan, str):
            return self.plan(plan)
        if not isinstance(plan, Plan):
            raise InvalidOption(
                "plan", "must be a Plan, or the name of a stored one: Plan.load(path) reads a file", type(plan).__name__
            )
        return plan

    def _prepared(self, schedule: Schedule, run_id: str) -> RunPlan:
        """Return the run of a schedule."""
        by = f"schedule:{schedule.name}"
        run, _ = self._prepare(schedule.plan, schedule.params, None, by, f"planned by {schedule.by}", None)
        return msgspec.structs.replace(run, run_id=run_id)

    def _prepare(
        self,
        plan: Plan,
        params: Mapping[str, Any] | None,
        targets: Iterable[str] | None,
        by: str,
        reason: str,
        key: str | None,
    ) -> tuple[RunPlan, builtins.list[str]]:
        """Return the run that a plan comes to now, and which of its targets are offline."""
        plan = plan.checked()
        values = check_params(plan, params)
        online = {presence.client_id: presence for presence in self.clients()}
        found, offline = self._frozen_targets(plan, None if targets is None else checks.client_ids(targets), online)
        kept = self._kept_seconds
        faults = list(unknown_types(plan, [target.client_id for target in found], online.values()))
        if plan.seconds > kept:
            why = f"is longer than what runs do is kept: {kept:g} s, StoreOptions(retention=, audit_retention=)"
            faults.append(("timeout", why))
        if faults:
            raise PlanInvalid(f"plan {plan.name!r}", faults)
        at = self.now()
        run = RunPlan(
            run_id=new_id() if key is None else run_id_of(by, checks.text("idempotency_key", key)),
            plan=plan,
            params=values,
            targets=found,
            started_by=by,
            reason=reason,
            created_at=at,
            kept_until=at + timedelta(seconds=kept),
            digest=digest_of(plan, values, found),
            idempotency_key=key,
        )
        try:
            names_of_locks(run)
        except MissingReference as exc:
            raise PlanInvalid(f"plan {plan.name!r}", [("lock", str(exc))]) from None
        return run, offline

    def _frozen_targets(
        self, plan: Plan, chosen: builtins.list[str] | None, online: Mapping[str, Presence]
    ) -> tuple[builtins.list[Target], builtins.list[str]]:
        spec = plan.target_spec
        if not plan.wave_steps:
            return [], []
        # Asked for only where somebody needs labels: it reads what was ever seen.
        known = {agent.client_id: agent for agent in self.agents()} if needs_labels(plan) else {}
        names = chosen if chosen is not None else spec.ids or _labelled(spec, known)
        offline = [name for name in names if name not in online]
        if spec.offline == "fail" and offline:
            raise AgentOffline(", ".join(offline[:10]))
        if spec.offline == "skip":
            names = [name for name in names if name not in set(offline)]
        if not names:
            raise PlanInvalid(f"plan {plan.name!r}", [("targets", _why_nobody(spec, offline))])
        return [Target(name, dict(known[name].labels) if name in known else {}) for name in names], offline


def _following(made: Schedule, before: Schedule | None) -> Schedule:
    """Return a schedule that goes on from the one before it."""
    if before is None:
        return made
    is_same = not before.removed and (before.cron, before.tz) == (made.cron, made.tz)
    last = (before.last or before.at) if is_same else None
    return msgspec.structs.replace(made, run_id=before.run_id, last=last)


def _why_nobody(spec: Targets, offline: list[str]) -> str:
    """Return why a plan is about no agent."""
    if offline:
        return f"all are offline, and offline: skip leaves them out: {', '.join(offline[:10])}"
    if spec.labels:
        labels = ", ".join(f"{name}={value}" for name, value in spec.labels.items())
        return f"no agent that was ever seen has {labels}; `lightlink agents` lists them"
    return "there is no such agent: give ids or labels"


def _labelled(spec: Targets, known: Mapping[str, AgentRecord]) -> list[str]:
    if not spec.labels:
        return []
    return sorted(name for name, agent in known.items() if spec.labels.items() <= agent.labels.items())
