"""A deadline: an instant of the monotonic clock that many waits share."""

from __future__ import annotations

import math
import time


def instant_after(timeout: float | None) -> float:
    """Return the instant ``timeout`` seconds from now, as `time.monotonic` counts; None is never, which is infinity."""
    return math.inf if timeout is None else time.monotonic() + timeout


class Deadline:
    """The instant ``timeout`` seconds from now; None for one that never comes."""

    __slots__ = ("at",)

    def __init__(self, timeout: float | None) -> None:
        self.at = instant_after(timeout)

    def remaining(self, least: float = 0.0) -> float:
        """Return the seconds until then, but no fewer than ``least``."""
        return max(self.at - time.monotonic(), least)

    def at_most(self, seconds: float) -> float:
        """Return the instant so many seconds from now, or this one if it is earlier: for waits that look up between."""
        return min(self.at, instant_after(seconds))

    def as_timeout(self) -> float:
        """Return the seconds until then as the timeout of a request, which must not be 0."""
        return self.remaining(0.001)

    @property
    def is_over(self) -> bool:
        """Whether the instant has passed."""
        return time.monotonic() >= self.at

    def __repr__(self) -> str:
        return f"<Deadline in {self.at - time.monotonic():.3f} s>"


NEVER = Deadline(None)
