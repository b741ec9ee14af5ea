"""What is done when the work on a run goes wrong: it is tried again, but not for ever, and people are told."""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING

from lightlink.commands.store.access import Conflict
from lightlink.errors import LightLinkError, RunNotFound, StoreUnavailable
from lightlink.protocol.text import text_of
from lightlink.runs.model import machine

if TYPE_CHECKING:
    from lightlink.runs.model.records import RunPlan, RunState
    from lightlink.runs.store import RunStore

_log = logging.getLogger("lightlink")

_RETRY_SECONDS = 1.0
_BROKEN_SECONDS = 10.0
# So long before its time is over it is tried no more: whoever finds it overdue would not know why.
_LAST_SECONDS = 1.0


def settle(store: RunStore, run: RunPlan | None, state: RunState, revision: int, error: Exception) -> float:
    """Log why a run cannot go on here, and return after how many seconds it is to be tried again.

    Another manager may be able to. Once the time for that is over the run moves on without it, to its end if need be,
    with what happened in its ``attention``; then there is nothing to try again: 0. ``run`` is None where its plan
    cannot be read.
    """
    delay = _told(state.run_id, error)
    at = store.clock.now()
    until = machine.tried_until(run, state, is_outage=isinstance(error, StoreUnavailable))
    if isinstance(error, RunNotFound):
        until = at  # nobody will find it any more
    left = math.inf if until is None else (until - at).total_seconds()
    if left > _LAST_SECONDS:
        return min(delay, left / 2)
    if state.ended:
        return 0.0  # its locks, which could not be given back: whoever needs one finds that it has ended
    what = f"{type(error).__name__}: {text_of(error)}" if not isinstance(error, LightLinkError) else str(error)
    try:
        store.write_state(machine.in_trouble(run, state, at, what), revision)
    except Conflict:
        return 0.0
    except LightLinkError as exc:
        return _told(state.run_id, exc)
    return 0.0


def _told(run_id: str, error: Exception) -> float:
    """Log an error, and return how long to wait after one of its kind."""
    if isinstance(error, StoreUnavailable):
        _log.info("lightlink: run %s waits for the store: %s", run_id, error)
        return _RETRY_SECONDS
    if isinstance(error, LightLinkError):
        _log.warning("lightlink: run %s cannot go on here: %s", run_id, error)
    else:
        _log.error("lightlink: run %s cannot go on here", run_id, exc_info=error)
    return _BROKEN_SECONDS
