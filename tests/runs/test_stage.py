"""What is to be sent, worked out from statuses: the same by everybody, in order, and nothing twice."""

from __future__ import annotations

import random
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightlink.commands import model
from lightlink.commands.model import StatusRecord, UndoTold
from lightlink.runs import Plan
from lightlink.runs.model.lanes import BARRED, undo_lanes, wave_lanes
from lightlink.runs.model.records import RunPlan, Target
from lightlink.runs.model.stage import Stage

if TYPE_CHECKING:
    from lightlink.runs.model.lanes import Attempt

NOON = datetime(2026, 1, 1, 12, tzinfo=timezone.utc)
NAMES = ["a", "b", "c"]
ENDS = ["done", "failed", "not_run", "unknown"]


def run_of(plan: Plan, names: list[str] = NAMES) -> RunPlan:
    targets = [Target(name, {"site": f"site-{name}"}) for name in names]
    return RunPlan(run_id="r", plan=plan, params={"version": "4"}, targets=targets)


def stage_of(run: RunPlan, epoch: int = 0) -> Stage:
    stage = Stage(run, wave_lanes(run, run.targets), epoch, barrier=run.plan.barrier)
    stage.learn_all({})
    return stage


def ended(how: str, result: Any = None, undo: UndoTold | None = None) -> StatusRecord:
    """Return the status of an attempt that ended so."""
    facts: dict[str, Any] = {"at": NOON, "completed_at": NOON, "attempt": 1, "started_at": NOON}
    if how == "done":
        return StatusRecord(status="completed", result=result, undo=undo, **facts)
    if how == "failed":
        return StatusRecord(status="failed", error="broken", **facts)
    if how == "not_run":
        return StatusRecord(status="timeout", status_detail=model.DELIVERY_TIMEOUT, at=NOON)
    return StatusRecord(status="failed", status_detail=model.INTERRUPTED, outcome_unknown=True, **facts)


def play(stage: Stage, ends: dict[tuple[str, str], list[str]], result: Any = None) -> list[Attempt]:
    """Send whatever a stage wants, end it as told (done by default), and return all attempts in order."""
    sent = []
    while attempts := stage.take():
        sent += attempts
        for each in attempts:
            how = ends.get((each.lane, each.task), [])
            stage.learn(each.command_id, ended(how[each.number] if each.number < len(how) else "done", result))
    assert stage.is_done
    return sent


def shown(sent: list[Attempt]) -> list[str]:
    return [f"{each.lane}.{each.task}.{each.number}" for each in sent]


def three_steps(**options: Any) -> Plan:
    plan = Plan("p", params={"version": str}, targets=NAMES, **options)
    return plan.step("one", "do.one").step("two", "do.two", retries=2).step("three", "do.three")


def test_each_step_is_done_for_all_before_the_next() -> None:
    sent = play(stage_of(run_of(three_steps())), {})
    assert [each.task for each in sent] == ["one"] * 3 + ["two"] * 3 + ["three"] * 3


def test_without_a_barrier_each_target_goes_on_by_itself() -> None:
    stage = stage_of(run_of(three_steps(barrier=False)))
    first, *_ = stage.take()
    stage.learn(first.command_id, ended("done"))
    assert shown(stage.take()) == ["a.two.0"]


def test_what_failed_is_repeated_and_the_rest_is_left() -> None:
    stage = stage_of(run_of(three_steps()))
    sent = play(stage, {("a", "two"): ["failed", "not_run", "done"], ("b", "two"): ["failed"] * 3})
    assert [each for each in shown(sent) if each.startswith("a.")] == [
        "a.one.0",
        "a.two.0",
        "a.two.1",
        "a.two.2",
        "a.three.0",
    ]
    assert [each for each in shown(sent) if each.startswith("b.")] == ["b.one.0", "b.two.0", "b.two.1", "b.two.2"]
    assert stage.counts() == {"done": 2, "failed": 1}


@pytest.mark.parametrize(("idempotent", "attempts"), [(False, 1), (True, 3)])
def test_what_may_have_run_is_repeated_only_if_that_does_no_harm(idempotent: bool, attempts: int) -> None:
    plan = Plan("p", targets=["a"]).step("one", "do.one", retries=2, idempotent=idempotent)
    sent = play(stage_of(run_of(plan, ["a"])), {("a", "one"): ["unknown"] * 3})
    assert len(sent) == attempts


