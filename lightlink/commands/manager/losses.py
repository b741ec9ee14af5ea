"""Detect lost status updates: republished messages are delivered at most once."""

from __future__ import annotations

import time

from lightlink.commands.store import checks
from lightlink.protocol import codec

_ASK_SECONDS = 10.0


class Losses:
    """Compares how many of a stream's revisions were heard with the numbers they bear. All are to be heard.

    `heard` is called on one thread, the rest on another.
    """

    def __init__(self) -> None:
        # How many were heard, and the headers of the last; in one value, for the other thread.
        self._heard: tuple[int, bytes | None] = (0, None)
        self._missing = 0
        self._ask_at = 0.0
        self._last = 0  # what the server said, until `found` has looked at it
        self._known = 0  # up to here losses were told

    def heard(self, headers: bytes | None) -> None:
        """Take note of a revision."""
        self._heard = self._heard[0] + 1, headers

    def found(self) -> bool:
        """Tell whether there are losses that were not told before: in between, or at the end."""
        count, headers = self._heard
        heard = revision_of(headers)
        before = self._missing
        if count:
            self._missing = heard - count
        at_end = max(heard, self._known) < self._last
        if at_end:
            self._known = self._last
        self._last = 0
        return at_end or self._missing != before

    def is_time_to_ask(self) -> bool:
        """Tell, now and then, that the server is to be asked for the number of the last, which `tell` takes."""
        instant = time.monotonic()
        if instant < self._ask_at:
            return False
        self._ask_at = instant + _ASK_SECONDS
        return True

    def tell(self, last: int) -> None:
        """Take note of the last revision there is. Should it be on its way, it has until `found` looks."""
        self._last = last
        self._known = min(self._known, last)  # a stream that was made anew begins with the first


def revision_of(headers: bytes | None) -> int:
    """Return which stored message the server republishes with these headers, 0 when they do not say."""
    sequence = codec.decode_headers(headers).get("Nats-Sequence", "") if headers else ""
    return int(sequence) if checks.is_sequence(sequence) else 0
