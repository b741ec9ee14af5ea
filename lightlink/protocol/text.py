"""Text from peers and exceptions, made fit to be shown or sent: on a terminal, in a log where a line is a record."""

from __future__ import annotations

import re

# Control characters (C0, DEL, C1), what changes the direction of writing, and halves of surrogate pairs.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def visible(text: str) -> str:
    """Return text on one line, with each character that a terminal would obey written as an escape."""
    return _UNSAFE.sub(lambda match: _escape(ord(match[0])), text)


def visible_json(text: str) -> str:
    """Return JSON text with the same characters as escapes of JSON, so that it still says the same."""
    return _UNSAFE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def text_of(error: object) -> str:
    """Return what an exception says of itself, as text that UTF-8 can carry; some fail even at that."""
    try:
        text = str(error)
    except Exception as exc:
        text = f"(no text: {type(exc).__name__})"
    return text.encode("utf-8", "replace").decode()


def joined(host: str, port: int) -> str:
    """Return ``host:port``, as it stands in a URL and in a configuration."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _escape(code: int) -> str:
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
