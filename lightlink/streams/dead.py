"""Dead letters: copies of events that could not be handled, with the reason, kept until redelivered or dropped.

The stream LIGHTLINK_DEAD holds them on ``ll.dead.<stream>.<consumer>``; redelivered ones go to
``ll.retry.<stream>.<consumer>``, which only that consumer reads.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, Any

import attrs

from lightlink.errors import StreamError, StreamNotFound
from lightlink.jetstream import api
from lightlink.jetstream.errors import STREAM_NOT_FOUND, JetStreamError
from lightlink.jetstream.read import read_current
from lightlink.protocol import codec, subjects
from lightlink.protocol.subjects import as_text
from lightlink.streams.message import (
    ATTEMPTS,
    CONSUMER,
    COPIED,
    ERROR,
    EVENT_AT,
    SEQUENCE,
    STORED_AT,
    STREAM,
    SUBJECT,
    StoredMessage,
    stored_at,
)
from lightlink.streams.stream import ask

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from lightlink.connection.connection import Connection
    from lightlink.jetstream.cursor import Delivery

_log = logging.getLogger("lightlink")

_DAY = 86_400
_SECOND = 1_000_000_000
_MOST_ERROR = 4096
_MOST_BYTES = 1024**3
_MOST_LISTED = 10_000


@attrs.frozen(kw_only=True)
class DeadLetter:
    """An event that could not be handled.

    ``number`` identifies the dead letter; ``sequence`` is that of the event in ``stream``, ``stored_at`` when it was
    stored there, ``at`` when it became a dead letter (UTC).
    """

    number: int
    subject: str
    data: bytes
    headers: dict[str, str]
    stream: str
    consumer: str
    sequence: int
    attempts: int
    error: str
    at: datetime
    stored_at: datetime


def ensure_dead_stream(connection: Connection, stream: str, timeout: float) -> None:
    """Create the dead letter stream unless it exists, with as many replicas as the stream they come from."""
    found = ask(stream, "read", partial(api.stream_config, connection, stream), timeout) or {}
    replicas = int(found.get("num_replicas", 1))
    config = {
        "name": subjects.DEAD_STREAM,
        "subjects": [subjects.dead_letters("*", "*"), subjects.retries("*", "*"), subjects.excused("*", "*", "*")],
        "max_age": 30 * _DAY * _SECOND,
        "max_bytes": _MOST_BYTES,
        "num_replicas": replicas,
        "discard": "new",  # when it is full, storing fails and is tried again: nothing is lost
        "allow_direct": True,
        "storage": "file",
    }
    if (
        ask(subjects.DEAD_STREAM, "make", partial(api.create_bounded_stream, connection, config), timeout)
        or replicas == 1
    ):
        return
    there = (
        ask(subjects.DEAD_STREAM, "read", partial(api.stream_config, connection, subjects.DEAD_STREAM), timeout) or {}
    )
    if int(there.get("num_replicas", 1)) < replicas:
        # An existing one is left as it is: all consumers share it.
        _log.warning(
            "lightlink: %s has %d replica(s), %s has %d: its dead letters may have to wait while a server is down; "
            "give both the same number, for example: nats stream edit %s --replicas %d",
            subjects.DEAD_STREAM,
            there.get("num_replicas", 1),
            stream,
            replicas,
            subjects.DEAD_STREAM,
            replicas,
        )


def copy_headers(message: StoredMessage, consumer: str, attempts: int, error: str) -> dict[str, Any]:
    """Return the headers of a copy: the event's own, and its origin."""
    told = " ".join(error.encode("ascii", "backslashreplace").decode().split())[:_MOST_ERROR]
    return {
        **own_headers(message.headers),
        SUBJECT: message.subject,
        STREAM: message.stream,
        CONSUMER: consumer,
        SEQUENCE: str(message.sequence),
        ATTEMPTS: str(attempts),
        ERROR: told or "no reason was given",
        STORED_AT: _time_text(message.stored_at),
    }


def own_headers(headers: Mapping[str, str]) -> dict[str, Any]:
    """Return all values of an event's headers that its copies keep: none of the server's, and none of another copy."""
    kept = (name for name in headers if name not in COPIED and not name.startswith("Nats-"))
    return {name: codec.header_values(headers, name) for name in kept}


def _headers(headers: Mapping[str, str]) -> codec.Headers:
    return codec.Headers(own_headers(headers))


def number_in(headers: dict[str, str], name: str) -> int:
    """Return the number in a header, 0 for none."""
    text = headers.get(name, "")
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 20 else 0


def _time_text(at: datetime) -> str:
    return at.isoformat(timespec="microseconds").replace("+00:00", "Z")


def consumers_with_letters(connection: Connection, timeout: float) -> list[tuple[str, str]]:
    """Return the stream and the name of each consumer that has dead letters, sorted; raises StreamError."""
    question = partial(api.subjects_of, connection, subjects.DEAD_STREAM, subjects.dead_letters("*", "*"))
    try:
        found = ask(subjects.DEAD_STREAM, "read", question, timeout)
    except StreamNotFound:
        return []  # there has never been a dead letter
    return sorted((stream, consumer) for _, _, stream, consumer in (subject.split(".") for subject in found))


