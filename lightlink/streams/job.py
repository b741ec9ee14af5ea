"""The settings of a consumption, and the events that it holds."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import attrs

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence

    from lightlink.jetstream.pull import PullConsumer, Pulled
    from lightlink.streams.durable import Durable
    from lightlink.streams.graveyard import Excused
    from lightlink.streams.message import StoredMessage

_JITTER = 0.1
_dice = random.Random()  # noqa: S311 - delays are no secret; our own, so that no program seeds it


@attrs.frozen(kw_only=True)
class Settings:
    """How events are handled; see `Client.consume`."""

    workers: int
    key: Callable[[StoredMessage], Hashable] | None
    timeout: float
    retries: Sequence[float]
    dead_letters: bool
    on_dead_letter: Callable[[StoredMessage, str], object] | None
    batch: int | None
    within: float
    raw: bool
    ack_wait: float
    update: bool
    partitions: int | None

    @property
    def is_ordered(self) -> bool:
        """Whether a retried event holds up those behind it."""
        return self.batch is None and (self.key is not None or self.partitions is not None or self.workers == 1)

    @property
    def attempts(self) -> int | None:
        """After how many attempts an event becomes a dead letter; None: never."""
        return len(self.retries) + 1 if self.dead_letters else None

    def delay(self, attempt: int) -> float:
        """Return the seconds to wait after a failed attempt, with jitter."""
        delay = self.retries[min(attempt, len(self.retries)) - 1] if self.retries else 1.0
        return delay * _dice.uniform(1 - _JITTER, 1 + _JITTER)


@attrs.define(eq=False)
class Job:
    """An event delivered to this process and not settled yet."""

    pulled: Pulled
    source: Source
    tries: int = 0  # failed attempts since this delivery
    attempt: int = 0  # its number, once it is known
    event_at: int = 0  # which dead letter's message holds the event itself, if another one does
    excused: Excused | None = None  # earlier deliveries that were no attempts, once they are known
    is_overdue: bool = False
    key: Hashable = None
    is_in_lane: bool = False
    message: StoredMessage | None = None
    data: Any = None  # decoded, for a handler that takes only that
    started: float | None = None
    is_settled: bool = False


@attrs.define(eq=False)
class Source:
    """Where events come from: the stream itself, or its dead letters to be redelivered."""

    pulls: PullConsumer
    durable: Durable
    stream: str
    is_retry: bool
    lane: Hashable = None  # the key of all its events if they come from a partition
