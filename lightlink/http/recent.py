"""Answers that cost much, told again for a while: many pages ask the same within a few seconds."""

from __future__ import annotations

import copy
import time
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, TypeVar

from lightlink.concurrency.threads import Lock, has_ended

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
        self._kept: dict[Hashable, tuple[float, Any]] = {}
        self._making: dict[Hashable, Future[Any]] = {}

    def get(self, question: Hashable, answer: Callable[[], T]) -> T:
        """Return the answer to a question; of those who ask it at once one has it made, or fails for all of them."""
        while True:
            with self._lock:
                until, kept = self._kept.get(question, (0.0, None))
                if self._clock() < until:
                    return kept  # type: ignore[no-any-return]
                mine: Future[Any] = Future()
                made = self._making.setdefault(question, mine)
            if made is mine:
                return self._make(question, answer, mine)
            # In an outage each would wait for as long as the one before, and all of them for many times that.
            has_ended(made)
            error = made.exception()
            if error is None:
                return made.result()  # type: ignore[no-any-return]
            if isinstance(error, Exception):
                raise _fresh(error)
            # The thread that made it was told to end, which is nothing to this one.

    def _make(self, question: Hashable, answer: Callable[[], T], future: Future[Any]) -> T:
        began = self._clock()
        try:
            made = answer()
        except BaseException as exc:
            with self._lock:
                del self._making[question]
            future.set_exception(exc)
            raise
        now = self._clock()
        with self._lock:
            if len(self._kept) >= _MOST:
                self._kept.clear()
            self._kept[question] = (now + _FACTOR * (now - began), made)
            del self._making[question]
        future.set_result(made)
        return made


def _fresh(error: Exception) -> Exception:
    """Return an error for one more thread to raise, as each adds its own traceback to it."""
    try:
        return copy.copy(error)
    except Exception:  # one that cannot be copied says the same to all
        return error
