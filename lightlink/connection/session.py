"""One connection's life in one process: the loop, nats-py's client, the outbox and the reply inbox.

nats-py reconnects; how long it waits in between is `dialing.dial.Backoff`.
"""

from __future__ import annotations

import asyncio
import copy
import enum
import logging
import time
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import nats.errors

from lightlink.concurrency.deadline import Deadline, instant_after
from lightlink.concurrency.loop import LoopThread
from lightlink.concurrency.notifier import Notifier
from lightlink.concurrency.workers import WorkerPool
from lightlink.connection.dialing.diagnosis import explain, is_refusal, true_reason
from lightlink.connection.dialing.dial import Backoff, dial
from lightlink.connection.dialing.tls import Contexts, whose
from lightlink.connection.fallback import GatewayWatch
from lightlink.connection.lame_duck import Mover
from lightlink.connection.nats_client import TOO_MANY_SUBSCRIPTIONS, WireClient, refuse_unsafe
from lightlink.connection.permission_errors import Denials
from lightlink.connection.pump import Flush, Pump
from lightlink.connection.replies import ReplyMap
from lightlink.connection.transports import make_transport
from lightlink.errors import (
    AuthenticationError,
    ClosedError,
    ConnectError,
    DeliveryUnknown,
    FlushTimeout,
    InvalidOption,
    LightLinkError,
    LinkError,
    OutboxFull,
    PayloadTooLarge,
    PermissionDenied,
)
from lightlink.protocol.edge import Kind
from lightlink.protocol.ids import new_inbox

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from nats.aio.subscription import Subscription as NatsSubscription

    from lightlink.connection.nats_client import Sink
    from lightlink.connection.replies import Waiter
    from lightlink.options import ConnectOptions

T = TypeVar("T")
_log = logging.getLogger("lightlink")

# How many submitted calls are under way at a time where there is middleware.
CALLS_AT_ONCE = 64
# It takes more than one refusal to give up, however long that takes.
_REFUSALS_TO_GIVE_UP = 3
# How long after a subscription was refused that had been allowed it is tried again, at first and at the most.
_RESUBSCRIBE_SECONDS, _RESUBSCRIBE_SECONDS_MAX = 1.0, 30.0


class Status(enum.Enum):
    """The state of a connection."""

    CONNECTING = "connecting"  # the first connection is being made
    CONNECTED = "connected"
    RECONNECTING = "reconnecting"  # the connection was lost; it is tried again, for ever
    CLOSING = "closing"  # draining; nothing new is taken
    CLOSED = "closed"