def test_steps_after_the_same_step_go_side_by_side() -> None:
    plan = Plan("p", targets=["a"]).step("one", "x").step("left", "x", after=["one"]).step("right", "x", after=["one"])
    plan.step("both", "x", after=["left", "right"])
    stage = stage_of(run_of(plan, ["a"]))
    rounds = []
    while attempts := stage.take():
        rounds.append([each.task for each in attempts])
        for each in attempts:
            stage.learn(each.command_id, ended("done"))
    assert rounds == [["one"], ["left", "right"], ["both"]]


def test_data_goes_from_step_to_step_with_its_type() -> None:
    plan = Plan("p", params={"version": str}, targets=["a"]).step("one", "x")
    plan.step("two", "x", {"n": "${one.result.count}", "t": "${client_id}@${label.site} $${x} ${params.version}"})
    plan.step("skipped", "x", when=["${one.result.count}", ">", 5])
    plan.step("kept", "x", when={"any": [["${one.result.none}", "exists"], ["${one.result.count}", "in", [1, 3]]]})
    stage = stage_of(run_of(plan, ["a"]))
    sent = play(stage, {}, {"count": 3})
    assert [each.task for each in sent] == ["one", "two", "kept"]
    assert sent[1].payload == {"n": 3, "t": "a@site-a ${x} 4"}
    assert stage.counts() == {"done": 1}


def test_a_reference_to_what_is_not_there_fails_its_target() -> None:
    plan = Plan("p", targets=["a"]).step("one", "x").step("two", "x", {"n": "${one.result.count}"})
    stage = stage_of(run_of(plan, ["a"]))
    assert shown(play(stage, {})) == ["a.one.0"]
    assert stage.counts() == {"not_run": 1}
    assert "${one.result.count}" in stage.first_error()


@pytest.mark.parametrize("phase", ["do", "undo"])
def test_what_refers_to_nothing_takes_no_place(phase: str) -> None:
    plan = Plan("p", targets=NAMES)
    undo = ("undo.one", {"site": "${label.nothing}"}) if phase == "undo" else None
    plan.step("one", "do.one", None if undo else {"site": "${label.nothing}"}, undo=undo)
    run = run_of(plan)
    stage = stage_of(run)
    if undo:
        play(stage, {})
        stage = Stage(run, undo_lanes(stage.lanes.values())[0], 0, barrier=False)
        stage.learn_all({})
    assert stage.is_done
    assert (stage.counts(), stage.under_way) == ({"not_run": 3}, 0)


def test_a_result_that_is_not_as_expected_is_a_failure() -> None:
    plan = Plan("p", targets=["a"]).step("one", "x", expect=["${result.ok}", "==", True])
    for result, counts in (({"ok": True}, {"done": 1}), ({"ok": 1.5}, {"failed": 1}), (None, {"failed": 1})):
        stage = stage_of(run_of(plan, ["a"]))
        play(stage, {}, result)
        assert stage.counts() == counts


@pytest.mark.parametrize(
    ("expect", "why"),
    [
        (["${result.n}", "<", 3], ": ${result.n} is 5, not < 3"),
        ([["${result.n}", ">", 3], ["${result.s}", "in", ["a", "b"]]], ': ${result.s} is "c", not in ["a","b"]'),
        (["${result.z}", "exists"], ": ${result.z} is not there"),
        (["${result.n}", "exists", False], ": ${result.n} is there"),
        ({"any": [["${result.n}", "==", 1], ["${result.n}", "==", 2]]}, ""),
    ],
)
def test_a_result_that_is_not_as_expected_tells_why(expect: Any, why: str) -> None:
    stage = stage_of(run_of(Plan("p", targets=["a"]).step("one", "x", expect=expect), ["a"]))
    play(stage, {}, {"n": 5, "s": "c"})
    assert stage.first_error() == f"one on a: its result is not as expected{why}"


