"""Windows, freezes, schedules, and what the clock's changes do to them."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import pytest
from helpers.waiting import eventually

from lightlink.errors import InvalidOption, PlanInvalid, StoreUnavailable
from lightlink.runs import Plan, Window
from lightlink.runs.definitions import Definitions, Freeze
from lightlink.runs.model.times import last_time, next_time, opens_at
from lightlink.runs.scheduler import Scheduler, planned_run_id

if TYPE_CHECKING:
    from helpers.runs import RunWorld

    from lightlink.runs import Orchestrator, Schedule
    from lightlink.runs.model.records import RunPlan

BERLIN = "Europe/Berlin"


def berlin(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=ZoneInfo(BERLIN))  # type: ignore[misc, arg-type]


def info() -> Plan:
    return Plan("p", targets=["a0"]).step("info", "info")


def test_a_missing_time_is_the_next_and_a_doubled_one_the_first() -> None:
    assert next_time("30 2 * * *", BERLIN, berlin(2026, 3, 28, 12)) == berlin(2026, 3, 29, 3)
    first = next_time("30 2 * * *", BERLIN, berlin(2026, 10, 24, 12))
    assert first == datetime(2026, 10, 25, 0, 30, tzinfo=timezone.utc)  # the first of the two
    assert next_time("30 2 * * *", BERLIN, first) == datetime(2026, 10, 26, 1, 30, tzinfo=timezone.utc)
    assert last_time("30 2 * * *", BERLIN, berlin(2026, 10, 26)) == first


@pytest.mark.parametrize("opens", ["Sat 22:00", "0 22 * * sat"])
def test_a_window_is_open_for_its_hours(opens: str) -> None:
    window = Window(opens, hours=6, tz=BERLIN)
    assert opens_at(window, berlin(2026, 1, 1)) == berlin(2026, 1, 3, 22)
    for inside in (berlin(2026, 1, 3, 22), berlin(2026, 1, 3, 23), berlin(2026, 1, 4, 3, 59)):
        assert opens_at(window, inside) == inside
    assert opens_at(window, berlin(2026, 1, 4, 4)) == berlin(2026, 1, 10, 22)


@pytest.mark.parametrize(
    "window", [Window("Sat 25:00", 6), Window("whenever", 6), Window("Sat 22:00", 0), Window("Sat 22:00", 6, "Mars/X")]
)
def test_a_window_that_never_opens_is_refused(window: Window) -> None:
    plan = info()
    plan.window = window
    with pytest.raises(PlanInvalid, match="window"):
        Plan.parse(plan.dump())


def test_no_wave_begins_outside_its_window_nor_in_a_freeze(world: RunWorld) -> None:
    world.agents("a0")
    ops = world.orchestrator()
    closed = ops.now() - timedelta(hours=2)  # an hour of it is over an hour ago
    plan = info()
    plan.window = Window(f"{closed.minute} {closed.hour} * * *", hours=1)
    run = ops.start(plan)
    assert run.wait_for("held", timeout=20) == "held"
    assert "window" in run.refresh().reason
    run.cancel()
    assert run.wait(20) == "cancelled"
    ops.freeze("Christmas")
    run = ops.start(info())
    assert run.wait_for("held", timeout=20) == "held"
    assert "frozen by ops: Christmas" in run.refresh().reason
    assert world.done == []
    assert ops.thaw()
    assert run.wait(20) == "completed"
    assert not ops.thaw()


def test_a_wave_is_held_however_often_it_is_looked_at(world: RunWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its revision comes twice where the store is away for a moment, or whoever looks first dies."""
    world.agents("a0")
    looks: list[Definitions] = []

    def freeze(of: Definitions) -> Freeze:
        looks.append(of)
        if len(looks) == 1:
            raise StoreUnavailable("reading ll.plans.freeze", "no responders")
        return real(of)

    ops, real = world.orchestrator(), Definitions.freeze
    ops.freeze("Christmas")
    monkeypatch.setattr(Definitions, "freeze", freeze)
    run = ops.start(info())
    assert run.wait_for("held", timeout=20) == "held"
    assert ops.list("a0") == []


