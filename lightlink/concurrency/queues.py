"""Queues between the library's threads and a thread that waits for them."""

from __future__ import annotations

import heapq
import itertools
from queue import Empty, SimpleQueue
from typing import Any, Generic, TypeVar

from lightlink.concurrency.threads import Lock, wait_in_parts

T = TypeVar("T")


class Results(Generic[T]):
    """What other threads hand over, one after the other, to a thread that waits for it."""

    def __init__(self) -> None:
        self._items: SimpleQueue[T] = SimpleQueue()

    def put(self, item: T) -> None:
        """Hand over an item."""
        self._items.put(item)

    def get(self, timeout: float | None = None) -> T:
        """Return the next item, waiting for it; raises TimeoutError after ``timeout`` seconds."""
        taken: list[T] = []

        def take(seconds: float) -> bool:
            try:
                taken.append(self._items.get(timeout=seconds))
            except Empty:
                return False
            return True

        if not wait_in_parts(take, timeout):
            raise TimeoutError(f"nothing came within {timeout:g} s")
        return taken[0]


class Ranks(Generic[T]):
    """What waits for its turn: the lowest rank first, and of a rank what came first."""

    def __init__(self) -> None:
        self._items: list[tuple[Any, int, T]] = []
        self._numbers = itertools.count()
        self._lock = Lock()

    def put(self, rank: Any, item: T) -> None:
        """Add an item; all ranks must be comparable."""
        with self._lock:
            heapq.heappush(self._items, (rank, next(self._numbers), item))

    def take(self) -> T | None:
        """Remove and return the next item, None when there is none."""
        with self._lock:
            return heapq.heappop(self._items)[-1] if self._items else None

    def __len__(self) -> int:
        return len(self._items)
