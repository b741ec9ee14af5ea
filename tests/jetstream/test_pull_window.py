"""The reader's window: what may be asked for, and when."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lightlink.jetstream.pull_window import Window


def test_half_the_window_is_asked_for_and_again_at_half() -> None:
    window = Window(messages=16, size=1600)
    assert window.wants_pull()
    assert window.pulled(8) == 1
    assert not window.wants_pull()
    for _ in range(3):
        window.arrived(10)
    assert not window.wants_pull()
    window.arrived(10)
    assert window.wants_pull()
    assert window.pulled(8) == 2
    assert not window.wants_pull()


def test_large_messages_count_by_their_bytes() -> None:
    window = Window(messages=1000, size=1600)
    window.pulled(500)
    window.arrived(399)
    assert not window.wants_pull()
    window.arrived(1)
    assert window.wants_pull()


def test_a_reader_that_is_behind_stops_the_pulling() -> None:
    window = Window(messages=8, size=1_000_000)
    window.pulled(4)
    for _ in range(4):
        window.arrived(1)
        window.hold(1)
    window.pulled(4)
    for _ in range(4):
        window.arrived(1)
        window.hold(1)
    assert not window.under_way
    assert not window.wants_pull()
    assert [window.release(1) for _ in range(8)] == [False] * 5 + [True] + [False] * 2
    assert window.wants_pull()


def test_a_reader_that_keeps_up_wakes_nobody() -> None:
    window = Window(messages=8, size=1_000_000)
    window.pulled(4)
    for _ in range(4):
        window.arrived(1)
        window.hold(1)
        assert not window.release(1)


def test_a_pull_the_server_ended_is_forgotten_once() -> None:
    window = Window(messages=8, size=100)
    number = window.pulled(4)
    assert window.expects(number)
    assert window.ended(number)
    assert not window.ended(number)
    assert not window.expects(number)
    assert window.wants_pull()


def test_without_a_limit_in_bytes_as_many_as_fit_are_asked_for() -> None:
    window = Window(messages=1000, size=3200)
    assert window.cautious_messages() == 16
    window.pulled(16)
    window.arrived(10)
    assert window.cautious_messages() == 160
    window.arrived(5000)
    assert window.cautious_messages() == 1


@given(st.lists(st.integers(1, 400), max_size=300), st.integers(2, 50), st.integers(500, 5000))
def test_no_more_is_held_or_asked_for_than_the_window_has(sizes: list[int], messages: int, size: int) -> None:
    window = Window(messages, size)
    held: list[int] = []
    left = list(sizes)
    pulls: list[list[int]] = []  # of each: messages, bytes, as the server counts them
    while left:
        while window.wants_pull():
            window.pulled(window.pull_messages)
            pulls.append([window.pull_messages, window.pull_size])
        assert len(held) + sum(pull[0] for pull in pulls) <= messages
        assert sum(held) + sum(pull[1] for pull in pulls) <= size
        if not pulls:
            window.release(held.pop(0))
            continue
        if left[0] > pulls[0][1]:
            window.ended(window._pulls[0].number)
            del pulls[0]
            if left[0] > window.pull_size:
                del left[0]  # it could never come
            continue
        arriving = left.pop(0)
        window.arrived(arriving)
        window.hold(arriving)
        held.append(arriving)
        pulls[0] = [pulls[0][0] - 1, pulls[0][1] - arriving]
        if not pulls[0][0]:
            del pulls[0]
