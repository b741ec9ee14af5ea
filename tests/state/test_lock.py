"""One of many: locks and leaders among real processes that are killed and stopped."""

from __future__ import annotations

import queue
import signal
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from helpers.waiting import eventually

import lightlink
from lightlink.errors import InvalidName, InvalidOption, LockHeld, NotReady

if TYPE_CHECKING:
    from conftest import StartProxy, StartPython

HOLD = """
    import sys
    import lightlink

    client = lightlink.connect(sys.argv[1], name="holder")
    lock = client.lock(sys.argv[2], ttl=1.0, wait=30)
    with lock:
        print("has", lock.token, flush=True)
        lock.lost.wait(60)
        print("lost", lock.token, flush=True)
"""
# Takes the lock again and again, and writes down its number, as what it protects would see it.
WORK = """
    import sys, time
    import lightlink

    client = lightlink.connect(sys.argv[1])
    while True:
        lock = client.lock(sys.argv[2], ttl=1.0)
        if lock.acquire(wait=30):
            for _ in range(3):
                if lock.is_held:
                    client.publish(sys.argv[3], lock.token)
                    time.sleep(0.01)
            lock.release()
"""


def test_one_has_it_and_the_others_are_told_who(url: str, prefix: str) -> None:
    with lightlink.connect(url, name="ada") as ada, lightlink.connect(url, name="bob") as bob:
        first, second = ada.lock(prefix), bob.lock(prefix)
        assert not first.is_held
        with pytest.raises(NotReady, match="was never taken"):
            _ = first.token
        with first:
            assert first.is_held
            with pytest.raises(LockHeld, match=f"lock '{prefix}' is held .owner ada, host "), second:
                pass
            assert second.acquire() is False
            with pytest.raises(NotReady, match="is held already"):
                first.acquire()
        assert not first.is_held
        with second:
            assert second.token > first.token
            first.release()  # it is not its own
            assert second.is_held
        assert second.holder() is None


def test_whoever_waits_gets_it_when_it_is_given_back(url: str, prefix: str) -> None:
    with lightlink.connect(url) as client:
        first, second = client.lock(prefix, ttl=3.0), client.lock(prefix, ttl=3.0)
        assert first.acquire()
        taken = threading.Thread(target=lambda: second.acquire(wait=30))
        taken.start()
        first.release()
        taken.join(30)
        assert second.is_held
        second.release()


def test_it_is_renewed_for_as_long_as_it_is_held(url: str, prefix: str) -> None:
    with lightlink.connect(url) as client, client.lock(prefix, ttl=2.0) as lock:
        assert not client.lock(prefix).acquire(wait=2.5)
        assert lock.is_held


def test_a_holder_that_is_killed_is_followed_within_its_time(python: StartPython, url: str, prefix: str) -> None:
    holder = python(HOLD, url, prefix)
    token = int(holder.wait_line("has "))
    with lightlink.connect(url) as client:
        assert not client.lock(prefix).acquire()
        holder.signal(signal.SIGKILL)
        with client.lock(prefix, ttl=3.0, wait=30) as lock:
            assert lock.token > token


def test_a_holder_that_was_stopped_learns_that_it_has_lost_it(python: StartPython, url: str, prefix: str) -> None:
    holder = python(HOLD, url, prefix)
    token = int(holder.wait_line("has "))
    holder.signal(signal.SIGSTOP)
    with lightlink.connect(url) as client, client.lock(prefix, ttl=6.0, wait=30) as lock:
        assert lock.token > token
        holder.signal(signal.SIGCONT)
        assert holder.wait_line("lost ") == str(token)
        assert holder.wait().returncode == 0
        assert lock.is_held, "what had lost it has not given it back for another"


def test_a_holder_that_is_cut_off_knows_before_another_has_it(proxy: StartProxy, url: str, prefix: str) -> None:
    link = proxy()
    with lightlink.connect(link.url) as cut_off, lightlink.connect(url) as other:
        lock = cut_off.lock(prefix, ttl=1.0)
        assert lock.acquire()
        link.refuse()
        link.cut()
        with other.lock(prefix, ttl=3.0, wait=30):
            assert not lock.is_held
        assert lock.lost.wait(30)
        link.accept()
        lock.release()


def test_numbers_never_go_back_whoever_dies(python: StartPython, url: str, prefix: str) -> None:
    """A short ledger: three workers, of which one is killed or stopped again and again."""
    with lightlink.connect(url) as client, client.subscribe(f"{prefix}.work") as heard:
        client.flush()
        workers = [python(WORK, url, prefix, f"{prefix}.work") for _ in range(3)]
        seen: list[int] = []

        def hear(count: int) -> None:
            wanted = len(seen) + count
            while len(seen) < wanted:
                seen.append(heard.get(timeout=30).data)

        hear(5)
        workers[0].signal(signal.SIGKILL)
        hear(5)
        workers[1].signal(signal.SIGSTOP)
        hear(5)
        workers[1].signal(signal.SIGCONT)
        hear(10)
        for worker in workers[1:]:
            worker.kill()
    late = [number for place, number in enumerate(seen) if seen[:place] and number < max(seen[:place])]
    # What a worker had published when it was stopped may come late; one number at the most, and it is told apart.
    assert len(set(late)) <= 1
    assert len(set(seen)) > 3


