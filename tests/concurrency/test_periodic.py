from __future__ import annotations

import gc
import queue
import threading
import weakref
from typing import TYPE_CHECKING

import lightlink
from lightlink.concurrency.periodic import every
from lightlink.connection.connection import Connection

if TYPE_CHECKING:
    import pytest


def test_a_round_is_called_again_and_again_also_when_it_fails(url: str, caplog: pytest.LogCaptureFixture) -> None:
    calls: queue.SimpleQueue[int] = queue.SimpleQueue()

    def work() -> None:
        calls.put(1)
        raise ValueError("not today")

    with lightlink.connect(url) as client:
        going = every(client._connection, 0.001, work)
        for _ in range(3):
            calls.get(timeout=30)
        going.stop(5)
    assert "not today" in caplog.text


def test_stopping_waits_for_a_call_that_is_under_way_and_nothing_is_called_any_more(url: str) -> None:
    begun, go_on = threading.Event(), threading.Event()
    calls: list[int] = []

    def work() -> None:
        begun.set()
        assert go_on.wait(30)
        calls.append(1)

    with lightlink.connect(url) as client:
        going = every(client._connection, 0.001, work)
        assert begun.wait(30)
        stopping = threading.Thread(target=going.stop, args=(10,))
        stopping.start()
        assert calls == []
        go_on.set()
        stopping.join(10)
        assert calls == [1]


def test_a_connection_whose_rounds_have_ended_is_forgotten_with_them(url: str) -> None:
    class Owner:
        def __init__(self) -> None:
            self.connection: Connection = lightlink.connect(url)._connection

        def work(self) -> None:
            raise AssertionError("its hour never comes")

    owner = Owner()
    first, second = (every(owner.connection, 3600, owner.work) for _ in range(2))
    first.stop(1)
    second.stop(1)
    owner.connection.close(1)
    alive = weakref.ref(owner)
    del owner, first, second
    gc.collect()
    assert alive() is None


def test_rounds_begin_again_after_the_last_has_ended(url: str) -> None:
    calls: queue.SimpleQueue[int] = queue.SimpleQueue()
    with lightlink.connect(url) as client:
        for number in range(3):
            going = every(client._connection, 0.001, lambda number=number: calls.put(number))  # type: ignore[misc]
            while calls.get(timeout=30) != number:
                pass
            going.stop(5)
