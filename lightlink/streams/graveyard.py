"""Store a consumer's dead letters, and record deliveries that do not count as attempts."""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, Any

import attrs

from lightlink.concurrency.deadline import NEVER
from lightlink.connection.connection import NoReply
from lightlink.connection.session import Status
from lightlink.errors import LightLinkError, Reject, StreamError
from lightlink.jetstream import api
from lightlink.jetstream.errors import JetStreamError
from lightlink.protocol import codec, subjects
from lightlink.streams.dead import copy_headers, ensure_dead_stream, number_in, own_headers
from lightlink.streams.durable import Durable
from lightlink.streams.message import COPIED, ERROR, EVENT_AT
from lightlink.streams.stream import ask

if TYPE_CHECKING:
    from lightlink.concurrency.deadline import Deadline
    from lightlink.connection.connection import Connection
    from lightlink.jetstream.cursor import Delivery
    from lightlink.streams.message import StoredMessage

_log = logging.getLogger("lightlink")
_FAILURES = (JetStreamError, NoReply, TimeoutError)

_MESSAGE_ID = "Nats-Msg-Id"
# Characters of an error that are worth more than having the event in the same message.
_LEAST_ERROR = 64


@attrs.frozen
class Excused:
    """How many deliveries of an event were no attempts, and the sequence of the message that says so."""

    count: int = 0
    number: int = 0


class Graveyard:
    """One consumer's share of LIGHTLINK_DEAD. Methods raise StreamError."""

    def __init__(self, connection: Connection, stream: str, consumer: str, timeout: float) -> None:
        self._connection = connection
        self._stream = stream
        self._consumer = consumer
        self._timeout = timeout

    def prepare(self) -> Durable:
        """Create the stream and the consumer of redelivered events; return the consumer."""
        ensure_dead_stream(self._connection, self._stream, self._timeout)
        name = subjects.retries_consumer(self._stream, self._consumer)
        durable = Durable(self._connection, subjects.DEAD_STREAM, name, self._timeout)
        durable.ensure([subjects.retries(self._stream, self._consumer)])
        return durable

    def bury(self, message: StoredMessage, found: Delivery, attempts: int, error: str, is_retry: bool) -> None:
        """Store a copy of an event that could not be handled; storing it twice adds nothing."""
        headers = copy_headers(message, self._consumer, attempts, error)
        again = f".{found.seq}" if is_retry else ""
        # With the time, as a stream that was made anew gives out its places again.
        headers[_MESSAGE_ID] = f"{message.stream}.{self._consumer}.{message.sequence}.{found.timestamp}{again}"
        data = found.data
        told = self._error_that_fits(headers, data)
        if not told:
            number = self._store_event(message, found, is_retry)
            headers = {name: value for name, value in headers.items() if name in (*COPIED, _MESSAGE_ID)}
            headers[EVENT_AT], data = str(number), b""
            told = self._error_that_fits(headers, data)
        headers[ERROR] = told or headers[ERROR]
        self._publish(subjects.dead_letters(self._stream, self._consumer), data, headers)

    def _error_that_fits(self, headers: dict[str, Any], data: bytes) -> str:
        """Return as much of the error as a message has room for; nothing if that would be too little."""
        error: str = headers[ERROR]
        excess = len(data) + len(codec.encode_headers(headers)) - self._connection.max_payload
        if excess <= 0:
            return error
        return error[:-excess] if len(error) - excess >= _LEAST_ERROR else ""

    def _store_event(self, message: StoredMessage, found: Delivery, is_retry: bool) -> int:
        """Store an event that has no room for where it comes from, once; return its sequence in LIGHTLINK_DEAD."""
        # Streams and permissions that are there already know no other subject for it.
        subject = self._excuse_subject(is_retry, found, "data-")
        there = self._last_excuse(subject)
        return there.seq if there is not None else self._publish(subject, found.data, own_headers(message.headers)).seq

    def whole(self, found: Delivery) -> tuple[Delivery, int]:
        """Return a redelivered event with what had no room in it, and which message that is, 0 for none."""
        origin = codec.decode_headers(found.headers)
        number = number_in(origin, EVENT_AT)
        if not number:
            return found, 0
        question = partial(api.get_written, self._connection, subjects.DEAD_STREAM, number)
        event = ask(subjects.DEAD_STREAM, "read", question, self._timeout)
        if event is None:
            raise Reject(f"its data is gone: it was message {number} of {subjects.DEAD_STREAM}")
        later = {name: origin.values_of(name) for name in origin if name != EVENT_AT}
        headers = codec.encode_headers({**own_headers(event.headers), **later})
        return found._replace(data=event.data, headers=headers), number

    def forget(self, number: int) -> None:
        """Remove a redelivered event that is settled."""
        try:
            api.delete_message(self._connection, subjects.DEAD_STREAM, number, self._timeout)
        except (*_FAILURES, LightLinkError) as exc:
            _log.debug("lightlink: a redelivered event that is settled cannot be removed: %s", exc)

    def excuse(self, is_retry: bool, found: Delivery, more: int, until: Deadline) -> None:
        """Record, if it can be done until then, that ``more`` deliveries were no attempts."""
        if self._connection.status is not Status.CONNECTED or until.is_over:
            raise StreamError(subjects.DEAD_STREAM, "write to", "the server cannot be asked in time")
        known = self.excused(is_retry, found, until)
        self._publish(self._excuse_subject(is_retry, found), b"%d" % (known.count + more), {}, until)
        self.forget_excuse(known)

    def excused(self, is_retry: bool, found: Delivery, until: Deadline = NEVER) -> Excused:
        """Return how many deliveries were no attempts."""
        last = self._last_excuse(self._excuse_subject(is_retry, found), until)
        return Excused(int(last.data), last.seq) if last is not None and last.data.isdigit() else Excused()

    def has_excuses(self) -> bool:
        """Return whether deliveries of any event are recorded as no attempts."""
        return self._last_excuse(subjects.excused(self._stream, self._consumer, "*")) is not None

    def forget_excuse(self, known: Excused) -> None:
        """Remove what is recorded of an event, without waiting for it: it expires in the end."""
        if not known.number:
            return
        subject = api.api_subject(self._connection, f"STREAM.MSG.DELETE.{subjects.DEAD_STREAM}")
        body = codec.encode_json({"seq": known.number, "no_erase": True})
        try:
            self._connection.publish(subject, body, timeout=0.0)
        except LightLinkError as exc:
            _log.debug("lightlink: what is recorded of an event that is settled cannot be removed: %s", exc)

    def _last_excuse(self, subject: str, until: Deadline = NEVER) -> api.StoredMessage | None:
        question = partial(api.get_last_written, self._connection, subjects.DEAD_STREAM, subject)
        return ask(subjects.DEAD_STREAM, "read", question, min(self._timeout, until.as_timeout()))

    def _excuse_subject(self, is_retry: bool, found: Delivery, prefix: str = "") -> str:
        event = f"{prefix}{'retry' if is_retry else 'event'}-{found.seq}-{found.timestamp}"
        return subjects.excused(self._stream, self._consumer, event)

    def _publish(self, subject: str, payload: bytes, headers: dict[str, Any], until: Deadline = NEVER) -> api.PubAck:
        def question(timeout: float) -> api.PubAck:
            return api.publish(self._connection, subjects.DEAD_STREAM, subject.encode(), payload, timeout, headers)

        return ask(subjects.DEAD_STREAM, "write to", question, min(self._timeout, until.as_timeout()))
