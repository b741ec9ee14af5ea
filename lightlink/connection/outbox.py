"""The hand-off from calling threads to the loop: a bounded queue that is emptied in batches.

A caller appends under a lock and wakes the loop only if it is asleep, so a message costs no task, no future and mostly
no wake-up.
"""

from __future__ import annotations

import copy
from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple

from lightlink.concurrency.threads import Condition, wait_until
from lightlink.errors import ClosedError, NotReady, OutboxFull

if TYPE_CHECKING:
    from collections.abc import Callable

    from lightlink.errors import LightLinkError


class Unsent(NamedTuple):
    """What waits for the server."""

    messages: int
    bytes: int


class Outbox:
    """What callers have handed over and the loop has not yet taken, in order; the ``len`` of an item is its bytes.

    ``max_messages`` and ``max_bytes`` bound it; one message larger than all of it is taken when the outbox is empty.
    ``wake`` is called, from a caller's thread and without the lock, when the loop is to `take`; ``is_taker`` tells
    whether a caller is the loop's own thread, which would wait for itself.
    """

    def __init__(
        self,
        max_messages: int,
        max_bytes: int,
        wake: Callable[[], object],
        is_taker: Callable[[], bool] = lambda: False,
    ) -> None:
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        self._wake = wake
        self._is_taker = is_taker
        self._items: deque[Any] = deque()
        self._bytes = 0
        self._asleep = True
        self._is_wake_owed = False  # whoever found it asleep has not woken it yet
        self._closed = False
        self._failure: LightLinkError | None = None
        self._waiting = 0
        self._shortcut: Callable[[Any], bool] | None = None
        # Reentrant, because a signal handler may publish while its own thread is in here.
        self._lock = Condition()

    def put(self, item: Any, timeout: float) -> None:
        """Append an item; when the outbox is full, wait for room.

        Raises OutboxFull when there is none within ``timeout`` seconds; after `close` its failure, else ClosedError.
        """
        is_owed = False
        size = len(item)
        try:
            with self._lock:
                if self._closed:
                    raise self._refusal()
                items = self._items
                # The loop sleeps: it has written all that it took.
                if self._asleep and self._shortcut is not None and not items and self._shortcut(item):
                    return
                waiting = self._bytes + size
                # As `_is_full` asks, written out: a message costs a microsecond in all.
                if items and (waiting > self._max_bytes or len(items) >= self._max_messages):
                    self._wait_for_room(size, timeout)
                    waiting = self._bytes + size
                self._bytes = waiting
                items.append(item)
                if self._asleep:
                    self._asleep, self._is_wake_owed = False, True
                is_owed = self._is_wake_owed
            # A signal handler that comes just here may put something too, and wait for it: it wakes the loop itself.
            if is_owed:
                self._wake()
                self._is_wake_owed = False
        except BaseException:
            if is_owed or self._is_wake_owed:
                # Ctrl-C in the middle of it: nobody else would wake the loop, and nothing would ever leave again.
                self._asleep = True
                self._wake()
            raise

    def put_all(self, items: deque[Any], timeout: float) -> None:
        """Move items from the front of a queue in here, as `put` does with each.

        What it raises leaves in the queue what is not in here.
        """
        while items:
            self.put(items[0], timeout)
            items.popleft()
            with self._lock:
                if not self._asleep:  # it is about to look, or was told to
                    self._move_fitting(items)

    def set_shortcut(self, shortcut: Callable[[Any], bool] | None) -> None:
        """Offer each item for which nothing waits to a function first, in the caller's thread; None ends that.

        It returns whether it has taken the item. When this returns, no call of the one before goes on.
        """
        with self._lock:
            self._shortcut = shortcut

    def refuse_interrupted(self) -> None:
        """Raise NotReady where waiting for the loop would stall it: in a signal handler that interrupted a `put`.

        The put goes on when the handler has returned, and holds what the loop needs until then.
        """
        if self._lock.is_owned:
            reason = (
                "cannot wait in a signal handler that has interrupted a publish; publish there, or wait in a thread"
            )
            raise NotReady("the client", reason)

    @property
    def unsent(self) -> Unsent:
        """What waits in it."""
        return Unsent(len(self), self._bytes)

    def take(self, max_bytes: int) -> list[Any]:
        """Remove and return the items at the front, about ``max_bytes`` of them.

        An empty list means that there was nothing, and that the next `put` will wake the loop.
        """
        with self._lock:
            if self._bytes <= max_bytes:
                batch = list(self._items)
                self._items.clear()
                self._bytes = 0
            else:
                batch = self._take_some(max_bytes)
            if not batch:
                self._asleep = True
            if self._waiting:
                self._lock.notify_all()
            return batch

    def close(self, failure: LightLinkError | None = None) -> list[Any]:
        """Refuse whatever comes, release those who wait for room, and return what was never taken.

        ``failure`` is what is raised from then on, if it is not enough to say that the client is closed.
        """
        with self._lock:
            self._closed = True
            self._failure = self._failure or failure
            left = list(self._items)
            self._items.clear()
            self._bytes = 0
            self._lock.notify_all()
            return left

    def __len__(self) -> int:
        return len(self._items)

    def _take_some(self, max_bytes: int) -> list[Any]:
        batch: list[Any] = []
        taken = 0
        while self._items and taken < max_bytes:
            batch.append(self._items.popleft())
            taken += len(batch[-1])
        self._bytes -= taken
        return batch

    def _move_fitting(self, items: deque[Any]) -> None:
        while items and not self._closed and not self._is_full(len(items[0])):
            self._bytes += len(items[0])
            self._items.append(items[0])
            items.popleft()

    def _refusal(self) -> LightLinkError:
        return ClosedError("the client") if self._failure is None else copy.copy(self._failure)

    def _is_full(self, size: int) -> bool:
        if not self._items:
            return False
        return len(self._items) >= self._max_messages or self._bytes + size > self._max_bytes

    def _wait_for_room(self, size: int, timeout: float) -> None:
        if self._is_taker():
            timeout = 0.0  # as in a log handler that publishes what it is told on the loop
        self._waiting += 1
        try:
            if not wait_until(self._lock, lambda: self._closed or not self._is_full(size), timeout):
                raise OutboxFull(len(self._items), self._bytes, timeout)
            if self._closed:
                raise self._refusal()
        finally:
            self._waiting -= 1
