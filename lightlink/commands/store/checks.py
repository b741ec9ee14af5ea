"""Check what users give before it is written anywhere: what peers cannot read would be lost on them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from lightlink.commands.store import schema
from lightlink.errors import InvalidOption

if TYPE_CHECKING:
    from collections.abc import Iterable


_MOST_DIGITS = 20  # what the server counts in 64 bits


def is_sequence(text: str) -> bool:
    """Tell whether text may be the number of a stored message."""
    return text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS


def text(option: str, value: Any, *, may_be_empty: bool = False) -> str:
    """Return text that JSON can carry; raises InvalidOption."""
    if not isinstance(value, str) or not (value or may_be_empty):
        raise InvalidOption(option, "must be text", value)
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InvalidOption(option, "must be text in valid Unicode", value) from None
    return value


def text_or_none(option: str, value: Any) -> str | None:
    """Return text or None; raises InvalidOption."""
    return None if value is None else text(option, value)


def aware(option: str, value: Any) -> datetime | None:
    """Return a datetime that knows its time zone, or None; raises InvalidOption."""
    if value is not None and (not isinstance(value, datetime) or value.utcoffset() is None):
        raise InvalidOption(option, "must be a datetime with a time zone: datetime.now(timezone.utc)", value)
    return value


def client_ids(given: Iterable[str]) -> list[str]:
    """Return the ids of clients, each once; raises InvalidName, InvalidOption."""
    if isinstance(given, (str, bytes, Mapping)):
        raise InvalidOption("client_ids", "must be several ids, not one text", given)
    try:
        several = list(given)
    except TypeError:
        raise InvalidOption("client_ids", "must be a list of ids", given) from None
    return list(dict.fromkeys([schema.client_id(each) for each in several]))
