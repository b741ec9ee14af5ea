"""Read what other programs, perhaps in other languages, have written: be liberal in what is accepted."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any, TypeVar

import msgspec

from lightlink.errors import DecodeError
from lightlink.protocol import codec

T = TypeVar("T", bound="msgspec.Struct")

_NULL = b"null"
# A later instant leaves no room for a deadline behind it.
_LAST_YEAR = 9000


def read(data: bytes, subject: str, as_type: type[T], *times: str) -> T:
    """Return a record whose fields ``times`` are in UTC; raises DecodeError.

    Peers may write null for what they leave out, a whole number as 1.0, and a time in UTC without an offset.
    """
    try:
        record = codec.decode(data, subject, as_type)
    except DecodeError as exc:
        record = _read_loosely(data, subject, as_type, exc)
    changed: dict[str, datetime] = {}
    for name in times:
        instant: datetime | None = getattr(record, name)
        if instant is not None and (instant.tzinfo is not timezone.utc or instant.year > _LAST_YEAR):
            changed[name] = in_utc(instant, data, subject)
    return msgspec.structs.replace(record, **changed) if changed else record


def in_utc(instant: datetime, data: bytes, subject: str) -> datetime:
    """Return an instant in UTC, which one without an offset is taken for; raises DecodeError."""
    try:
        known = instant.replace(tzinfo=timezone.utc) if instant.tzinfo is None else instant.astimezone(timezone.utc)
    except OverflowError:
        known = None
    if known is None or known.year > _LAST_YEAR:
        raise DecodeError(subject, f"a time that is out of range: {instant.isoformat()}", data[:64])
    return known


def _read_loosely(data: bytes, subject: str, as_type: type[T], problem: DecodeError) -> T:
    try:
        members = codec.decode(data, subject, dict[str, msgspec.Raw])
    except DecodeError:
        raise problem from None
    given: dict[str, Any] = {name: value for name, value in members.items() if bytes(value) != _NULL}
    for field in msgspec.structs.fields(as_type):
        if field.type is int and field.name in given:
            number = codec.decode(bytes(given[field.name]), subject)
            if isinstance(number, float) and number.is_integer():
                given[field.name] = int(number)
    return codec.decode(codec.encode_json(given), subject, as_type)
