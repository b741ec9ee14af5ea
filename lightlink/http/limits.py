"""What a request may cost: its size and depth, how often one may come, and how many may wait."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import attrs

from lightlink.concurrency.threads import Condition
from lightlink.validators import field, number

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# The longest a request may be told to wait, in seconds.
MAX_WAIT = 300
# Buckets that have been full for so long hold nothing worth keeping.
_MAX_BUCKETS = 1024


@attrs.frozen(kw_only=True)
class Limits:
    """The limits of an app, in each process.

    A body has at most ``max_body`` bytes, a file ``max_file``, and JSON is nested at most ``max_depth`` deep. Each
    token may make ``rate`` requests a second, and ``burst`` at once after a pause. ``max_waiting`` requests may wait
    at a time, for a command's end or in a stream; each holds one of the server's threads. A stream sends a comment
    every ``heartbeat`` seconds. A command to many agents may store ``max_batch_bytes`` in all, and go to
    ``max_unknown`` agents of which nobody has heard: each is something that the server keeps for days.
    """

    max_body: int = attrs.field(default=1024 * 1024, validator=field(number))
    max_file: int = attrs.field(default=64 * 1024 * 1024, validator=field(number))
    max_depth: int = attrs.field(default=64, validator=field(number))
    rate: float = attrs.field(default=500.0, validator=field(number))
    burst: int = attrs.field(default=1000, validator=field(number))
    max_waiting: int = attrs.field(default=240, validator=field(number))
    max_batch_bytes: int = attrs.field(default=32 * 1024 * 1024, validator=field(number))
    max_unknown: int = attrs.field(default=500, validator=field(number))
    heartbeat: float = attrs.field(default=15.0, validator=field(number))


class RateLimiter:
    """A token bucket for each caller: filled at ``rate`` a second, up to ``burst``. ``clock`` is in seconds."""

    def __init__(self, burst: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._burst = burst
        self._clock = clock
        self._buckets: dict[str, tuple[float, float]] = {}
        self._lock = Condition()

    def take(self, caller: str, rate: float) -> float:
        """Take one request out of a caller's bucket; return 0, or the seconds until the next may be made."""
        now = self._clock()
        # Who may make 5 requests a second is not to make a thousand at once.
        most = min(float(self._burst), max(2 * rate, 1.0))
        with self._lock:
            left, since = self._buckets.get(caller, (most, now))
            left = min(most, left + (now - since) * rate)
            if left < 1:
                self._buckets[caller] = (left, now)
                return (1 - left) / rate
            self._buckets[caller] = (left - 1, now)
            if len(self._buckets) > _MAX_BUCKETS:
                self._buckets.clear()
            return 0.0


class WaitingRoom:
    """Counts who waits; ``size`` may at a time, so that threads are left for those who do not."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.taken = 0
        self._lock = Condition()

    def enter(self) -> bool:
        """Take a seat; False says that there is none."""
        with self._lock:
            if self.taken >= self.size:
                return False
            self.taken += 1
            return True

    def leave(self) -> None:
        """Give a seat back."""
        with self._lock:
            self.taken -= 1


def slices(seconds: float, length: float, clock: Callable[[], float] = time.monotonic) -> Iterator[float]:
    """Cut a wait into slices of at most ``length`` seconds; yields at least once."""
    deadline = clock() + seconds
    while True:
        left = deadline - clock()
        yield min(max(left, 0.0), length)
        if left <= length and clock() >= deadline:
            return
