"""Requests of the command store to JetStream, with its errors as StoreUnavailable.

Every method raises StoreUnavailable when JetStream refuses or does not answer, PermissionDenied, PayloadTooLarge and
ClosedError.
"""

from __future__ import annotations

import logging
import time
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import attrs

from lightlink.concurrency.deadline import Deadline
from lightlink.connection.connection import NoReply
from lightlink.errors import LightLinkError, OutboxFull, StoreUnavailable
from lightlink.jetstream import api, retry
from lightlink.jetstream.answers import ConsumerInfo, StreamInfo
from lightlink.jetstream.batch import BatchMessage, publish_batch
from lightlink.jetstream.errors import STREAM_NOT_FOUND, WRONG_LAST_SEQUENCE, JetStreamError
from lightlink.jetstream.retry import is_leaderless, while_electing
from lightlink.protocol import codec

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import msgspec

    from lightlink.connection.connection import Connection
    from lightlink.connection.replies import Waiter
    from lightlink.jetstream.api import StoredMessage

T = TypeVar("T")
_log = logging.getLogger("lightlink")

# What a request to JetStream may end with that says nothing about who asked.
FAILURES = (JetStreamError, NoReply, OutboxFull, TimeoutError)
# A stream's leader that does not answer within this is not there; a replica is asked then.
_LEADER_SECONDS = 1.0


class Conflict(LightLinkError):
    """Another writer came first. For use inside the library."""


@attrs.frozen
class RecordWrite:
    """A record to store over the revision it follows (0: none)."""

    subject: str
    record: msgspec.Struct
    expected: int


