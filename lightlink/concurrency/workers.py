"""A pool of named worker threads."""

from __future__ import annotations

import logging
import threading
import time
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

from lightlink.concurrency.deadline import Deadline, instant_after
from lightlink.concurrency.threads import join_thread, start_thread
from lightlink.errors import ClosedError, ResourceExhausted

if TYPE_CHECKING:
    from collections.abc import Callable

    _Job = tuple[Callable[..., object], tuple[Any, ...]]

_log = logging.getLogger("lightlink")

# How long after a failure to start a thread it is tried again, with the next job.
_RETRY_SECONDS = 1.0


class WorkerPool:
    """Up to ``size`` threads named ``<name>-worker-<n>`` that run what they are given.

    `start` starts the first, where an error reaches the caller; else the first job does. Another is started when
    a job comes while none is idle, and they stay. Where not all can be had, those that are there do the work.
    """

    def __init__(self, name: str, size: int) -> None:
        self.size = size
        self._name = name
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._threads: set[threading.Thread] = set()
        self._is_complete = False
        # An entry for each thread that waits for a job, until the pool is complete.
        self._idle: list[None] = []
        self._retry_at = 0.0
        self._stopped = False
        self._lock = threading.Lock()

    def start(self) -> None:
        """Start the first thread, unless one runs; raises ResourceExhausted, ClosedError."""
        with self._lock:
            if not self._threads and not self._stopped:
                self._add_thread(self._jobs.get)
                self._idle.append(None)

    def put(self, job: Callable[..., object], *args: Any) -> None:
        """Queue a job. Without effect after `stop`; raises ResourceExhausted where no thread can be had."""
        if not self._threads:
            self.start()
        self._jobs.put((job, args))
        if not self._is_complete:
            try:
                self._idle.pop()
            except IndexError:
                self._grow()

    def offer(self, limit: int, job: Callable[..., object], *args: Any) -> bool:
        """Queue a job unless ``limit`` jobs wait already; tell whether it was queued."""
        if self._jobs.qsize() >= limit:
            return False
        self.put(job, *args)
        return True

    def stop(self, timeout: float) -> bool:
        """End the threads once the jobs queued so far are done; tell whether all ended within ``timeout`` seconds.

        A straggler is logged by name. The pool's own threads may call this; they are not waited for. Where Ctrl-C ended
        it, it may be called again.
        """
        with self._lock:
            self._stopped = True
            threads = [thread for thread in self._threads if thread.is_alive()]
        for _ in threads:
            self._jobs.put(None)
        deadline = Deadline(timeout)
        stragglers = [t for t in threads if not join_thread(t, deadline.remaining())]
        for thread in stragglers:
            if thread is not threading.current_thread():
                _log.warning("lightlink: %s is still running its handler", thread.name)
        return not stragglers

    def join(self, timeout: float) -> bool:
        """Wait, after `stop`, for threads that had not ended; tell whether they have within ``timeout`` seconds."""
        deadline = Deadline(timeout)
        return all(join_thread(thread, deadline.remaining()) for thread in self._threads)

    @property
    def is_own_thread(self) -> bool:
        """Whether the caller runs on one of the pool's threads."""
        return threading.current_thread() in self._threads

    def _grow(self) -> None:
        """Start one more thread, if there may be one."""
        with self._lock:
            if self._is_complete or self._stopped or time.monotonic() < self._retry_at:
                return
            try:
                self._add_thread(self._next)
            except (ResourceExhausted, ClosedError) as exc:
                self._retry_at = instant_after(_RETRY_SECONDS)
                if isinstance(exc, ResourceExhausted):  # else the interpreter is ending
                    _log.warning(
                        "lightlink: %s has %d of %d threads: %s", self._name, len(self._threads), self.size, exc
                    )

    def _add_thread(self, first: Callable[[], _Job | None]) -> None:
        self._know(start_thread(self._work, f"{self._name}-worker-{len(self._threads) + 1}", first))

    def _know(self, thread: threading.Thread) -> None:
        self._threads.add(thread)
        self._is_complete = len(self._threads) >= self.size

    def _work(self, first: Callable[[], _Job | None]) -> None:
        with self._lock:
            me = threading.current_thread()
            if self._stopped and me not in self._threads:
                return
            self._know(me)  # who started it may have been interrupted before it did
        job = first()
        while job is not None:
            function, args = job
            try:
                function(*args)
            except BaseException:
                # A handler may even call sys.exit(); that ends neither the thread nor the program.
                _log.exception("lightlink: a job failed on %s", threading.current_thread().name)
            # Otherwise the last job's message would live until the next one comes.
            del job, function, args
            job = self._next()

    def _next(self) -> _Job | None:
        if self._is_complete:
            return self._jobs.get()
        try:
            return self._jobs.get_nowait()
        except Empty:
            self._idle.append(None)
        try:
            job = self._jobs.get_nowait()
        except Empty:
            return self._jobs.get()  # whatever comes from here on counts on this thread
        # It came before this thread was known to be idle, and does not count on it.
        try:
            self._idle.pop()
        except IndexError:
            self._grow()  # another job does
        return job
