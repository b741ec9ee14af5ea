"""Store a consumer's dead letters, and record deliveries that do not count as attempts."""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, Any

from lightlink.concurrency.deadline import NEVER
from lightlink.connection.connection import NoReply
from lightlink.connection.session import Status
from lightlink.errors import LightLinkError, StreamError
from lightlink.jetstream import api
from lightlink.jetstream.errors import JetStreamError
from lightlink.protocol import subjects
from lightlink.streams.dead import (
    copy_headers,
    ensure_dead_stream,
)
from lightlink.streams.durable import Durable
from lightlink.streams.stream import ask

if TYPE_CHECKING:
    from lightlink.concurrency.deadline import Deadline
    from lightlink.connection.connection import Connection
    from lightlink.jetstream.cursor import Delivery
    from lightlink.streams.message import StoredMessage

_log = logging.getLogger("lightlink")
_FAILURES = (JetStreamError, NoReply, TimeoutError)


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
        headers["Nats-Msg-Id"] = f"{message.stream}.{self._consumer}.{message.sequence}.{found.timestamp}{again}"
        self._publish(subjects.dead_letters(self._stream, self._consumer), found.data, headers)

    def forget(self, number: int) -> None:
        """Remove a redelivered event that is settled."""
        body = {"seq": number, "no_erase": True}
        try:
            api.api(self._connection, f"STREAM.MSG.DELETE.{subjects.DEAD_STREAM}", body, self._timeout)
        except (*_FAILURES, LightLinkError) as exc:
            _log.debug("lightlink: a redelivered event that is settled cannot be removed: %s", exc)

    def excuse(self, is_retry: bool, found: Delivery, more: int, until: Deadline) -> None:
        """Record, if it can be done until then, that so many more deliveries were no attempts."""
        if self._connection.status is not Status.CONNECTED or until.is_over:
            raise StreamError(subjects.DEAD_STREAM, "write to", "the server cannot be asked in time")
        count = self.excused(is_retry, found, until) + more
        self._publish(self._excuse_subject(is_retry, found), b"%d" % count, {}, until)

    def excused(self, is_retry: bool, found: Delivery, until: Deadline = NEVER) -> int:
        """Return how many deliveries were no attempts."""
        subject = self._excuse_subject(is_retry, found)
        question = partial(api.get_last_written, self._connection, subjects.DEAD_STREAM, subject)
        count = ask(subjects.DEAD_STREAM, "read", question, min(self._timeout, until.as_timeout()))
        return int(count.data) if count is not None and count.data.isdigit() else 0

    def _excuse_subject(self, is_retry: bool, found: Delivery) -> str:
        event = f"{'retry' if is_retry else 'event'}-{found.seq}-{found.timestamp}"
        return subjects.excused(self._stream, self._consumer, event)

    def _publish(self, subject: str, payload: bytes, headers: dict[str, Any], until: Deadline = NEVER) -> None:
        def question(timeout: float) -> Any:
            return api.publish(self._connection, subjects.DEAD_STREAM, subject.encode(), payload, timeout, headers)

        ask(subjects.DEAD_STREAM, "write to", question, min(self._timeout, until.as_timeout()))