class DeadLetters:
    """The dead letters of a consumer; made by `Client.dead_letters`. Methods raise StreamError, StreamNotFound."""

    def __init__(self, connection: Connection, stream: str, consumer: str, timeout: float) -> None:
        self._connection = connection
        self._stream = stream
        self._consumer = consumer
        self._timeout = timeout

    def __repr__(self) -> str:
        return f"<DeadLetters of {self._stream}/{self._consumer}>"

    def list(self, limit: int = 1000) -> list[DeadLetter]:
        """Return up to ``limit`` dead letters, oldest first; never more than 10,000."""
        subject = subjects.dead_letters(self._stream, self._consumer)
        most = min(limit, _MOST_LISTED)
        if most < 1:
            return []

        def question(timeout: float) -> Any:
            try:
                return read_current(self._connection, subjects.DEAD_STREAM, subject, timeout, limit=most)
            except JetStreamError as exc:
                if exc.err_code == STREAM_NOT_FOUND:
                    return []  # there has never been a dead letter
                raise

        found = ask(subjects.DEAD_STREAM, "read", question, self._timeout)
        return [self._whole(*_letter(each)) for each in found]

    def redeliver(self, number: int) -> None:
        """Redeliver an event to this consumer only; its attempts count from one again."""
        letter, event_at = self._get(number)
        headers = own_headers(letter.headers)
        headers |= {SUBJECT: letter.subject, STREAM: letter.stream, SEQUENCE: str(letter.sequence)}
        headers[STORED_AT] = _time_text(letter.stored_at)
        if event_at:
            if self._read(event_at) is None:
                raise StreamError(subjects.DEAD_STREAM, "redeliver from", f"the data of letter {number} is gone")
            headers[EVENT_AT] = str(event_at)
        subject = subjects.retries(self._stream, self._consumer).encode()
        ask(
            subjects.DEAD_STREAM,
            "redeliver from",
            lambda timeout: api.publish(self._connection, subjects.DEAD_STREAM, subject, letter.data, timeout, headers),
            self._timeout,
        )
        self._remove(number)

    def drop(self, number: int) -> None:
        """Remove a dead letter for good."""
        _, event_at = self._get(number)
        self._remove(number)
        if event_at:
            self._remove(event_at)

    def get(self, number: int) -> DeadLetter:
        """Return one dead letter; raises StreamNotFound."""
        return self._whole(*self._get(number))

    # ------------------------------------------------------------------------------------------------------------------

    def _get(self, number: int) -> tuple[DeadLetter, int]:
        """Return a dead letter as it is stored, and which message holds its event, 0 for none."""
        try:
            found = self._read(number)
        except StreamNotFound:
            found = None  # there has never been a dead letter
        if found is None or found.subject != subjects.dead_letters(self._stream, self._consumer):
            raise StreamNotFound(f"dead letter {number} of {self._stream}/{self._consumer}")
        return _letter_of(number, found.data, found.headers, found.created), number_in(found.headers, EVENT_AT)

    def _whole(self, letter: DeadLetter, event_at: int) -> DeadLetter:
        """Return a letter with its event, which may have had no room in it."""
        event = self._read(event_at) if event_at else None
        return letter if event is None else attrs.evolve(letter, data=event.data, headers=_headers(event.headers))

    def _read(self, number: int) -> Any:
        question = partial(api.get_written, self._connection, subjects.DEAD_STREAM, number)
        return ask(subjects.DEAD_STREAM, "read", question, self._timeout)

    def _remove(self, number: int) -> None:
        # What is gone was removed by this request too, if the answer to it was lost.
        question = partial(api.delete_message, self._connection, subjects.DEAD_STREAM, number)
        ask(subjects.DEAD_STREAM, "remove from", question, self._timeout)


def _letter(delivery: Delivery) -> tuple[DeadLetter, int]:
    headers = codec.decode_headers(delivery.headers)
    try:
        letter = _letter_of(delivery.seq, delivery.data, headers, delivery.created)
        return letter, number_in(headers, EVENT_AT)
    except StreamError:
        # Written by another program; show it unchanged.
        letter = DeadLetter(
            number=delivery.seq,
            subject=as_text(delivery.subject),
            data=delivery.data,
            headers=headers,
            stream="",
            consumer="",
            sequence=0,
            attempts=0,
            error="not a dead letter",
            at=delivery.created,
            stored_at=delivery.created,
        )
        return letter, 0


def _letter_of(number: int, data: bytes, headers: dict[str, str], at: datetime) -> DeadLetter:
    sequence, attempts = headers.get(SEQUENCE, ""), headers.get(ATTEMPTS, "")
    if not (sequence.isdecimal() and attempts.isdecimal() and SUBJECT in headers):
        raise StreamError(subjects.DEAD_STREAM, "read from", f"message {number} is not a dead letter")
    return DeadLetter(
        number=number,
        subject=headers[SUBJECT],
        data=data,
        headers=_headers(headers),
        stream=headers.get(STREAM, ""),
        consumer=headers.get(CONSUMER, ""),
        sequence=int(sequence),
        attempts=int(attempts),
        error=headers.get(ERROR, ""),
        at=at,
        stored_at=stored_at(headers, at),
    )
