"""Work on whatever run there is work on: every manager pulls revisions of runs from one shared consumer."""

from __future__ import annotations

import contextlib
import logging
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from lightlink.commands.manager.losses import revision_of
from lightlink.commands.store.access import Conflict
from lightlink.concurrency.scheduler import every
from lightlink.concurrency.threads import Condition
from lightlink.errors import DecodeError, LightLinkError, RunRefused
from lightlink.jetstream.pull import PullConsumer
from lightlink.protocol import subjects
from lightlink.protocol.subjects import as_text
from lightlink.runs import trouble
from lightlink.runs.active import Active
from lightlink.runs.locks import names_of_locks, release_all
from lightlink.runs.model import machine, records
from lightlink.runs.model.times import opens_at
from lightlink.runs.store import CONSUMER, STREAM, read_state

if TYPE_CHECKING:
    from datetime import datetime

    from lightlink.jetstream.pull import Pulled
    from lightlink.runs.model.records import RunPlan, RunState
    from lightlink.runs.work import Ports

_log = logging.getLogger("lightlink")

_AT_ONCE = 256
_LOCKED_SECONDS = 2.0
_PLANS_KEPT = 256
_REVISIONS_KEPT = 4096
# A server's timer may be a little early.
_LEAST_DELAY = 0.05
# However long a run waits, it is looked at now and then: somebody's clock may have been wrong.
_MOST_DELAY = 30.0