def test_one_of_many_leads_and_another_when_it_is_gone(url: str, prefix: str) -> None:
    told: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def candidate(name: str) -> tuple[lightlink.Client, lightlink.Leader]:
        def elected(lock: lightlink.Lock) -> None:
            told.put((name, lock.token))

        def lost() -> None:
            told.put((name, "lost"))

        client = lightlink.connect(url, name=name)
        return client, client.leader(prefix, ttl=1.0, on_elected=elected, on_lost=lost)

    made = {name: candidate(name) for name in ("ada", "bob")}
    first, token = told.get(timeout=30)
    assert made[first][1].is_leader
    made[first][1].stop()
    assert told.get(timeout=30) == (first, "lost")
    second, later = told.get(timeout=30)
    assert second != first
    assert later > token
    eventually(lambda: made[second][1].is_leader)
    for client, leader in made.values():
        leader.stop()
        client.close()


def test_a_leader_may_resign_and_a_callback_may_fail(url: str, prefix: str) -> None:
    elected: queue.SimpleQueue[int] = queue.SimpleQueue()

    def fail(lock: lightlink.Lock) -> None:
        elected.put(lock.token)
        raise ValueError("no")

    with lightlink.connect(url) as client, client.leader(prefix, ttl=1.0, on_elected=fail) as leader:
        first = elected.get(timeout=30)
        leader.resign()
        assert elected.get(timeout=30) > first


@pytest.mark.parametrize(
    "make",
    [
        lambda client: client.lock("a", ttl=0.5),
        lambda client: client.lock("a", ttl="x"),
        lambda client: client.leader("a", on_elected=5),
    ],
)
def test_what_cannot_be_is_refused(make: Any, url: str) -> None:
    with lightlink.connect(url) as client, pytest.raises(InvalidOption):
        make(client)


def test_a_name_is_a_key(url: str) -> None:
    with lightlink.connect(url) as client, pytest.raises(InvalidName):
        client.lock("no such name")


def test_the_holder_sees_time_as_it_began(url: str, prefix: str) -> None:
    with lightlink.connect(url) as client:
        lock = client.lock(prefix, ttl=1.0)
        began = time.monotonic()
        assert lock.acquire()
        client.close()
        assert lock.lost.wait(30)
        assert time.monotonic() - began < 25


def test_a_forked_child_has_no_part_in_its_parents_lock(python: StartPython, url: str, prefix: str) -> None:
    code = """
        import os, sys, warnings
        import lightlink

        warnings.simplefilter("ignore")
        lock = lightlink.connect(sys.argv[1]).lock(sys.argv[2], ttl=30, wait=30)
        lock.acquire()
        if not os.fork():
            lock.release()
            print("child", lock.is_held, lock.acquire(wait=0), lock.holder()["pid"] == os.getppid(), flush=True)
            print("child", lock.acquire(), lock.holder()["pid"] == os.getpid(), flush=True)
            lock.release()
            os._exit(0)
        sys.stdin.readline()
        print("parent", lock.is_held, flush=True)
        lock.release()
        os.wait()
    """
    process = python(code, url, prefix)
    assert process.wait_line("child") == "False False True"
    process.send_line()
    assert process.wait_line("parent") == "True"
    assert process.wait_line("child") == "True True"


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, ValueError])
def test_an_error_in_the_block_is_not_replaced_by_an_outage(
    error: type[BaseException], proxy: StartProxy, url: str, prefix: str
) -> None:
    line = proxy()

    def work(client: lightlink.Client) -> None:
        with client.lock(prefix):
            line.refuse()
            line.cut()
            raise error

    with lightlink.connect(line.url, timeout=0.2) as client, pytest.raises(error):
        work(client)


def test_a_lock_that_is_taken_again_leaves_no_job_behind(python: StartPython, url: str, prefix: str) -> None:
    code = """
        import sys, threading
        import lightlink

        with lightlink.connect(sys.argv[1]) as client:
            lock = client.lock(sys.argv[2], ttl=1.0)
            for _ in range(2):
                assert lock.acquire(wait=30)
                client.state("light_link_locks").purge(sys.argv[2])
                assert lock.lost.wait(30)
            lock.release()
        print("left", [each.name for each in threading.enumerate() if each.name.startswith("lightlink")])
    """
    assert python(code, url, prefix).wait_line("left") == "[]"


def test_a_leader_whose_callback_exits_lets_another_lead(url: str, prefix: str) -> None:
    elected: queue.SimpleQueue[int] = queue.SimpleQueue()

    def leave(lock: lightlink.Lock) -> None:
        elected.put(lock.token)
        raise SystemExit("no configuration")

    with lightlink.connect(url) as client:
        with client.leader(prefix, ttl=1.0, on_elected=leave) as leader:
            first = elected.get(timeout=30)
            leader.resign()
            assert elected.get(timeout=30) > first
        assert client.lock(prefix).acquire(wait=30)
