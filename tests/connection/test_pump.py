"""Writing waits while callers are woken who may have more to send, and no longer."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

import lightlink
from lightlink.concurrency.loop import LoopThread
from lightlink.connection.pump import Pump
from lightlink.connection.replies import ReplyMap, TurnWaiter, Waiter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lightlink.connection.session import Session


@pytest.fixture
def client(url: str) -> Iterator[lightlink.Client]:
    with lightlink.connect(url) as connected:
        yield connected


@pytest.fixture
def published(client: lightlink.Client, prefix: str) -> Callable[[], object]:
    """Publish while a caller is still to be woken; returns what receives it."""
    received = client.subscribe(prefix)
    client._connection.session.replies._ready.append(TurnWaiter(b"t", b"s", b"{}", time.monotonic() + 30, None))
    client.publish(prefix, 1)
    return lambda: received.get(timeout=30).data


def wake_all(session: Session) -> None:
    while session.replies.waking:
        session.replies.end_read()


def test_what_is_published_during_wake_ups_leaves_after_the_last(
    client: lightlink.Client, published: Callable[[], object]
) -> None:
    wake_all(client._connection.session)
    assert published() == 1


def test_what_is_published_during_wake_ups_leaves_with_a_read(
    client: lightlink.Client, published: Callable[[], object]
) -> None:
    session = client._connection.session
    session.loop.call_soon(session._pump.end_read)
    assert published() == 1


def test_callers_that_hold_their_turn_hold_up_nobody() -> None:
    """As does one in a signal handler: in the handler itself a call would wait for its own end."""
    loop, replies = LoopThread("held-up"), ReplyMap(b"_INBOX.x.")
    pump = Pump(loop, replies, 9, 99)
    waiters = [TurnWaiter(b"%d" % n, b"s", b"{}", time.monotonic() + 30, None) for n in range(3)]
    for waiter in waiters:
        replies.add(waiter)
        replies.deliver(replies.prefix + waiter.token, b"", b"{}", None)
    loop.start()
    try:
        loop.call_soon(pump.end_read)
        assert all(Waiter.wait(waiter, 10) for waiter in waiters)  # of whom none wakes another
    finally:
        loop.stop(5)


def test_many_callers_and_publishers_lose_nothing(client: lightlink.Client, url: str, prefix: str) -> None:
    received = client.subscribe(f"{prefix}.events", max_pending=100_000)
    service = lightlink.Service(prefix, url)
    service.register("double", lambda n: 2 * n)

    def work(thread: int) -> bool:
        for number in range(100):
            client.publish(f"{prefix}.events", [thread, number])
            if client.call(prefix, "double", {"n": number}, timeout=30) != 2 * number:
                return False
        return True

    with service, ThreadPoolExecutor(32) as threads:
        assert all(threads.map(work, range(32)))
        assert len({tuple(received.get(timeout=30).data) for _ in range(3200)}) == 3200
    assert not client._connection.session.replies.waking
