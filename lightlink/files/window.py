"""How much of an upload may be on its way: what keeps the way busy, and little that only waits on it (cf. RFC 6817).

A call on the same connection waits behind what waits there.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_FIRST_BYTES = 1024 * 1024
# A chunk may wait behind others as long as the way takes without them, and so many seconds.
_QUEUE_SECONDS = 0.001
_LEAST_CHUNKS = 2


class UploadWindow:
    """The bytes that an upload may have in flight, never more than ``most()`` tells.

    It goes by how long chunks take from being sent to their acknowledgement. Of those that were in flight together the
    quickest quarter counts: it tells what waits all the time, and not what a lost packet has held up.
    """

    def __init__(self, chunk_size: int, most: Callable[[], int]) -> None:
        self._least = _LEAST_CHUNKS * chunk_size
        self._most = most
        self._size = max(_FIRST_BYTES, self._least)
        self._way = math.inf  # seconds that a chunk takes before which nothing waits
        self._took: list[float] = []  # since the size is what it is
        self._acknowledged = 0

    @property
    def size(self) -> int:
        """How many bytes may be in flight now."""
        return min(self._size, self._most())

    def note(self, size: int, took: float) -> None:
        """Note that a chunk of ``size`` bytes was acknowledged, ``took`` seconds after it was sent."""
        self._way = min(self._way, took)
        self._acknowledged += size
        if self._acknowledged <= self.size:  # sent before the size was what it is, or into a queue of before
            return
        self._took.append(took)
        if self._acknowledged > 2 * self.size:
            self._adapt(sorted(self._took)[len(self._took) // 4])
            self._took, self._acknowledged = [], 0

    def _adapt(self, took: float) -> None:
        # With the least in flight hardly anything waits: then it is the way that has become longer.
        if self._size <= self._least:
            self._way = took
        bearable = 2 * self._way + _QUEUE_SECONDS
        factor = min(max(bearable / max(took, 1e-6), 0.5), 2.0)
        self._size = min(max(int(self.size * factor), self._least), max(self._most(), self._least))
