"""What of JetStream is worth asking again, and for how long: the one retry policy.

A stream without a leader does nothing with a request, so that asking again is always safe. A request that is not
answered may have been carried out: only what may be done twice is sent again.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, TypeVar

from lightlink.concurrency.deadline import Deadline
from lightlink.connection.connection import NoReply
from lightlink.connection.session import Status
from lightlink.errors import ClosedError, LightLinkError, StoreUnavailable
from lightlink.jetstream.errors import UNAVAILABLE, WRONG_LAST_SEQUENCE, JetStreamError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lightlink.connection.connection import Connection

T = TypeVar("T")
_log = logging.getLogger("lightlink")

# Servers take up to nine seconds to notice that a leader is gone, and then they vote.
ELECTION_SECONDS = 15.0
# The pause between two attempts while a stream has no leader.
PAUSE = 0.1
# The first attempt's limit; later ones get half of the time spent so far, so that a busy server has its time too.
_ANSWER_SECONDS = 1.0
_NO_LEADER = frozenset({UNAVAILABLE, 10009})


class OutOfTime(LightLinkError, TimeoutError):
    """The deadline has passed. For use inside the package."""


def is_electing(error: BaseException) -> bool:
    """Tell whether the server says that it elects a leader: nothing was done."""
    return isinstance(error, JetStreamError) and error.err_code in _NO_LEADER


def is_unheard(error: BaseException) -> bool:
    """Tell whether nobody listens: there is no stream, it has no leader, or the server has no JetStream."""
    return isinstance(error, JetStreamError) and error.no_responders


def is_leaderless(error: BaseException) -> bool:
    """Tell whether a stream has no leader, or none that listens yet; looks through a StoreUnavailable at its cause."""
    cause = error.__cause__ if isinstance(error, StoreUnavailable) else error
    return cause is not None and (is_electing(cause) or is_unheard(cause))


def is_passing(error: BaseException) -> bool:
    """Tell whether an error may go away by itself, as those after a restart of the server do."""
    return is_leaderless(error) or (isinstance(error, JetStreamError) and error.err_code in WRONG_LAST_SEQUENCE)


def pauses(first: float = 0.05, most: float = 1.0) -> Iterator[float]:
    """Yield the seconds to wait before each further attempt: twice as long each time, without end."""
    pause = first
    while True:
        yield pause
        pause = min(pause * 2, most)


def while_electing(
    ask: Callable[[float], T],
    timeout: float,
    is_leaderless: Callable[[LightLinkError], bool] = is_electing,
    *,
    repeatable: bool = False,
    through_election: bool = False,
) -> T:
    """Return what ``ask(limit)`` returns, asked again while its error says that the stream has no leader.

    With ``repeatable``, for what may be done twice, it is also asked again when no answer comes: a server that died
    has taken the request with it. After ``timeout`` seconds the last error is raised, a NoReply with that timeout.
    With ``through_election`` a stream that says that it has no leader is given `ELECTION_SECONDS` besides.
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
            if not is_leaderless(exc):
                raise
            now = time.monotonic()
            if through_election and now < started + ELECTION_SECONDS:
                deadline = now + timeout
            if deadline - now < PAUSE:
                raise
        time.sleep(PAUSE)


def across_outages(connection: Connection, deadline: Deadline, action: Callable[[float], T]) -> T:
    """Return what ``action(timeout)`` returns, tried again while there is no connection, no answer or a passing error.

    The action may be done twice. Raises OutOfTime and every other error of the action.
    """
    for pause in pauses():
        _ = connection.session  # in a forked child it connects
        remaining = deadline.remaining()
        if remaining <= 0 or not connection.wait_connected(remaining):
            break
        try:
            return action(min(connection.options.timeout, deadline.as_timeout()))
        except TimeoutError as exc:
            _log.debug("lightlink: tried again: %r", exc)
        except JetStreamError as exc:
            if not is_passing(exc):
                raise
        time.sleep(min(pause, deadline.remaining()))
    if connection.status is Status.CLOSED:
        raise ClosedError("the client")
    raise OutOfTime


class RetryBudget:
    """How long a write is worth repeating that may be done twice; counted from when this is made.

    An election is waited for; after a write that may have been stored, twice the ``timeout`` of one is given.
    """

    def __init__(self, timeout: float) -> None:
        self._started = time.monotonic()
        self._timeout = timeout

    def allows(self, error: StoreUnavailable) -> bool:
        """Tell whether to try again after an error."""
        return time.monotonic() - self._started < retry_seconds(error, self._timeout)


def retry_seconds(error: StoreUnavailable, timeout: float) -> float:
    """Return for how many seconds a write that ended so is worth repeating; 0: it is not."""
    if is_leaderless(error):
        return ELECTION_SECONDS
    return 2 * timeout if error.unknown else 0.0
