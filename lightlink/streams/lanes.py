"""Ordering within a process: one event per key at a time, a retried one before those behind it."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Generic, TypeVar

from lightlink.concurrency.threads import Condition

if TYPE_CHECKING:
    from collections.abc import Hashable

J = TypeVar("J")


class Lanes(Generic[J]):
    """Queues by key. The head of a lane is being handled or waits for its retry; `leave` removes it."""

    def __init__(self) -> None:
        self._lock = Condition()
        self._lanes: dict[Hashable, deque[J]] = {}

    def enter(self, key: Hashable, job: J) -> bool:
        """Queue a job; tell whether it is the head, to be handled now."""
        with self._lock:
            lane = self._lanes.setdefault(key, deque())
            lane.append(job)
            return len(lane) == 1

    def leave(self, key: Hashable) -> J | None:
        """Remove the settled head of a lane; return the next job, to be handled now."""
        with self._lock:
            lane = self._lanes[key]
            lane.popleft()
            if lane:
                return lane[0]
            del self._lanes[key]
            return None

    def move_waiting(self, to: list[J]) -> None:
        """Move the jobs that wait behind the heads of lanes to a list."""
        with self._lock:
            for lane in self._lanes.values():
                while len(lane) > 1:
                    to.append(lane[-1])
                    lane.pop()
