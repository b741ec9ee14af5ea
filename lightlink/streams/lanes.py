"""Order within a process: of the events of one key one at a time, a retried one before those behind it."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from lightlink.concurrency.threads import Condition

if TYPE_CHECKING:
    from collections.abc import Hashable

J = TypeVar("J")


class Lanes(Generic[J]):
    """Queues by key. The first of a lane is being handled, or waits to be tried again; it leaves with `leave`."""

    def __init__(self) -> None:
        self._lock = Condition()
        self._lanes: dict[Hashable, deque[J]] = {}

    def enter(self, key: Hashable, job: J) -> bool:
        """Queue a job; tell whether it is the first, and so to be handled now."""
        with self._lock:
            lane = self._lanes.setdefault(key, deque())
            lane.append(job)
            return len(lane) == 1

    def leave(self, key: Hashable) -> J | None:
        """Take note that the first of a lane is settled; return the next, which is to be handled now."""
        with self._lock:
            lane = self._lanes[key]
            lane.popleft()
            if lane:
                return lane[0]
            del self._lanes[key]
            return None

    def drain(self) -> list[J]:
        """Return what waits behind the first of each lane, and forget it."""
        with self._lock:
            waiting: list[Any] = []
            for lane in self._lanes.values():
                waiting += list(lane)[1:]
                while len(lane) > 1:
                    lane.pop()
            return waiting
