"""Threads for jobs that mostly wait: as many as wait at the same time, and few when nothing does."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from lightlink.concurrency.deadline import Deadline, instant_after
from lightlink.concurrency.threads import Condition, join_thread, start_thread
from lightlink.errors import ClosedError, ResourceExhausted

if TYPE_CHECKING:
    from collections.abc import Callable

    from lightlink.concurrency.notifier import Notifier

_log = logging.getLogger("lightlink")

# How long a job waits for a thread before there is another one, and how long a thread that is not needed stays.
_GROW_SECONDS = 0.02
_IDLE_SECONDS = 10.0
# After a thread could not be had.
_RETRY_SECONDS = 1.0


class ElasticPool:
    """Threads named ``<name>-<n>`` that run what they are given, each job once, oldest first.

    One thread is always there. Another is started when a job has waited for 20 ms, one at a time: a thousand jobs that
    come together and are short need no thousand threads. ``timer`` looks after that. A thread with nothing to do for
    ten seconds ends.
    """

    def __init__(self, name: str, timer: Notifier) -> None:
        self._name = name
        self._timer = timer
        self._jobs: deque[tuple[float, Callable[..., object], tuple[Any, ...]]] = deque()
        self._changed = Condition()
        self._threads: set[threading.Thread] = set()
        self._started = 0
        self._idle = 0
        self._watched = False  # whether the timer will look at the job that waits longest
        self._stopped = False

    def start(self) -> None:
        """Start the first thread; raises ResourceExhausted, ClosedError."""
        with self._changed:
            if not self._threads:
                self._add_thread()

    def put(self, job: Callable[..., object], *args: Any) -> None:
        """Queue a job. Without effect after `stop`."""
        with self._changed:
            if self._stopped:
                return
            self._jobs.append((time.monotonic(), job, args))
            if self._idle:
                self._changed.notify()
            watch = not self._watched and len(self._jobs) > self._idle
            self._watched |= watch
        if watch:
            self._timer.post_at(instant_after(_GROW_SECONDS), self._grow)

    def stop(self, timeout: float) -> None:
        """End the threads once the jobs queued so far are done; wait for at most ``timeout`` seconds."""
        with self._changed:
            self._stopped = True
            threads = list(self._threads)
            self._changed.notify_all()
        deadline = Deadline(timeout)
        for thread in threads:
            join_thread(thread, deadline.remaining())

    def _grow(self) -> None:
        """Start a thread if a job has waited for too long, and look again; on the timer's thread."""
        with self._changed:
            if not self._jobs or self._stopped:
                self._watched = False
                return
            due = self._jobs[0][0] + _GROW_SECONDS
            if due <= time.monotonic():
                due = instant_after(self._try_to_add_thread())
        self._timer.post_at(due, self._grow)

    def _try_to_add_thread(self) -> float:
        """Start a thread if that is possible; return the seconds until the next may be started."""
        try:
            self._add_thread()
        except ResourceExhausted as exc:
            # Those that are there do the work, if later.
            _log.warning("lightlink: %s has %d threads: %s", self._name, len(self._threads), exc)
            return _RETRY_SECONDS
        except ClosedError:
            return _RETRY_SECONDS  # the interpreter is ending
        return _GROW_SECONDS

    def _add_thread(self) -> None:
        thread = start_thread(self._work, f"{self._name}-{self._started + 1}")
        self._started += 1
        self._threads.add(thread)

    def _work(self) -> None:
        with self._changed:
            self._threads.add(threading.current_thread())  # who started it may have been interrupted before it did
        while (job := self._next()) is not None:
            _, function, args = job
            try:
                function(*args)
            except BaseException:
                _log.exception("lightlink: a job failed on %s", threading.current_thread().name)
            # Otherwise what the last job held would live until the next one comes.
            del job, function, args

    def _next(self) -> tuple[float, Callable[..., object], tuple[Any, ...]] | None:
        with self._changed:
            self._idle += 1
            try:
                while not self._jobs and not self._stopped:
                    if not self._changed.wait(_IDLE_SECONDS) and not self._jobs and self._idle > 1:
                        break
            finally:
                self._idle -= 1
            if self._jobs:
                return self._jobs.popleft()
            self._threads.discard(threading.current_thread())
            return None
