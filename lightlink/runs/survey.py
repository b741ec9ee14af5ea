"""Look at a run from outside: what each target came to, worked out from the statuses of its commands."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from lightlink.protocol import html
from lightlink.runs.model.lanes import OUTCOMES, Lane, lane_outcome, once_lane, wave_lanes
from lightlink.runs.model.stage import Stage
from lightlink.runs.work import read_statuses

if TYPE_CHECKING:
    from lightlink.runs.model.records import RunPlan, RunState
    from lightlink.runs.work import Ports

OPEN = "open"


@attrs.frozen
class TargetResult:
    """What a target came to: ``outcome`` is done, failed, not_run, unknown, left or open; ``step`` where, and why."""

    client_id: str
    wave: int
    outcome: str
    step: str = ""
    error: str = ""

    def _repr_html_(self) -> str:
        """Return how a notebook shows it."""
        return html.facts(self.client_id, attrs.asdict(self))


def lanes_so_far(ports: Ports, run: RunPlan, state: RunState) -> list[tuple[int, Lane]]:
    """Return the lanes of the waves that were begun, with the number of each one's wave."""
    if not state.waves_begun:
        return []
    first = once_lane(run.plan.first_steps)
    _learn(ports, run, Stage(run, [first], state.epoch))
    found = []
    for wave, targets in enumerate(run.waves[: state.waves_begun]):
        stage = Stage(run, wave_lanes(run, targets), state.epoch, barrier=run.plan.barrier, results=first.results)
        _learn(ports, run, stage)
        found += [(wave, lane) for lane in stage.lanes.values()]
    return found


def results(ports: Ports, run: RunPlan, state: RunState) -> list[TargetResult]:
    """Return what each target of a run came to, in the order of the waves."""
    begun = {lane.key: _result(wave, lane, ended=state.ended) for wave, lane in lanes_so_far(ports, run, state)}
    rest = "left" if state.ended else OPEN
    return [
        begun.get(target.client_id) or TargetResult(target.client_id, wave, rest)
        for wave, targets in enumerate(run.waves)
        for target in targets
    ]


def steps(ports: Ports, run: RunPlan, state: RunState) -> dict[str, dict[str, int]]:
    """Return how many targets came to what, for each step of the waves; those not begun are open."""
    lanes = [lane for _, lane in lanes_so_far(ports, run, state)]
    found: dict[str, dict[str, int]] = {}
    for step in run.plan.wave_steps:
        counts = dict.fromkeys(OUTCOMES, 0)
        for lane in lanes:
            if step.name in lane.outcomes:
                counts[lane.outcomes[step.name].name] += 1
        counts[OPEN] = len(run.targets) - sum(counts.values())
        found[step.name] = {name: number for name, number in counts.items() if number}
    return found


def _learn(ports: Ports, run: RunPlan, stage: Stage) -> None:
    stage.learn_all(read_statuses(ports, run, stage.ids(), from_leader=False))


def _result(wave: int, lane: Lane, ended: bool) -> TargetResult:
    outcome = lane_outcome(lane)
    for name, each in lane.outcomes.items():
        if each.name == outcome and outcome != "done":
            return TargetResult(lane.key, wave, outcome, name, each.error)
    return TargetResult(lane.key, wave, "left" if ended and outcome == OPEN else outcome)
