"""Any order of what managers and agents do, with answers lost and processes killed, on a compare-and-set store."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest
from helpers.interleaving import NOON, World
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lightlink.commands import model

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

COMMANDS = st.integers(0, 3)
INSTANCES = st.integers(0, 3)
MANAGERS = st.integers(0, 1)
ACTORS = st.integers(0, 50)

STEP = st.tuples(st.just("step"), ACTORS, st.sampled_from(["", "", "", "answer lost", "not sent", "stale"]))
EVENTS = st.one_of(
    STEP,
    STEP,
    STEP,
    STEP,
    st.tuples(st.just("deliver"), INSTANCES, COMMANDS),
    st.tuples(st.just("cancel"), MANAGERS, COMMANDS),
    st.tuples(st.just("expire"), MANAGERS, st.none()),
    st.tuples(st.just("overrun"), st.none(), st.none()),
    st.tuples(st.just("kill"), INSTANCES, st.none()),
    st.tuples(st.just("start"), st.none(), st.none()),
    st.tuples(st.just("stop"), INSTANCES, st.none()),
    st.tuples(st.just("time"), st.sampled_from([1.0, 31.0, 40.0]), st.none()),
)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Leave out what is logged of all the faults."""
    logger = logging.getLogger("lightlink")
    before, logger.disabled = logger.disabled, True
    yield
    logger.disabled = before


def play(events: Sequence[tuple[str, object, object]], idempotent: list[bool]) -> World:
    """Let the events happen to some commands and two instances, and then everything come to its end."""
    world = World()
    for each in idempotent:
        world.send(each)
    world.start()
    world.start()
    try:
        for name, first, second in events:
            happen(world, name, first, second)
        world.settle()
    finally:
        world.close()
    return world


def happen(world: World, name: str, first: object, second: object) -> None:
    commands = list(world.requests)
    if name == "step":
        world.step(int(first), str(second))  # type: ignore[call-overload]
    elif name == "deliver":
        world.deliver(world.instances[int(first) % len(world.instances)], commands[int(second) % len(commands)])  # type: ignore[call-overload]
    elif name == "cancel":
        world.cancel(int(first), commands[int(second) % len(commands)])  # type: ignore[call-overload]
    elif name == "expire":
        world.expire(int(first))  # type: ignore[call-overload]
    elif name == "overrun":
        world.overrun()
    elif name == "kill":
        world.kill(world.instances[int(first) % len(world.instances)])  # type: ignore[call-overload]
    elif name == "start":
        world.start()
    elif name == "stop":
        world.instances[int(first) % len(world.instances)].stopped.is_set = True  # type: ignore[call-overload]
    else:
        world.pass_time(float(first))  # type: ignore[arg-type]


# The lists are long from the start: what goes wrong takes several steps of several actors.
any_order = given(st.lists(EVENTS, min_size=20, max_size=80), st.lists(st.booleans(), min_size=1, max_size=4))


