"""Run timers, periodic jobs and ordered lanes on a small pool that the whole process shares."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from lightlink.concurrency.deadline import instant_after
from lightlink.concurrency.elastic import ElasticPool
from lightlink.concurrency.notifier import Notifier
from lightlink.concurrency.threads import Condition, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

_log = logging.getLogger("lightlink")

_STOP_SECONDS = 0.5


class Scheduler:
    """A thread that knows what is due when, and a few that do it. They end with the last `PeriodicJob` or `Lane`."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.members: set[object] = set()
        self.timer = Notifier("timer")
        self.pool = ElasticPool("lightlink-jobs", self.timer)
        # Here, where an error reaches the caller.
        try:
            self.timer.start()
            self.pool.start()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End the threads, without waiting long."""
        self.timer.stop(_STOP_SECONDS)
        self.pool.stop(_STOP_SECONDS)


class PeriodicJob:
    """A function called every ``interval`` seconds until `stop`. It may block, and may fail: that is logged."""

    def __init__(self, interval: float, function: Callable[[], object]) -> None:
        self._interval = interval
        self._function = function
        self._runner = 0
        self._stopped = False
        self._changed = Condition()
        self._due = 0.0  # an instant of `time.monotonic`
        self._scheduler = _join(self)
        self._plan(instant_after(interval))

    def stop(self, timeout: float) -> None:
        """End it, waiting at most ``timeout`` seconds for a call that is under way, unless that is who asks."""
        if self._scheduler.pid != os.getpid():
            return  # it is the parent's, and so may be the lock
        with self._changed:
            self._stopped = True
            if self._runner != threading.get_ident():
                wait_until(self._changed, lambda: not self._runner, timeout)
        _leave(self._scheduler, self)

    def _plan(self, due: float) -> None:
        self._due = due
        # The timer does not hold what was stopped, and all that its function holds, until it would have been due.
        self._scheduler.timer.post_at_for(self, due, PeriodicJob._queue)

    def _queue(self) -> None:
        self._scheduler.pool.put(self._run)

    def _run(self) -> None:
        with self._changed:
            if self._stopped:
                return
            self._runner = threading.get_ident()
        try:
            self._function()
        except Exception:
            _log.exception("lightlink: %r failed; it goes on", self._function)
        finally:
            with self._changed:
                self._runner = 0
                self._changed.notify_all()
        self._plan(max(self._due + self._interval, time.monotonic()))


class Lane:
    """Jobs run one at a time, in order, on threads shared with the rest of the process; from `start` to `stop`."""

    def __init__(self) -> None:
        self._jobs: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        self._runner = 0
        self._queued = False  # with the pool, or running
        self._stopped = False
        self._changed = Condition()
        self._scheduler: Scheduler | None = None

    def start(self) -> None:
        """Have threads ready; raises ResourceExhausted, ClosedError."""
        if self._scheduler is None:
            self._scheduler = _join(self)

    def put(self, job: Callable[..., object], *args: Any) -> None:
        """Queue a job. Without effect before `start` and after `stop`."""
        with self._changed:
            if self._stopped or self._scheduler is None:
                return
            self._jobs.append((job, args))
            queued, self._queued = self._queued, True
        if not queued:
            self._scheduler.pool.put(self._run)

    def stop(self, timeout: float) -> None:
        """Take no more, and wait at most ``timeout`` seconds for what was put, unless it is a job that asks."""
        if self._scheduler is None or self._scheduler.pid != os.getpid():
            return
        with self._changed:
            self._stopped = True
            if self._runner != threading.get_ident():
                wait_until(self._changed, lambda: not self._queued, timeout)
        _leave(self._scheduler, self)

    def _run(self) -> None:
        while True:
            with self._changed:
                if not self._jobs:
                    self._runner, self._queued = 0, False
                    self._changed.notify_all()
                    return
                self._runner = threading.get_ident()
                function, args = self._jobs.popleft()
            try:
                function(*args)
            except BaseException:
                _log.exception("lightlink: %r failed", function)
            del function, args


# Reentrant, because a signal handler may stop something while its own thread is in here.
_lock = threading.RLock()
_current: Scheduler | None = None
# A parent's, kept in the child so that no destructor runs on what belongs to the parent.
_inherited: list[Scheduler | None] = []


def every(interval: float, function: Callable[[], object]) -> PeriodicJob:
    """Call a function every ``interval`` seconds, on a thread shared with the other jobs of the process.

    Raises ResourceExhausted, ClosedError.
    """
    return PeriodicJob(interval, function)


def _join(member: object) -> Scheduler:
    """Return the scheduler of this process, which holds a member until it leaves."""
    global _current  # noqa: PLW0603 - there is one in a process
    with _lock:
        if _current is None or _current.pid != os.getpid():
            _current = Scheduler()
        _current.members.add(member)
        return _current


def _leave(scheduler: Scheduler, member: object) -> None:
    global _current  # noqa: PLW0603
    with _lock:
        scheduler.members.discard(member)
        ended = not scheduler.members  # also where Ctrl-C has kept who left it from ending it
        if ended and _current is scheduler:
            _current = None
    if ended:
        try:
            scheduler.stop()
        except BaseException:
            scheduler.stop()  # interrupted, and nobody else stops it
            raise


def _after_fork_in_child() -> None:
    global _lock, _current
    _inherited.append(_current)
    _lock, _current = threading.RLock(), None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
