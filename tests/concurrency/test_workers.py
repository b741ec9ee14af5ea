from __future__ import annotations

import threading
import weakref
from queue import Empty, SimpleQueue
from typing import Any

import pytest
from helpers.waiting import eventually

from lightlink.concurrency.workers import WorkerPool


def named(prefix: str) -> list[str]:
    return sorted(thread.name for thread in threading.enumerate() if thread.name.startswith(prefix))


def test_a_thread_starts_when_none_is_idle() -> None:
    pool = WorkerPool("early-bird", 2)
    assert named("early-bird") == []
    go = threading.Event()
    pool.put(go.wait, 30)
    assert named("early-bird") == ["early-bird-worker-1"]
    done = threading.Event()
    pool.put(done.set)
    assert done.wait(30)
    assert named("early-bird") == ["early-bird-worker-1", "early-bird-worker-2"]
    go.set()
    assert pool.stop(10)
    assert named("early-bird") == []


def test_one_thread_is_enough_for_one_job_after_the_other() -> None:
    pool = WorkerPool("lonely", 4)
    for _ in range(20):
        done = threading.Event()
        pool.put(done.set)
        assert done.wait(30)
        eventually(lambda: pool._idle)
    assert named("lonely-") == ["lonely-worker-1"]
    pool.stop(10)


def test_a_thread_that_found_work_at_last_does_not_count_as_idle() -> None:
    pool = WorkerPool("second-look", 3)
    go, second, taken, idle, done = (threading.Event() for _ in range(5))

    class Jobs(SimpleQueue[Any]):
        """Brings a job just after the first thread has found none, and keeps the second thread from taking it."""

        def get_nowait(self) -> Any:
            if threading.current_thread().name.endswith("-2"):
                assert taken.wait(30)
            try:
                return super().get_nowait()
            except Empty:
                if not second.is_set():
                    second.set()
                    pool.put(lambda: (taken.set(), go.wait(30)))
                raise

        def get(self, *args: Any) -> Any:
            if taken.is_set():
                idle.set()
            return super().get(*args)

    pool._jobs = Jobs()
    pool.put(int)
    assert idle.wait(30)
    pool.put(go.wait, 30)
    pool.put(done.set)
    assert done.wait(10)  # a third thread may be had for it
    go.set()
    assert pool.stop(10)


def test_many_first_jobs_start_no_more_threads_than_allowed() -> None:
    pool = WorkerPool("once", 3)
    start, go = threading.Barrier(8), threading.Event()
    callers = [threading.Thread(target=lambda: (start.wait(30), pool.put(go.wait, 30))) for _ in range(8)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(30)
    assert len(named("once-")) == 3
    go.set()
    pool.stop(10)


def test_every_job_is_run_before_the_pool_stops_and_none_after() -> None:
    pool = WorkerPool("test", 2)
    done: list[int] = []
    for n in range(100):
        pool.put(done.append, n)
    assert pool.stop(10)
    assert sorted(done) == list(range(100))
    assert pool.stop(10)
    pool.put(done.append, 100)
    assert len(done) == 100


def test_jobs_beyond_the_limit_are_refused() -> None:
    pool = WorkerPool("test", 1)
    go, running = threading.Event(), threading.Event()
    pool.put(lambda: (running.set(), go.wait(30)))
    assert running.wait(30)
    assert [pool.offer(2, lambda: None) for _ in range(3)] == [True, True, False]
    go.set()
    pool.stop(10)


@pytest.mark.parametrize("error", [ValueError("a bug"), SystemExit(1), KeyboardInterrupt()])
def test_a_job_that_fails_is_logged_and_its_thread_goes_on(
    error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    pool = WorkerPool("sturdy", 1)

    def fail() -> None:
        raise error

    done = threading.Event()
    pool.put(fail)
    pool.put(done.set)
    assert done.wait(30)
    assert "sturdy-worker-1" in caplog.text
    pool.stop(10)


def test_a_straggler_is_logged_by_name_and_not_waited_for(caplog: pytest.LogCaptureFixture) -> None:
    pool = WorkerPool("slow", 1)
    go, running = threading.Event(), threading.Event()
    pool.put(lambda: (running.set(), go.wait(30)))
    assert running.wait(30)
    assert not pool.stop(0.01)
    assert "slow-worker-1 is still running" in caplog.text
    go.set()
    eventually(lambda: not named("slow-"))


def test_a_pool_can_be_stopped_by_its_own_thread(caplog: pytest.LogCaptureFixture) -> None:
    pool = WorkerPool("own", 2)
    stopped = threading.Event()
    pool.put(lambda: (pool.stop(10), stopped.set()))
    assert stopped.wait(30)
    eventually(lambda: not named("own-"))
    assert "still running" not in caplog.text


def test_a_job_that_is_done_is_not_kept_until_the_next_one_comes() -> None:
    pool = WorkerPool("test", 1)

    class Message:
        pass

    message = Message()
    alive = weakref.ref(message)
    pool.put(lambda _message: None, message)
    del message
    eventually(lambda: alive() is None)
    pool.stop(10)
