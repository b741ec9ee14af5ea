"""The server's time, as far as its answers tell it.

Deadlines are compared with the server's time, so that the clocks of those who set it, run under it and watch
it need not agree.
"""

from __future__ import annotations

import logging
import time
from datetime import datetime, timezone

_log = logging.getLogger("lightlink")

# A difference from our own clock that is worth a word, in seconds.
_REMARKABLE = 2.0


class ServerClock:
    """The server's time. Our own clock is believed as far as what the server has told allows.

    It counts with `time.monotonic`, so that a step of our own clock changes nothing.
    """

    def __init__(self) -> None:
        self._base = time.time() - time.monotonic()
        self._has_warned = False

    def now(self) -> datetime:
        """Return the server's time, in UTC."""
        return datetime.fromtimestamp(self.timestamp(), timezone.utc)

    def timestamp(self) -> float:
        """Return the server's time in seconds, as `time.time` counts."""
        return time.monotonic() + self._base

    def learn(self, told: datetime, asked_at: float, answered_at: float) -> None:
        """Note that the server's clock showed ``told`` at some moment between two of `time.monotonic`."""
        least, most = told.timestamp() - answered_at, told.timestamp() - asked_at
        self._base = min(max(self._base, least), most)
        self._warn()

    def _warn(self) -> None:
        """Say, once, that our own clock is not the server's."""
        behind = self.timestamp() - time.time()
        is_remarkable = abs(behind) > _REMARKABLE
        if is_remarkable and not self._has_warned:
            apart = f"{abs(behind):.0f} s {'behind' if behind > 0 else 'ahead of'}"
            _log.warning("lightlink: this clock is %s the server's, whose time counts for commands", apart)
        self._has_warned = is_remarkable
