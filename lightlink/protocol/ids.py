"""Random ids, a stock of them drawn at once.

Asking the system for random bytes lets go of the interpreter's lock, and with many threads that call at the same time
each would have to wait for it again.
"""

from __future__ import annotations

import os

_DRAWN_AT_ONCE = 64
# What the variant's digit is (RFC 9562: its two highest bits are 10), by the digit drawn for it.
_VARIANTS = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}

# Per process: the parent of a fork goes on using what the fork has copied.
_stock: dict[int, list[str]] = {}


def new_id() -> str:
    """Return a random UUID (version 4) as text."""
    try:
        return _stock[os.getpid()].pop()
    except (KeyError, IndexError):
        drawn, *left = _draw()
        _stock.clear()
        _stock[os.getpid()] = left
        return drawn


def new_token() -> str:
    """Return a random id that is one token of a subject: a UUID's 32 hexadecimal digits."""
    return new_id().replace("-", "")


def new_inbox(prefix: str | None) -> str:
    """Return a unique inbox prefix, ending in a dot; without ``prefix`` below NATS's own, ``_INBOX``."""
    return f"{prefix or '_INBOX'}.{new_token()}."


def _draw() -> list[str]:
    drawn = os.urandom(16 * _DRAWN_AT_ONCE).hex()
    return [_uuid(drawn[at : at + 32]) for at in range(0, len(drawn), 32)]


def _uuid(digits: str) -> str:
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{_VARIANTS[digits[16]]}{digits[17:20]}-{digits[20:]}"


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_stock.clear)  # process ids come round again
