"""Interrupts at chosen instants."""

from __future__ import annotations

import contextlib
import itertools
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

# Where Python looks for signals: a function begins, or one written in C has ended.
_LOOKS = ("call", "c_return")


@contextlib.contextmanager
def interrupt_at(instant: int) -> Iterator[None]:
    """Raise KeyboardInterrupt in the block where Python looks for signals for the ``instant``th time.

    Not in the callbacks of weak references, which swallow it.
    """
    left = itertools.count(instant - 1, -1)

    def look(frame: FrameType, event: str, _: object) -> None:
        if event in _LOOKS and "weakref" not in frame.f_code.co_filename and not next(left):
            raise KeyboardInterrupt

    sys.setprofile(look)
    try:
        yield
    finally:
        sys.setprofile(None)
