"""Read a stream's messages in order, each once, across outages (ADR-17's ordered consumer, by pull requests: ADR-13).

A reader has a consumer of its own on the server, short-lived and kept in memory. After a gap, a missed
heartbeat, a reconnect or the loss of its consumer it makes a new one that starts behind the last message it had.
It asks for no more than its window has room for, so a slow reader slows the stream down and loses nothing.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

import nats.errors

from lightlink.concurrency.deadline import Deadline
from lightlink.connection.session import Status
from lightlink.errors import LightLinkError, LinkError
from lightlink.jetstream import api, async_api
from lightlink.jetstream.answers import ConsumerInfo, StreamInfo
from lightlink.jetstream.api import nanoseconds
from lightlink.jetstream.cursor import EVERYTHING, Delivery, Position, read_delivery
from lightlink.jetstream.errors import STREAM_NOT_FOUND, JetStreamError
from lightlink.jetstream.pull_window import Window
from lightlink.jetstream.retry import while_electing
from lightlink.protocol import codec
from lightlink.protocol.ids import new_inbox
from lightlink.protocol.subjects import as_text

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from lightlink.connection.connection import Connection

_log = logging.getLogger("lightlink")

_HEARTBEAT_SECONDS = 5.0
_MISSED_HEARTBEATS = 2.5
_PULL_SECONDS = 30.0
_RETRY_SECONDS = 0.1
_RETRY_SECONDS_MAX = 2.0
# How long nothing may come, while there should be more, before the server is asked whether it still has that.
_IDLE_SECONDS = 0.5
# Begins the status of a pull request that asks for more than the consumer allows.
_REFUSED = b"Exceeded"
# Statuses that end one pull request and say nothing against the consumer.
_PULL_ENDED = (b"Message Size Exceeds MaxBytes", b"Batch Completed", b"Leadership Change")


class OrderedReader:
    """Reads what a stream has and gets on the subjects of ``filters``, from `start` until `stop`.

    ``deliver`` gets each message, and ``on_current`` is called after the last of those that were there at the start.
    Both are called on the loop's thread and must not block; `release` says when a message is done with. ``policy`` is
    what to begin with, unless ``first`` names the sequence to begin at. ``window`` messages of ``window_bytes`` in all
    wait or are on their way at most. A stream that is gone is made anew when ``make_stream``, its configuration, is
    given; else, with ``on_gone``, that is called and reading ends. After an outage messages no longer in the stream are
    passed over; a stream that was made anew or has lost its end is read as at the start.
    """

    def __init__(
        self,
        connection: Connection,
        stream: str,
        filters: Sequence[str],
        deliver: Callable[[Delivery], object],
        *,
        on_current: Callable[[], object] | None = None,
        on_gone: Callable[[], object] | None = None,
        policy: str = EVERYTHING,
        first: int = 0,
        headers_only: bool = False,
        window: int = 256,
        window_bytes: int = 8 * 1024 * 1024,
        heartbeat: float = _HEARTBEAT_SECONDS,
        make_stream: Mapping[str, Any] | None = None,
    ) -> None:
        self.stream = stream
        self._connection = connection
        self._position = Position(stream, filters, policy, first, headers_only)
        # A message that is larger than a pull request's limit would never come.
        self._window = Window(window, max(window_bytes, 4 * connection.max_payload))
        self._deliver = deliver
        self._on_current = on_current
        self._on_gone = on_gone
        self._told_current = False
        self._heartbeat = heartbeat
        self._make_stream = make_stream
        self._stopped = False
        self._has_left = False
        self._consumer = b""  # the consumer that is read from, empty when it is given up
        self._spent = b""  # the one given up last
        self._expected = 1  # the consumer's number of the next message
        self._refused = False  # the last pull request, for what it asked
        self._outages = 0
        self._heard = 0.0
        self._task: asyncio.Task[None] | None = None
        self._forget_status: Callable[[], None] = lambda: None

    # Called from the users' threads --------------------------------------------------------------------------------

    def start(self, timeout: float) -> None:
        """Begin to read.

        Raises JetStreamError (its err_code is STREAM_NOT_FOUND when there is no such stream), NoReply, TimeoutError,
        PermissionDenied, ClosedError.
        """
        self._session = session = self._connection.session
        self._nc = session.nc
        self._inbox = new_inbox(self._connection.options.inbox_prefix)
        deadline = Deadline(timeout)
        info = api.api(self._connection, f"STREAM.INFO.{self.stream}", None, deadline.as_timeout(), StreamInfo)
        self._position.check_stream(info)
        if self._position.is_unsure:
            subjects = self._position.filters
            found = [
                api.get_last_written(self._connection, self.stream, each, deadline.as_timeout()) for each in subjects
            ]
            self._position.expect(max(message.seq if message is not None else 0 for message in found))
        self._route = self._connection.subscribe(self._inbox + "*", "", self._arrive, timeout)
        self._forget_status = self._connection.on_status(self._on_status)
        try:
            outages = self._outages
            while_electing(self._make_first_consumer, deadline.as_timeout(), repeatable=True)
        except BaseException:
            self.stop()
            raise
        session.loop.call_soon(self._launch, outages)

    def _make_first_consumer(self, timeout: float) -> None:
        # By another name each time: the one server that a consumer was given to may be dead, and then the same request
        # is never answered, however often it is sent.
        name, subject, request = self._position.consumer_request()
        self._begin(name, api.api_once(self._connection, subject, request, timeout, ConsumerInfo))

    def release(self, delivery: Delivery) -> None:
        """Say that a message is done with; to be called once for each, from any thread."""
        if self._window.release(delivery.size):
            self._session.loop.call_soon(self._wake)

    def stop(self) -> None:
        """Deliver no more; returns at once. Idempotent, from any thread."""
        if not self._has_left:
            self._stopped = True
            self._forget_status()
            self._session.loop.call_soon(self._end)
            self._has_left = True  # not before: what Ctrl-C has ended the next stop does

    def _on_status(self, status: Status) -> None:
        if status is Status.CONNECTED:
            self._session.loop.call_soon(self._after_outage)

    # On the loop's thread ------------------------------------------------------------------------------------------

    def _launch(self, outages: int) -> None:
        if self._stopped:
            return
        if self._outages != outages:
            self._give_up_consumer()
        self._stir = asyncio.Event()
        self._task = self._session.loop.loop.create_task(self._work())

    def _wake(self) -> None:
        if self._task is not None:
            self._stir.set()

    def _end(self) -> None:
        # Whom it told may hold both what came and this reader: a circle, which lasts until the collector comes.
        self._deliver, self._on_current, self._on_gone = _ignore, None, None
        if self._task is not None:
            self._task.cancel()
        self._task = self._session.loop.loop.create_task(self._clean_up())

    async def _clean_up(self) -> None:
        try:
            await self._delete_consumer()
            await self._nc.unroute(self._route)
        except (nats.errors.Error, OSError) as exc:
            _log.debug("lightlink: ending the reader of %s: %r", self.stream, exc)

    async def _work(self) -> None:
        try:
            self._tell_current()
            while not self._stopped:
                await self._read()
                if self._refused:
                    await asyncio.sleep(_RETRY_SECONDS_MAX)
                await self._renew()
        except Exception as exc:
            _log.exception("lightlink: the reader of %s ended", self.stream)
            self._session.report(_as_ours(exc, self.stream))

    async def _read(self) -> None:
        """Keep pull requests under way for as long as the consumer is good."""
        loop = asyncio.get_running_loop()
        limit = self._heartbeat * _MISSED_HEARTBEATS
        self._heard = loop.time()
        while self._consumer:
            self._stir.clear()
            while self._window.wants_pull():
                await self._pull()
            pause = self._heard + limit - loop.time() if self._window.under_way else None
            if not self._position.is_current and self._window.under_way:
                pause = min(pause or _IDLE_SECONDS, _IDLE_SECONDS)
            try:
                await asyncio.wait_for(self._stir.wait(), pause)
            except asyncio.TimeoutError:
                if self._window.under_way and loop.time() - self._heard >= limit:
                    _log.debug("lightlink: no heartbeat from the consumer of %s", self.stream)
                    self._give_up_consumer()
                elif not self._position.is_current and loop.time() - self._heard >= _IDLE_SECONDS:
                    await self._look_ahead()

    async def _look_ahead(self) -> None:
        """Ask what is still to come: messages removed in the meantime never arrive."""
        try:
            if self._position.has_all:
                last = await async_api.last_written(self._connection, self.stream, self._position.filters)
                self._position.expect(last)
            else:
                await self._look_at_consumer()
        except (LightLinkError, nats.errors.Error, OSError, asyncio.TimeoutError) as exc:
            _log.debug("lightlink: what is still to come of %s cannot be told: %r", self.stream, exc)
        self._tell_current()

    async def _look_at_consumer(self) -> None:
        # A heartbeat says less: one also comes while the server still looks for the next message.
        consumer = self._consumer
        subject = f"CONSUMER.INFO.{self.stream}.{consumer.decode()}"
        info = await async_api.ask(self._connection, subject, None, ConsumerInfo)
        if consumer == self._consumer and not info.num_pending and info.delivered.consumer_seq < self._expected:
            self._position.exhaust()

    async def _pull(self) -> None:
        request = {
            "expires": nanoseconds(_PULL_SECONDS),
            "idle_heartbeat": nanoseconds(min(self._heartbeat, _PULL_SECONDS / 2)),
        }
        if self._position.may_limit_bytes:
            request |= {"batch": self._window.pull_messages, "max_bytes": self._window.pull_size}
        else:
            request["batch"] = self._window.cautious_messages()
        reply = f"{self._inbox}{self._window.pulled(request['batch'])}"
        rest = f"CONSUMER.MSG.NEXT.{self.stream}.{self._consumer.decode()}"
        subject = api.api_subject(self._connection, rest).decode()
        try:
            await self._nc.publish(subject, codec.encode_json(request), reply=reply)
        except (nats.errors.Error, OSError):
            self._give_up_consumer()

    def _arrive(self, subject: bytes, reply: bytes, data: bytes, headers: bytes | None) -> None:
        if self._stopped:
            return
        delivery = read_delivery(subject, reply, data, headers)
        if delivery is not None:
            self._take(delivery, delivery.size + len(subject) + len(reply))
        elif headers is not None:
            self._take_status(int(subject[len(self._inbox) :]), headers)

    def _take(self, delivery: Delivery, size: int) -> None:
        if delivery.consumer != self._consumer:
            return  # from one that was given up
        if delivery.number != self._expected:
            self._give_up_consumer()
            return
        self._heard = self._session.loop.loop.time()
        self._refused = False
        self._expected += 1
        self._window.arrived(size)
        if self._position.passed(delivery):
            self._window.hold(delivery.size)
            self._deliver(delivery)
        self._tell_current()
        if self._window.wants_pull():
            self._stir.set()

    def _take_status(self, number: int, headers: bytes) -> None:
        if not self._window.expects(number):
            return
        self._heard = self._session.loop.loop.time()
        status, text = headers[9:12], headers[12:].split(b"\r\n", 1)[0].strip()
        if status == b"100":
            last = codec.decode_headers(headers).get("Nats-Last-Consumer", "")
            if last.isdigit() and int(last) >= self._expected:
                self._give_up_consumer()
        elif status in (b"404", b"408") or (status == b"409" and text in _PULL_ENDED):
            self._window.ended(number)
            self._stir.set()
        else:
            _log.debug("lightlink: the consumer of %s ended: %s %s", self.stream, status, text)
            self._note_refusal(text)
            self._give_up_consumer()

    def _note_refusal(self, text: bytes) -> None:
        """Report what is refused again with every pull request, once, and have a pause before the next."""
        if text.startswith(_REFUSED):
            if not self._refused:
                self._session.report(LinkError(f"reading {self.stream}", as_text(text)))
            self._refused = True

    def _tell_current(self) -> None:
        if self._position.is_current and not self._told_current:
            self._told_current = True
            if self._on_current is not None:
                self._on_current()

    # Consumers -----------------------------------------------------------------------------------------------------

    def _after_outage(self) -> None:
        self._outages += 1
        self._give_up_consumer()

    def _give_up_consumer(self) -> None:
        """Take nothing more from the consumer; `_work` makes another."""
        if self._consumer:
            self._spent, self._consumer = self._consumer, b""
        self._window.forget()
        self._wake()

    async def _renew(self) -> None:
        """Make a consumer that starts after the last message, trying until it succeeds."""
        delay = _RETRY_SECONDS
        while not self._stopped:
            self._stir.clear()
            if self._nc.is_connected:
                try:
                    if await self._make_consumer():
                        return
                except (LightLinkError, nats.errors.Error, OSError, asyncio.TimeoutError) as exc:
                    if self._on_gone is not None and _is_gone(exc):
                        self._stopped = True
                        self._on_gone()
                        return
                    _log.debug("lightlink: no new consumer of %s yet: %r", self.stream, exc)
                    # A server that has just started may need a moment, which nobody has to hear of.
                    if _RETRY_SECONDS_MAX / 2 < delay < _RETRY_SECONDS_MAX:
                        self._session.report(_as_ours(exc, self.stream))
            try:
                await asyncio.wait_for(self._stir.wait(), delay)
            except asyncio.TimeoutError:
                delay = min(delay * 2, _RETRY_SECONDS_MAX)

    async def _make_consumer(self) -> bool:
        """Make a consumer; tell whether it is good, which one made before yet another outage is not."""
        outages = self._outages
        await self._delete_consumer()
        try:
            info = await async_api.ask(self._connection, f"STREAM.INFO.{self.stream}", None, StreamInfo)
        except JetStreamError as exc:
            if not _is_gone(exc) or self._make_stream is None:
                raise
            info = await async_api.ask(self._connection, f"STREAM.CREATE.{self.stream}", self._make_stream, StreamInfo)
        self._position.check_stream(info)
        if self._position.is_unsure:
            self._position.expect(await async_api.last_written(self._connection, self.stream, self._position.filters))
        name, subject, request = self._position.consumer_request()
        made = await async_api.ask(self._connection, subject, request, ConsumerInfo)
        if self._outages != outages:
            return False
        self._begin(name, made)
        self._tell_current()
        return True

    def _begin(self, consumer: bytes, info: ConsumerInfo) -> None:
        self._position.begin(info)
        self._consumer = consumer
        self._expected = 1
        self._window.limit(info.config.max_batch, info.config.max_bytes)

    async def _delete_consumer(self) -> None:
        name = self._consumer or self._spent
        self._spent = b""
        if name and self._nc.is_connected:
            # Without a reply: if it does not arrive, the consumer ends by itself a little later.
            subject = api.api_subject(self._connection, f"CONSUMER.DELETE.{self.stream}.{name.decode()}")
            await self._nc.publish(subject.decode())


def _ignore(_delivery: Delivery) -> None:
    """Take what nobody wants any more."""


def _is_gone(exc: Exception) -> bool:
    return isinstance(exc, JetStreamError) and exc.err_code == STREAM_NOT_FOUND


def _as_ours(exc: Exception, stream: str) -> LightLinkError:
    return exc if isinstance(exc, LightLinkError) else LinkError(f"reading {stream}", str(exc) or type(exc).__name__)
