"""Stored events as handlers and readers receive them."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import attrs

from lightlink.concurrency.threads import Event
from lightlink.events.message import Message
from lightlink.jetstream.answers import parse_time
from lightlink.protocol import codec
from lightlink.protocol.subjects import as_text
from lightlink.streams.partitions import own_subject

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from lightlink.jetstream.cursor import Delivery

# Headers of a copy that name its origin; see `dead`.
SUBJECT = "LightLink-Subject"
STREAM = "LightLink-Stream"
CONSUMER = "LightLink-Consumer"
SEQUENCE = "LightLink-Sequence"
ATTEMPTS = "LightLink-Attempts"
ERROR = "LightLink-Error"
STORED_AT = "LightLink-Stored-At"
EVENT_AT = "LightLink-Event-At"  # which message holds the event itself, where that and these have no room in one
COPIED = (SUBJECT, STREAM, CONSUMER, SEQUENCE, ATTEMPTS, ERROR, STORED_AT, EVENT_AT)

_UNTOLD = datetime.fromtimestamp(0, timezone.utc)


@attrs.frozen
class StoredMessage(Message):
    """A `Message` that is stored in a stream.

    ``sequence`` is its sequence in ``stream``, ``stored_at`` when it was stored (UTC), ``attempt`` the number of this
    attempt, from 1. ``cancelled`` is set when the handler has exceeded its timeout.
    """

    stream: str = ""
    sequence: int = 0
    attempt: int = 1
    stored_at: datetime = _UNTOLD
    cancelled: Event = attrs.field(factory=Event, eq=False, repr=False)


def as_bytes(data: bytes, _: str) -> bytes:
    """Return the data undecoded."""
    return data


def decoder_of(raw: bool) -> Callable[[bytes, str], Any]:
    """Return what decodes events: not at all if they are wanted ``raw``, else as JSON."""
    return as_bytes if raw else codec.decode


def stored_at(headers: Mapping[str, str], otherwise: datetime) -> datetime:
    """Return when the original of a copy was stored; else a time given, as in a copy that does not tell."""
    try:
        return parse_time(headers[STORED_AT])
    except (KeyError, ValueError):
        return otherwise


def read_stored(
    delivery: Delivery, stream: str, attempt: int, decode: Callable[[bytes, str], Any] = codec.decode
) -> StoredMessage:
    """Return the event in a delivery; for a copy, with the original's place and time. Raises DecodeError."""
    headers = codec.decode_headers(delivery.headers)
    subject, sequence, at = own_subject(as_text(delivery.subject)), delivery.seq, delivery.created
    original = headers.get(SUBJECT)
    if original is not None and headers.get(SEQUENCE, "").isdecimal():
        subject, sequence, stream = original, int(headers[SEQUENCE]), headers.get(STREAM, stream)
        at = stored_at(headers, at)
        for name in COPIED:
            headers.pop(name, None)
    return StoredMessage(
        subject=subject,
        data=decode(delivery.data, subject),
        headers=headers,
        stream=stream,
        sequence=sequence,
        attempt=attempt,
        stored_at=at,
    )
