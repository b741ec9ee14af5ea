from __future__ import annotations

import threading
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from helpers.instants import interrupt_at
from helpers.waiting import eventually

from lightlink.concurrency.threads import Condition
from lightlink.connection.outbox import Outbox
from lightlink.errors import ClosedError, OutboxFull

if TYPE_CHECKING:
    from collections.abc import Callable


def make(max_messages: int = 100, max_bytes: int = 1000, wake: Callable[[], object] = lambda: None) -> Outbox:
    return Outbox(max_messages, max_bytes, wake)


def sized(item: Any, size: int) -> Any:
    """Return what equals an item and takes so many bytes."""
    return type("Sized", (type(item),), {"__len__": lambda _: size})(item)


def in_thread(function: Callable[..., object], *args: Any) -> tuple[threading.Thread, list[Any]]:
    """Start a function in a thread; the list gets what it returned or raised."""
    outcome: list[Any] = []

    def work() -> None:
        try:
            outcome.append(function(*args))
        except Exception as exc:
            outcome.append(exc)

    thread = threading.Thread(target=work)
    thread.start()
    return thread, outcome


def test_items_leave_in_the_order_in_which_they_came() -> None:
    outbox = make()
    for number in range(10):
        outbox.put(sized(number, 1), 0)
    assert outbox.take(1000) == list(range(10))
    assert outbox.take(1000) == []


def test_a_batch_holds_about_what_was_asked_for_in_order() -> None:
    outbox = make()
    for number in range(10):
        outbox.put(sized(number, 10), 0)
    assert outbox.take(25) == [0, 1, 2]
    assert outbox.take(10) == [3]
    assert outbox.take(1000) == [4, 5, 6, 7, 8, 9]


def test_the_loop_is_woken_once_until_it_finds_the_outbox_empty() -> None:
    wakes: list[int] = []
    outbox = make(wake=lambda: wakes.append(1))
    outbox.put("a", 0)
    outbox.put("b", 0)
    assert len(wakes) == 1
    outbox.take(1000)
    outbox.put("c", 0)
    assert len(wakes) == 1, "the loop has not said yet that it sleeps"
    outbox.take(1000)
    assert outbox.take(1000) == []
    outbox.put("d", 0)
    assert len(wakes) == 2


@pytest.mark.parametrize(("max_messages", "max_bytes"), [(3, 1000), (100, 30)])
def test_it_is_bounded_by_messages_and_by_bytes(max_messages: int, max_bytes: int) -> None:
    outbox = make(max_messages, max_bytes)
    for number in range(3):
        outbox.put(sized(number, 10), 0)
    with pytest.raises(OutboxFull) as caught:
        outbox.put(sized(3, 10), 0.01)
    assert (caught.value.messages, caught.value.size, caught.value.timeout) == (3, 30, 0.01)
    assert outbox.take(1000) == [0, 1, 2], "what was refused is not in it"
    outbox.put(sized(4, 10), 0)
    assert outbox.take(1000) == [4]


def test_a_message_above_the_bound_is_taken_when_none_waits() -> None:
    outbox = make(max_bytes=10)
    outbox.put(sized("large", 50), 0)
    with pytest.raises(OutboxFull):
        outbox.put(sized("small", 1), 0)
    assert outbox.take(10) == ["large"]


def test_a_publisher_waits_for_room_and_goes_on() -> None:
    outbox = make(max_messages=1)
    outbox.put(sized("first", 1), 0)
    thread, outcome = in_thread(outbox.put, sized("second", 1), 30)
    eventually(lambda: outbox._waiting)
    assert outbox.take(1000) == ["first"]
    thread.join(30)
    assert outcome == [None]
    assert outbox.take(1000) == ["second"]


def test_closing_releases_who_waits_and_returns_what_is_left() -> None:
    outbox = make(max_messages=1)
    outbox.put(sized("first", 1), 0)
    thread, outcome = in_thread(outbox.put, sized("second", 1), 30)
    eventually(lambda: outbox._waiting)
    assert outbox.close() == ["first"]
    thread.join(30)
    assert isinstance(outcome[0], ClosedError)
    with pytest.raises(ClosedError):
        outbox.put(sized("third", 1), 0)


def test_a_put_within_a_put_in_a_signal_handler_does_not_block() -> None:
    outbox = make()

    class Reentrant(deque[str]):
        def append(self, item: str) -> None:  # with the lock held
            super().append(item)
            if item == "o":
                outbox.put("i", 0)

    outbox._items = Reentrant()
    thread, outcome = in_thread(outbox.put, "o", 0)
    thread.join(30)
    assert outcome == [None]
    assert outbox.take(1000) == ["o", "i"]


