"""Patience with a cluster that elects who leads one of its streams, or all of them; that takes it some seconds."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, TypeVar

from lightlink.connection.connection import NoReply
from lightlink.errors import LightLinkError

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")
_log = logging.getLogger("lightlink")

_PAUSE = 0.1
# How long an answer may take before it is asked again, at first; later half as long as all has taken so far, so that
# what keeps a server busy for longer has its time too.
_ANSWER_SECONDS = 1.0


def while_electing(
    ask: Callable[[float], T],
    timeout: float,
    is_electing: Callable[[LightLinkError], bool],
    *,
    repeatable: bool = False,
) -> T:
    """Return what ``ask(limit)`` returns, asked again while its error says that nobody has the lead at the moment.

    Whoever does not lead has done nothing, so asking again does no harm. With ``repeatable``, for what may be done
    twice, it is also asked again when no answer comes: a server that died has taken what it was asked with it. After
    ``timeout`` seconds the last error is raised, a NoReply with that timeout.
    """
    started = time.monotonic()
    deadline = started + timeout
    was_sent = False
    while True:
        now = time.monotonic()
        remaining = max(deadline - now, 0.001)
        limit = max(min(_ANSWER_SECONDS, timeout / 4), (now - started) / 2) if repeatable else timeout
        try:
            return ask(min(limit, remaining))
        except NoReply as exc:
            was_sent = was_sent or exc.sent
            if remaining <= limit:
                raise NoReply(exc.subject, timeout, was_sent) from None
            _log.debug("lightlink: asked again: %s", exc)
            continue
        except LightLinkError as exc:
            if not is_electing(exc) or deadline - time.monotonic() < _PAUSE:
                raise
        time.sleep(_PAUSE)
