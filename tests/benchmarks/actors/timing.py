"""How calls are timed: one after the other, or by many callers for a while."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

# Of a distribution, what a plot needs.
PERCENTS = (1, 5, 10, 20, 30, 40, 50, 60, 70, 75, 80, 85, 90, 92, 94, 95, 96, 97, 98, 99, 99.5, 99.9)


def times(call: Callable[[], object], count: int) -> dict[str, Any]:
    """Call ``count`` times, and return how long that took, in microseconds; see `summary`."""
    durations = []
    gc.collect()
    for _ in range(count):
        started = time.perf_counter()
        call()
        durations.append(time.perf_counter() - started)
    return summary(durations)


async def async_times(call: Callable[[], Awaitable[object]], count: int) -> dict[str, Any]:
    """Do as `times` does with a coroutine function."""
    durations = []
    gc.collect()
    for _ in range(count):
        started = time.perf_counter()
        await call()
        durations.append(time.perf_counter() - started)
    return summary(durations)


def rate(make_call: Callable[[int], Callable[[], object]], callers: int, seconds: float) -> dict[str, Any]:
    """Call from ``callers`` threads for a while, and return the calls per second and a summary of their times.

    ``make_call`` is given the thread's number and returns what that thread calls.
    """
    ready = threading.Barrier(callers + 1)
    durations: list[list[float]] = [[] for _ in range(callers)]
    failures: list[BaseException] = []

    def work(number: int) -> None:
        own = durations[number]
        try:
            call = make_call(number)
            ready.wait()
            end = time.perf_counter() + seconds
            while (started := time.perf_counter()) < end:
                call()
                own.append(time.perf_counter() - started)
        except BaseException as exc:
            failures.append(exc)
            ready.abort()

    threads = [threading.Thread(target=work, args=(number,), daemon=True) for number in range(callers)]
    gc.collect()
    for thread in threads:
        thread.start()
    try:
        ready.wait()
    except threading.BrokenBarrierError:
        raise failures[0] from None
    started = time.perf_counter()
    for thread in threads:
        thread.join()
    elapsed = time.perf_counter() - started
    if failures:
        raise failures[0]
    return _rate(durations, elapsed)


async def async_rate(call: Callable[[], Awaitable[object]], callers: int, seconds: float) -> dict[str, Any]:
    """Do as `rate` does with tasks."""
    durations: list[list[float]] = [[] for _ in range(callers)]

    async def work(own: list[float]) -> None:
        while (started := time.perf_counter()) < end:
            await call()
            own.append(time.perf_counter() - started)

    gc.collect()
    began = time.perf_counter()
    end = began + seconds
    await asyncio.gather(*(work(own) for own in durations))
    return _rate(durations, time.perf_counter() - began)


def summary(durations: list[float]) -> dict[str, Any]:
    """Return the median and the percentiles of durations given in seconds, in microseconds."""
    ordered = sorted(durations)
    at = [ordered[min(int(len(ordered) * percent / 100), len(ordered) - 1)] for percent in PERCENTS]
    return {"p50": at[PERCENTS.index(50)] * 1e6, "percentiles": [value * 1e6 for value in at], "count": len(ordered)}


def _rate(durations: list[list[float]], elapsed: float) -> dict[str, Any]:
    together = [duration for own in durations for duration in own]
    return {"rate": len(together) / elapsed, **summary(together)}
