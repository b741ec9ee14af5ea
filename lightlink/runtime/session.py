"""One connection's life in one process: the loop, nats-py's client, the outbox and the reply inbox."""

from __future__ import annotations

import asyncio
import concurrent.futures
import enum
import logging
import time
from typing import TYPE_CHECKING, Any, TypeVar

import nats.errors

from lightlink import codec
from lightlink.errors import (
    AuthenticationError,
    ClosedError,
    ConnectError,
    FlushTimeout,
    LightLinkError,
    PermissionDenied,
)
from lightlink.runtime.dial import dial, explain, is_refusal
from lightlink.runtime.loop import LoopThread
from lightlink.runtime.notifier import Notifier
from lightlink.runtime.outbox import Outbox
from lightlink.runtime.replies import ReplyMap
from lightlink.runtime.tls import make_context
from lightlink.runtime.wire import WireClient
from lightlink.runtime.workers import WorkerPool

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from nats.aio.subscription import Subscription as NatsSubscription

    from lightlink.options import ConnectOptions
    from lightlink.runtime.wire import Sink

T = TypeVar("T")
_log = logging.getLogger("lightlink")

# How much is written to the socket at once, and how often in a row before the loop does something else.
_BATCH_BYTES = 256 * 1024
_BATCHES_IN_A_ROW = 8
# A refusal at this many reconnects in a row will not heal by itself.
_REFUSALS_TO_GIVE_UP = 3


class Status(enum.Enum):
    """The state of a connection."""

    CONNECTING = "connecting"  # the first connection is being made
    CONNECTED = "connected"
    RECONNECTING = "reconnecting"  # the connection was lost; it is tried again, for ever
    CLOSING = "closing"  # draining; nothing new is taken
    CLOSED = "closed"


