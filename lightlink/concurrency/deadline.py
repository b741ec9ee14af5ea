"""A deadline: an instant of the monotonic clock that many waits share."""

from __future__ import annotations

import time


class Deadline:
    """The instant ``timeout`` seconds from now."""

    __slots__ = ("at",)

    def __init__(self, timeout: float) -> None:
        self.at = time.monotonic() + timeout

    def remaining(self, least: float = 0.0) -> float:
        """Return the seconds until then, but no fewer than ``least``."""
        return max(self.at - time.monotonic(), least)

    def as_timeout(self) -> float:
        """Return the seconds until then as the timeout of a request, which must not be 0."""
        return self.remaining(0.001)

    @property
    def is_over(self) -> bool:
        """Whether the instant has passed."""
        return time.monotonic() >= self.at

    def __repr__(self) -> str:
        return f"<Deadline in {self.at - time.monotonic():.3f} s>"
