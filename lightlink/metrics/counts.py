"""What is counted for the metrics, beside what clients and services count themselves."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

import attrs

from lightlink.concurrency.threads import Condition
from lightlink.connection.session import Status

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lightlink.client import Client
    from lightlink.events.subscription import DropCount
    from lightlink.middleware import Kind

_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
# A program may call methods whose names others give it; beyond so many they are counted as one.
_MAX_METHODS = 1000
_OTHERS = "(others)"


@attrs.define
class Calls:
    """The calls of one method: how long they took, in each bucket, and how those failed that did."""

    buckets: list[int] = attrs.field(factory=lambda: [0] * (len(_BUCKETS) + 1))
    seconds: float = 0.0
    errors: dict[str, int] = attrs.field(factory=dict)

    @property
    def count(self) -> int:
        """How many there were."""
        return sum(self.buckets)

    def note(self, seconds: float, error: BaseException | None) -> None:
        """Count a call."""
        place = next((place for place, limit in enumerate(_BUCKETS) if seconds <= limit), len(_BUCKETS))
        self.buckets[place] += 1
        self.seconds += seconds
        if error is not None:
            name = type(error).__name__
            self.errors[name] = self.errors.get(name, 0) + 1

    def add(self, other: Calls) -> None:
        """Count another's calls too."""
        self.buckets = [mine + theirs for mine, theirs in zip(self.buckets, other.buckets, strict=True)]
        self.seconds += other.seconds
        for name, count in other.errors.items():
            self.errors[name] = self.errors.get(name, 0) + count

    def cumulative(self) -> list[tuple[str, float]]:
        """Return the buckets as Prometheus counts them: each with all below it."""
        limits = [*map(str, _BUCKETS), "+Inf"]
        return [(limit, float(sum(self.buckets[: place + 1]))) for place, limit in enumerate(limits)]


class ClientCounts:
    """What is counted of one client from its registration on."""

    def __init__(self, client: Client) -> None:
        self.name = client.options.name
        self.calls: dict[tuple[str, str], Calls] = {}
        self.reconnects = 0
        self._drops = Drops()
        self._connected = client.status is Status.CONNECTED
        self._lock = Condition()
        client.add_observer(self._note)
        client.on_status_change(self._note_status)

    def _note(self, kind: Kind, name: str, seconds: float, error: BaseException | None) -> None:
        if kind != "call":
            return
        with self._lock:
            service, _, method = name.partition(".")
            key = (service, method)
            if key not in self.calls and len(self.calls) >= _MAX_METHODS:
                key = (_OTHERS, _OTHERS)
            self.calls.setdefault(key, Calls()).note(seconds, error)

    def dropped(self, client: Client) -> int:
        """Return how many messages the client's subscriptions have dropped."""
        return self._drops.total(client.subscriptions)

    def _note_status(self, status: Status) -> None:
        if status is Status.CONNECTED:
            self.reconnects += self._connected
            self._connected = True


class Drops:
    """Adds up what subscriptions drop; what one has dropped still counts when it is gone."""

    def __init__(self) -> None:
        self._lock = Condition()
        self._gone = 0
        self._counts: dict[DropCount, weakref.ref[Any]] = {}

    def total(self, subscriptions: Iterable[Any]) -> int:
        """Return how many messages were dropped by now."""
        with self._lock:  # two may ask at once
            for subscription in subscriptions:
                count = getattr(subscription, "drops", None)
                if count is not None:
                    self._counts[count] = weakref.ref(subscription)
            # It is looked who is gone before it is added up: the counts of these stay as they are.
            gone = [count for count, reference in self._counts.items() if reference() is None]
            for count in gone:
                self._gone += count.count
                del self._counts[count]
            return self._gone + sum(count.count for count in self._counts)
