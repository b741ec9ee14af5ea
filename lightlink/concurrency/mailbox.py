"""Where messages wait for their handler or reader: bounded, in order."""

from __future__ import annotations

import logging
import os
import threading
import time
import weakref
from collections import deque
from contextvars import Context
from typing import TYPE_CHECKING, Any

from lightlink.concurrency.threads import Condition, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from lightlink.concurrency.workers import WorkerPool

_log = logging.getLogger("lightlink")

# A mailbox with much to do lets the others have a turn after this many messages.
_TURN = 64
_NOTHING = object()


class Closed(Exception):
    """The queue is closed and empty. For use inside the library."""


class Signal:
    """A file descriptor that is readable while something is so, for `select` and its kin. Not safe to share."""

    def __init__(self) -> None:
        self.fileno, self._other = os.pipe()
        os.set_blocking(self.fileno, False)
        self._is_shown = False
        weakref.finalize(self, _close, self.fileno, self._other)

    def show(self, wanted: bool) -> None:
        """Be readable, or not."""
        if wanted and not self._is_shown:
            os.write(self._other, b"!")
        elif self._is_shown and not wanted:
            os.read(self.fileno, 1)
        self._is_shown = wanted


def _close(*descriptors: int) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


class MessageQueue:
    """A bounded queue of messages, of at most ``max_messages`` and ``max_bytes``."""

    def __init__(self, max_messages: int, max_bytes: int) -> None:
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        self._waiting: deque[tuple[Any, int]] = deque()
        self._bytes = 0
        self._closed = False
        self._lock = Condition()
        self._signal: Signal | None = None

    def fileno(self) -> int:
        """Return a file descriptor that is readable while there is something to get, or to learn: that it is closed."""
        with self._lock:
            if self._signal is None:
                self._signal = Signal()
                self._signal.show(self._is_ready)
            return self._signal.fileno

    @property
    def _is_ready(self) -> bool:
        return self._closed or bool(self._waiting)

    def put(self, item: Any, size: int) -> bool:
        """Queue an item of ``size`` bytes; False says that there is no room for it."""
        with self._lock:
            if self._closed or len(self._waiting) >= self._max_messages or self._bytes + size > self._max_bytes:
                return False
            self._waiting.append((item, size))
            self._bytes += size
            self._lock.notify()
            if self._signal is not None:
                self._signal.show(True)
            return True

    def get(self, deadline: float | None) -> Any:
        """Return the next item; raises TimeoutError at the deadline (of `time.monotonic`), Closed if none will come."""
        with self._lock:
            remaining = None if deadline is None else max(deadline - time.monotonic(), 0.0)
            if not self._is_ready and not wait_until(self._lock, lambda: self._is_ready, remaining):
                raise TimeoutError
            if not self._waiting:
                raise Closed
            item, size = self._waiting.popleft()
            self._bytes -= size
            if self._signal is not None:
                self._signal.show(self._is_ready)
            return item

    def close(self) -> None:
        """Take no more; what waits can still be got."""
        with self._lock:
            self._closed = True
            self._lock.notify_all()
            if self._signal is not None:
                self._signal.show(True)

    def drain(self, _timeout: float) -> bool:
        """Tell that nothing is left to wait for: what is queued belongs to the reader."""
        return True

    @property
    def half_empty(self) -> bool:
        """Whether there is room for half of what it may hold."""
        return len(self._waiting) <= self._max_messages // 2 and self._bytes <= self._max_bytes // 2

    def __len__(self) -> int:
        return len(self._waiting)


class Mailbox:
    """Messages for one handler, bounded, run in order on a pool.

    At most ``concurrency`` of the pool's threads are at it at a time; with one, the order of arrival is the order of
    handling. ``max_messages`` and ``max_bytes`` bound what waits.
    """

    def __init__(
        self,
        pool: WorkerPool,
        handle: Callable[[Any], object],
        max_messages: int,
        max_bytes: int,
        concurrency: int = 1,
    ) -> None:
        self._pool = pool
        self._handle = handle
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        self._concurrency = concurrency
        self._waiting: deque[tuple[Any, int]] = deque()
        self._bytes = 0
        self._running = 0
        self._busy: set[int] = set()
        self._closed = False
        self._changed = Condition()

    def put(self, item: Any, size: int) -> bool:
        """Queue an item of ``size`` bytes; False says that there is no room for it."""
        with self._changed:
            if self._closed or len(self._waiting) >= self._max_messages or self._bytes + size > self._max_bytes:
                return False
            self._waiting.append((item, size))
            self._bytes += size
            if self._running >= self._concurrency:
                return True
            self._running += 1
        try:
            self._pool.put(self._run)
        except BaseException:
            with self._changed:
                self._rest()  # the next message has it run again
            raise
        return True

    def close(self) -> None:
        """Take no more, and forget what waits."""
        with self._changed:
            self._closed = True
            self._forget()

    def drain(self, timeout: float) -> bool:
        """Wait until all that was put is handled; tell whether it was within ``timeout`` seconds.

        Called by the handler itself, which what waits would have to wait for, it forgets what waits.
        """
        own = threading.get_ident()
        with self._changed:
            if own in self._busy:
                self._forget()
            return wait_until(self._changed, lambda: not self._waiting and not self._busy - {own}, timeout)

    @property
    def half_empty(self) -> bool:
        """Whether there is room for half of what it may hold."""
        return len(self._waiting) <= self._max_messages // 2 and self._bytes <= self._max_bytes // 2

    def __len__(self) -> int:
        return len(self._waiting)

    def _forget(self) -> None:
        self._waiting.clear()
        self._bytes = 0

    def _run(self) -> None:
        for _ in range(_TURN):
            item = self._next()
            if item is _NOTHING:
                return
            try:
                Context().run(self._handle, item)  # nothing that it sets there is seen by the next
            except BaseException:
                _log.exception("lightlink: a handler failed on %s", threading.current_thread().name)
            # Otherwise the last message would live until the next one comes.
            del item
        with self._changed:
            self._busy.discard(threading.get_ident())
            if self._waiting:
                self._pool.put(self._run)
            else:
                self._rest()

    def _next(self) -> Any:
        own = threading.get_ident()
        with self._changed:
            self._busy.discard(own)
            if not self._waiting:
                self._rest()
                return _NOTHING
            item, size = self._waiting.popleft()
            self._bytes -= size
            self._busy.add(own)
            return item

    def _rest(self) -> None:
        self._running -= 1
        self._changed.notify_all()
