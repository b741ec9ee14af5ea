"""What is to be sent next, and what became of it, worked out from statuses alone. Pure: no clock, no network.

A stage has lanes, one a target (one in all where steps are done once for the run); a lane has tasks in an order.
From the same statuses every manager works out the same attempts with the same ids, so any of them may do it.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from lightlink.commands import model
from lightlink.runs.model import conditions, references
from lightlink.runs.model.conditions import CannotCompare
from lightlink.runs.model.lanes import (
    BAD,
    BARRED,
    DO,
    DONE,
    FAILED,
    LEFT,
    NOT_RUN,
    RESTORE,
    SKIPPED,
    SNAPSHOT,
    UNDO,
    UNKNOWN,
    Attempt,
    Lane,
    Outcome,
    Task,
    lane_outcome,
)
from lightlink.runs.model.plan_model import Step, Undo
from lightlink.runs.model.records import Attention, RunPlan, command_id_of
from lightlink.runs.model.references import MissingReference, descend

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from lightlink.commands.model import StatusRecord


class Stage:
    """Some lanes of a run. ``results`` are those of steps that were done once before; ``wave`` is told to plans.

    Give it what is known by `learn_all`, then `take` and send, and `learn` what becomes of that. With a ``barrier`` a
    task is begun once those before it have ended in every lane.
    """

    def __init__(
        self,
        run: RunPlan,
        lanes: Sequence[Lane],
        epoch: int,
        *,
        wave: int = 0,
        barrier: bool = True,
        results: Mapping[str, Any] | None = None,
    ) -> None:
        self._run = run
        self.lanes = {lane.key: lane for lane in lanes}
        self._epoch = epoch
        self._wave = wave
        self._barrier = barrier
        self._results = dict(results or {})
        self._ready: deque[Attempt] = deque()
        self._ended_in = dict.fromkeys((task.name for lane in lanes for task in lane.tasks), 0)
        self._has = {name: sum(lane.has(name) for lane in lanes) for name in self._ended_in}
        self._of: dict[str, tuple[Lane, Task, int, int]] = {}
        for lane in lanes:
            for task in lane.tasks:
                for era in range(epoch + 1):
                    for number in range(task.step.retries + 1):
                        self._of[self._id(lane, task, era, number)] = (lane, task, era, number)
        self._known: dict[str, StatusRecord] = {}
        self._open = {lane.key for lane in lanes if lane.tasks}
        self._failed: set[str] = set()
        self.is_idle = True  # nothing of this epoch has begun

    def _id(self, lane: Lane, task: Task, epoch: int, number: int) -> str:
        return command_id_of(self._run.run_id, task.name, lane.key, task.phase, epoch, number)

    # What is known --------------------------------------------------------------------------------------------------

    def ids(self) -> list[tuple[str, str]]:
        """Return (client id, command id) of every attempt there may be, or may have been."""
        return [(task.client_id, command_id) for command_id, (_, task, _, _) in self._of.items()]

    def timeout_of(self, command_id: str) -> float:
        """Return the seconds that an attempt has."""
        return self._of[command_id][1].timeout

    def ids_to_bar(self) -> list[tuple[str, str]]:
        """Return those that are not known to have ended, and which a manager that was held up may yet send."""
        return [
            (task.client_id, command_id)
            for command_id, (lane, task, era, _) in self._of.items()
            if era == self._epoch
            and _may_begin(lane, task)
            and not task.step.always
            and not _has_ended(self._known.get(command_id))
        ]

    def learn_all(self, statuses: Mapping[str, StatusRecord | None]) -> None:
        """Take what is known of attempts, by command id, and work out what is to be done."""
        for command_id, status in statuses.items():
            if status is not None and command_id in self._of:
                self._known[command_id] = status
                self.is_idle = self.is_idle and self._of[command_id][2] != self._epoch
        for lane in self.lanes.values():
            self._advance(lane)

    def learn(self, command_id: str, status: StatusRecord) -> None:
        """Take what became of an attempt."""
        lane, task, _, number = self._of[command_id]
        self._known[command_id] = status
        if status.ended and lane.under_way.get(task.name) == number:
            self._advance(lane)

    def settle_begun(self) -> None:
        """Have what an epoch before began, and this one did not, come to what it came to then: nothing more begins."""
        for lane in self.lanes.values():
            for task in lane.tasks:
                if _may_begin(lane, task):
                    self._settle_as_before(lane, task)

    def _settle_as_before(self, lane: Lane, task: Task) -> None:
        for era in reversed(range(self._epoch)):
            for number in reversed(range(task.step.retries + 1)):
                status = self._known.get(self._id(lane, task, era, number))
                if status is not None and status.ended and status.attempt:
                    self._end(lane, task, self.judge(lane, task, status))
                    return

    # What is to be done ---------------------------------------------------------------------------------------------

    def take(self, room: int | None = None) -> list[Attempt]:
        """Return the attempts to send now, at most ``room``; they count as under way."""
        count = len(self._ready) if room is None else max(0, min(room, len(self._ready)))
        if count:
            self.is_idle = False
        return [self._ready.popleft() for _ in range(count)]

    @property
    def waiting(self) -> int:
        """How many attempts are ready, and not taken yet."""
        return len(self._ready)

    @property
    def under_way(self) -> int:
        """How many attempts have been taken, and have not ended."""
        return sum(len(lane.under_way) for lane in self.lanes.values()) - len(self._ready)

    @property
    def is_done(self) -> bool:
        """Whether every lane has ended."""
        return not self._open

    @property
    def failures(self) -> int:
        """How many lanes have failed."""
        return len(self._failed)

    def counts(self) -> dict[str, int]:
        """Return how many lanes came to what: done, failed, unknown, not_run, or open."""
        found: dict[str, int] = {}
        for lane in self.lanes.values():
            name = lane_outcome(lane)
            found[name] = found.get(name, 0) + 1
        return found

    def first_error(self) -> str:
        """Return what went wrong first, in the order of the lanes; empty for nothing."""
        for lane in self.lanes.values():
            for name, outcome in lane.outcomes.items():
                if outcome.name in BAD:
                    return f"{name} on {lane.key}: {outcome.error or outcome.name}"
        return ""

    # ----------------------------------------------------------------------------------------------------------------

    def _advance(self, lane: Lane) -> None:
        """Settle what can be settled in a lane, and have begun what can be begun; others may wait for it."""
        todo = [lane]
        while todo:
            each = todo.pop()
            for name in list(self._settle(each)):
                self._ended_in[name] += 1
                if self._barrier and self._ended_in[name] == self._has[name]:
                    todo = list(self.lanes.values())

    def _settle(self, lane: Lane) -> Iterator[str]:
        moved = True
        while moved:
            moved = False
            for task in lane.tasks:
                if task.name not in lane.outcomes and self._step(lane, task):
                    moved = True
                    yield task.name

    def _step(self, lane: Lane, task: Task) -> bool:
        """Take a task a step further; tell whether that is its end."""
        if task.name in lane.under_way:
            return self._look_at(lane, task)
        held = self._held_outcome(lane, task)
        if held is not None:
            return self._end(lane, task, held)
        if not all(self._has_ended(lane, name) for name in task.after):
            return False
        if lane.is_stopped and not lane.keep_going and not task.step.always:
            return self._end(lane, task, Outcome(LEFT))
        try:
            when = task.step.when if task.phase == DO else None
            if when is not None and not conditions.holds(when, self._lookup(lane)):
                return self._end(lane, task, Outcome(SKIPPED))
            return self._begin(lane, task, 0)
        except (MissingReference, CannotCompare) as exc:
            return self._end(lane, task, Outcome(NOT_RUN, str(exc)))

    def _has_ended(self, lane: Lane, name: str) -> bool:
        if not self._barrier:
            return name in lane.outcomes or not lane.has(name)
        return self._ended_in.get(name, 0) == self._has.get(name, 0)

    def _held_outcome(self, lane: Lane, task: Task) -> Outcome | None:
        """Return the outcome of a task that an epoch before has settled: it was done, or nobody knows."""
        unknown = None
        for era in range(self._epoch):
            for number in range(task.step.retries + 1):
                status = self._known.get(self._id(lane, task, era, number))
                outcome = self.judge(lane, task, status) if status is not None and status.ended else None
                if outcome is not None and outcome.name == DONE:
                    return outcome
                if outcome is not None and outcome.name == UNKNOWN and not task.step.idempotent:
                    unknown = outcome
        return unknown

    def _begin(self, lane: Lane, task: Task, number: int) -> bool:
        command_id = self._id(lane, task, self._epoch, number)
        has_ended = _has_ended(self._known.get(command_id))
        if not has_ended:
            # Before it counts as under way: what refers to nothing never is, and would keep its place for ever.
            self._ready.append(self._attempt(lane, task, number, command_id))
        lane.under_way[task.name] = number
        return has_ended and self._look_at(lane, task)

    def _look_at(self, lane: Lane, task: Task) -> bool:
        number = lane.under_way[task.name]
        status = self._known.get(self._id(lane, task, self._epoch, number))
        if status is None or not status.ended:
            return False
        del lane.under_way[task.name]
        outcome = self.judge(lane, task, status)
        if outcome.name == LEFT and number:
            # What counts is how the attempt ended after which no other was begun.
            before = self._known[self._id(lane, task, self._epoch, number - 1)]
            return self._end(lane, task, self.judge(lane, task, before))
        if number < task.step.retries and self._is_worth_another(task, outcome):
            return self._begin(lane, task, number + 1)
        return self._end(lane, task, outcome)

    @staticmethod
    def _is_worth_another(task: Task, outcome: Outcome) -> bool:
        if outcome.status is not None and outcome.status.status_detail == model.CANCELLED:
            return False  # somebody did not want it: a retry would be what was barred
        return outcome.name in (FAILED, NOT_RUN) or (outcome.name == UNKNOWN and task.step.idempotent)

    def _end(self, lane: Lane, task: Task, outcome: Outcome) -> bool:
        outcome.begun = self._has_begun(lane, task)
        lane.outcomes[task.name] = outcome
        if outcome.status is not None and outcome.name == DONE and task.phase == DO:
            lane.results[task.name] = outcome.status.result
            lane.undo_told[task.name] = outcome.status.undo
        if outcome.name in BAD:
            self._failed.add(lane.key)
        if lane.ended:
            self._open.discard(lane.key)
        return True

    def _has_begun(self, lane: Lane, task: Task) -> bool:
        return any(
            (status := self._known.get(self._id(lane, task, era, number))) is not None and status.attempt > 0
            for era in range(self._epoch + 1)
            for number in range(task.step.retries + 1)
        )

    def _attempt(self, lane: Lane, task: Task, number: int, command_id: str) -> Attempt:
        step = task.step
        if task.phase == UNDO:
            what, payload = self._undo_of(lane, step)
        else:
            what = step.command or step.call or SNAPSHOT
            given = step.payload if step.command else step.snapshot or step.args
            payload = references.resolve(given, self._lookup(lane))
        return Attempt(
            lane=lane.key,
            task=task.name,
            number=number,
            command_id=command_id,
            client_id=task.client_id,
            what=what,
            payload=payload,
            timeout=task.timeout,
            priority=step.priority,
            idempotent=step.idempotent or bool(step.snapshot),
        )

    def _undo_of(self, lane: Lane, step: Step) -> tuple[str, Any]:
        if step.snapshot:
            return RESTORE, lane.results[step.name]
        if isinstance(step.undo, Undo):
            return step.undo.command, references.resolve(step.undo.payload, self._lookup(lane))
        told = lane.undo_told.get(step.name)
        if told is None:
            raise MissingReference(step.name, "its agent has not said what undoes it")
        return told.command, told.payload

    # What things come to --------------------------------------------------------------------------------------------

    def judge(self, lane: Lane, task: Task, status: StatusRecord) -> Outcome:
        """Return what an ended attempt came to."""
        if status.status == model.COMPLETED:
            return self._expected(lane, task, status)
        if status.status_detail == model.CANCELLED and status.cancel_reason == BARRED and not status.attempt:
            return Outcome(LEFT, "", status)
        if status.status_detail in (model.DELIVERY_TIMEOUT, model.REJECTED):
            return Outcome(NOT_RUN, status.error, status)
        if status.outcome_unknown or status.status_detail in (
            model.EXECUTION_TIMEOUT,
            model.INTERRUPTED,
            model.UNREADABLE,
        ):
            return Outcome(UNKNOWN, status.error, status)
        begun = status.attempt > 0
        return Outcome(FAILED if begun else NOT_RUN, status.error or status.status_detail, status)

    def _expected(self, lane: Lane, task: Task, status: StatusRecord) -> Outcome:
        if task.phase == UNDO or task.step.expect is None:
            return Outcome(DONE, "", status)

        def lookup(path: list[str]) -> Any:
            if path[0] == "result":
                return descend(status.result, path[1:], ".".join(path))
            return self._lookup(lane)(path)

        try:
            fine, error = conditions.holds(task.step.expect, lookup), "its result is not as expected"
            reason = "" if fine else conditions.broken(task.step.expect, lookup)
            error += f": {reason}" if reason else ""
        except (MissingReference, CannotCompare) as exc:
            fine, error = False, f"its result is not as expected: {exc}"
        return Outcome(DONE, "", status) if fine else Outcome(FAILED, error, status)

    def _lookup(self, lane: Lane) -> references.Lookup:
        run = self._run

        def lookup(path: list[str]) -> Any:
            root, *rest = path
            text = ".".join(path)
            if root == "client_id":
                return lane.target.client_id
            if root == "params":
                return descend(run.params, rest, text)
            if root == "label":
                return descend(lane.target.labels, [".".join(rest)], text)
            if root == "run":
                return descend(self._run_facts(), rest, text)
            for results in (lane.results, self._results):
                if root in results:
                    return descend(results[root], rest[1:], text)
            raise MissingReference(text, f"the step {root!r} has no result")

        return lookup

    def _run_facts(self) -> dict[str, Any]:
        run = self._run
        return {
            "id": run.run_id,
            "plan": run.plan.name,
            "version": run.plan.version,
            "started_by": run.started_by,
            "reason": run.reason,
            "wave": self._wave + 1,
        }


def _may_begin(lane: Lane, task: Task) -> bool:
    """Tell whether a task is one that this run has not settled, or only by not beginning it."""
    outcome = lane.outcomes.get(task.name)
    return outcome is None or outcome.name == LEFT


def _has_ended(status: StatusRecord | None) -> bool:
    return status is not None and status.ended


def undo_attention(stage: Stage) -> list[Attention]:
    """Return what a rollback could not take back."""
    return [
        Attention(lane.target.client_id, name, f"not taken back: {outcome.error or outcome.name}")
        for lane in stage.lanes.values()
        for name, outcome in lane.outcomes.items()
        if outcome.name != DONE
    ]
