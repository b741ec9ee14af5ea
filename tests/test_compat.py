"""Events for threads that a program has already: its queue with workers, its executor."""

from __future__ import annotations

import concurrent.futures
import queue
import threading
from typing import TYPE_CHECKING, Any

import pytest
from helpers.waiting import eventually

import lightlink
from lightlink.compat import executor_consumer, queue_consumer
from lightlink.errors import InvalidOption

if TYPE_CHECKING:
    from collections.abc import Iterator


EXECUTOR = concurrent.futures.Executor()


@pytest.fixture
def client(url: str) -> Iterator[lightlink.Client]:
    with lightlink.connect(url) as connected:
        yield connected


def test_worker_threads_find_messages_in_their_queue(client: lightlink.Client, prefix: str) -> None:
    jobs: queue.Queue[lightlink.Message] = queue.Queue(maxsize=2)
    with client.subscribe(prefix, queue_consumer(jobs)):
        for number in range(20):
            client.publish(prefix, number)
        assert [jobs.get(timeout=30).data for _ in range(20)] == list(range(20))


def test_what_a_full_queue_does_not_take_is_told(
    client: lightlink.Client, prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    jobs: queue.Queue[lightlink.Message] = queue.Queue(maxsize=1)
    with client.subscribe(prefix, queue_consumer(jobs, timeout=0.01)):
        client.publish(prefix, "kept")
        client.publish(prefix, "dropped")
        eventually(lambda: f"there was no room for {prefix!r} within 0.01 s" in caplog.text)
    assert jobs.get_nowait().data == "kept"


def test_an_executor_s_threads_handle_messages(
    client: lightlink.Client, prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    handled: queue.Queue[tuple[Any, str]] = queue.Queue()

    def handle(message: lightlink.Message) -> None:
        handled.put((message.data, threading.current_thread().name))
        if message.data == 2:
            raise ValueError("on purpose")

    with (
        concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="own") as executor,
        client.subscribe(prefix, executor_consumer(executor, handle, backlog=1)),
    ):
        for number in range(5):
            client.publish(prefix, number)
        found = [handled.get(timeout=30) for _ in range(5)]
    assert found == [(number, "own_0") for number in range(5)]
    assert "ValueError: on purpose" in caplog.text


def test_an_executor_that_is_shut_down_takes_no_room(
    client: lightlink.Client, prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    executor = concurrent.futures.ThreadPoolExecutor(1)
    executor.shutdown()
    with client.subscribe(prefix, executor_consumer(executor, print, backlog=1)):
        for number in range(3):
            client.publish(prefix, number)
        eventually(lambda: caplog.text.count("RuntimeError: cannot schedule new futures") == 3)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: queue_consumer([]), "invalid jobs .*: must be a queue.Queue"),  # type: ignore[arg-type]
        (lambda: queue_consumer(queue.Queue(), timeout=0), "timeout"),
        (lambda: executor_consumer(print, print), "invalid executor .*: must be an Executor"),  # type: ignore[arg-type]
        (lambda: executor_consumer(EXECUTOR, 3), "invalid handle .*: is not callable"),  # type: ignore[arg-type]
        (lambda: executor_consumer(EXECUTOR, print, backlog=0), "backlog"),
    ],
)
def test_bad_input_is_named(make: Any, message: str) -> None:
    with pytest.raises(InvalidOption, match=message):
        make()
