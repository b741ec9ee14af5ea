"""Show what others have stored: as JSON where it is, else as text."""

from __future__ import annotations

from typing import Any

from msgspec import UNSET
from werkzeug.exceptions import Forbidden

from lightlink.errors import DecodeError
from lightlink.protocol import codec, subjects

_MOST_TEXT = 4096
# The server's own interfaces, inboxes, and what LightLink tells itself: a message there is no event, but an order.
_OWN = ("$", "_", subjects.OWN)


def is_event(subject: str) -> bool:
    """Tell whether a subject is for events of programs."""
    return not subject.startswith(_OWN) and subject != "ll"


def check_event(subject: str) -> None:
    """Raise Forbidden for a subject that is not for events of programs."""
    if not is_event(subject):
        raise Forbidden(f"subject {subject!r} is not for events: it belongs to the server or to LightLink")


def shown(data: bytes, name: str) -> dict[str, Any]:
    """Return ``{name: value}`` for JSON, ``{"text": ...}`` for anything else, cut off behind 4,096 characters."""
    try:
        return {name: codec.decode(data, name) if data else None}
    except DecodeError:
        return {name: UNSET, "text": data[: 4 * _MOST_TEXT].decode("utf-8", "replace")[:_MOST_TEXT]}
