"""The connection as the rest of the library sees it: one handle that outlives forks and outages."""

from __future__ import annotations

import contextlib
import copy
import logging
import math
import os
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, TypeVar

import attrs

from lightlink.concurrency import forks
from lightlink.concurrency.deadline import Deadline
from lightlink.concurrency.patched import refuse_patched_threads
from lightlink.concurrency.registry import Registry
from lightlink.concurrency.threads import Condition, Event, refuse_at_exit, start_thread, wait_in_parts, wait_until
from lightlink.connection.clock import ServerClock
from lightlink.connection.dialing.dial import Backoff
from lightlink.connection.dialing.tls import with_inbox_prefix
from lightlink.connection.nats_client import publish_frame
from lightlink.connection.outbox import Unsent
from lightlink.connection.replies import CallbackWaiter, TurnWaiter, Waiter
from lightlink.connection.session import Session, Status
from lightlink.errors import (
    AuthenticationError,
    ClosedError,
    ConnectError,
    LightLinkError,
    PayloadTooLarge,
)
from lightlink.middleware import Stack
from lightlink.protocol.edge import Kind
from lightlink.protocol.ids import new_id
from lightlink.protocol.subjects import as_text
from lightlink.protocol.text import visible

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from nats.aio.subscription import Subscription as NatsSubscription

    from lightlink.connection.nats_client import Sink
    from lightlink.connection.replies import ReplyMap
    from lightlink.options import ConnectOptions

__all__ = ["Connection", "NoReply", "Status"]

T = TypeVar("T")
_log = logging.getLogger("lightlink")

_SAY_EVERY_SECONDS = 30.0
_MOST_NAMED = 5


class NoReply(LightLinkError, TimeoutError):
    """No reply came in time; ``sent`` tells whether the request has left for the server. For use inside the library."""

    subject: str
    timeout: float
    sent: bool

    def __str__(self) -> str:
        return f"no reply on {self.subject!r} within {self.timeout:g} s" + ("" if self.sent else ": not connected")


@attrs.frozen
class OpenRequest:
    """A request under way, of `Connection.begin_request`. For use inside the library."""

    _replies: ReplyMap
    _waiter: Waiter
    _timeout: float

    @property
    def answered(self) -> bool:
        """Whether `finish` returns, or raises, at once."""
        return self._waiter.answered

    def finish(self) -> Waiter:
        """Wait for the reply and return the waiter, as `Connection.request` does and with its errors."""
        waiter = self._waiter
        if not self._replies.wait(waiter):
            raise NoReply(waiter.subject.decode(), self._timeout, waiter.sent)
        if waiter.error is not None:
            raise waiter.error
        return waiter

    def withdraw(self) -> None:
        """Wait for it no more; what has not left for the server never will."""
        self._replies.withdraw(self._waiter)