def test_a_handler_before_the_wake_up_wakes_the_loop_itself() -> None:
    """The put that it interrupted is to do it, and goes on only once the handler, which may wait, has returned."""
    wakes: list[int] = []
    outbox = make(wake=partial(wakes.append, 1))
    seen: list[int] = []

    class Interrupted(Condition):
        def __exit__(self, *_: object) -> None:
            super().__exit__(None, None, None)
            if not seen:
                seen.append(0)
                outbox.put(sized("inner", 1), 0)
                seen.append(len(wakes))

    outbox._lock = Interrupted()
    outbox.put(sized("outer", 1), 0)
    assert seen == [0, 1]
    assert outbox.take(1000) == ["outer", "inner"]


def test_an_interrupted_wake_up_leaves_no_loop_asleep() -> None:
    wakes: list[int] = []

    def interrupted_once() -> None:
        wakes.append(1)
        if len(wakes) == 1:
            raise KeyboardInterrupt

    outbox = make(wake=interrupted_once)
    with pytest.raises(KeyboardInterrupt):
        outbox.put("a", 0)
    assert len(wakes) == 2
    assert outbox.take(1000) == ["a"]


def test_an_interrupt_at_any_instant_leaves_no_loop_asleep() -> None:
    for instant in range(1, 100):
        wakes: list[int] = []
        outbox = make(wake=partial(wakes.append, 1))
        try:
            with interrupt_at(instant):
                outbox.put("a", 0)
        except KeyboardInterrupt:
            outbox.put("b", 0)
            assert wakes, f"at instant {instant}"
        else:
            assert instant > 3
            return
    raise AssertionError("there is no end of it")


def queue_of(*items: str) -> deque[str]:
    return deque(items)


def test_many_put_at_once_leave_in_their_order_for_one_wake_up() -> None:
    wakes: list[int] = []
    outbox = make(wake=lambda: wakes.append(1))
    outbox.put_all(queue_of("a", "b", "c"), 0)
    outbox.put("d", 0)
    assert wakes == [1]
    assert outbox.take(1000) == ["a", "b", "c", "d"]


def test_many_put_at_once_find_a_loop_that_was_faster() -> None:
    wakes: list[list[str]] = []
    outbox = make(wake=lambda: wakes.append(outbox.take(1000) + outbox.take(1000)))
    outbox.put_all(queue_of("a", "b", "c"), 0)
    assert wakes == [["a"], ["b"], ["c"]]


def test_many_put_at_once_wait_for_room_and_leave_the_rest() -> None:
    outbox = make(max_messages=2)
    given = queue_of("a", "b", "c", "d", "e", "f")
    thread, outcome = in_thread(outbox.put_all, given, 30)
    eventually(lambda: outbox._waiting)
    assert outbox.take(1000) == ["a", "b"]
    eventually(lambda: len(outbox) == 2 and outbox._waiting)
    outbox.close()
    thread.join(30)
    assert isinstance(outcome[0], ClosedError)
    assert list(given) == ["e", "f"]


def test_what_finds_no_room_of_many_is_left() -> None:
    given = queue_of("a", "b", "c")
    with pytest.raises(OutboxFull):
        make(max_bytes=2).put_all(given, 0)
    assert list(given) == ["c"]


def test_an_interrupt_as_many_are_put_loses_none_and_no_wake_up() -> None:
    for instant in range(1, 200):
        wakes: list[int] = []
        outbox = make(wake=partial(wakes.append, 1))
        given = queue_of("a", "b", "c")
        try:
            with interrupt_at(instant):
                outbox.put_all(given, 0)
        except KeyboardInterrupt:
            outbox.put("d", 0)
            left = list(given)
            taken = outbox.take(1000)
            assert wakes, f"at instant {instant}"
            assert taken[-1] == "d"
            # Interrupted between the two, one is in both: its sender withdraws it.
            assert list(dict.fromkeys(taken[:-1] + left)) == ["a", "b", "c"], f"at instant {instant}"
        else:
            assert instant > 10
            return
    raise AssertionError("there is no end of it")


def test_many_threads_lose_nothing_and_keep_their_order() -> None:
    awake = threading.Event()
    outbox = make(max_messages=50, wake=awake.set)
    taken: list[tuple[int, int]] = []

    def publish(thread: int) -> None:
        if thread % 2:
            outbox.put_all(deque(sized((thread, number), 1) for number in range(500)), 30)
            return
        for number in range(500):
            outbox.put(sized((thread, number), 1), 30)

    publishers = [in_thread(publish, n) for n in range(8)]
    while len(taken) < 4000:
        assert awake.wait(30)
        awake.clear()
        while batch := outbox.take(20):
            taken += batch
    for thread, outcome in publishers:
        thread.join(30)
        assert outcome == [None]
    for n in range(8):
        assert [number for thread, number in taken if thread == n] == list(range(500))