class Session:
    """Made, started and closed once.

    ``on_status`` is called on the notifier's thread, ``on_error`` on that of callbacks. Nothing of the user's runs on
    the former, which knows when requests, commands and cancels are due.
    """

    def __init__(
        self,
        options: ConnectOptions,
        on_status: Callable[[Status], object],
        on_error: Callable[[Exception], object],
        kind: Kind = Kind.MAIN,
    ) -> None:
        self.options = options
        self.status = Status.CONNECTING
        self.notifier = Notifier(f"notifier-{options.name}")
        self.callbacks = Notifier(f"callbacks-{options.name}")
        self.workers = WorkerPool(f"lightlink-{options.name}", options.workers)
        # What waits around calls that nobody waits for: middleware, of submitted calls.
        self.callers = WorkerPool(f"lightlink-calls-{options.name}", CALLS_AT_ONCE)
        self.replies = ReplyMap(new_inbox(options.inbox_prefix).encode())
        self.loop = LoopThread(options.name)
        self._pump = Pump(self.loop, self.replies, options.outbox_messages, options.outbox_bytes, self.report)
        self.outbox = self._pump.outbox
        self.nc: WireClient
        self.failure: LightLinkError | None = None
        # An identity that may not read its replies can publish and subscribe all the same.
        self.inbox_denied: PermissionDenied | None = None
        self._inbox = f"{self.replies.prefix.decode()}*"
        # How often the connection was lost, and whom to tell, on the loop's thread, when it is again.
        self.losses = 0
        self._lost_messages = 0  # published, and perhaps lost with a connection
        self.on_loss: set[Callable[[], object]] = set()
        self._on_status = on_status
        self._on_error = on_error
        self._refusals = 0
        self._refused_since = 0.0
        self._resubscribing: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._outage_since = 0.0
        self._denials = Denials(*whose(options))
        self._backoff = Backoff(options)
        self._contexts = Contexts(options.tls, self.report)
        self._mover = Mover(self._pump, self.replies, self._backoff, lambda: self.losses)
        self._make_transport = partial(make_transport, options=options, kind=kind)
        self._watch = GatewayWatch(options, self._mover, self._make_transport)
        self._asking = False
        self._closing: asyncio.Task[None] | None = None

    # Called from the users' threads --------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the loop and connect; raises ConnectError."""
        limit = self.options.connect_timeout
        try:
            # Here, where an error reaches the caller, and at the interpreter's exit they could not start any more.
            self.notifier.start()
            self.callbacks.start()
            self.loop.start()
            self.loop.run(self._connect, timeout=limit + 0.5)
        except BaseException as exc:
            self._end(ClosedError("the client"), 0.5)
            if isinstance(exc, (TimeoutError, OSError, nats.errors.Error)) and not isinstance(exc, LightLinkError):
                # The server was reached, and fell silent or away before all was said.
                raise ConnectError(
                    [(server, explain(exc, limit, self.options)) for server in self.options.servers], limit
                ) from exc
            raise

    def refuse_to_wait(self) -> None:
        """Raise ClosedError or NotReady where waiting for the loop would never end, or hold it up."""
        self.loop.refuse_own_thread()
        self.outbox.refuse_interrupted()

    def refuse_request(self, waiter: Waiter) -> None:
        """Raise PermissionDenied, InvalidName or PayloadTooLarge where a request cannot leave, or not be answered."""
        if self.inbox_denied is not None:
            raise copy.copy(self.inbox_denied)
        refuse_unsafe(waiter.subject)  # here, where it reaches the caller: its frame is made on the loop
        size, limit = len(waiter.payload), self.nc.max_payload
        if size > limit:  # with its headers it is looked at as it leaves
            raise PayloadTooLarge(waiter.subject.decode(), size, limit)

    def run(self, function: Callable[..., Awaitable[T]], *args: Any, timeout: float) -> T:
        """Run a coroutine function on the loop; see `LoopThread.run`."""
        self.outbox.refuse_interrupted()
        return self.loop.run(function, *args, timeout=timeout)

    def flush(self, timeout: float) -> None:
        """Return when the server has everything handed over so far.

        Raises FlushTimeout, PermissionDenied, and once, when a connection was lost with what no flush had confirmed,
        DeliveryUnknown.
        """
        self.round_trip(timeout)
        denied = self._denials.take_publish()
        if denied is not None:
            raise denied
        lost, self._lost_messages = self._lost_messages, 0
        if lost:
            raise DeliveryUnknown(lost)

    def confirm(self, subject: str, timeout: float) -> None:
        """Return when the server has what was published to a subject; raises FlushTimeout or PermissionDenied."""
        self.round_trip(timeout)
        denied = self._denials.take_publish_to(subject)
        if denied is not None:
            raise denied

    def round_trip(self, timeout: float) -> None:
        """Return when the server has answered what was written last; raises FlushTimeout, ClosedError."""
        self.refuse_to_wait()
        flush = Flush(instant_after(timeout))
        try:
            self.outbox.put(flush, timeout)
            flush.wait()
        except ClosedError:
            raise
        except (TimeoutError, OutboxFull, nats.errors.Error, OSError):
            raise FlushTimeout(timeout, self.status.value) from None

    def subscribe(self, subject: str, queue: str, sink: Sink, timeout: float) -> NatsSubscription:
        """Subscribe; on return the server knows (or will, on reconnecting).

        Raises PermissionDenied, ClosedError, LinkError.
        """
        try:
            return self._subscribe_within(timeout + 1, subject, queue, sink, timeout)
        except nats.errors.ConnectionClosedError as exc:
            raise copy.copy(self.failure) or ClosedError("the client") from exc
        except (TimeoutError, nats.errors.Error, OSError) as exc:
            raise LinkError(f"subscribing to {subject!r}", explain(exc, timeout, self.options)) from exc

    def stop_routes(self, subscriptions: Sequence[NatsSubscription], timeout: float) -> None:
        """Have the server send no more on subscriptions, and all it had sent delivered, if it can be told in time."""
        self._tell(self.nc.stop_routes, subscriptions, timeout)

    def cut_routes(self, subscriptions: Sequence[NatsSubscription]) -> None:
        """Deliver nothing more on subscriptions that were stopped; returns at once."""
        self.loop.call_soon(self.nc.cut_routes, subscriptions)

    def unroute(self, subscription: NatsSubscription, timeout: float) -> None:
        """End a subscription for good; without effect when it, or the session, has ended."""
        self._tell(self.nc.unroute, subscription, timeout)

    def close(self, timeout: float) -> None:
        """Flush the outbox, then close; calls that still wait for a reply get ClosedError."""
        deadline = Deadline(timeout)
        try:
            self._close_politely(deadline, timeout)
        finally:  # Ctrl-C too: nobody closes it again
            self._end(ClosedError("the client"), deadline.remaining(0.5))

    def _close_politely(self, deadline: Deadline, timeout: float) -> None:
        if self.status is Status.CLOSED:
            return
        self._set_status(Status.CLOSING)
        try:
            if self._pump.running and timeout > 0:
                self.flush(timeout)
        except LightLinkError as exc:
            _log.warning("lightlink: not everything was delivered before close: %s", exc)
        left = self._refuse_more(ClosedError("the client", "was closed meanwhile"))
        if left:
            _log.warning("lightlink: closed with %d messages never sent", left)
        try:
            self.run(self.nc.close, timeout=deadline.remaining(0.5))
        except (TimeoutError, LightLinkError, OSError, RuntimeError, nats.errors.Error) as exc:
            # A RuntimeError is uvloop's, when the connection is lost just now.
            _log.debug("lightlink: closing the socket: %r", exc)
        self._set_status(Status.CLOSED)

    def _tell(self, function: Callable[..., Awaitable[None]], what: Any, timeout: float) -> None:
        try:
            self.run(function, what, timeout=timeout)
        except (TimeoutError, LightLinkError, OSError, nats.errors.Error) as exc:
            _log.debug("lightlink: unsubscribing: %r", exc)

    def _refuse_more(self, error: LightLinkError) -> int:
        """Take no more, end every wait with an error, and return how many messages were never sent."""
        left = self.outbox.close(self.failure)
        for item in left:
            if isinstance(item, Flush):
                item.fail(error)
        self.replies.fail(error)
        return sum(isinstance(item, bytes) for item in left)

    def _end(self, error: LightLinkError, timeout: float) -> None:
        """End every thread, within about ``timeout`` seconds, without a word to the server."""
        try:
            self._end_threads(error, timeout)
        except BaseException:
            self._end_threads(error, 0)  # interrupted: all are told, and nobody is waited for
            raise

    def _end_threads(self, error: LightLinkError, timeout: float) -> None:
        deadline = Deadline(timeout)
        self.status = Status.CLOSED
        self._refuse_more(error)
        if self.loop.is_running:
            self.loop.call_soon(self._give_up_socket)  # what follows may take too long on a busy machine
            try:
                self.run(self._discard, timeout=min(timeout, 0.5))
            except (TimeoutError, LightLinkError) as exc:
                _log.debug("lightlink: letting go of the socket: %r", exc)
            self.loop.stop(timeout)
        self.workers.stop(deadline.remaining())
        self.callers.stop(deadline.remaining(0.1))
        self.notifier.stop(deadline.remaining(0.1))
        self.callbacks.stop(deadline.remaining(0.1))

    # On the loop's thread ------------------------------------------------------------------------------------------

    async def _connect(self) -> None:
        callbacks: dict[str, Callable[..., Any]] = {
            "error_cb": self._on_nats_error,
            "disconnected_cb": self._on_disconnected,
            "reconnected_cb": self._on_reconnected,
            "reconnect_to_server_handler": self._backoff,
            "closed_cb": self._on_closed,
            "lame_duck_mode_cb": self._on_lame_duck,
        }
        try:
            self._contexts.check()
        except InvalidOption as exc:
            tried = [(server, str(exc)) for server in self.options.servers]
            raise AuthenticationError(tried, self.options.connect_timeout) from exc
        self.nc = await dial(self.options, self._make_client, callbacks)
        await self.nc.route(self._inbox, "", self.replies.deliver)
        await self.nc.flush()
        # No change that anybody is told of: whoever listens from now on would hear of it or not, as it happens.
        self.status = Status.CONNECTED
        self._pump.start(self.nc)
        self._watch.begin(self.nc)

    def _make_client(self) -> WireClient:
        return WireClient(
            require_tls=self.options.wants_tls,
            on_denied=self._on_denied,
            make_tls=self._contexts.next,
            make_transport=self._make_transport,
            discover=self.options.discover,
            end_read=self._pump.end_read,
        )

    def _subscribe_within(
        self, seconds: float, subject: str, queue: str, sink: Sink, timeout: float
    ) -> NatsSubscription:
        made: list[NatsSubscription] = []
        try:
            return self.run(self._subscribe, subject, queue, sink, timeout, made, timeout=seconds)
        except BaseException:
            # Given up, as by Ctrl-C: cut before anything that the caller does next reaches the loop; being cancelled
            # takes several turns of it.
            self.loop.call_soon(self.nc.cut_routes, made)
            raise

    async def _subscribe(
        self, subject: str, queue: str, sink: Sink, timeout: float, made: list[NatsSubscription]
    ) -> NatsSubscription:
        with self._denials.asking(subject):
            exceeded = self._denials.exceeded
            subscription = await self.nc.route(subject, queue, sink)
            made.append(subscription)
            try:
                if self.nc.is_connected:
                    try:
                        await self.nc.flush(timeout)
                    except (nats.errors.Error, OSError):
                        # Lost meanwhile: reconnecting subscribes again.
                        _log.debug("lightlink: the subscription to %s waits for the reconnect", subject)
                self._denials.check(subject)
                if self._denials.exceeded > exceeded:
                    # It may have been another that is being made at the same time; none of them counts.
                    raise LinkError(f"subscribing to {subject!r}", TOO_MANY_SUBSCRIPTIONS)
            except BaseException:  # refused, or cancelled, as by Ctrl-C: nobody holds it, to end it
                await self.nc.unroute(subscription)
                raise
        return subscription

    def _give_up_socket(self) -> None:
        if hasattr(self, "nc"):
            self.nc.give_up()

    async def _discard(self) -> None:
        if hasattr(self, "nc"):
            await self.nc.discard()

    # nats-py's callbacks; an exception in one would stop its reconnecting -------------------------------------------

    async def _on_disconnected(self) -> None:
        self._pump.stop()
        self.inbox_denied = None
        self.losses += 1
        self._lost_messages += self.nc.unconfirmed
        self.nc.forget_unconfirmed()
        for listener in list(self.on_loss):
            listener()
        if self.status is Status.CONNECTED:
            self._outage_since = time.monotonic()
            _log.warning("lightlink: connection to NATS lost; reconnecting")
            self._set_status(Status.RECONNECTING)

    async def _on_reconnected(self) -> None:
        self._refusals = 0
        self._backoff.reset()
        if self.status is Status.RECONNECTING:
            lasted = time.monotonic() - self._outage_since
            _log.warning("lightlink: connected to NATS again after %.1f s", lasted)
            self._set_status(Status.CONNECTED)
        losses = self.losses
        try:
            # What an account allows comes in an INFO of its own, before this is answered.
            await self.nc.flush(self.options.connect_timeout)
        except (nats.errors.Error, OSError) as exc:
            if self.losses != losses or not self.nc.is_connected:
                _log.debug("lightlink: lost again: %r", exc)
                return
            _log.debug("lightlink: the server is slow: %r", exc)  # nobody else would have it sent what waits
        self._pump.start(self.nc)
        self._watch.begin(self.nc)

    async def _on_lame_duck(self) -> None:
        self._mover.begin(self.nc, "the server is about to shut down")

    async def _on_closed(self) -> None:
        self._pump.stop()
        if self.status in (Status.CLOSING, Status.CLOSED):
            return
        self._set_status(Status.CLOSED)
        error = self.failure or ClosedError("the client", "was closed by the server")
        self._refuse_more(error)
        self.report(error)

    async def _on_nats_error(self, exc: Exception) -> None:
        if TOO_MANY_SUBSCRIPTIONS in str(exc) and self._denials.add_exceeded():
            return  # the subscriber is told
        if self.status is Status.RECONNECTING:
            await self._on_attempt_failed(exc)
        elif not isinstance(exc, (OSError, nats.errors.StaleConnectionError)):
            self.report(LinkError("the connection", explain(exc, self.options.connect_timeout, self.options)))

    async def _on_attempt_failed(self, exc: Exception) -> None:
        _log.debug("lightlink: reconnecting: %r", exc)
        if self._asking:
            return  # another sign of the same failed attempt
        self._asking = True
        try:
            reason = await true_reason(self.nc, exc, self.options.connect_timeout)
        finally:
            self._asking = False
        if not is_refusal(reason):
            self._refusals = 0
        elif self.nc.was_told_of_server:
            # It may be of another house: its refusal says nothing of us.
            _log.warning("lightlink: %s, of which another server has told, refuses us; skipping it", self.nc.server)
            self.nc.forget_server()
        else:
            self._refused_since = self._refused_since if self._refusals else time.monotonic()
            self._refusals += 1
            lasted = time.monotonic() - self._refused_since
            if self._refusals >= _REFUSALS_TO_GIVE_UP and lasted >= self.options.refusal_timeout:
                self._give_up(reason)

    def _on_denied(self, operation: str, subject: str) -> None:
        error = self._denials.denied(operation, subject)
        if operation == "subscribe":
            asked = self._denials.add_subscription(subject)
            if subject == self._inbox:
                self.inbox_denied = error
            elif not asked:
                self.report(error)
            if not asked and subject not in self._resubscribing:
                self._resubscribing.add(subject)
                task = asyncio.ensure_future(self._resubscribe(subject))
                self._tasks.add(task)  # the loop itself keeps only a weak reference
                task.add_done_callback(self._tasks.discard)
        elif not self.replies.fail(error, subject.encode()):
            self._denials.add_publish(error)
            self.report(error)

    async def _resubscribe(self, subject: str) -> None:
        """Ask again for what was allowed once, and may be again, until it is or the connection is another."""
        delay = _RESUBSCRIBE_SECONDS
        losses = self.losses
        try:
            while True:
                await asyncio.sleep(delay)
                delay = min(2 * delay, _RESUBSCRIBE_SECONDS_MAX)
                if self.losses != losses or not self.nc.is_connected:
                    return  # reconnecting subscribes to everything
                try:
                    if await self._is_allowed_again(subject):
                        return
                except (nats.errors.Error, OSError, asyncio.TimeoutError) as exc:
                    _log.debug("lightlink: subscribing again to %s: %r", subject, exc)
        finally:
            self._resubscribing.discard(subject)

    async def _is_allowed_again(self, subject: str) -> bool:
        with self._denials.asking(subject):
            if not await self.nc.resubscribe(subject):
                return True  # nobody wants it any more
            try:
                self._denials.check(subject)
            except PermissionDenied:
                return False
        if subject == self._inbox:
            self.inbox_denied = None
        _log.warning("lightlink: the subscription to %r is allowed again", subject)
        return True

    # ----------------------------------------------------------------------------------------------------------------

    def report(self, error: Exception) -> None:
        """Hand an error that no caller is there to get to the error hook."""
        self.callbacks.post(self._on_error, error)

    def _give_up(self, exc: BaseException) -> None:
        limit = self.options.connect_timeout
        self.failure = AuthenticationError([(self.nc.server, explain(exc, limit, self.options))], limit)
        # Not here: this is called by the very task that closing cancels.
        self._closing = asyncio.ensure_future(self.nc.close())

    def _set_status(self, status: Status) -> None:
        if self.status is not status:
            self.status = status
            self.notifier.post(self._on_status, status)