@settings(max_examples=75, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@any_order
def test_every_command_ends_once_and_runs_as_often_as_it_may(
    events: list[tuple[str, object, object]], idempotent: list[bool]
) -> None:
    ends_once_and_runs_as_often_as_it_may(events, idempotent)


@pytest.mark.slow
@pytest.mark.timeout(600)
@settings(max_examples=1000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@any_order
def test_a_command_ends_once_in_a_thousand_orders(
    events: list[tuple[str, object, object]], idempotent: list[bool]
) -> None:
    ends_once_and_runs_as_often_as_it_may(events, idempotent)


def ends_once_and_runs_as_often_as_it_may(events: list[tuple[str, object, object]], idempotent: list[bool]) -> None:
    world = play(events, idempotent)
    assert world.failures == []
    for command_id, request in world.requests.items():
        history = [record for _, record in world.history.get(command_id, [])]
        ends = [record for record in history if record.ended]
        assert ends, "lost"
        assert len({(end.status, end.status_detail, end.completed_at, str(end.result)) for end in ends}) == 1
        assert history[-len(ends) :] == ends, "an end that was not the end"
        assert all(end.late for end in ends[1:])
        runs = world.runs[command_id]
        if request.command_type == "plain":
            assert len(runs) <= 1
        else:
            assert len(runs) <= max(record.attempt for record in history)
        if ends[0].status == model.COMPLETED:
            assert ends[0].by in runs
            assert ends[0].by == ends[0].instance
        if ends[0].status_detail in (model.DELIVERY_TIMEOUT, model.REJECTED):
            assert not runs


def test_the_quiet_case_completes() -> None:
    world = play([("deliver", 0, 0), ("deliver", 1, 1)], [False, True])
    assert [world.last(number)[0].status for number in ("0", "1")] == ["completed", "completed"]  # type: ignore[union-attr]
    assert world.runs == {"0": ["instance-0"], "1": ["instance-1"]}
    assert world.requests["0"].created_at == NOON


def test_an_end_whose_answer_was_lost_is_written_once() -> None:
    # Deliver, claim, run, and lose the answer to the end.
    events = [("deliver", 0, 0), ("step", 0, ""), ("step", 0, ""), ("step", 0, ""), ("step", 0, "answer lost")]
    world = play(events, [False])
    assert [record.status for _, record in world.history["0"]] == ["executing", "completed"]
    assert world.runs["0"] == ["instance-0"]


def test_an_end_whose_answer_was_lost_is_acknowledged_later() -> None:
    world = World()
    world.send(False)
    world.deliver(world.start(), "0")
    # Claim, begin, end, and lose the answer to that; write it again, and read what is there.
    for fault in ("", "", "", "answer lost", "", ""):
        world.step(0, fault)
    assert [actor.done for actor in world.actors] == [True]
    assert world.acked == {"0"}
    world.close()


def test_an_instance_that_reads_of_the_one_before_it_goes_on() -> None:
    world = World()
    world.send(True)
    first = world.start()
    world.deliver(first, "0")
    for _ in range(3):  # it begins
        world.step(0)
    world.kill(first)
    world.step(0)
    second = world.start()
    world.deliver(second, "0")
    for _ in range(4):  # it finds the claim, and begins again
        world.step(0)
    world.act(second.execution.look_for_cancels, second)
    for fault in ("", "stale"):
        world.step(1, fault)
    world.settle()
    last, _ = world.last("0")
    assert last is not None
    assert (last.status, last.attempt) == ("completed", 2)
    world.close()


def test_a_command_whose_end_was_not_stored_is_not_run_again() -> None:
    events = [("deliver", 0, 0), ("stop", 0, 0), *[("step", 0, "")] * 3, ("step", 0, "not sent"), ("deliver", 0, 0)]
    world = play(events, [False])
    assert world.runs["0"] == ["instance-0"]
    last, _ = world.last("0")
    assert last is not None
    assert (last.status, last.status_detail) == ("failed", "interrupted")


def test_a_command_taken_over_belongs_to_the_one_who_took_it() -> None:
    # The first claims and runs; the second claims it again, and runs; the first ends, then the second.
    first = [("deliver", 0, 0), ("step", 0, ""), ("step", 0, "")]
    second = [("deliver", 1, 0), *[("step", 1, "")] * 4]
    world = play([*first, *second, *[("step", 0, "")] * 4], [True])
    (end,) = [record for _, record in world.history["0"] if record.ended]
    assert (end.status, end.instance, end.by, end.attempt) == ("completed", "instance-1", "instance-1", 2)
    assert world.failures == []


def test_a_cancel_between_claim_and_run_is_heard() -> None:
    events = [("deliver", 0, 0), ("step", 0, ""), ("step", 0, ""), ("cancel", 0, 0)]
    events += [("step", 1, ""), ("step", 1, ""), ("step", 1, "")]
    world = play(events, [False])
    last, _ = world.last("0")
    assert last is not None
    assert (last.status, last.status_detail) == ("failed", "cancelled")
