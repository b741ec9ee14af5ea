"""How many bytes of an upload are in flight: enough for the way, and little that waits."""

from __future__ import annotations

from collections import deque

import pytest

from lightlink.files.window import UploadWindow

CHUNK = 128 * 1024
MOST = 8 * 1024 * 1024


class Way:
    """A way that takes ``rate`` bytes a second, ``delay`` seconds after them, and chunks one after the other."""

    def __init__(self, rate: float, delay: float) -> None:
        self.rate, self.delay = rate, delay
        self.now = 0.0
        self.moved = 0
        self.waited: list[float] = []
        self._is_busy_until = 0.0
        self._flying: deque[tuple[float, float]] = deque()

    def upload(self, window: UploadWindow, chunks: int) -> None:
        """Send chunks as a writer does."""
        self.moved, self.waited, began = 0, [], self.now
        for _ in range(chunks):
            while self._flying and (len(self._flying) + 1) * CHUNK > window.size:
                self._settle(window)
            begins = max(self.now, self._is_busy_until)
            self.waited.append(begins - self.now)
            self._is_busy_until = begins + CHUNK / self.rate
            self._flying.append((self.now, self._is_busy_until + self.delay))
        while self._flying:
            self._settle(window)
        self.seconds = self.now - began

    def _settle(self, window: UploadWindow) -> None:
        sent, arrives = self._flying.popleft()
        self.now = max(self.now, arrives)
        window.note(CHUNK, arrives - sent)
        self.moved += CHUNK


@pytest.mark.parametrize("rate", [1e6, 12.5e6, 100e6, 500e6])
@pytest.mark.parametrize("delay", [0.0002, 0.02, 0.1])
def test_an_upload_fills_the_way_and_hardly_waits_on_it(rate: float, delay: float) -> None:
    window, way = UploadWindow(CHUNK, lambda: MOST), Way(rate, delay)
    way.upload(window, 300)  # until it has found its size
    way.upload(window, 600)
    alone = CHUNK / rate + delay
    possible = min(rate, MOST / alone)
    assert way.moved / way.seconds > 0.8 * possible
    # A call waits as long; behind all the bytes that may be in flight it would be 8 s on the slowest.
    assert sorted(way.waited)[len(way.waited) // 2] <= 1.2 * alone + 2 * CHUNK / rate + 0.006


def test_a_way_that_has_become_longer_is_filled_again() -> None:
    window, way = UploadWindow(CHUNK, lambda: MOST), Way(100e6, 0.0005)
    way.upload(window, 500)
    assert window.size < MOST / 2
    way.delay = 0.1  # an agent that roams
    way.upload(window, 2000)
    assert window.size == MOST
    assert way.moved / way.seconds > 0.5 * MOST / 0.1


def test_what_is_shared_with_others_is_never_exceeded() -> None:
    share = MOST
    window = UploadWindow(CHUNK, lambda: share)
    Way(1e12, 0.05).upload(window, 1000)
    assert window.size == MOST
    share = MOST // 4
    assert window.size == share


def test_one_chunk_that_was_held_up_changes_nothing() -> None:
    window = UploadWindow(CHUNK, lambda: MOST)
    Way(1e9, 0.05).upload(window, 1000)
    before = window.size
    for number in range(200):
        window.note(CHUNK, 3.0 if number % 20 == 0 else 0.055)
    assert window.size == before
