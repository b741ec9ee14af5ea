"""A run of a plan, as those who start it, watch it and decide about it see it."""

from __future__ import annotations

import contextlib
from collections import Counter
from typing import TYPE_CHECKING, Any

from lightlink.commands.manager.losses import revision_of
from lightlink.commands.store import checks
from lightlink.commands.store.access import Conflict
from lightlink.concurrency.deadline import Deadline
from lightlink.concurrency.threads import Condition, wait_until
from lightlink.errors import DecodeError, StoreUnavailable
from lightlink.protocol import html, subjects
from lightlink.runs import survey
from lightlink.runs.model import machine
from lightlink.runs.store import read_state
from lightlink.validators import wait_limit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lightlink.runs.model.records import Attention, RunPlan, RunState
    from lightlink.runs.survey import TargetResult
    from lightlink.runs.work import Ports

# How often the store is asked while nothing is heard.
_POLL_SECONDS = 2.0


class PlanRun:
    """A run, made by `Orchestrator.start` or `run`. ``plan``, ``params`` and ``digest`` are those it began with.

    What people do to it is said in the name of the orchestrator, or of ``by``. Those methods raise RunRefused where a
    run is not where that can be done, and StoreUnavailable.
    """

    def __init__(self, ports: Ports, run: RunPlan, state: RunState | None = None) -> None:
        self.run_id = run.run_id
        self.plan = run.plan
        self.params = run.params
        self.digest = run.digest
        self.started_by = run.started_by
        self._run = run
        self._ports = ports
        self._last = state

    @property
    def target_ids(self) -> list[str]:
        """The ids of its targets, in the order of its waves, as they were found at its start."""
        return [target.client_id for target in self._run.targets]

    # Looking ----------------------------------------------------------------------------------------------------------

    def refresh(self) -> RunState:
        """Read the run's record as it stands now; raises RunNotFound, StoreUnavailable."""
        self._last, _ = self._ports.runs.state(self.run_id)
        return self._last

    @property
    def state(self) -> str:
        """The run's state, read now: see `lightlink.runs.model.records.STATES`."""
        return self.refresh().state

    @property
    def attention(self) -> list[Attention]:
        """What only people can settle, read now."""
        return self.refresh().attention

    def counts(self) -> dict[str, int]:
        """Return how many targets came to what: done, failed, not_run, unknown, left, open."""
        return dict(Counter(each.outcome for each in self.targets()))

    def steps(self) -> dict[str, dict[str, int]]:
        """Return, for each step, how many targets came to what."""
        return survey.steps(self._ports, self._run, self.refresh())

    def targets(self, outcome: str | None = None) -> list[TargetResult]:
        """Return what each target came to, or those with one outcome."""
        found = survey.results(self._ports, self._run, self.refresh())
        return [each for each in found if outcome in (None, each.outcome)]

    def history(self) -> list[RunState]:
        """Return every state that the run has come to: when, by whom, why."""
        return [state for state, _ in self._ports.runs.history(self.run_id)]

    def wait(self, timeout: float | None = None) -> str | None:
        """Wait until the run has ended and return its state; None after ``timeout`` seconds."""
        for state in self.follow(timeout):
            if state.ended:
                return state.state
        return None

    def wait_for(self, *states: str, timeout: float | None = None) -> str | None:
        """Wait until the run is in one of some states, or has ended, and return it; None after ``timeout`` seconds."""
        for state in self.follow(timeout):
            if state.state in states or state.ended:
                return state.state
        return None

    def __iter__(self) -> Iterator[RunState]:
        """Yield the run's states from now on, until it has ended."""
        return self.follow(None)

    def follow(self, timeout: float | None = None) -> Iterator[RunState]:
        """Yield the run's states from now on, until it has ended or ``timeout`` seconds have passed."""
        deadline = Deadline(None if timeout is None else wait_limit(timeout))
        heard: list[tuple[RunState, int]] = []
        changed = Condition()

        def hear(_subject: bytes, _reply: bytes, data: bytes, headers: bytes | None) -> None:
            try:
                state = read_state(data, subjects.run_event(self.run_id))
            except DecodeError as exc:
                connection.session.report(exc)
                return
            with changed:
                heard.append((state, revision_of(headers)))
                changed.notify_all()

        connection = self._ports.runs.connection
        route = connection.subscribe(subjects.run_event(self.run_id), "", hear)
        try:
            yield from self._states(heard, changed, deadline)
        finally:
            connection.session.unroute(route, 1.0)

    def _states(self, heard: list[tuple[RunState, int]], changed: Condition, deadline: Deadline) -> Iterator[RunState]:
        # By revision: the clocks of those who write states may differ.
        last, number = 0, 0
        while True:
            with changed:
                fresh = [(state, revision) for state, revision in heard[number:] if revision > last]
                number = len(heard)
            if not fresh:
                with contextlib.suppress(StoreUnavailable):  # it is asked again
                    fresh = [self._ports.runs.state(self.run_id)]
            for state, revision in fresh:
                if revision != last:
                    self._last, last = state, revision
                    yield state
                    if state.ended:
                        return
            left = min(_POLL_SECONDS, deadline.remaining())
            if left <= 0:
                return
            with changed:
                wait_until(changed, lambda: len(heard) > number, left)  # noqa: B023 - awaited here

    # Deciding ---------------------------------------------------------------------------------------------------------

    def approve(self, comment: str = "", *, by: str | None = None, digest: str | None = None) -> RunState:
        """Approve what waits at a gate. With a ``digest`` only if that is what the run carries out."""
        checks.text("comment", comment, may_be_empty=True)
        return self._decide(machine.approved, by, comment, digest)

    def reject(self, comment: str = "", *, by: str | None = None, digest: str | None = None) -> RunState:
        """Reject what waits at a gate: the run ends as its plan's ``on_failure`` says."""
        checks.text("comment", comment, may_be_empty=True)
        return self._decide(machine.rejected, by, comment, digest)

    def pause(self, reason: str = "", *, by: str | None = None) -> RunState:
        """Have nothing new begin until `resume`; what runs goes on, and the clocks of soaks and gates stand still."""
        return self._decide(machine.paused, by, checks.text("reason", reason, may_be_empty=True))

    def resume(self, *, by: str | None = None) -> RunState:
        """Let a paused run go on."""
        return self._decide(machine.resumed, by)

    def cancel(self, reason: str = "", *, by: str | None = None) -> RunState:
        """End the run: nothing new begins, commands that run are told. What was done stays; see `rollback`."""
        return self._decide(machine.cancelled, by, checks.text("reason", reason, may_be_empty=True))

    def rollback(self, reason: str = "", *, by: str | None = None) -> RunState:
        """Take back what was done, also of a run that has ended; what could not be taken back before is tried again."""
        return self._decide(machine.rollback_asked, by, checks.text("reason", reason, may_be_empty=True))

    def retry(self, *, by: str | None = None) -> RunState:
        """Try again what has failed or was not begun; what is done is not repeated, nor what nobody knows of."""
        return self._decide(machine.retried, by)

    def _decide(self, move: Callable[..., RunState], by: str | None, *facts: Any) -> RunState:
        by = self._ports.name if by is None else checks.text("by", by)
        while True:
            state, revision = self._ports.runs.state(self.run_id)
            following = move(self._run, state, self._ports.runs.clock.now(), by, *facts)
            try:
                self._ports.runs.write_state(following, revision)
            except Conflict:
                continue  # it has just moved; it is looked at again
            self._last = following
            return following

    def __repr__(self) -> str:
        state = self._last.state if self._last is not None else "not read yet"
        return f"<PlanRun {self.run_id} of {self.plan.name!r}: {state}>"

    def _repr_html_(self) -> str:
        """Return how a notebook shows it."""
        state = self.refresh()
        facts = {"state": state.state, "wave": state.wave + 1, **self.counts(), "reason": state.reason}
        return html.facts(f"{self.plan.name} {self.plan.version}", facts)
