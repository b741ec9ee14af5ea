"""The limits by themselves, and how bodies are read."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightlink.http.inputs import depth, explain
from lightlink.http.limits import RateLimiter, WaitingRoom, slices


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


# Rates ----------------------------------------------------------------------------------------------------------------


def test_a_burst_is_let_through_and_then_the_rate() -> None:
    clock = Clock()
    limiter = RateLimiter(5, clock)

    assert [limiter.take("a", 10) for _ in range(6)] == [0, 0, 0, 0, 0, pytest.approx(0.1)]
    clock.now = 0.1
    assert limiter.take("a", 10) == 0
    assert limiter.take("a", 10) > 0


def test_a_pause_fills_the_bucket_and_no_more() -> None:
    clock = Clock()
    limiter = RateLimiter(3, clock)
    for _ in range(3):
        limiter.take("a", 10)
    clock.now = 1000.0

    assert [limiter.take("a", 10) > 0 for _ in range(4)] == [False, False, False, True]


def test_each_caller_has_a_bucket_of_its_own() -> None:
    limiter = RateLimiter(1, Clock())

    assert [limiter.take(name, 1) for name in ("a", "b", "c")] == [0, 0, 0]


def test_a_low_rate_has_a_small_burst() -> None:
    limiter = RateLimiter(1000, Clock())

    assert [limiter.take("a", 0.1) > 0 for _ in range(3)] == [False, True, True]
    assert limiter.take("a", 0.1) == pytest.approx(10)


def test_made_up_names_do_not_fill_the_memory() -> None:
    limiter = RateLimiter(10, Clock())
    for number in range(5000):
        limiter.take(str(number), 1)

    assert len(limiter._buckets) <= 1024


# Waiting --------------------------------------------------------------------------------------------------------------


def test_a_room_has_so_many_seats() -> None:
    room = WaitingRoom(2)

    assert [room.enter() for _ in range(3)] == [True, True, False]
    room.leave()
    assert room.enter()
    assert room.taken == 2


def test_a_wait_is_cut_into_slices_until_it_is_over() -> None:
    clock = Clock()
    found = []
    for length in slices(1.2, 0.5, clock):
        found.append(length)
        clock.now += length

    assert found == [0.5, 0.5, pytest.approx(0.2)]


def test_a_wait_looks_at_least_once() -> None:
    assert list(slices(0, 0.5, Clock())) == [0]


def test_a_wait_whose_looks_end_early_still_lasts() -> None:
    clock = Clock()
    found = 0
    for _ in slices(1.0, 10.0, clock):
        found += 1
        clock.now += 0.25

    assert found == 4


# Bodies ---------------------------------------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda children: st.lists(children) | st.dictionaries(st.text(), children),
    max_leaves=30,
)


def nesting(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + max(map(nesting, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(nesting, value), default=0)
    return 0


@given(JSON)
def test_depth_is_how_deep_the_json_is_nested(value: Any) -> None:
    assert depth(json.dumps(value).encode(), 1000) == nesting(value)


@given(st.binary())
def test_depth_takes_anything(data: bytes) -> None:
    assert depth(data, 10) >= 0


def test_depth_of_a_hostile_body_takes_no_time() -> None:
    # Each of these escaped quotes could begin a text that does not end: tried one by one that takes hours.
    assert depth(b'"' + b'\\"' * 500_000, 64) == 0
    assert depth(b"[" * 1_000_000, 64) == 65


@pytest.mark.parametrize(
    ("problem", "shown"),
    [
        ("Expected `int`, got `str` - at `$.limit`", "limit: expected int, got str"),
        ("Expected `str`, got `int` - at `$.labels[...]`", "labels[...]: expected str, got int"),
        ("Object missing required field `client_id`", "client_id: is missing"),
        ("Expected `object`, got `array`", "the body: expected object, got array"),
    ],
)
def test_a_problem_is_told_with_the_field_in_front(problem: str, shown: str) -> None:
    assert explain(problem) == shown
