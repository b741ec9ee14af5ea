"""Publish so that it is stored when that returns, one by one or pipelined (ADR-1: acknowledgements, message ids)."""

from __future__ import annotations

from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

import attrs

from lightlink.concurrency.deadline import Deadline
from lightlink.concurrency.threads import Condition
from lightlink.connection.connection import NoReply
from lightlink.errors import LightLinkError, NotStored
from lightlink.jetstream import api
from lightlink.jetstream.errors import JetStreamError
from lightlink.logs import outgoing
from lightlink.middleware import Call
from lightlink.protocol import codec, subjects

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

    from lightlink.connection.connection import Connection
    from lightlink.connection.replies import Waiter
    from lightlink.protocol.codec import HeaderMap

_MESSAGE_ID = "Nats-Msg-Id"
_EXPECTED_STREAM = "Nats-Expected-Stream"
# How many may be on their way to the server at a time.
_ON_WAY = 4096


@attrs.frozen
class Stored:
    """Where an event is stored; ``duplicate`` says that one with its id was there, and this one was not added."""

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
        payload = data if data.__class__ is bytes else codec.encode(data, f"the event for {subject!r}")
        given = dict(codec.checked_headers(headers)) if headers else {}
        if id_ is not None:
            # A stream knows ids, whatever the subject: two subjects may use the same.
            given[_MESSAGE_ID] = f"{name}|{id_}"
        if stream is not None:
            given[_EXPECTED_STREAM] = stream
        return cls(name, payload, codec.encode_headers(given) if given else None)


def publish_stored(connection: Connection, event: Event, timeout: float) -> Stored:
    """Publish an event and return once it is stored; raises NotStored, and the errors of a publish."""
    make_headers = None if event.block is None else (lambda _: event.block or b"")
    try:
        return _stored(connection, connection.request(event.subject.encode(), event.payload, timeout, make_headers))
    except (JetStreamError, NoReply, TimeoutError) as exc:
        raise not_stored(event, exc) from exc


def submit_stored(connection: Connection, event: Event, timeout: float) -> Future[Stored]:
    """Publish an event and return a future for where it is stored, which raises NotStored."""
    future: Future[Stored] = Future()
    future.set_running_or_notify_cancel()

    def settle(waiter: Waiter) -> None:
        try:
            future.set_result(_outcome(connection, event, waiter))
        except LightLinkError as exc:
            future.set_exception(exc)

    _send(connection, event, timeout, settle)
    return future


class Storing:
    """A block in which events are stored many at a time; at its end all are, or it raises what failed.

    Made by `Client.storing`. ``stored`` counts what is.
    """

    def __init__(self, connection: Connection, timeout: float) -> None:
        self._connection = connection
        self._timeout = timeout
        self._changed = Condition()
        self._on_way = 0
        self._failure: Exception | None = None
        self._failed = 0
        self.stored = 0

    def publish(
        self,
        subject: str,
        data: Any = None,
        *,
        id: str | None = None,  # noqa: A002 - what everybody calls it
        headers: HeaderMap | None = None,
    ) -> None:
        """Publish an event; waits while too many are on their way. Raises what an earlier one failed with."""
        sent = dict(outgoing(headers) or {})
        # It goes on once the event is on its way: what became of it is known at the end of the block.
        self._connection.middleware.run(
            Call(kind="publish", name=subject, args=data, headers=sent),
            lambda given: self._put(Event.of(subject, given.args, id, given.headers, None)),
        )

    def _put(self, event: Event) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._on_way < _ON_WAY or self._failure is not None)
            self._raise_failure()
            self._on_way += 1

        def settle(waiter: Waiter) -> None:
            try:
                _outcome(self._connection, event, waiter)
                self._settled(None)
            except LightLinkError as exc:
                self._settled(exc)

        try:
            _send(self._connection, event, self._timeout, settle)
        except BaseException:
            with self._changed:
                self._on_way -= 1
            raise

    def wait(self) -> None:
        """Return when all that was published is stored; raises NotStored."""
        deadline = Deadline(self._timeout + 1)
        with self._changed:
            self._changed.wait_for(lambda: not self._on_way, deadline.remaining())
            self._raise_failure()

    def _settled(self, error: Exception | None) -> None:
        with self._changed:
            self._on_way -= 1
            if error is None:
                self.stored += 1
            else:
                self._failed += 1
                self._failure = self._failure or error
            if not self._on_way or self._on_way == _ON_WAY // 2 or error is not None:
                self._changed.notify_all()

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.wait()


def _send(connection: Connection, event: Event, timeout: float, settle: Any) -> None:
    make_headers = None if event.block is None else (lambda _: event.block or b"")
    connection.request_async(event.subject.encode(), event.payload, timeout, settle, make_headers)


def _outcome(connection: Connection, event: Event, waiter: Waiter) -> Stored:
    try:
        if waiter.error is not None:
            raise waiter.error
        return _stored(connection, waiter)
    except (JetStreamError, NoReply, TimeoutError) as exc:
        raise not_stored(event, exc) from exc


def _stored(connection: Connection, waiter: Waiter) -> Stored:
    ack = api.parse_ack(connection, waiter, None)
    return Stored(ack.stream, ack.seq, ack.duplicate)


def not_stored(event: Event, error: Exception) -> NotStored:
    """Return the error for an event that was not stored, or perhaps not."""
    if isinstance(error, JetStreamError) and error.no_responders:
        return NotStored(event.subject, "no stream captures this subject", unknown=False)
    return NotStored(event.subject, str(error), unknown=isinstance(error, NoReply) and error.sent)
