"""Answers that cost much, told again for a while: many pages ask the same within a few seconds."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeVar

from lightlink.concurrency.threads import Lock

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

T = TypeVar("T")

# An answer is good for so many times what it took: what is quick is always fresh.
_FACTOR = 4.0
_MOST = 64


class Recent:
    """Keeps answers by what was asked. Safe to share between threads; ``clock`` is in seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = Lock()
        self._kept: dict[Hashable, tuple[float, object]] = {}
        self._making: dict[Hashable, Lock] = {}

    def get(self, question: Hashable, answer: Callable[[], T]) -> T:
        """Return the answer to a question; of those who ask it at once, one has it made."""
        with self._lock:
            turn = self._making.setdefault(question, Lock())
        with turn:
            until, kept = self._kept.get(question, (0.0, None))
            began = self._clock()
            if began < until:
                return kept  # type: ignore[return-value]
            made = answer()
            took = self._clock() - began
            with self._lock:
                if len(self._kept) >= _MOST:
                    self._kept.clear()
                    self._making.clear()
                self._kept[question] = (self._clock() + _FACTOR * took, made)
            return made