class Access:
    """JetStream over one connection; ``timeout`` seconds for each operation."""

    def __init__(self, connection: Connection, timeout: float) -> None:
        self.connection = connection
        self.clock = connection.clock
        self.timeout = timeout

    def read(self, stream: str, subject: str) -> StoredMessage | None:
        """Return the last message of a subject, None when there is none.

        In a cluster a replica may answer that is a little behind the stream's leader.
        """
        return self.patiently(f"reading {subject}", lambda limit: api.get_last(self.connection, stream, subject, limit))

    def read_written(self, stream: str, subject: str) -> StoredMessage | None:
        """Return the last message of a subject, which may be a pattern, with all that was acknowledged.

        While nobody leads the stream a replica may answer; that there is none is the leader's word only, and that is
        waited for as long as an election may take.
        """
        operation = f"reading {subject}"
        deadline = Deadline(retry.ELECTION_SECONDS)
        while True:
            try:
                timeout = min(_LEADER_SECONDS, self.timeout)
                return api.get_last_written(self.connection, stream, subject, timeout)
            except FAILURES as exc:
                if isinstance(exc, JetStreamError) and exc.err_code == STREAM_NOT_FOUND:
                    raise StoreUnavailable(operation, str(exc)) from exc
                failure = exc
            found = self.patiently(operation, lambda limit: api.find_last(self.connection, stream, subject, limit))
            if found is not None:
                return found
            if deadline.is_over or not (isinstance(failure, NoReply) or is_leaderless(failure)):
                raise StoreUnavailable(operation, str(failure)) from failure

    def read_all_written(
        self, stream: str, subjects: Sequence[str], operation: str = "reading"
    ) -> list[StoredMessage | None]:
        """Return the last message of each subject, with all that was acknowledged, asked for at once."""
        where = api.api_subject(self.connection, f"STREAM.MSG.GET.{stream}")
        found = []
        for waiter in self.request_all([(where, codec.encode_json({"last_by_subj": each}), None) for each in subjects]):
            try:
                check(waiter)
                found.append(api.parse_written(waiter))
            except FAILURES as exc:
                raise StoreUnavailable(operation, str(exc)) from exc
        return found

    def stream_info(self, stream: str, operation: str) -> StreamInfo | None:
        """Return what the server says of a stream, None when there is no such stream."""
        return self.ask(operation, partial(api.stream_info, self.connection, stream))

    def ask(self, operation: str, question: Callable[[float], T]) -> T:
        """Return the answer of the API to ``question(timeout)``, and learn the server's time from it."""
        asked_at = time.monotonic()
        try:
            answer = question(self.timeout)
        except FAILURES as exc:
            raise StoreUnavailable(operation, str(exc)) from exc
        if isinstance(answer, (StreamInfo, ConsumerInfo)) and answer.told_at is not None:
            self.clock.learn(answer.told_at, asked_at, time.monotonic())
        return answer

    def put(
        self,
        stream: str,
        subject: str,
        payload: bytes,
        headers: dict[str, str],
        operation: str,
        timeout: float | None = None,
    ) -> int:
        """Store a message with headers that say over which revision; return the new one; raises Conflict."""
        try:
            where = api.write_subject(self.connection, subject)
            return api.publish(self.connection, stream, where, payload, timeout or self.timeout, headers).seq
        except FAILURES as exc:
            if isinstance(exc, JetStreamError) and exc.err_code in WRONG_LAST_SEQUENCE:
                raise Conflict(subject) from exc
            raise unavailable(operation, exc) from exc

    def put_record(self, stream: str, subject: str, record: msgspec.Struct, expected: int) -> int:
        """Store a record over the revision it follows, and return its own; raises Conflict.

        Where no answer comes, what is stored tells whether it was.
        """
        headers = {api.EXPECTED_LAST_SUBJECT_SEQUENCE: str(expected)}
        operation = f"writing {subject}"
        payload = codec.encode_json(record, subject)
        try:
            return self.put(stream, subject, payload, headers, operation)
        except StoreUnavailable as exc:
            if not exc.unknown:
                raise
        message = self.read_written(stream, subject)
        if message is not None and message.data == payload:
            return message.seq
        if (0 if message is None else message.seq) != expected:
            raise Conflict(subject)
        return self.put(stream, subject, payload, headers, operation)

    def put_all(self, stream: str, writes: Sequence[RecordWrite], operation: str) -> int:
        """Store records, all of them or none, and return the revision of the last; raises Conflict.

        For a stream that was made with ``allow_atomic``. Where no answer comes, what is stored under the last tells.
        """
        batch = [
            BatchMessage(each.subject, codec.encode_json(each.record, each.subject), each.expected) for each in writes
        ]
        try:
            return publish_batch(self.connection, stream, batch, self.timeout).seq
        except FAILURES as exc:
            if isinstance(exc, JetStreamError) and exc.err_code in WRONG_LAST_SEQUENCE:
                raise Conflict(writes[-1].subject) from exc
            failure = unavailable(operation, exc)
        if failure.unknown:
            message = self.read_written(stream, batch[-1].subject)
            if message is not None and message.data == batch[-1].payload:
                return message.seq
        raise failure

    def patiently(self, operation: str, ask: Callable[[float], T]) -> T:
        """Return what ``ask(limit)`` returns, asked again while nobody leads what it asks; it may be done twice."""
        try:
            return while_electing(ask, self.timeout, is_leaderless, repeatable=True, through_election=True)
        except FAILURES as exc:
            raise StoreUnavailable(operation, str(exc)) from exc

    def request_all(
        self, requests: Sequence[tuple[bytes, bytes, Callable[[float], bytes] | None]], timeout: float | None = None
    ) -> list[Waiter]:
        """Send many requests at once and return what came of each; a reply that did not come is its ``error``."""
        try:
            return self.connection.request_all(requests, timeout or self.timeout)
        except OutboxFull as exc:
            raise unavailable("asking JetStream", exc) from exc


def check(waiter: Waiter) -> None:
    """Raise what a request ended with instead of a reply."""
    if waiter.error is not None:
        raise waiter.error


def unavailable(operation: str, exc: Exception) -> StoreUnavailable:
    """Return the error for a write that the store refused or did not answer."""
    error = StoreUnavailable(operation, str(exc), unknown=isinstance(exc, NoReply) and exc.sent)
    error.__cause__ = exc  # also where it is not raised but told
    return error