class Session:
    """Made, started and closed once. ``on_status`` and ``on_error`` are called on the notifier's thread."""

    def __init__(
        self,
        options: ConnectOptions,
        on_status: Callable[[Status], object],
        on_error: Callable[[Exception], object],
    ) -> None:
        self.options = options
        self.status = Status.CONNECTING
        self.notifier = Notifier(options.name)
        self.workers = WorkerPool(f"lightlink-{options.name}", options.workers)
        self.replies = ReplyMap(f"{options.inbox_prefix or '_INBOX'}.{codec.new_id().replace('-', '')}.".encode())
        self.outbox = Outbox(options.outbox_messages, options.outbox_bytes, self._wake)
        self.loop = LoopThread(options.name)
        self.nc: WireClient
        self.failure: LightLinkError | None = None
        # How often the connection was lost, and whom to tell, on the loop's thread, when it is again.
        self.losses = 0
        self.on_loss: set[Callable[[], object]] = set()
        self._on_status = on_status
        self._on_error = on_error
        self._up = False
        self._congested = False
        self._refusals = 0
        self._outage_since = 0.0
        self._denied_subscriptions: set[str] = set()
        self._denied_publishes: list[PermissionDenied] = []
        self._tasks: set[asyncio.Task[Any]] = set()

    # Called from the users' threads --------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the loop and connect; raises ConnectError."""
        self.loop.start()
        try:
            self.loop.run(self._connect, timeout=self.options.connect_timeout + 1)
        except TimeoutError as exc:
            self.abort()
            tried = [(server, "no answer") for server in self.options.servers]
            raise ConnectError(tried, self.options.connect_timeout) from exc
        except BaseException:
            self.abort()
            raise

    def run(self, function: Callable[..., Awaitable[T]], *args: Any, timeout: float) -> T:
        """Run a coroutine function on the loop; see `LoopThread.run`."""
        return self.loop.run(function, *args, timeout=timeout)

    def flush(self, timeout: float) -> None:
        """Return when the server has everything handed over so far; raises FlushTimeout or PermissionDenied."""
        self.loop.refuse_own_thread()
        confirmed: concurrent.futures.Future[None] = concurrent.futures.Future()
        deadline = time.monotonic() + timeout
        self.outbox.put(lambda: self._start_ping(confirmed, deadline), 0, timeout)
        try:
            confirmed.result(max(deadline - time.monotonic(), 0))
        except (concurrent.futures.TimeoutError, nats.errors.Error, OSError):
            raise FlushTimeout(timeout, self.status.value) from None
        except concurrent.futures.CancelledError:
            raise ClosedError("the client", "was closed meanwhile") from None
        if self._denied_publishes:
            denied, self._denied_publishes = self._denied_publishes, []
            raise denied[0]

    def subscribe(self, subject: str, queue: str, sink: Sink, timeout: float) -> NatsSubscription:
        """Subscribe; on return the server knows (or will, on reconnecting). Raises PermissionDenied."""
        return self.run(self._subscribe, subject, queue, sink, timeout=timeout)

    def close(self, timeout: float) -> None:
        """Flush what was handed over, then close; whoever still waits for a reply gets ClosedError."""
        deadline = time.monotonic() + timeout
        self._set_status(Status.CLOSING)
        try:
            if self._up and timeout > 0:
                self.flush(timeout)
        except LightLinkError as exc:
            _log.warning("lightlink: not everything was delivered before close: %s", exc)
        left = self.outbox.close()
        if left:
            _log.warning("lightlink: closed with %d messages never sent", len(left))
        self.replies.fail(ClosedError("the client", "was closed meanwhile"))
        try:
            self.run(self.nc.close, timeout=max(deadline - time.monotonic(), 0.5))
        except (TimeoutError, LightLinkError, OSError, nats.errors.Error) as exc:
            _log.debug("lightlink: closing the socket: %r", exc)
        self._set_status(Status.CLOSED)
        self.abort()
        self.workers.stop(max(deadline - time.monotonic(), 0))
        self.notifier.stop(max(deadline - time.monotonic(), 0.1))

    def abort(self) -> None:
        """End the loop's thread without a word to the server."""
        self.status = Status.CLOSED
        self.outbox.close()
        self.loop.stop(2.0)

    # On the loop's thread ------------------------------------------------------------------------------------------

    async def _connect(self) -> None:
        callbacks = {
            "error_cb": self._on_nats_error,
            "disconnected_cb": self._on_disconnected,
            "reconnected_cb": self._on_reconnected,
            "closed_cb": self._on_closed,
        }
        self.nc = await dial(self.options, self._make_client, callbacks)
        await self.nc.route(f"{self.replies.prefix.decode()}*", "", self.replies.deliver)
        await self.nc.flush()
        if self._denied_subscriptions:
            raise PermissionDenied("subscribe", self._denied_subscriptions.pop())
        self._up = True
        self._set_status(Status.CONNECTED)
        self._pump()

    def _make_client(self) -> WireClient:
        return WireClient(require_tls=self.options.wants_tls, on_denied=self._on_denied)

    def _wake(self) -> None:
        self.loop.call_soon(self._pump)

    def _pump(self) -> None:
        """Write what is in the outbox to the socket, until either is exhausted."""
        for _ in range(_BATCHES_IN_A_ROW):
            if not self._up or self._congested or not self.nc.is_connected:
                return  # reconnecting, or the socket catching up, pumps again
            batch = self.outbox.take(_BATCH_BYTES)
            if not batch:
                return
            self._write(batch)
        self.loop.loop.call_soon(self._pump)

    def _write(self, batch: list[Any]) -> None:
        frames: list[bytes] = []
        for item in batch:
            if item.__class__ is bytes:
                frames.append(item)
            elif hasattr(item, "frame"):
                frame = item.frame(self.replies.prefix)
                if frame:
                    frames.append(frame)
            else:
                # A function, to be called once all before it is written.
                if frames:
                    self.nc.write(frames)
                    frames = []
                item()
        if frames:
            self.nc.write(frames)
        if self.nc.is_congested:
            self._congested = True
            self._spawn(self._wait_decongested())

    async def _wait_decongested(self) -> None:
        try:
            await self.nc.wait_decongested()
        except OSError:
            pass  # the connection is lost; reconnecting pumps again
        finally:
            self._congested = False
        self._pump()

    def _start_ping(self, confirmed: concurrent.futures.Future[None], deadline: float) -> None:
        self._spawn(self._ping(confirmed, deadline))

    async def _ping(self, confirmed: concurrent.futures.Future[None], deadline: float) -> None:
        try:
            await self.nc.flush(max(deadline - time.monotonic(), 0.001))  # type: ignore[arg-type]
        except BaseException as exc:
            if not confirmed.cancelled():
                confirmed.set_exception(exc if isinstance(exc, Exception) else ClosedError("the client"))
            if not isinstance(exc, Exception):
                raise
        else:
            confirmed.set_result(None)

    async def _subscribe(self, subject: str, queue: str, sink: Sink) -> NatsSubscription:
        subscription = await self.nc.route(subject, queue, sink)
        if self.nc.is_connected:
            try:
                await self.nc.flush()
            except (nats.errors.Error, OSError):
                # Lost meanwhile: reconnecting subscribes again.
                _log.debug("lightlink: the subscription to %s waits for the reconnect", subject)
        if subject in self._denied_subscriptions:
            self._denied_subscriptions.discard(subject)
            await self.nc.unroute(subscription)
            raise PermissionDenied("subscribe", subject)
        return subscription

    def _spawn(self, coroutine: Any) -> None:
        task = self.loop.loop.create_task(coroutine)
        self._tasks.add(task)  # the loop itself keeps only a weak reference
        task.add_done_callback(self._tasks.discard)

    # nats-py's callbacks; an exception in one would stop its reconnecting -------------------------------------------

    async def _on_disconnected(self) -> None:
        self._up = False
        self.losses += 1
        for listener in list(self.on_loss):
            listener()
        if self.status is Status.CONNECTED:
            self._outage_since = time.monotonic()
            _log.warning("lightlink: connection to NATS lost; reconnecting")
            self._set_status(Status.RECONNECTING)
        self._reload_tls()

    async def _on_reconnected(self) -> None:
        self._refusals = 0
        self._up = True
        if self.status is Status.RECONNECTING:
            lasted = time.monotonic() - self._outage_since
            _log.warning("lightlink: connected to NATS again after %.1f s", lasted)
            self._set_status(Status.CONNECTED)
        self._pump()

    async def _on_closed(self) -> None:
        self._up = False
        if self.status in (Status.CLOSING, Status.CLOSED):
            return
        self._set_status(Status.CLOSED)
        error = self.failure or ClosedError("the client", "was closed by the server")
        self.replies.fail(error)
        self.outbox.close()
        self.report(error)

    async def _on_nats_error(self, exc: Exception) -> None:
        if self.status is Status.RECONNECTING:
            _log.debug("lightlink: reconnecting: %r", exc)
            if is_refusal(exc):
                self._refusals += 1
                if self._refusals >= _REFUSALS_TO_GIVE_UP:
                    self._give_up(exc)
        elif not isinstance(exc, (OSError, nats.errors.StaleConnectionError)):
            self.report(exc)

    def _on_denied(self, operation: str, subject: str) -> None:
        if operation == "subscribe":
            self._denied_subscriptions.add(subject)
            return
        error = PermissionDenied(operation, subject)
        if not self.replies.fail(error, subject.encode()):
            self._denied_publishes.append(error)
            del self._denied_publishes[:-100]  # whoever never flushes must not fill the memory
            self.report(error)

    # ----------------------------------------------------------------------------------------------------------------

    def report(self, error: Exception) -> None:
        """Hand an error that no caller is there to get to the error hook."""
        self.notifier.post(self._on_error, error)

    def _give_up(self, exc: Exception) -> None:
        reason = explain(exc, self.options.connect_timeout)
        self.failure = AuthenticationError([(self.options.servers[0], reason)], self.options.connect_timeout)
        self._spawn(self.nc.close())

    def _reload_tls(self) -> None:
        """Read the certificate files again, so that renewed ones count from the next connection on."""
        if not self.options.wants_tls:
            return
        try:
            self.nc.options["tls"] = make_context(self.options.tls)
        except (LightLinkError, OSError) as exc:
            self.report(exc)

    def _set_status(self, status: Status) -> None:
        if self.status is not status:
            self.status = status
            self.notifier.post(self._on_status, status)
