"""Requests sent one after the other without waiting for each other's replies, on one connection or not at all."""

from __future__ import annotations

import math
import time
from collections import deque
from typing import TYPE_CHECKING

from lightlink.concurrency.mailbox import MessageQueue
from lightlink.connection.replies import Waiter
from lightlink.errors import LightLinkError
from lightlink.protocol.ids import new_id

if TYPE_CHECKING:
    from collections.abc import Callable

    from lightlink.connection.connection import Connection
    from lightlink.connection.session import Session

# A queue that holds only what was asked for needs no bound of its own.
_UNBOUNDED = 2**62


class Broken(LightLinkError):
    """A reply is missing: the connection was lost, or a later request was answered first. Inside the library only."""


class PipelinedRequest(Waiter):
    """A request that leaves on the connection it was made for or never; its reply goes to a function.

    Once it is answered ``took`` tells how many seconds that was after it was made, those before it left included.
    """

    __slots__ = ("_losses", "_made_at", "_session", "_settle", "took")

    def __init__(
        self, session: Session, losses: int, subject: bytes, payload: bytes, settle: Callable[[Waiter], object]
    ) -> None:
        super().__init__(new_id().encode(), subject, payload, math.inf, None)
        self._session = session
        self._losses = losses
        self._settle = settle
        self._made_at = time.monotonic()
        self.took = 0.0

    def frame(self, inbox: bytes) -> bytes:
        """Return the protocol bytes, none when the connection was lost since."""
        if self._session.losses != self._losses:
            return b""
        return super().frame(inbox)

    def settle(self) -> None:
        """Hand the answered request over."""
        self.took = time.monotonic() - self._made_at
        self._settle(self)


class Pipeline:
    """Requests in flight between one connection and its loss.

    Requests leave in the order of `send`, and `next` returns their replies in the same order. Once a reply is missing,
    no more are sent and `next` raises Broken: what became of the requests not answered has to be found out. For one
    thread; `close` it in the end.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._session = connection.session
        self._losses = self._session.losses
        self._pending: deque[Waiter] = deque()
        self._settled = MessageQueue(_UNBOUNDED, _UNBOUNDED)
        self._session.on_loss.add(self._lose)
        if self._session.losses != self._losses:
            self._lose()  # before it was listened for

    def send(self, subject: bytes, payload: bytes, timeout: float) -> None:
        """Send a request; raises Broken, PayloadTooLarge, ClosedError, OutboxFull (after ``timeout`` seconds)."""
        if self._session.losses != self._losses:
            raise Broken
        request = PipelinedRequest(self._session, self._losses, subject, payload, self._settle)
        self._pending.append(request)
        self._connection.send_request(self._session, request, timeout)

    def next(self, deadline: float) -> PipelinedRequest:
        """Return the oldest request not yet returned, with its reply.

        Raises TimeoutError at the deadline (of `time.monotonic`), Broken, and the error the request ended with.
        """
        answered: PipelinedRequest | None = self._settled.get(deadline)
        if answered is None or answered is not self._pending[0]:
            raise Broken
        self._pending.popleft()
        if answered.error is not None:
            raise answered.error
        return answered

    @property
    def answered(self) -> int:
        """How many replies `next` would return without waiting."""
        return len(self._settled)

    def close(self) -> None:
        """Withdraw what was not answered; what has not left yet never will."""
        self._session.on_loss.discard(self._lose)
        for waiter in self._pending:
            self._session.replies.withdraw(waiter)
        self._pending.clear()

    def _settle(self, waiter: Waiter) -> None:
        self._settled.put(waiter, 0)

    def _lose(self) -> None:
        self._settled.put(None, 0)