class Connection:
    """A connection to NATS that blocking code shares between threads.

    In a forked child it drops what it inherited and connects again at first use. ``kind`` is told to gateways.
    """

    def __init__(self, options: ConnectOptions, kind: Kind = Kind.MAIN) -> None:
        self.options = with_inbox_prefix(options)
        self._kind = kind
        self.middleware = Stack(options.middleware)
        self.clock = ServerClock()
        self._session: Session | None = None
        self._closed = False
        self._is_ended = False  # or somebody is about it
        self._listeners: list[Callable[[Status], object]] = []
        # What receives, and what is done in each forked child so that it does there too.
        self._receivers: Registry[object] = Registry()
        self._after_fork: list[Callable[[], object]] = []
        self._parent_pid = 0  # the process that this one was forked from with the connection in it
        self._lock = threading.RLock()
        self._status_changed = Condition()
        self._closing = Event()
        forks.watch(self)

    def open(self) -> None:
        """Connect; raises ConnectError."""
        _ = self.session

    @property
    def session(self) -> Session:
        """The session of this process, which is opened when there is none yet."""
        return self._session or self._open_session()

    @property
    def status(self) -> Status:
        """The state of the connection."""
        if self._closed:
            return Status.CLOSED
        session = self._session
        return session.status if session is not None else Status.CONNECTING

    @property
    def server(self) -> str | None:
        """The server that this process is connected to, None while it is not."""
        session = self._session
        return session.nc.server if session is not None and self.status is Status.CONNECTED else None

    @property
    def failure(self) -> LightLinkError | None:
        """Why the connection was closed, if a refusal that does not heal closed it."""
        return None if self._session is None else copy.copy(self._session.failure)

    @property
    def sender(self) -> str:
        """By which name others know who publishes here."""
        return self.options.name

    @property
    def max_payload(self) -> int:
        """The most bytes the server takes in a message."""
        return self.session.nc.max_payload

    @property
    def is_in_use(self) -> bool:
        """Whether this process has connected with it, and not closed it."""
        return self._session is not None and self.status is not Status.CLOSED

    @property
    def unsent(self) -> Unsent:
        """What waits for the server; nothing before the first use."""
        return Unsent(0, 0) if self._session is None else self._session.outbox.unsent

    def publish(
        self,
        subject: bytes,
        payload: bytes,
        reply: bytes = b"",
        headers: bytes | None = None,
        timeout: float | None = None,
    ) -> None:
        """Hand a message to the outbox; raises PayloadTooLarge, OutboxFull (after ``timeout`` seconds), ClosedError."""
        session = self._session or self._open_session()
        size = len(payload) if headers is None else len(payload) + len(headers)
        if size > session.nc.max_payload:
            raise PayloadTooLarge(as_text(subject), size, session.nc.max_payload)
        frame = publish_frame(subject, reply, payload, headers)
        session.outbox.put(frame, self.options.outbox_timeout if timeout is None else timeout)

    def request(
        self,
        subject: bytes,
        payload: bytes,
        timeout: float,
        make_headers: Callable[[float], bytes] | None = None,
        token: bytes | None = None,
    ) -> Waiter:
        """Send a request and wait for its reply; returns the waiter, with ``data`` and ``headers``.

        ``make_headers`` is given the seconds that remain as the request leaves. Raises NoReply after ``timeout``
        seconds, PermissionDenied, PayloadTooLarge, ClosedError, OutboxFull.
        """
        session = self._session or self._open_session()
        session.refuse_to_wait()
        deadline = time.monotonic() + timeout
        waiter = TurnWaiter(token or new_id().encode(), subject, payload, deadline, make_headers)
        self.send_request(session, waiter, timeout)
        if not session.replies.wait(waiter):
            raise NoReply(subject.decode(), timeout, waiter.sent)
        if waiter.error is not None:
            raise waiter.error
        return waiter

    def request_async(
        self,
        subject: bytes,
        payload: bytes,
        timeout: float,
        on_settled: Callable[[Waiter], object],
        make_headers: Callable[[float], bytes] | None = None,
        token: bytes | None = None,
        *,
        users: bool = False,
    ) -> Callable[[], bool]:
        """Send a request; its reply, or a NoReply as its error, goes to ``on_settled``.

        That is called on the notifier's thread, or, where it calls what is the ``users``, on the thread of callbacks.
        Returns a function that withdraws the request, and tells whether it came before the reply.
        """
        session = self._session or self._open_session()
        refuse_at_exit()
        deadline = time.monotonic() + timeout
        waiter = CallbackWaiter(
            token or new_id().encode(),
            subject,
            payload,
            deadline,
            make_headers,
            on_settled,
            (session.callbacks if users else session.notifier).post_all,
        )
        self.send_request(session, waiter, timeout)

        def expire(late: CallbackWaiter) -> None:
            if session.replies.withdraw(late):
                late.error = NoReply(late.subject.decode(), timeout, late.sent)
                late.settle()

        # The timer must not keep an answered request, nor what waits for it.
        session.notifier.post_at_for(waiter, deadline, expire)
        return lambda: session.replies.withdraw(waiter)

    def request_all(
        self, requests: Sequence[tuple[bytes, bytes, Callable[[float], bytes] | None]], timeout: float
    ) -> list[Waiter]:
        """Send many requests (subject, payload, header maker) at once and wait for their replies, in order.

        A reply that does not come within ``timeout`` seconds is a NoReply as its waiter's ``error``; nothing is raised
        for it. Raises PayloadTooLarge, OutboxFull, ClosedError.
        """
        session = self._session or self._open_session()
        session.refuse_to_wait()
        deadline = time.monotonic() + timeout
        waiters: list[Waiter] = []
        try:
            for subject, payload, make_headers in requests:
                waiter = Waiter(new_id().encode(), subject, payload, deadline, make_headers)
                self.send_request(session, waiter, timeout)
                waiters.append(waiter)
            for waiter in waiters:
                if not session.replies.wait(waiter):
                    waiter.error = NoReply(waiter.subject.decode(), timeout, waiter.sent)
        except BaseException:
            for waiter in waiters:
                session.replies.withdraw(waiter)
            raise
        return waiters

    def begin_request(
        self,
        subject: bytes,
        payload: bytes,
        timeout: float,
        make_headers: Callable[[float], bytes] | None = None,
        token: bytes | None = None,
    ) -> OpenRequest:
        """Send a request, and return it without waiting for its reply; see `request`."""
        session = self._session or self._open_session()
        session.loop.refuse_own_thread()
        waiter = Waiter(token or new_id().encode(), subject, payload, time.monotonic() + timeout, make_headers)
        self.send_request(session, waiter, timeout)
        return OpenRequest(session.replies, waiter, timeout)

    def subscribe(self, subject: str, queue: str, sink: Sink, timeout: float | None = None) -> NatsSubscription:
        """Subscribe ``sink``, which is called on the loop's thread and must not block; see `Session.subscribe`."""
        return self.session.subscribe(subject, queue, sink, timeout or self.options.timeout)

    def run(self, function: Callable[..., Awaitable[T]], *args: Any, timeout: float | None = None) -> T:
        """Run a coroutine function on the loop; raises TimeoutError after ``timeout`` seconds."""
        return self.session.run(function, *args, timeout=timeout or self.options.timeout)

    def loop_answers(self, timeout: float) -> bool:
        """Tell whether the loop of this process, if there is one, runs something within ``timeout`` seconds."""
        session = self._session
        if session is None:
            return True
        try:
            session.run(_nothing, timeout=timeout)
        except TimeoutError:
            return False
        except ClosedError:
            return True  # it has ended, as it was asked to
        return True

    def flush(self, timeout: float | None = None) -> None:
        """Return when the server has everything published so far; see `Session.flush`."""
        self.session.flush(timeout or self.options.timeout)

    def confirm(self, subject: str) -> None:
        """Return when the server has what was published to a subject just now, whatever became of anything else.

        Raises FlushTimeout or PermissionDenied.
        """
        self.session.confirm(subject, self.options.timeout)

    @property
    def is_callback_thread(self) -> bool:
        """Whether the caller runs on the thread of users' callbacks, which must not wait for another of them."""
        session = self._session
        return session is not None and session.callbacks.is_own_thread

    def on_status_for_user(self, listener: Callable[[Status], object]) -> None:
        """Call a function of the user's with each new status, in order, on the thread of callbacks."""
        self.on_status(lambda status: self.session.callbacks.post(listener, status))

    def on_status(self, listener: Callable[[Status], object]) -> Callable[[], None]:
        """Call ``listener``, which must not block, with each new status, in order; returns what ends that."""
        self._listeners.append(listener)

        def forget() -> None:
            with contextlib.suppress(ValueError):  # it is forgotten already
                self._listeners.remove(listener)

        return forget

    def wait_connected(self, timeout: float) -> bool:
        """Wait until connected; tell whether it is after at most ``timeout`` seconds."""
        with self._status_changed:
            settled = wait_until(
                self._status_changed, lambda: self.status in (Status.CONNECTED, Status.CLOSED), timeout
            )
        return settled and self.status is Status.CONNECTED

    def add_receiver(self, receiver: object) -> None:
        """Know of something that receives, so that a forked child can say that it stayed behind."""
        self._receivers.add(receiver)

    def after_fork(self, function: Callable[[], object]) -> None:
        """Call a function in each forked child, on a thread of its own."""
        self._after_fork.append(function)

    def follow_fork(self) -> None:
        """Have what was asked for done in a child that was forked just now."""
        if self._after_fork and not self._closed:
            start_thread(self._run_after_fork, f"lightlink-after-fork-{self.options.name}")

    def _run_after_fork(self) -> None:
        for function in self._after_fork:
            try:
                function()
            except Exception:
                _log.exception("lightlink: following into the forked process %d failed", os.getpid())

    def _tell_of_those_left_behind(self) -> None:
        """Log, in a forked child, which receivers are in the parent only."""
        left = sorted({text for each in self._receivers if "in the parent" in (text := repr(each))})
        if len(left) > _MOST_NAMED:
            left[_MOST_NAMED:] = [f"{len(left) - _MOST_NAMED} more"]
        if left and not self._after_fork:
            _log.warning(
                "lightlink: in process %d, forked from %d, not receiving: %s (start them here, or see after_fork)",
                os.getpid(),
                self._parent_pid,
                ", ".join(left),
            )

    def close(self, timeout: float) -> None:
        """Flush and close, within about ``timeout`` seconds; idempotent, from any thread but the loop's.

        What Ctrl-C has ended is done by the next call.
        """
        self._closing.set()  # a thread that waits for a server holds the lock
        is_ours = False
        try:
            with self._lock:
                if self._is_ended:
                    return
                session = self._session
                if sys.is_finalizing():
                    self._closed = self._is_ended = True
                    return  # there is nobody left to tell; what was published was delivered at the exit
                if session is not None:
                    session.loop.refuse_own_thread()
                self._closed = self._is_ended = is_ours = True
            if session is not None:
                session.close(timeout)
            forks.unwatch(self)  # not before: what a child forked meanwhile has of the session is the parent's
            self._wake_waiting()
        except BaseException:
            if is_ours:
                self._is_ended = False
            raise

    def report(self, error: Exception) -> None:
        """Log an error that no caller is there to get, and hand it to the error hook."""
        _log.error("lightlink: %s", visible(str(error)))
        self.tell_hook(error)

    def tell_hook(self, error: Exception) -> None:
        """Hand an error that is in the log already to the error hook, if there is one."""
        if self.options.on_error is None:
            return
        try:
            self.options.on_error(error)
        except Exception:
            _log.exception("lightlink: the error hook failed on %r", error)

    def flush_at_exit(self, timeout: float) -> None:
        """Deliver what was published, as the interpreter ends."""
        session = self._session
        if session is None:
            return
        try:
            if session.status is Status.CONNECTED:
                session.flush(timeout)
        except LightLinkError as exc:
            _log.warning("lightlink: not everything was delivered before exit: %s", exc)
        finally:
            session.loop.keep_awake()

    def in_use(self) -> contextlib.AbstractContextManager[None]:
        """Say that the connection is needed for what follows; see `BulkConnection`, which rests otherwise."""
        return contextlib.nullcontext()

    def forget_parent(self) -> Session | None:
        """Start anew in a forked child; returns the parent's session.

        Its threads do not run here, its locks may be held, and its socket is the parent's.
        """
        session, self._session = self._session, None
        self._parent_pid = os.getppid()
        self._closing = Event()
        self._is_ended = False
        self._lock = threading.RLock()
        self._status_changed = Condition()
        if session is not None and hasattr(session, "nc"):
            session.nc.abandon()
        return session

    def send_request(self, session: Session, waiter: Waiter, timeout: float) -> None:
        """Hand a request to a session's outbox; raises the errors of `publish`."""
        session.refuse_request(waiter)
        session.replies.add(waiter)
        try:
            session.outbox.put(waiter, min(timeout, self.options.outbox_timeout))
        except BaseException:
            session.replies.withdraw(waiter)
            raise

    def _open_session(self) -> Session:
        with self._lock:
            if self._closed:
                raise ClosedError("the client")
            if self._session is None:
                refuse_patched_threads()
                self._session = self._connected_session()
                forks.flush_at_end_of_child()
                # Not here: Ctrl-C may leave a condition taken, and this thread is the one that gets it.
                self._session.notifier.post(self._wake_waiting)
                if self._parent_pid:
                    self._tell_of_those_left_behind()
            return self._session

    def _connected_session(self) -> Session:
        """Return a connected session; a server that is not there is waited for as long as the options say."""
        deadline = Deadline(self.options.wait)
        pauses = Backoff(self.options)
        said_at = -math.inf
        while True:
            session = Session(self.options, self._tell_status, self.report, self._kind)
            try:
                session.start()
            except AuthenticationError:
                raise
            except ConnectError as exc:
                if deadline.is_over:
                    raise
                if time.monotonic() - said_at > _SAY_EVERY_SECONDS:
                    _log.warning("lightlink: no server yet, waiting for one: %s", exc)
                    said_at = time.monotonic()
            else:
                return session
            if wait_in_parts(self._closing.wait, min(pauses.next(), deadline.remaining())):
                raise ClosedError("the client", "was closed while it waited for a server")

    def _wake_waiting(self) -> None:
        with self._status_changed:
            self._status_changed.notify_all()

    def _tell_status(self, status: Status) -> None:
        self._wake_waiting()
        for listener in list(self._listeners):
            try:
                listener(status)
            except Exception:
                _log.exception("lightlink: a status listener failed on %s", status)


async def _nothing() -> None:
    """Show that the loop gets round to it."""
