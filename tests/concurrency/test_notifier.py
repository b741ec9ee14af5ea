from __future__ import annotations

import threading
import time

import pytest

from lightlink.concurrency.notifier import Notifier


def test_functions_run_in_order_on_a_thread_of_its_own() -> None:
    notifier = Notifier("test")
    seen: list[object] = []
    done = threading.Event()
    notifier.post(lambda: seen.append(threading.current_thread().name))
    for n in range(10):
        notifier.post(seen.append, n)
    notifier.post(done.set)
    assert done.wait(30)
    assert seen == ["lightlink-test", *range(10)]
    notifier.stop(10)


def test_timers_run_at_their_instants_and_in_order() -> None:
    notifier = Notifier("test")
    seen: list[tuple[str, float]] = []
    done = threading.Event()
    now = time.monotonic()
    notifier.post_at(now + 0.06, lambda: (seen.append(("second", time.monotonic())), done.set()))
    notifier.post_at(now + 0.02, lambda: seen.append(("first", time.monotonic())))
    assert done.wait(30)
    assert [name for name, _ in seen] == ["first", "second"]
    assert seen[0][1] >= now + 0.02
    assert seen[1][1] >= now + 0.06
    notifier.stop(10)


def test_a_timer_is_forgotten_with_its_owner() -> None:
    class Owner:
        pass

    notifier = Notifier("test")
    seen: list[object] = []
    done = threading.Event()
    kept, instant = Owner(), time.monotonic() + 0.05
    notifier.post_at_for(kept, instant, seen.append)
    notifier.post_at_for(Owner(), instant, seen.append)
    notifier.post_at(instant, done.set)
    assert done.wait(30)
    assert seen == [kept]
    notifier.stop(10)


def test_timers_whose_owners_are_gone_do_not_pile_up() -> None:
    class Owner:
        pass

    notifier = Notifier("test")
    kept = [Owner() for _ in range(50)]
    for n in range(20_000):
        notifier.post_at_for(kept[n] if n < 50 else Owner(), time.monotonic() + 3600, lambda owner: None)
    done = threading.Event()
    notifier.post(done.set)
    assert done.wait(30)
    assert 50 <= len(notifier._timers) < 3000
    notifier.stop(10)


def test_a_timer_does_not_wait_for_other_functions_to_end() -> None:
    notifier = Notifier("test")
    rang = threading.Event()
    notifier.post_at(time.monotonic() + 0.01, rang.set)
    deadline = time.monotonic() + 30
    while not rang.is_set():
        assert time.monotonic() < deadline
        notifier.post(lambda: None)
    notifier.stop(10)


def test_a_function_that_fails_is_logged_and_the_next_one_runs(caplog: pytest.LogCaptureFixture) -> None:
    notifier = Notifier("test")
    done = threading.Event()
    nothing: dict[str, int] = {}
    notifier.post_all([lambda: 1 / 0, lambda: nothing["no"], done.set])
    assert done.wait(30)
    assert "ZeroDivisionError" in caplog.text
    assert "KeyError" in caplog.text
    notifier.stop(10)


def test_stopping_runs_what_was_posted_and_drops_later_timers() -> None:
    notifier = Notifier("test")
    seen: list[str] = []
    notifier.post_at(time.monotonic() + 3600, seen.append, "timer")
    notifier.post(seen.append, "posted")
    notifier.stop(10)
    assert seen == ["posted"]
    assert "lightlink-test" not in [thread.name for thread in threading.enumerate()]


def test_stopping_from_its_own_thread_does_not_wait_for_itself() -> None:
    notifier = Notifier("test")
    done = threading.Event()
    notifier.post(lambda: (notifier.stop(10), done.set()))
    assert done.wait(30)
