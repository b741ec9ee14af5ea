"""Interrupts at chosen instants."""

from __future__ import annotations

import contextlib
import gc
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

    Not in destructors and the callbacks of weak references, which swallow it.
    """
    left = itertools.count(instant - 1, -1)

    def look(frame: FrameType, event: str, _: object) -> None:
        code = frame.f_code
        if event in _LOOKS and code.co_name != "__del__" and "weakref" not in code.co_filename and not next(left):
            raise KeyboardInterrupt

    gc.disable()  # destructors of what other tests have left
    sys.setprofile(look)
    try:
        yield
    finally:
        sys.setprofile(None)
        gc.enable()
