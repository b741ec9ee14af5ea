"""Subscriptions: messages go to a handler on a worker thread, or to the thread that iterates."""

from __future__ import annotations

import logging
import os
import sys
import weakref
from functools import partial
from typing import TYPE_CHECKING, Any

from lightlink import logs
from lightlink.concurrency.deadline import Deadline
from lightlink.concurrency.forks import run_handler
from lightlink.errors import DecodeError
from lightlink.events.message import EventHandler, Message, read_arrival
from lightlink.events.receiver import Receiver, open_box
from lightlink.middleware import Call
from lightlink.protocol import html, subjects
from lightlink.validators import integer, wait_limit

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lightlink.concurrency.workers import WorkerPool
    from lightlink.connection.connection import Connection
    from lightlink.connection.session import Session
    from lightlink.events.message import Arrival
    from lightlink.middleware import Stack

_log = logging.getLogger("lightlink")

DEFAULT_MAX_PENDING = 65_536
DEFAULT_MAX_PENDING_BYTES = 64 * 1024 * 1024


class DropCount:
    """How many messages a subscription has dropped; metrics keep it for longer than the subscription."""

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0


class Subscription(Receiver[Message]):
    """Interest in a subject, made by `Client.subscribe`.

    With a handler, messages are handled in order, one at a time (``concurrency`` at a time, and then in no order). At
    most ``max_pending`` messages of ``max_pending_bytes`` in all wait; what comes beyond is dropped and counted in
    ``dropped``. It belongs to the process that made it; with ``after_fork`` each forked child receives too.
    ``middleware`` is around the handler, by default the connection's; ``service`` is whose handler it is.
    """

    _kind, _content = "subscription", "the messages"

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
        after_fork: bool = False,
        middleware: Stack | None = None,
        service: str = "",
    ) -> None:
        self.subject = subjects.subscribe_subject(subject)
        super().__init__(connection, self.subject, f"the subscription to {self.subject!r}", self.subject)
        self.queue = subjects.queue_group(queue)
        self.drops = DropCount()
        self._raw = raw
        self._bursting = False
        self._is_cut_short = False
        self._middleware = connection.middleware if middleware is None else middleware
        self._facts = {"service": service} if service else {}
        limits = {"max_pending": max_pending, "max_pending_bytes": max_pending_bytes, "concurrency": concurrency}
        for name, value in limits.items():
            integer(name, value)
        if handler is not None:
            self._handle = EventHandler(handler, raw)
        handle = self._run_handler if handler is not None else None
        self._make_box = partial(open_box, handle, max_pending, max_pending_bytes, concurrency)
        self._open(pool)
        connection.add_receiver(self)
        if after_fork:
            reference = weakref.ref(self)
            connection.after_fork(lambda: _follow(reference))

    def _open(self, pool: WorkerPool) -> None:
        """Receive, in this process."""
        self.pid = os.getpid()
        self._box = self._make_box(pool)
        self.route = self._connection.subscribe(self.subject, self.queue, self._arrive)

    def follow(self) -> None:
        """Receive in this process, which was forked from the one that it was made in."""
        if self.pid != os.getpid() and not self._closed:
            self.drops, self._bursting = DropCount(), False
            self._open(self._connection.session.workers)

    def stop(self, timeout: float = 5.0) -> None:
        """Stop receiving and let the handler finish what is held, within ``timeout`` seconds; idempotent.

        Called by the handler itself, it finishes no more than the message at hand.
        """
        stop_all([self], timeout)

    close = stop

    def __repr__(self) -> str:
        state = "closed" if self._closed else f"{self.pending} pending, {self.dropped} dropped"
        if self.pid != os.getpid():
            state = f"in the parent process {self.pid}"
        return f"<Subscription {self.subject!r} {state}>"

    def _repr_html_(self) -> str:
        """Return how a notebook shows it."""
        told = {"queue": self.queue, "closed": self._closed, "pending": self.pending, "dropped": self.dropped}
        return html.facts(f"Subscription {self.subject}", told)

    def connection_closed(self) -> None:
        """Wake the threads that iterate: the connection is closed for good."""
        if self.pid != os.getpid():
            return  # its locks may be held by a thread of the parent's
        self._closed = True
        self._box.close()

    @property
    def dropped(self) -> int:
        """How many messages were dropped, as too many waited."""
        return self.drops.count

    @property
    def session(self) -> Session:
        """The session of its connection."""
        return self._connection.session

    def begin_stop(self) -> bool:
        """Take the stop upon oneself; False when another has, and was not interrupted."""
        was, self._closed = self._closed, True
        is_cut_short, self._is_cut_short = self._is_cut_short, False
        return is_cut_short or not was

    def leave_stop(self) -> None:
        """Leave the stop to the next who asks for it: Ctrl-C has ended this one."""
        self._is_cut_short = True

    def finish_stop(self, deadline: Deadline) -> None:
        """Wait until what has come in is handled, at most until a time of `time.monotonic`."""
        if not self._box.drain(deadline.remaining()):
            problem = "lightlink: the handler of %r did not finish; %d messages are lost"
            _log.warning(problem, self.subject, self.pending)
        self._box.close()

    def _arrive(self, subject: bytes, reply: bytes, payload: bytes, headers: bytes | None) -> None:
        if self._box.put((subject, reply, payload, headers), len(payload) + len(headers or b"")):
            # A burst is over when there is room again, and not whenever the handler has taken one.
            if self._bursting and self._box.half_empty:
                self._bursting = False
            return
        if self._closed:
            return
        self.drops.count += 1
        if not self._bursting:
            self._bursting = True
            _log.warning(
                "lightlink: the subscription to %r is too slow: %d messages wait, more are dropped",
                self.subject,
                self.pending,
            )

    def _read(self, item: Arrival) -> Message | None:
        try:
            return read_arrival(item, self._raw)
        except DecodeError as exc:
            self._connection.report(exc)
            return None

    def _run_handler(self, arrival: Arrival) -> None:
        logs.enter(self._facts, arrival[3], arrival[0])
        try:
            run_handler(self._handle_around if self._middleware.is_used else self._handle, arrival)
        except DecodeError as exc:
            self._connection.report(exc)
        except Exception as exc:
            _log.exception(
                "lightlink: the handler of %r failed (correlation id %s)", self.subject, logs.correlation_id()
            )
            self._connection.tell_hook(exc)

    def _handle_around(self, arrival: Arrival) -> None:
        message = self._handle.read(arrival)
        call = Call(kind="event", name=message.subject, args=message.data, headers=message.headers, message=message)
        self._middleware.run(call, lambda given: self._handle.handle(message, given.args))


def _follow(reference: weakref.ref[Subscription]) -> None:
    subscription = reference()
    if subscription is not None:
        subscription.follow()


def stop_all(subscriptions: Sequence[Subscription], timeout: float) -> None:
    """Stop several subscriptions of one connection at once, all within ``timeout`` seconds; see `Subscription.stop`."""
    timeout = wait_limit(timeout)
    deadline = Deadline(timeout)
    own = [subscription for subscription in subscriptions if subscription.pid == os.getpid()]
    if not own or sys.is_finalizing():
        return
    session = own[0].session
    session.loop.refuse_own_thread()
    try:
        stopping = [subscription for subscription in own if subscription.begin_stop()]
        routes = [subscription.route for subscription in stopping]
        # First the door, then what has come in: the server sends no more from here on.
        session.stop_routes(routes, timeout)
        for subscription in stopping:
            subscription.finish_stop(deadline)
        session.cut_routes(routes)
    except BaseException:
        for subscription in own:
            subscription.leave_stop()
        raise
