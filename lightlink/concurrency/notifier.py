"""A thread for what must happen off the loop and without a worker: timers, settling futures, users' callbacks."""

from __future__ import annotations

import heapq
import itertools
import logging
import threading
import time
import weakref
from contextvars import Context
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

from lightlink.concurrency.forks import run_handler
from lightlink.concurrency.threads import join_thread, start_thread

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    _Job = tuple[Callable[..., object], tuple[Any, ...]]

_log = logging.getLogger("lightlink")

# So many timers are kept without a thought.
_FEW_TIMERS = 1024


class Notifier:
    """Runs functions, in order, on a thread named ``lightlink-<name>``.

    It starts with the first function, or with `start`: at the interpreter's exit it could not any more.
    """

    def __init__(self, name: str) -> None:
        self._name = f"lightlink-{name}"
        # What came together, which may be nothing: then there is another first timer. None is the end.
        self._jobs: SimpleQueue[list[_Job] | None] = SimpleQueue()
        self._timers: list[tuple[float, int, _Job]] = []
        # Reentrant, because a signal handler may set a timer while its own thread is in here.
        self._timers_lock = threading.RLock()
        self._most_timers = _FEW_TIMERS
        self._numbers = itertools.count()
        self._thread: threading.Thread | None = None
        self._stopped = False
        self._lock = threading.Lock()

    def start(self) -> None:
        """Start the thread, unless it runs."""
        with self._lock:
            if self._thread is None:
                self._thread = start_thread(self._work, self._name)

    @property
    def is_own_thread(self) -> bool:
        """Whether the caller runs on this thread."""
        return threading.current_thread() is self._thread

    @property
    def name(self) -> str:
        """The thread's name."""
        return self._name

    def post(self, function: Callable[..., object], *args: Any) -> bool:
        """Run a function soon; False tells that the thread was stopped, and may not run it any more."""
        self._put([(function, args)])
        return not self._stopped

    def post_all(self, functions: Iterable[Callable[[], object]]) -> None:
        """Run some functions soon, one after the other, for the price of one wake-up."""
        self._put([(function, ()) for function in functions])

    def post_at(self, instant: float, function: Callable[..., object], *args: Any) -> None:
        """Run a function at an instant of `time.monotonic`."""
        with self._timers_lock:
            self._add_timer(instant, (function, args))
            is_first = self._timers[0][0] >= instant
        if is_first:  # the others it will find by itself, and waking it costs more than they do
            self._put([])

    def post_at_for(self, owner: Any, instant: float, function: Callable[[Any], object]) -> None:
        """Run ``function(owner)`` at an instant of `time.monotonic`, unless nobody holds ``owner`` any more by then."""
        self.post_at(instant, _call_if_alive, weakref.ref(owner), function)

    def stop(self, timeout: float) -> None:
        """End the thread once what was posted to run soon has run; timers not yet due are dropped."""
        self._stopped = True  # first: who has put a job and does not see it is before the end
        self._jobs.put(None)
        if self._thread is not None:
            join_thread(self._thread, timeout)

    def _put(self, jobs: list[_Job]) -> None:
        if self._thread is None:
            self.start()
        self._jobs.put(jobs)

    def _work(self) -> None:
        with self._lock:
            # Who started it may have been interrupted before this was known, and another may be there by now.
            if self._thread not in (None, threading.current_thread()):
                return
            self._thread = threading.current_thread()
        while True:
            try:
                jobs = self._jobs.get(timeout=self._until_next_timer())
            except Empty:
                jobs = []
            if jobs is None:
                return
            for job in jobs:
                self._run(job)
            self._run_due()

    def _add_timer(self, instant: float, job: _Job) -> None:
        heapq.heappush(self._timers, (instant, next(self._numbers), job))
        # Now and then those are dropped whose owner is gone: requests with long timeouts, answered at once, leave many.
        if len(self._timers) >= self._most_timers:
            self._timers = [timer for timer in self._timers if not _is_orphan(timer[2])]
            heapq.heapify(self._timers)
            self._most_timers = 2 * len(self._timers) + _FEW_TIMERS

    def _until_next_timer(self) -> float | None:
        with self._timers_lock:
            if not self._timers:
                return None
            return min(max(0.0, self._timers[0][0] - time.monotonic()), threading.TIMEOUT_MAX)

    def _run_due(self) -> None:
        while True:
            with self._timers_lock:
                if not self._timers or self._timers[0][0] > time.monotonic():
                    return
                job = heapq.heappop(self._timers)[2]
            self._run(job)

    def _run(self, job: _Job) -> None:
        function, args = job
        try:
            Context().run(run_handler, function, *args)
        except BaseException:
            _log.exception("lightlink: %r failed", function)


def _call_if_alive(reference: weakref.ref[Any], function: Callable[[Any], object]) -> None:
    owner = reference()
    if owner is not None:
        function(owner)


def _is_orphan(job: _Job) -> bool:
    function, args = job
    return function is _call_if_alive and args[0]() is None