class Runner:
    """Pulls revisions of runs and works on them; what is held is kept from others while this manager lives."""

    def __init__(self, ports: Ports, ack_wait: float) -> None:
        self._ports = ports
        self._connection = ports.runs.connection
        self._every = min(1.0, ack_wait / 4)
        self._pulls = PullConsumer(
            self._connection,
            STREAM,
            CONSUMER,
            _AT_ONCE,
            ack_wait,
            self._on_messages,
            self._on_missing,
        )
        self._lock = Condition()
        self._active: dict[str, Active] = {}
        self._plans: dict[str, RunPlan] = {}
        # The newest revision that was told of each run, also before this manager takes an older one.
        self._told: dict[str, int] = {}
        self._routes: list[Any] = []
        self._periodic: Any = None
        self._stopped = False

    def start(self) -> None:
        """Begin to work."""
        self._routes = [self._connection.subscribe(subjects.run_event("*"), "", self._on_event)]
        self._periodic = every(self._every, self._tick)
        self._pulls.start()

    def stop(self, timeout: float) -> None:
        """Leave the runs to others, at once; what was sent goes on."""
        with self._lock:
            self._stopped = True
            active, self._active = list(self._active.values()), {}
        for each in active:
            each.drop()
        if self._periodic is not None:
            self._periodic.stop(timeout)
        for route in self._routes:
            self._connection.session.unroute(route, timeout)
        for each in active:
            self._pulls.hand_back(each.pulled)
        self._pulls.stop(timeout)

    def __len__(self) -> int:
        return len(self._active)

    # On threads of the library ----------------------------------------------------------------------------------------

    def _on_messages(self, burst: list[Pulled]) -> None:
        for pulled in burst:
            self._ports.pool.put(self._take, pulled)

    def _on_missing(self) -> None:
        self._ports.pool.put(self._make_again)

    def _on_event(self, subject: bytes, _reply: bytes, _data: bytes, headers: bytes | None) -> None:
        run_id, revision = as_text(subject).rpartition(".")[2], revision_of(headers)
        with self._lock:
            self._told.pop(run_id, None)
            self._told[run_id] = revision
            if len(self._told) > _REVISIONS_KEPT:
                del self._told[next(iter(self._told))]
            active = self._active.get(run_id)
        if active is not None and revision > active.revision:
            active.drop()
            self._settle(active, 0.0)

    def _tick(self) -> None:
        self._pulls.tick()
        at = self._ports.runs.clock.now()
        with self._lock:
            active = list(self._active.values())
        for each in active:
            if each.state.deadline is None or each.state.deadline < at:
                each.wake()

    # On threads of the pool -------------------------------------------------------------------------------------------

    def _make_again(self) -> None:
        try:
            self._ports.runs.ensure()
        except LightLinkError as exc:
            _log.debug("lightlink: the stream of runs: %s", exc)

    def _take(self, pulled: Pulled) -> None:
        """Do what a revision asks for."""
        try:
            state = read_state(pulled.message.data, as_text(pulled.message.subject))
        except DecodeError as exc:
            _log.warning("lightlink: a run cannot be worked on: %s", exc)
            self._pulls.end(pulled)
            return
        run = None
        try:
            run = self._plan(state.run_id)
            delay = self._begin(run, state, pulled)
        except Conflict:
            delay = 0.0
        except Exception as exc:
            delay = trouble.settle(self._ports.runs, run, state, pulled.message.seq, exc)
        if delay is not None:
            self._let_go(pulled, delay)

    def _plan(self, run_id: str) -> RunPlan:
        run = self._plans.get(run_id)
        if run is None:
            run = self._ports.runs.plan(run_id)
            with self._lock:
                while len(self._plans) >= _PLANS_KEPT:
                    self._plans.pop(next(iter(self._plans)))
                self._plans[run_id] = run
        return run

    def _begin(self, run: RunPlan, state: RunState, pulled: Pulled) -> float | None:
        """Return when to look at it again, 0 for never; None while it is worked on."""
        # What was delivered before, to one who died, may have been overtaken since.
        if pulled.attempt > 1 and self._is_overtaken(run.run_id, pulled):
            return 0.0
        if state.ended:
            release_all(self._ports.runs, run, pulled.message.seq)
            return 0.0
        if state.state == records.PAUSED:
            return self._stay_paused(run, state, pulled.message.seq)
        if state.stage in (records.LOCK, records.SOAK, records.GATE, records.HOLD):
            return self._wait(run, state, pulled.message.seq)
        active = Active(self._ports, run, state, pulled, self._settle)
        hold = self._hold(run) if state.stage == records.WAVE else None
        if hold is not None and not active.has_begun():
            at = self._ports.runs.clock.now()
            self._ports.runs.write_state(machine.held(state, at, *hold), pulled.message.seq)
            return 0.0
        return self._work_on(active)

    def _work_on(self, active: Active) -> float | None:
        run_id, told = active.run.run_id, 0
        while True:
            with self._lock:
                if self._stopped:
                    return _LEAST_DELAY
                before = self._active.get(run_id)
                if before is not None and before.revision > active.revision:
                    return 0.0  # threads may come to two revisions in any order
                newest = self._told.get(run_id, 0)
                if newest <= max(told, active.revision):
                    self._active[run_id] = active  # from here on it is told itself
                    break
            if self._is_overtaken(run_id, active.pulled):
                return 0.0
            told = newest
        if before is not None:
            before.drop()
            if before.revision < active.revision:
                self._let_go(before.pulled, 0.0)
        active.begin()
        return None

    def _is_overtaken(self, run_id: str, pulled: Pulled) -> bool:
        return self._ports.runs.state(run_id)[1] > pulled.message.seq

    def _wait(self, run: RunPlan, state: RunState, revision: int) -> float:
        """Return how long a run has to wait still, 0 once it has moved on."""
        at = self._ports.runs.clock.now()
        if state.deadline is not None and at > state.deadline:
            following: RunState | None = machine.overdue(run, state, at)
        elif state.stage == records.LOCK:
            following = machine.went_on(run, state, at)
            holder = self._ports.runs.take_locks(names_of_locks(run), following, revision)
            if holder is None:
                return 0.0  # this was stored with them
            following = self._after_locked(run, state, at, holder)
        else:
            following = self._after_waiting(run, state, at)
        if following is not None:
            self._ports.runs.write_state(following, revision)
            return 0.0
        if state.stage in (records.LOCK, records.HOLD):
            return _LOCKED_SECONDS
        instants = [instant for instant in (state.until, state.deadline) if instant is not None]
        remaining = min(((instant - at).total_seconds() for instant in instants), default=_MOST_DELAY)
        return min(max(remaining, 0.0) + _LEAST_DELAY, _MOST_DELAY)

    def _stay_paused(self, run: RunPlan, state: RunState, revision: int) -> float:
        """Return when to look at a paused run again, 0 once it is too old to go on; a resumed one has moved on."""
        at = self._ports.runs.clock.now()
        if run.kept_until is None:
            return _MOST_DELAY
        if at < run.kept_until:
            return min((run.kept_until - at).total_seconds() + _LEAST_DELAY, _MOST_DELAY)
        self._ports.runs.write_state(machine.paused_too_long(run, state, at), revision)
        return 0.0

    def _after_waiting(self, run: RunPlan, state: RunState, at: datetime) -> RunState | None:
        if state.stage == records.HOLD:
            return machine.let_go(state, at) if self._hold(run) is None else None
        if state.until is None or at + timedelta(milliseconds=1) < state.until:
            return None
        if state.stage == records.GATE:
            return machine.halted(run, state, at, "nobody approved in time", "expired")
        return machine.went_on(run, state, at)

    def _hold(self, run: RunPlan) -> tuple[datetime | None, str] | None:
        """Return until when no wave of a run may begin, and why; None when one may."""
        at = self._ports.runs.clock.now()
        freeze = self._ports.definitions.freeze()
        if freeze.is_on and (freeze.until is None or at < freeze.until):
            return freeze.until, f"frozen by {freeze.by}" + (f": {freeze.reason}" if freeze.reason else "")
        window = run.plan.window
        opening = at if window is None else opens_at(window, at)
        return None if opening <= at else (opening, "its window has not opened")

    def _after_locked(self, run: RunPlan, state: RunState, at: datetime, holder: str) -> RunState | None:
        if state.verdict:
            return None  # it is to be rolled back: every undo is tried
        if run.plan.on_locked == "fail":
            return machine.halted(run, state, at, f"run {holder} has a lock that it needs", "locked out")
        return self._replace(run, state, at, holder) if run.plan.on_locked == "replace" else None

    def _replace(self, run: RunPlan, state: RunState, at: datetime, holder: str) -> RunState | None:
        """Cancel the run that has a lock; or give way to it, where it was started later in order to replace."""
        other, revision = self._ports.runs.state(holder)
        plan = self._plan(holder)
        if (other.started_at, holder) > (state.started_at, run.run_id):
            later = plan.plan.on_locked == "replace"
            return machine.cancelled(run, state, at, other.started_by, f"replaced by run {holder}") if later else None
        # Refused where it ends already; where it has moved on, it is looked at again.
        with contextlib.suppress(RunRefused, Conflict):
            following = machine.cancelled(plan, other, at, state.started_by, f"replaced by run {run.run_id}")
            self._ports.runs.write_state(following, revision)
        return None

    def _settle(self, active: Active, delay: float) -> None:
        with self._lock:
            if self._active.get(active.run.run_id) is active:
                del self._active[active.run.run_id]
        self._let_go(active.pulled, delay)

    def _let_go(self, pulled: Pulled, delay: float) -> None:
        if delay > 0:
            self._pulls.hand_back(pulled, delay)
        else:
            self._pulls.ack(pulled)