def test_an_undo_goes_backwards_over_what_was_done_or_begun() -> None:
    plan = Plan("p", targets=["a"])
    plan.step("one", "x", undo=("undo.one", {"was": "${one.result}"}))
    plan.step("two", "x", undo=("undo.two", None), undo_on="begun")
    plan.step("three", "x", undo="own")
    for ends, names, attention in (
        ({}, ["three", "two", "one"], []),
        ({("a", "two"): ["failed"]}, ["two", "one"], []),
        ({("a", "two"): ["not_run"]}, ["one"], []),
        ({("a", "three"): ["failed"]}, ["two", "one"], []),
        ({("a", "one"): ["unknown"]}, [], ["one"]),
        ({("a", "three"): ["unknown"]}, ["two", "one"], ["three"]),
    ):
        run = run_of(plan, ["a"])
        stage = stage_of(run)
        while attempts := stage.take():
            for each in attempts:
                how = ends.get((each.lane, each.task), ["done"])[0]
                stage.learn(each.command_id, ended(how, each.task, UndoTold("undo.three", {"p": "${x}"})))
        lanes, found = undo_lanes(stage.lanes.values())
        undo = Stage(run, lanes, 0, barrier=False)
        undo.learn_all({})
        sent = play(undo, {})
        assert [each.task for each in sent] == names
        assert [each.step for each in found] == attention
        payloads = {each.what: each.payload for each in sent}
        assert payloads.get("undo.one", {"was": "one"}) == {"was": "one"}
        assert payloads.get("undo.three", {"p": "${x}"}) == {"p": "${x}"}  # an agent's own words are no references


@pytest.mark.parametrize("how", ["failed", "unknown"])
def test_a_snapshot_that_failed_keeps_nothing_from_its_undo(how: str) -> None:
    plan = Plan("p", targets=["a"]).step("one", "x", undo=("undo.one", None))
    plan.step("keep", snapshot="devices/a.*", undo="own", undo_on="begun")
    run = run_of(plan, ["a"])
    stage = stage_of(run)
    play(stage, {("a", "keep"): [how] * 3})
    lanes, attention = undo_lanes(stage.lanes.values())
    undo = Stage(run, lanes, 0, barrier=False)
    undo.learn_all({})
    assert ([each.what for each in play(undo, {})], attention) == (["undo.one"], [])


class Game:
    """Two managers that send, late or early, on what each has seen; the first request of an id counts."""

    def __init__(self, run: RunPlan, dice: random.Random) -> None:
        self.dice = dice
        self.managers = [stage_of(run), stage_of(run)]
        self.begun: list[tuple[str, str, int]] = []
        self.statuses: dict[str, StatusRecord] = {}
        self.requested: dict[str, Attempt] = {}

    def move(self) -> None:
        """Have one manager send, some agents run what they were sent, and one manager see some of it."""
        for attempt in self.dice.choice(self.managers).take(self.dice.randint(1, 2)):
            self.requested.setdefault(attempt.command_id, attempt)
        for command_id in self.dice.sample(sorted(self.requested), min(len(self.requested), 2)):
            if command_id not in self.statuses:
                attempt = self.requested[command_id]
                self.begun.append((attempt.lane, attempt.task, attempt.number))
                self.statuses[command_id] = ended(self.dice.choice(ENDS))
        if self.statuses:
            seen = self.dice.sample(sorted(self.statuses), self.dice.randint(1, len(self.statuses)))
            self.dice.choice(self.managers).learn_all({each: self.statuses[each] for each in seen})

    def bar(self) -> None:
        """Have the first manager, who reads all there is, bar what was not begun."""
        self.managers[0].learn_all(self.statuses)
        for _, command_id in self.managers[0].ids_to_bar():
            self.statuses.setdefault(command_id, model.cancelled(None, NOON, "m", BARRED))

    def outcomes(self, manager: Stage) -> dict[str, dict[str, str]]:
        """Return what a manager makes of all that happened."""
        manager.learn_all(self.statuses)
        return {key: {name: each.name for name, each in lane.outcomes.items()} for key, lane in manager.lanes.items()}


@settings(max_examples=40, deadline=None)
@given(st.randoms(use_true_random=False), st.booleans(), st.integers(0, 60))
def test_any_two_who_work_it_out_from_the_same_statuses_agree(dice: random.Random, barrier: bool, moves: int) -> None:
    game = Game(run_of(three_steps(barrier=barrier)), dice)
    for _ in range(moves):
        game.move()
    game.bar()
    begun = list(game.begun)
    for _ in range(20):
        game.move()
    assert game.begun == begun, "something began after it was barred"
    assert len(set(begun)) == len(begun)
    for lane in NAMES:
        order = [task for each, task, _ in begun if each == lane]
        assert order == sorted(order, key=["one", "two", "three"].index)
    assert game.outcomes(game.managers[0]) == game.outcomes(game.managers[1])
    assert game.managers[0].is_done
