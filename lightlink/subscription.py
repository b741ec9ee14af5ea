"""Events as they come: to a handler on a worker thread, or to whoever iterates."""

from __future__ import annotations

import logging
import os
import time
from typing import TYPE_CHECKING, Any

from lightlink import subjects
from lightlink.errors import ClosedError, DecodeError, InvalidOption, NoMessage
from lightlink.message import Message, adapt_handler, read_arrival
from lightlink.runtime.mailbox import Closed, Mailbox, MessageQueue

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lightlink.message import Arrival
    from lightlink.runtime.connection import Connection
    from lightlink.runtime.workers import WorkerPool

_log = logging.getLogger("lightlink")

DEFAULT_MAX_PENDING = 65_536
DEFAULT_MAX_PENDING_BYTES = 64 * 1024 * 1024


class Subscription:
    """Interest in a subject, made by `Client.subscribe`.

    With a handler, messages are handled in order, one at a time (``concurrency`` at a time, and then in no order). At
    most ``max_pending`` messages of ``max_pending_bytes`` in all wait; what comes beyond is dropped and counted in
    ``dropped``. It belongs to the process that made it.
    """

    def __init__(
        self,
        connection: Connection,
        pool: WorkerPool,
        subject: str,
        handler: Callable[[Any], object] | None = None,
        *,
        queue: str = "",
        raw: bool = False,
        max_pending: int = DEFAULT_MAX_PENDING,
        max_pending_bytes: int = DEFAULT_MAX_PENDING_BYTES,
        concurrency: int = 1,
    ) -> None:
        self.subject = subjects.subscribe_subject(subject)
        self.queue = subjects.queue_group(queue)
        self.dropped = 0
        self._raw = raw
        self._bursting = False
        self._connection = connection
        self._pid = os.getpid()
        self._closed = False
        self._box: Mailbox | MessageQueue
        for name, value in (("max_pending", max_pending), ("concurrency", concurrency)):
            if not isinstance(value, int) or value < 1:
                raise InvalidOption(name, "must be a whole number above 0", value)
        if handler is None:
            self._box = MessageQueue(max_pending, max_pending_bytes)
        else:
            self._handle = adapt_handler(handler, raw)
            self._box = Mailbox(pool, self._run_handler, max_pending, max_pending_bytes, concurrency)
        self._nats = connection.subscribe(self.subject, self.queue, self._arrive)

    @property
    def pending(self) -> int:
        """How many messages wait for the handler or reader."""
        return len(self._box)

    @property
    def closed(self) -> bool:
        """Whether it has been stopped."""
        return self._closed

    def get(self, timeout: float | None = None) -> Message:
        """Return the next message; wait at most ``timeout`` seconds, or until there is one.

        One that is not JSON goes to the error hook and is skipped. Raises NoMessage at the timeout and ClosedError when
        the subscription has ended and nothing is left.
        """
        if not isinstance(self._box, MessageQueue):
            raise InvalidOption("get", "this subscription has a handler, which gets the messages", self.subject)
        self._refuse_other_process()
        self._connection.session.loop.refuse_own_thread()
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            try:
                return read_arrival(self._box.get(deadline), self._raw)
            except Closed:
                raise ClosedError(f"the subscription to {self.subject!r}") from None
            except DecodeError as exc:
                self._connection.report(exc)
            except TimeoutError:
                raise NoMessage(self.subject, timeout or 0.0) from None

    def __iter__(self) -> Iterator[Message]:
        """Yield messages as they come, until the subscription or the client is closed."""
        while True:
            try:
                yield self.get()
            except ClosedError:
                self._refuse_other_process()
                return

    def stop(self, timeout: float = 5.0) -> None:
        """Stop receiving and let the handler finish what is held, within ``timeout`` seconds; idempotent."""
        if self._closed or self._pid != os.getpid():
            return
        self._closed = True
        deadline = time.monotonic() + timeout
        session = self._connection.session
        try:
            session.run(session.nc.stop_route, self._nats, timeout=timeout)
        except (TimeoutError, ClosedError) as exc:
            _log.debug("lightlink: unsubscribing from %s: %r", self.subject, exc)
        if not self._box.drain(deadline - time.monotonic()):
            _log.warning("lightlink: the handler of %r did not finish; %d messages are lost", self.subject, self.pending)
        self._box.close()
        try:
            session.run(session.nc.unroute, self._nats, timeout=max(deadline - time.monotonic(), 0.5))
        except (TimeoutError, ClosedError) as exc:
            _log.debug("lightlink: unsubscribing from %s: %r", self.subject, exc)

    close = stop

    def __enter__(self) -> Subscription:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def __repr__(self) -> str:
        state = "closed" if self._closed else f"{self.pending} pending, {self.dropped} dropped"
        return f"<Subscription {self.subject!r} {state}>"

    def connection_closed(self) -> None:
        """End the wait of whoever iterates: the connection is gone for good."""
        self._closed = True
        self._box.close()

    def _arrive(self, subject: bytes, reply: bytes, payload: bytes, headers: bytes | None) -> None:
        if self._box.put((subject, reply, payload, headers), len(payload)):
            self._bursting = False
            return
        self.dropped += 1
        if not self._bursting:
            self._bursting = True
            _log.warning(
                "lightlink: the subscription to %r is too slow: %d messages wait, more are dropped",
                self.subject,
                self.pending,
            )

    def _run_handler(self, arrival: Arrival) -> None:
        try:
            self._handle(arrival)
        except DecodeError as exc:
            self._connection.report(exc)
        except Exception as exc:
            _log.exception("lightlink: the handler of %r failed", self.subject)
            if self._connection.options.on_error is not None:
                self._connection.report(exc)

    def _refuse_other_process(self) -> None:
        if self._pid != os.getpid():
            raise ClosedError(f"the subscription to {self.subject!r}", "belongs to the parent process")
