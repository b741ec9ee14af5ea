"""Going on across outages, for as long as there is hope."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, TypeVar

from lightlink.connection.session import Status
from lightlink.errors import ClosedError, LightLinkError
from lightlink.jetstream.api import UNAVAILABLE, WRONG_LAST_SEQUENCE, JetStreamError

if TYPE_CHECKING:
    from collections.abc import Callable

    from lightlink.connection.connection import Connection

T = TypeVar("T")
_log = logging.getLogger("lightlink")

_PAUSE = 0.05
_PAUSE_MAX = 1.0


class OutOfTime(LightLinkError, TimeoutError):
    """The deadline has passed. For use inside the package."""


def is_passing(error: JetStreamError) -> bool:
    """Tell whether an error may go away by itself, as those after a restart of the server do."""
    return error.no_responders or error.err_code == UNAVAILABLE or error.err_code in WRONG_LAST_SEQUENCE


def persist(connection: Connection, deadline: float, action: Callable[[float], T]) -> T:
    """Return what ``action(timeout)`` returns, tried again while there is no connection, no answer or a passing error.

    ``deadline`` is an instant of `time.monotonic`. Raises OutOfTime and every other error of the action.
    """
    pause = _PAUSE
    while True:
        _ = connection.session  # in a forked child it connects
        remaining = deadline - time.monotonic()
        if remaining <= 0 or not connection.wait_connected(remaining):
            if connection.status is Status.CLOSED:
                raise ClosedError("the client")
            raise OutOfTime
        try:
            return action(min(connection.options.timeout, max(deadline - time.monotonic(), 0.001)))
        except TimeoutError as exc:
            _log.debug("lightlink: tried again: %r", exc)
        except JetStreamError as exc:
            if not is_passing(exc):
                raise
        time.sleep(max(0.0, min(pause, deadline - time.monotonic())))
        pause = min(pause * 2, _PAUSE_MAX)
