"""Publish events and wait until they are stored, singly or pipelined (ADR-1: PubAck, message ids)."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

import attrs

from lightlink.concurrency.threads import Lock
from lightlink.connection.connection import NoReply
from lightlink.errors import LightLinkError, NotStored
from lightlink.jetstream import api
from lightlink.jetstream.errors import JetStreamError
from lightlink.logs import outgoing
from lightlink.middleware import Call
from lightlink.protocol import codec, subjects
from lightlink.rpc.futures import CallFuture
from lightlink.streams.stream import streams_on

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future
    from types import TracebackType

    from typing_extensions import Self

    from lightlink.connection.connection import Connection, OpenRequest
    from lightlink.connection.replies import Waiter
    from lightlink.protocol.codec import HeaderMap

_MESSAGE_ID = "Nats-Msg-Id"
_EXPECTED_STREAM = "Nats-Expected-Stream"
_FAILURES = (JetStreamError, NoReply, TimeoutError)
# Seconds for finding out why no PubAck came.
_ASKING_SECONDS = 1.0
# The most events in flight at a time.
_ON_WAY = 4096


@attrs.frozen
class Stored:
    """Where an event is stored; ``duplicate``: an event with its id was there already, and nothing was added."""

    stream: str
    sequence: int
    duplicate: bool = False


@attrs.frozen
class Event:
    """An event, encoded and checked."""

    subject: str
    payload: bytes
    block: bytes | None

    @classmethod
    def of(cls, subject: str, data: Any, id_: str | None, headers: HeaderMap | None, stream: str | None) -> Event:
        """Return an event; raises InvalidName, EncodeError."""
        name = subjects.publish_subject(subject).decode()
        payload = data if data.__class__ is bytes else codec.encode(data, "the event for", subject)
        given = dict(codec.checked_headers(headers)) if headers else {}
        if id_ is not None:
            # Ids are unique per stream, not per subject; the subject is mixed in.
            given[_MESSAGE_ID] = f"{name}|{id_}"
        if stream is not None:
            given[_EXPECTED_STREAM] = stream
        return cls(name, payload, codec.encode_headers(given) if given else None)


def publish_stored(connection: Connection, event: Event, timeout: float) -> Stored:
    """Publish an event and return once it is stored; raises NotStored and the errors of `publish`."""
    make_headers = None if event.block is None else (lambda _: event.block or b"")
    try:
        return _stored(connection, connection.request(event.subject.encode(), event.payload, timeout, make_headers))
    except _FAILURES as exc:
        raise _not_stored(event, exc, is_captured=_is_captured(connection, event, exc)) from exc


def submit_stored(connection: Connection, event: Event, timeout: float) -> Future[Stored]:
    """Publish an event and return a future of `Stored`, which may raise NotStored."""
    future = CallFuture(connection)
    future.set_running_or_notify_cancel()

    def settle(waiter: Waiter) -> None:
        try:
            if waiter.error is not None:
                raise waiter.error
            future.set_result(_stored(connection, waiter))
        except _FAILURES as exc:
            _explain(connection, event, exc, future.set_exception)
        except LightLinkError as exc:
            future.set_exception(exc)

    make_headers = None if event.block is None else (lambda _: event.block or b"")
    connection.request_async(event.subject.encode(), event.payload, timeout, settle, make_headers, users=True)
    return future


class Storing:
    """Publish many events at a time in a ``with`` block; at its end all are stored, or it raises the first failure.

    Made by `Client.storing`. ``stored`` counts the events whose PubAck was processed, by a later publish or at the end.
    A block that raises does not wait for events in flight, and drops those that are not sent yet.
    """

    def __init__(self, connection: Connection, timeout: float) -> None:
        self._connection = connection
        self._timeout = timeout
        # In publishing order; PubAcks of one stream arrive in the same order.
        self._on_way: deque[tuple[Event, OpenRequest]] = deque()
        self._lock = Lock()
        self._failure: Exception | None = None
        self.stored = 0

    def publish(
        self,
        subject: str,
        data: Any = None,
        *,
        id: str | None = None,  # noqa: A002 - the usual name
        headers: HeaderMap | None = None,
    ) -> None:
        """Publish an event; waits while too many are in flight. Raises NotStored for an earlier one that failed."""
        if not self._connection.middleware.is_used:
            self._put(Event.of(subject, data, id, outgoing(headers), None))
            return
        sent = dict(outgoing(headers) or {})
        # Continues once the event is in flight; its outcome is known at the end of the block.
        self._connection.middleware.run(
            Call(kind="publish", name=subject, args=data, headers=sent),
            lambda given: self._put(Event.of(subject, given.args, id, given.headers, None)),
        )

    def _put(self, event: Event) -> None:
        while self._on_way and self._on_way[0][1].answered and self._settle_oldest():
            pass
        if len(self._on_way) >= _ON_WAY:
            while len(self._on_way) > _ON_WAY // 2 and self._settle_oldest():
                pass
        self._raise_failure()
        make_headers = None if event.block is None else (lambda _: event.block or b"")
        request = self._connection.begin_request(event.subject.encode(), event.payload, self._timeout, make_headers)
        self._on_way.append((event, request))

    def wait(self) -> None:
        """Wait until everything published is stored; raises NotStored."""
        while self._settle_oldest():
            pass
        self._raise_failure()

    def _settle_oldest(self) -> bool:
        """Wait for the outcome of the oldest event in flight, at most until its deadline; False if there is none."""
        try:
            event, request = self._on_way.popleft()
        except IndexError:  # another thread settles it
            return False
        try:
            _stored(self._connection, request.finish())
        except _FAILURES as exc:
            if self._failure is None:
                is_captured = _is_captured(self._connection, event, exc)
                self._failure = _not_stored(event, exc, is_captured=is_captured)
        except LightLinkError as exc:
            self._failure = self._failure or exc
        else:
            with self._lock:
                self.stored += 1
        return True

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self.wait()
        finally:
            while self._on_way:
                self._on_way.popleft()[1].withdraw()


def _stored(connection: Connection, waiter: Waiter) -> Stored:
    ack = api.parse_ack(connection, waiter, None)
    return Stored(ack.stream, ack.seq, ack.duplicate)


def _not_stored(event: Event, error: Exception, *, is_captured: bool) -> NotStored:
    """Return the error for an event that is not stored, or may not be."""
    if (isinstance(error, JetStreamError) and error.no_responders) or not is_captured:
        found = NotStored(event.subject, "no stream captures this subject", unknown=False)
    else:
        found = NotStored(event.subject, str(error), unknown=_is_unknown(error))
    found.__cause__ = error
    return found


def _is_unknown(error: Exception) -> bool:
    return isinstance(error, NoReply) and error.sent


def _is_captured(connection: Connection, event: Event, error: Exception) -> bool:
    """Tell whether an unanswered event may have reached a stream.

    While somebody subscribes to ``>``, the server sends no "no responders".
    """
    if not _is_unknown(error):
        return True
    try:
        return bool(streams_on(connection, event.subject, _ASKING_SECONDS))
    except LightLinkError:
        return True  # without an answer, or permission to ask, assume it may


def _explain(connection: Connection, event: Event, error: Exception, tell: Callable[[NotStored], object]) -> None:
    """Pass on the result of `_not_stored` once it is known, without waiting here."""

    def learn(waiter: Waiter) -> None:
        try:
            is_captured = waiter.error is not None or bool(api.parse_names(waiter))
        except LightLinkError:
            is_captured = True
        tell(_not_stored(event, error, is_captured=is_captured))

    if not _is_unknown(error):
        tell(_not_stored(event, error, is_captured=True))
        return
    subject, body = api.api_subject(connection, "STREAM.NAMES"), codec.encode_json({"subject": event.subject})
    try:
        connection.request_async(subject, body, _ASKING_SECONDS, learn, users=True)
    except LightLinkError:
        tell(_not_stored(event, error, is_captured=True))
