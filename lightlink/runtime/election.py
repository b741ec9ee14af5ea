"""Patience with a cluster that elects who leads one of its streams, or all of them; that takes it some seconds."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeVar

from lightlink.errors import LightLinkError

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

_PAUSE = 0.1


def while_electing(ask: Callable[[float], T], timeout: float, is_electing: Callable[[LightLinkError], bool]) -> T:
    """Return what ``ask(remaining)`` returns, asked again while its error says that nobody has the lead at the moment.

    Whoever does not lead has done nothing, so asking again does no harm. After ``timeout`` seconds the error is raised.
    """
    deadline = time.monotonic() + timeout
    while True:
        try:
            return ask(max(deadline - time.monotonic(), 0.001))
        except LightLinkError as exc:
            if not is_electing(exc) or deadline - time.monotonic() < _PAUSE:
                raise
        time.sleep(_PAUSE)