def test_a_wave_paused_before_it_began_is_held_when_resumed(world: RunWorld) -> None:
    world.agents("a0")
    run = world.orchestrator(work=False).start(info())
    run.pause("lunch")
    ops = world.orchestrator("other")
    ops.freeze("Christmas")
    run.resume()
    assert run.wait_for("held", timeout=20) == "held"
    assert world.done == []


def test_a_wave_that_has_begun_goes_on_in_a_freeze(world: RunWorld) -> None:
    world.agents("a0")
    world.gates["info"] = threading.Event()
    ops = world.orchestrator()
    run = ops.start(info().step("install", "install"))
    eventually(lambda: world.of("info") == ["a0"])
    other = world.orchestrator("other")
    other.freeze("Christmas")
    ops.close()
    world.gates["info"].set()
    assert other.run(run.run_id).wait(20) == "completed"


def scheduler_of(ops: Orchestrator) -> Scheduler:
    return Scheduler(ops._ports.definitions, ops._ports.runs, ops._prepared)


def test_a_planned_time_makes_one_run_however_many_look(world: RunWorld) -> None:
    world.agents("a0")
    first, second = world.orchestrator("one"), world.orchestrator("two")
    first.schedule("nightly", info(), cron="30 2 * * *", tz=BERLIN)
    planned = next_time("30 2 * * *", BERLIN, first.now())
    for ops in (first, second, first):
        scheduler_of(ops).fire(planned + timedelta(seconds=10))
    (schedule,) = second.schedules()
    assert (schedule.last, schedule.run_id) == (planned, planned_run_id("nightly", planned))
    assert second.run(schedule.run_id).wait(20) == "completed"
    assert len(first.runs()) == 1
    assert first.runs()[0].started_by == "schedule:nightly"


def test_orchestrators_looking_at_one_instant_start_one_run(world: RunWorld) -> None:
    orchestrators = [world.orchestrator(f"ops{number}", work=False) for number in range(3)]
    orchestrators[0].schedule("hourly", info(), cron="0 * * * *", overlap="allow")
    planned = next_time("0 * * * *", "UTC", orchestrators[0].now())
    with ThreadPoolExecutor(6) as threads:
        for hour in range(4):
            at = planned + timedelta(hours=hour, seconds=1)
            for each in [threads.submit(scheduler_of(ops).fire, at) for ops in orchestrators * 2]:
                each.result(30)
    runs = orchestrators[1].runs()
    assert {run.run_id for run in runs} == {
        planned_run_id("hourly", planned + timedelta(hours=hour)) for hour in range(4)
    }
    assert [state.event for run in runs for state in orchestrators[2].run(run.run_id).history()] == ["started"] * 4


