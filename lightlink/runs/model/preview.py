"""What a run would send, worked out before it is started. Pure; results that there are not yet stay references."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from lightlink.runs.model import references
from lightlink.runs.model.references import MissingReference

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lightlink.runs.model.plan_model import Step
    from lightlink.runs.model.records import RunPlan, Target

_KNOWN = ("params", "label", "client_id")


@attrs.frozen
class PlannedMessage:
    """What a step would send to an agent (a ``once`` step that calls or keeps state: to none), in a wave from 1 on.

    ``wave`` is 0 for steps that are done once. ``what`` is the command, the call or the snapshot. In ``payload`` the
    parameters, labels and ids are filled in, everything else is as the plan has it. ``conditional`` tells that the
    step has a condition; ``error`` why it would not be sent at all.
    """

    wave: int
    step: str
    client_id: str
    what: str
    payload: Any = None
    conditional: bool = False
    error: str = ""


def messages_of(run: RunPlan) -> list[PlannedMessage]:
    """Return what a run would send if every condition held and nothing failed, in its order."""
    return list(_messages(run))


def _messages(run: RunPlan) -> Iterator[PlannedMessage]:
    for step in run.plan.first_steps:
        yield _message(run, 0, step, None)
    for number, targets in enumerate(run.waves, 1):
        for step in run.plan.wave_steps:
            for target in targets:
                yield _message(run, number, step, target)
    for step in run.plan.last_steps:
        yield _message(run, 0, step, None)


def _message(run: RunPlan, wave: int, step: Step, target: Target | None) -> PlannedMessage:
    given, error = step.payload if step.command else step.args or None, ""

    def lookup(path: list[str]) -> Any:
        root, *rest = path
        text = ".".join(path)
        if root not in _KNOWN or (target is None and root != "params"):
            return f"${{{text}}}"
        if root == "params":
            return references.descend(run.params, rest, text)
        labels = {} if target is None else target.labels
        return run_target if root == "client_id" else references.descend(labels, [".".join(rest)], text)

    run_target = target.client_id if target is not None else "".join(step.targets)
    try:
        given = references.resolve(given, lookup)
    except MissingReference as exc:
        error = str(exc)
    what = step.command or step.call or step.snapshot
    return PlannedMessage(wave, step.name, run_target, what, given, step.when is not None, error)
