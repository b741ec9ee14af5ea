"""Show what others have stored: as JSON where it is, else as text."""

from __future__ import annotations

from typing import Any

from msgspec import UNSET

from lightlink.errors import DecodeError
from lightlink.protocol import codec

_MOST_TEXT = 4096


def shown(data: bytes, name: str) -> dict[str, Any]:
    """Return ``{name: value}`` for JSON, ``{"text": ...}`` for anything else, cut off behind 4,096 characters."""
    try:
        return {name: codec.decode(data, name) if data else None}
    except DecodeError:
        return {name: UNSET, "text": data[: 4 * _MOST_TEXT].decode("utf-8", "replace")[:_MOST_TEXT]}