def test_a_run_started_by_one_who_died_is_the_one(world: RunWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever starts a run may die before it has noted that: it is found later, and no time counts as missed."""
    ops = world.orchestrator(work=False)
    ops.schedule("hourly", info(), cron="0 * * * *")
    planned = next_time("0 * * * *", "UTC", ops.now())
    with monkeypatch.context() as patch:
        patch.setattr(type(ops._ports.definitions), "write_schedule", lambda *_: None)
        scheduler_of(ops).fire(planned)
    assert ops.schedules()[0].last is None
    scheduler_of(ops).fire(planned + timedelta(minutes=10))
    (schedule,) = ops.schedules()
    assert (schedule.last, schedule.run_id, schedule.error) == (planned, planned_run_id("hourly", planned), "")
    assert len(ops.runs()) == 1


def test_a_schedule_that_breaks_does_not_hold_up_others(world: RunWorld) -> None:
    ops = world.orchestrator(work=False)
    for name in ("a", "b"):
        ops.schedule(name, info(), cron="0 * * * *")
    prepared = ops._prepared

    def prepare(schedule: Schedule, run_id: str) -> RunPlan:
        if schedule.name == "a":
            raise ValueError("as nobody has foreseen")
        return prepared(schedule, run_id)

    Scheduler(ops._ports.definitions, ops._ports.runs, prepare).fire(next_time("0 * * * *", "UTC", ops.now()))
    assert [bool(each.run_id) for each in ops.schedules()] == [False, True]


def test_what_was_missed_is_left_out_or_made_up_for(world: RunWorld) -> None:
    world.agents("a0")
    ops = world.orchestrator()
    ops.schedule("left", info(), cron="0 * * * *")
    ops.schedule("made up", info(), cron="0 * * * *", missed="run")
    late = next_time("0 * * * *", "UTC", ops.now()) + timedelta(hours=5, minutes=30)
    scheduler_of(ops).fire(late)
    left, made = ops.schedules()
    assert (left.run_id, "missed" in left.error) == ("", True)
    assert (made.name, bool(made.run_id), made.last) == ("made up", True, late - timedelta(minutes=30))
    assert len(ops.runs()) == 1


def test_a_run_that_goes_on_has_the_next_left_out(world: RunWorld) -> None:
    ops = world.orchestrator()
    plan = Plan("p", targets=["nobody"]).step("info", "info", timeout=60)
    ops.schedule("hourly", plan, cron="0 * * * *")
    planned = next_time("0 * * * *", "UTC", ops.now())
    scheduler_of(ops).fire(planned)
    (schedule,) = ops.schedules()
    scheduler_of(ops).fire(planned + timedelta(hours=1))
    (after,) = ops.schedules()
    assert after.run_id == schedule.run_id
    assert "had not ended" in after.error
    assert ops.unschedule("hourly")
    assert ops.schedules() == []
    assert not ops.unschedule("hourly")
    ops.run(schedule.run_id).cancel()


def test_a_schedule_made_again_knows_its_run(world: RunWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    ops = world.orchestrator()
    plan = Plan("p", targets=["nobody"]).step("info", "info", timeout=60)
    ops.schedule("hourly", plan, cron="0 * * * *")
    planned = next_time("0 * * * *", "UTC", ops.now())
    real = Definitions.read_written
    asked: list[Any] = []

    def read_written(of: Definitions, *given: Any) -> Any:
        found = real(of, *given)
        if not asked:  # a run is started just as the schedule is made again
            asked.append(given)
            scheduler_of(ops).fire(planned)
        return found

    monkeypatch.setattr(Definitions, "read_written", read_written)
    again = ops.schedule("hourly", plan, cron="0 * * * *")
    assert (bool(again.run_id), again.last) == (True, planned)
    scheduler_of(ops).fire(planned + timedelta(hours=1))
    (after,) = ops.schedules()
    assert (after.run_id, "had not ended" in after.error) == (again.run_id, True)
    ops.run(again.run_id).cancel()


def test_a_schedule_made_again_makes_up_for_what_was_missed(world: RunWorld) -> None:
    ops = world.orchestrator()
    ops.schedule("hourly", info(), cron="0 * * * *", missed="run")
    first = ops.schedules()[0].at
    assert ops.schedule("hourly", info(), cron="0 * * * *", missed="run").last == first
    assert ops.schedule("hourly", info(), cron="30 * * * *", missed="run").last is None  # other times, from now on
    assert ops.unschedule("hourly")
    assert ops.schedule("hourly", info(), cron="30 * * * *", missed="run").last is None


def test_a_bad_schedule_is_refused_and_one_that_fails_says_why(world: RunWorld) -> None:
    ops = world.orchestrator()
    for options in (
        {"cron": "whenever"},
        {"cron": "* * * * * *"},
        {"cron": "0 0 * * *", "tz": "Mars/X"},
        {"cron": "0 0 * * *", "overlap": "x"},
    ):
        with pytest.raises(InvalidOption):
            ops.schedule("bad", info(), **options)  # type: ignore[arg-type]
    windowed = ops.schedule("windowed", info(), cron="0 0 * * *", window=Window("Sat 22:00", hours=6))
    assert windowed.plan.window == Window("Sat 22:00", hours=6)
    assert ops.unschedule("windowed")
    with pytest.raises(PlanInvalid, match="window"):
        ops.schedule("bad", info(), cron="0 0 * * *", window=Window("whenever", hours=6))
    with pytest.raises(PlanInvalid):
        ops.schedule("bad", info(), {"nothing": 1}, cron="0 0 * * *")
    plan = info()
    plan.targets = []
    ops.schedule("empty", plan, cron="0 * * * *")
    scheduler_of(ops).fire(next_time("0 * * * *", "UTC", ops.now()))
    eventually(lambda: "no such agent" in ops.schedules()[0].error)


def test_utc_is_what_is_stored() -> None:
    assert next_time("0 0 * * *", BERLIN, berlin(2026, 6, 1, 12)).tzinfo is timezone.utc
