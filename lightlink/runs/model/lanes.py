"""The lanes of a stage: one for each target, or one in all where steps are done once for the run. Pure.

A lane has tasks in an order, each a step or its undoing, and what became of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import attrs

from lightlink.runs.model.checks import predecessors
from lightlink.runs.model.records import Attention, RunPlan, Target

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from lightlink.commands.model import StatusRecord, UndoTold
    from lightlink.runs.model.plan_model import Step

DONE: Final = "done"
SKIPPED: Final = "skipped"  # its condition did not hold
FAILED: Final = "failed"
NOT_RUN: Final = "not_run"
UNKNOWN: Final = "unknown"  # it may have run, or half
LEFT: Final = "left"  # never begun, as its lane had failed before, or the run was halted
OUTCOMES = (DONE, SKIPPED, FAILED, NOT_RUN, UNKNOWN, LEFT)
BAD = frozenset({FAILED, NOT_RUN, UNKNOWN})

DO, UNDO = "do", "undo"
# Why the commands of a halted run are cancelled that were not begun.
BARRED = "the run was halted before"
# What the run does itself, beside calls; no service has such names.
SNAPSHOT, RESTORE = "snapshot", "restore"
RUN_ITSELF = ""  # the client id of calls, which no agent takes


@attrs.frozen
class Attempt:
    """A command to send, or a service to call (then ``client_id`` is empty), under an id that anybody would give it."""

    lane: str
    task: str
    number: int
    command_id: str
    client_id: str
    what: str  # the command's type, or service.method
    payload: Any
    timeout: float
    priority: int
    idempotent: bool


@attrs.frozen
class Task:
    """A step of a lane, or its undoing, once all of ``after`` have ended."""

    step: Step
    phase: str = DO
    after: tuple[str, ...] = ()
    client_id: str = RUN_ITSELF

    @property
    def name(self) -> str:
        """Its step's name, of which a lane has one at most."""
        return self.step.name

    @property
    def timeout(self) -> float:
        """The seconds that an attempt has."""
        return self.step.undo_seconds if self.phase == UNDO else self.step.seconds


@attrs.define
class Outcome:
    """What became of a task: one of `OUTCOMES`, and why. ``status`` is that of the last attempt."""

    name: str
    error: str = ""
    status: StatusRecord | None = None
    begun: bool = False  # an agent has taken it, in this attempt or an earlier one


@attrs.define(eq=False)
class Lane:
    """What is done to one target. With ``keep_going`` each task is tried, whatever became of those before."""

    key: str
    target: Target
    tasks: list[Task]
    keep_going: bool = False
    outcomes: dict[str, Outcome] = attrs.Factory(dict)
    under_way: dict[str, int] = attrs.Factory(dict)  # the number of each task's attempt
    results: dict[str, Any] = attrs.Factory(dict)
    undo_told: dict[str, UndoTold | None] = attrs.Factory(dict)  # what agents said undoes a task

    def has(self, name: str) -> bool:
        """Tell whether one of its tasks has a name."""
        return any(task.name == name for task in self.tasks)

    @property
    def is_stopped(self) -> bool:
        """Whether one of its tasks has failed, or was not to be begun any more."""
        return any(outcome.name in BAD or outcome.name == LEFT for outcome in self.outcomes.values())

    @property
    def ended(self) -> bool:
        """Whether nothing is under way, nor to come."""
        return len(self.outcomes) == len(self.tasks)


# Which lanes a stage has ---------------------------------------------------------------------------------------------


def wave_lanes(run: RunPlan, targets: Iterable[Target]) -> list[Lane]:
    """Return a lane for each of some targets, with the steps of the waves."""
    plan = run.plan
    after = {step.name: tuple(predecessors(plan, step)) for step in plan.wave_steps}
    return [
        Lane(
            target.client_id,
            target,
            [
                Task(step, DO, after[step.name], target.client_id if step.command else RUN_ITSELF)
                for step in plan.wave_steps
            ],
        )
        for target in targets
    ]


def once_lane(steps: Sequence[Step], only_always: bool = False) -> Lane:
    """Return the lane of steps that are done once for the run."""
    wanted = [step for step in steps if step.always or not only_always]
    tasks = [
        Task(step, DO, (wanted[index - 1].name,) if index else (), step.targets[0] if step.command else RUN_ITSELF)
        for index, step in enumerate(wanted)
    ]
    return Lane("run", Target(""), tasks)


def undo_lanes(done: Iterable[Lane]) -> tuple[list[Lane], list[Attention]]:
    """Return what takes back what was done in some lanes, in reverse, and what nobody but people can settle."""
    lanes, attention = [], []
    for lane in done:
        tasks: list[Task] = []
        for task in reversed(lane.tasks):
            outcome = lane.outcomes.get(task.name)
            if outcome is None or task.step.call:
                continue
            wanted = _is_to_be_undone(task.step, outcome)
            if wanted is None:
                attention.append(Attention(lane.target.client_id, task.name, f"may have run: {outcome.error}"))
            if wanted:
                tasks.append(Task(task.step, UNDO, tuple(each.name for each in tasks[-1:]), task.client_id))
        if tasks:
            told = {"results": dict(lane.results), "undo_told": lane.undo_told}
            lanes.append(Lane(lane.key, lane.target, tasks, keep_going=True, **told))
    return lanes, attention


def _is_to_be_undone(step: Step, outcome: Outcome) -> bool | None:
    """Tell whether a step is to be taken back; None if it may have run, and nothing says how that is taken back."""
    if step.snapshot:  # it changes nothing, and one that failed has nothing to write back
        return step.undo is not None and outcome.name == DONE
    if step.undo is None:
        return None if outcome.name == UNKNOWN else False
    if outcome.name == DONE:
        return True
    if step.undo_on == "begun" and outcome.begun:
        return True
    return None if outcome.name == UNKNOWN else False


def lane_outcome(lane: Lane) -> str:
    """Return what a lane came to as a whole."""
    names = {outcome.name for outcome in lane.outcomes.values()}
    for name in (UNKNOWN, FAILED, NOT_RUN, LEFT):
        if name in names:
            return name
    return DONE if lane.ended else "open"
