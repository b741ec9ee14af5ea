"""Many requests that leave together, without waiting for their replies: for the price of a few."""

from __future__ import annotations

import copy
import time
from collections import deque
from typing import TYPE_CHECKING, Any

import attrs

from lightlink.concurrency.threads import refuse_at_exit
from lightlink.connection.connection import NoReply
from lightlink.connection.replies import Group, GroupWaiter
from lightlink.errors import LightLinkError
from lightlink.protocol.ids import new_id

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from lightlink.connection.connection import Connection
    from lightlink.connection.session import Session

    # (subject, payload, what its sender knows it by)
    Request = tuple[bytes, bytes, Any]

# So many share a timer and a look at the outbox, of so many bytes: what is made must not wait in memory for room there.
_TOGETHER = 128
_BYTES_TOGETHER = 1024 * 1024


@attrs.frozen
class Volley:
    """Sends requests, and has what came of each told to ``on_settled``, of those answered in one read together.

    That is called on the notifier's thread with waiters that hold a reply, or an error: NoReply after ``timeout``
    seconds, PermissionDenied, PayloadTooLarge, ClosedError, OutboxFull. Of those refused `send` tells at once.
    """

    _connection: Connection
    _timeout: float
    _on_settled: Callable[[Sequence[GroupWaiter]], object]
    _make_headers: Callable[[float], bytes] | None = None

    def send(self, requests: Iterable[Request]) -> None:
        """Send requests, in order; raises ClosedError, and ConnectError in a forked child that cannot connect."""
        session = self._connection.session
        refuse_at_exit()
        # Nobody can guess where the answers go, and what is random is drawn once.
        token, number = new_id(), 0
        for some in _in_parts(requests):
            group = Group(self._on_settled, session.notifier.post_all)
            deadline = time.monotonic() + self._timeout
            waiters = [
                GroupWaiter(f"{token}-{at}".encode(), subject, payload, deadline, self._make_headers, group, about)
                for at, (subject, payload, about) in enumerate(some, number)
            ]
            number += len(some)
            self._send_group(session, group, self._without_refused(session, waiters), deadline)

    def _without_refused(self, session: Session, waiters: list[GroupWaiter]) -> list[GroupWaiter]:
        """Return those that may leave; the others are told of."""
        refused = []
        for waiter in waiters:
            try:
                session.refuse_request(waiter)
            except LightLinkError as exc:
                waiter.error = exc
                refused.append(waiter)
        if refused:
            self._on_settled(refused)
        return [waiter for waiter in waiters if waiter.error is None]

    def _send_group(self, session: Session, group: Group, waiters: list[GroupWaiter], deadline: float) -> None:
        replies = session.replies
        left = deque(waiters)
        try:
            replies.add_all(waiters)
            # The timer must not keep what is answered, nor what waits for it.
            session.notifier.post_at_for(group, deadline, self._expire_in(session))
            session.outbox.put_all(left, min(self._timeout, self._connection.options.outbox_timeout))
        except LightLinkError as exc:
            refused = [waiter for waiter in left if replies.withdraw(waiter)]
            for waiter in refused:
                waiter.error = copy.copy(exc)
            self._on_settled(refused)
        except BaseException:
            for waiter in waiters:
                replies.withdraw(waiter)
            raise

    def _expire_in(self, session: Session) -> Callable[[Group], None]:
        timeout = self._timeout

        def expire(group: Group) -> None:
            late = [waiter for waiter in session.replies.unanswered(group) if session.replies.withdraw(waiter)]
            for waiter in late:
                waiter.error = NoReply(waiter.subject.decode(), timeout, waiter.sent)
            if late:
                group.settle(late)

        return expire


def _in_parts(requests: Iterable[Request]) -> Iterator[list[Request]]:
    some: list[Request] = []
    size = 0
    for request in requests:
        some.append(request)
        size += len(request[1])
        if len(some) == _TOGETHER or size >= _BYTES_TOGETHER:
            yield some
            some, size = [], 0
    if some:
        yield some
