from __future__ import annotations

import threading
import time
from collections import deque
from typing import TYPE_CHECKING

import pytest
from helpers.waiting import eventually

from lightlink.concurrency import threads
from lightlink.concurrency.mailbox import Closed, Mailbox, MessageQueue
from lightlink.concurrency.threads import pause
from lightlink.concurrency.workers import WorkerPool

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def pool() -> Iterator[WorkerPool]:
    workers = WorkerPool("test", 4)
    yield workers
    workers.stop(10)


def test_a_queue_keeps_order_and_tells_of_its_deadline() -> None:
    box = MessageQueue(10, 100)
    for n in range(3):
        assert box.put(n, 1)
    assert [box.get(None) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(TimeoutError):
        box.get(time.monotonic() + 0.01)


def test_a_closed_queue_gives_what_it_holds_and_then_says_so() -> None:
    box = MessageQueue(10, 100)
    box.put("last", 1)
    box.close()
    assert not box.put("late", 1)
    assert box.get(None) == "last"
    with pytest.raises(Closed):
        box.get(None)


def test_what_comes_while_a_wait_looks_up_is_got(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "LOOK_SECONDS", 0.05)
    box = MessageQueue(10, 100)
    got: list[str] = []
    reader = threading.Thread(target=lambda: got.append(box.get(None)), daemon=True)
    reader.start()
    waiters: deque[object] = box._lock._waiters
    eventually(lambda: waiters)
    with box._lock:
        pause(0.2)  # its look is over, and it wants the lock
        box.put("came", 1)
    reader.join(30)
    assert got == ["came"]


def test_closing_a_queue_ends_every_wait() -> None:
    box = MessageQueue(10, 100)
    ended: list[type[BaseException]] = []

    def wait() -> None:
        try:
            box.get(None)
        except Closed as exc:
            ended.append(type(exc))

    threads = [threading.Thread(target=wait) for _ in range(3)]
    for thread in threads:
        thread.start()
    box.close()
    for thread in threads:
        thread.join(10)
    assert ended == [Closed] * 3


def test_a_queue_is_bounded_by_messages_and_by_bytes() -> None:
    by_number, by_bytes = MessageQueue(2, 100), MessageQueue(100, 20)
    for box in (by_number, by_bytes):
        assert [box.put("x", 10) for _ in range(3)] == [True, True, False]
        box.get(None)
        assert box.put("y", 10)


def test_a_mailbox_handles_in_order_one_at_a_time(pool: WorkerPool) -> None:
    handled: list[int] = []
    at_once: list[int] = []
    inside = threading.Semaphore(1)

    def handle(item: int) -> None:
        at_once.append(inside.acquire(blocking=False))
        handled.append(item)
        inside.release()

    box = Mailbox(pool, handle, 10_000, 10_000)
    for n in range(1000):
        assert box.put(n, 1)
    assert box.drain(10)
    assert handled == list(range(1000))
    assert all(at_once)


def test_a_mailbox_with_concurrency_handles_so_many_at_a_time(pool: WorkerPool) -> None:
    met = threading.Barrier(3)
    most: list[int] = []
    inside = 0
    lock = threading.Lock()

    def handle(_item: int) -> None:
        nonlocal inside
        with lock:
            inside += 1
            most.append(inside)
        met.wait(30)
        with lock:
            inside -= 1

    box = Mailbox(pool, handle, 100, 100, concurrency=3)
    for n in range(9):
        box.put(n, 1)
    assert box.drain(10)
    assert max(most) == 3


def test_a_handler_that_fails_or_exits_is_logged(pool: WorkerPool, caplog: pytest.LogCaptureFixture) -> None:
    handled: list[int] = []

    def handle(item: int) -> None:
        if item == 0:
            raise ValueError("a bug in a handler")
        if item == 1:
            raise SystemExit(3)
        handled.append(item)

    box = Mailbox(pool, handle, 100, 100)
    for n in range(3):
        box.put(n, 1)
    assert box.drain(10)
    assert handled == [2]
    assert "a bug in a handler" in caplog.text


def test_a_busy_mailbox_lets_others_have_the_worker_in_between() -> None:
    pool = WorkerPool("test", 1)
    start = threading.Event()
    order: list[str] = []

    def handle_much(_item: int) -> None:
        start.wait(30)
        order.append("much")

    much = Mailbox(pool, handle_much, 1000, 1000)
    other = Mailbox(pool, lambda _item: order.append("other"), 10, 10)
    for n in range(500):
        much.put(n, 1)
    other.put(0, 1)
    start.set()
    assert much.drain(10)
    assert other.drain(10)
    assert order.index("other") < 100
    assert order.count("much") == 500
    pool.stop(10)


def test_draining_tells_when_it_takes_too_long(pool: WorkerPool) -> None:
    go = threading.Event()
    box = Mailbox(pool, lambda _item: go.wait(30), 10, 10)
    box.put(1, 1)
    assert not box.drain(0.01)
    go.set()
    assert box.drain(10)


def test_draining_within_the_handler_forgets_what_waits(pool: WorkerPool) -> None:
    handled: list[int] = []
    drained: list[bool] = []
    filled = threading.Event()

    def handle(item: int) -> None:
        filled.wait(30)
        handled.append(item)
        drained.append(box.drain(30))

    box = Mailbox(pool, handle, 10, 10)
    for n in range(5):
        box.put(n, 1)
    filled.set()
    eventually(lambda: drained)
    assert drained == [True]
    assert handled == [0]
    assert len(box) == 0


def test_a_closed_mailbox_forgets_what_waits(pool: WorkerPool) -> None:
    go = threading.Event()
    handled: list[int] = []

    def handle(item: int) -> None:
        go.wait(30)
        handled.append(item)

    box = Mailbox(pool, handle, 10, 10)
    for n in range(5):
        box.put(n, 1)
    eventually(lambda: len(box) == 4)
    box.close()
    go.set()
    assert box.drain(10)
    assert handled == [0]
    assert not box.put(9, 1)


def test_a_handled_message_is_not_kept_until_the_next_one_comes(pool: WorkerPool) -> None:
    class Item:
        pass

    import weakref

    box = Mailbox(pool, lambda _item: None, 10, 10)
    item = Item()
    alive = weakref.ref(item)
    box.put(item, 1)
    del item
    assert box.drain(10)
    eventually(lambda: alive() is None)
