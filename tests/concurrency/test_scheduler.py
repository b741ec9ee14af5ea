from __future__ import annotations

import gc
import queue
import threading
import weakref
from typing import TYPE_CHECKING

import pytest
from helpers.process import run_python

from lightlink.concurrency.scheduler import Lane, every

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def lane() -> Iterator[Lane]:
    made = Lane()
    made.start()
    yield made
    made.stop(10)


def own_threads() -> list[str]:
    return [each.name for each in threading.enumerate() if each.name.startswith(("lightlink-timer", "lightlink-jobs"))]


def test_a_job_is_called_again_and_again_also_when_it_fails(caplog: pytest.LogCaptureFixture) -> None:
    calls: queue.SimpleQueue[int] = queue.SimpleQueue()

    def work() -> None:
        calls.put(1)
        raise ValueError("not today")

    going = every(0.001, work)
    for _ in range(3):
        calls.get(timeout=30)
    going.stop(5)
    assert "not today" in caplog.text


def test_stopping_waits_for_a_call_that_is_under_way() -> None:
    begun, go_on = threading.Event(), threading.Event()
    calls: list[int] = []

    def work() -> None:
        begun.set()
        assert go_on.wait(30)
        calls.append(1)

    going = every(0.001, work)
    assert begun.wait(30)
    stopping = threading.Thread(target=going.stop, args=(10,))
    stopping.start()
    assert calls == []
    go_on.set()
    stopping.join(30)
    assert calls == [1]


def test_a_job_can_stop_itself() -> None:
    stopped = threading.Event()

    def work() -> None:
        going.stop(30)
        stopped.set()

    going = every(0.05, work)
    assert stopped.wait(20)


def test_what_has_ended_is_forgotten_long_before_it_would_be_due() -> None:
    class Owner:
        def work(self) -> None:
            raise AssertionError("its hour never comes")

    owner = Owner()
    first, second = (every(3600, owner.work) for _ in range(2))
    first.stop(1)
    second.stop(1)
    alive = weakref.ref(owner)
    del owner, first, second
    gc.collect()
    assert alive() is None


def test_a_job_that_nobody_holds_goes_on() -> None:
    calls: queue.SimpleQueue[int] = queue.SimpleQueue()

    def begin() -> Callable[[float], None]:
        return weakref.WeakMethod(every(0.001, lambda: calls.put(1)).stop)()  # type: ignore[return-value]

    stop = begin()
    gc.collect()
    for _ in range(3):
        calls.get(timeout=30)
    stop(5)


def test_the_threads_end_with_the_last_job_and_begin_again() -> None:
    """In a process of its own: what other tests have left running here has jobs, too."""
    code = """
import queue, threading, time
from lightlink.concurrency.scheduler import every

calls = queue.SimpleQueue()
for number in range(3):
    going = every(0.001, lambda number=number: calls.put(number))
    while calls.get(timeout=30) != number:
        pass
    going.stop(5)
deadline = time.monotonic() + 25
while [each for each in threading.enumerate() if each.name.startswith(("lightlink-timer", "lightlink-jobs"))]:
    assert time.monotonic() < deadline, threading.enumerate()
    time.sleep(0.01)
print("none")
"""
    assert run_python(code).stdout == "none\n"


def test_a_job_that_blocks_keeps_no_other_from_running() -> None:
    go = threading.Event()
    calls: queue.SimpleQueue[int] = queue.SimpleQueue()
    blocked = [every(0.001, lambda: go.wait(30)) for _ in range(20)]
    going = every(0.001, lambda: calls.put(1))
    for _ in range(3):
        calls.get(timeout=30)
    go.set()
    for each in (*blocked, going):
        each.stop(10)


def test_many_short_jobs_share_few_threads() -> None:
    left = threading.Semaphore(0)
    jobs = [every(0.05, left.release) for _ in range(200)]
    for _ in range(1000):
        assert left.acquire(timeout=30)
    most = len(own_threads())
    for each in jobs:
        each.stop(10)
    assert most < 50  # on a machine so busy that a job waits for 20 ms there are some more than two


def test_a_lane_runs_one_job_at_a_time_in_order(lane: Lane) -> None:
    done: list[int] = []
    for number in range(100):
        lane.put(done.append, number)
    lane.stop(10)
    assert done == list(range(100))
    lane.put(done.append, 100)
    assert len(done) == 100


def test_a_job_of_a_lane_that_fails_is_logged_and_the_next_runs(lane: Lane, caplog: pytest.LogCaptureFixture) -> None:
    done = threading.Event()
    lane.put(lambda: 1 / 0)
    lane.put(done.set)
    assert done.wait(30)
    assert "ZeroDivisionError" in caplog.text


def test_lanes_do_not_wait_for_each_other(lane: Lane) -> None:
    others = [Lane() for _ in range(10)]
    go, done = threading.Event(), threading.Event()
    for other in others:
        other.start()
        other.put(go.wait, 30)
    lane.put(done.set)
    assert done.wait(20)
    go.set()
    for other in others:
        other.stop(10)


def test_a_lane_can_be_stopped_by_its_own_job(lane: Lane) -> None:
    stopped = threading.Event()
    lane.put(lambda: (lane.stop(30), stopped.set()))
    assert stopped.wait(20)


def test_a_forked_child_has_a_scheduler_of_its_own() -> None:
    said = run_python("""
        import os, queue
        from lightlink.concurrency.scheduler import Lane, every
        calls = queue.SimpleQueue()
        inherited, lane = every(0.001, lambda: calls.put("parent")), Lane()
        lane.start()
        calls.get(timeout=30)
        child = os.fork()
        if not child:
            inherited.stop(30)
            lane.stop(30)
            heard = queue.SimpleQueue()
            going = every(0.001, lambda: heard.put("child"))
            print(heard.get(timeout=30), flush=True)
            going.stop(30)
            os._exit(0)
        os.waitpid(child, 0)
        inherited.stop(30)
        print("parent")
    """)
    assert said.stdout.split() == ["child", "parent"]
