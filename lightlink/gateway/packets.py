"""Parse QUIC headers without keys, and build stateless answers: Retry tokens, resets (RFC 8999, RFC 9000)."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import struct
import time
from typing import Any

import attrs

VERSION = 1
CID_LENGTH = 8
# Smaller Initial packets must be discarded (RFC 9000, section 14.1).
LEAST_INITIAL = 1200
_TOKEN_SECONDS = 10.0
_RESET_TOKEN = 16
_LEAST_RESET = 21


@attrs.frozen
class Header:
    """The unprotected part of a packet header. ``version`` is None in short headers."""

    destination: bytes
    version: int | None = None
    source: bytes = b""
    token: bytes = b""
    is_initial: bool = False


def read_header(data: bytes) -> Header | None:
    """Return the header of a packet, None if it is malformed."""
    try:
        if not data[0] & 0x80:
            # A short header; the fixed bit must be set (RFC 9000, section 17.3.1).
            whole = len(data) > CID_LENGTH and data[0] & 0x40
            return Header(data[1 : 1 + CID_LENGTH]) if whole else None
        version = struct.unpack_from("!I", data, 1)[0]
        destination, at = _read_bytes(data, 6, data[5], 20)
        source, at = _read_bytes(data, at + 1, data[at], 20)
        if version != VERSION or data[0] & 0x70 != 0x40:
            return Header(destination, version, source)
        size, at = _read_number(data, at)
        token, _ = _read_bytes(data, at, size, len(data))
    except (IndexError, ValueError, struct.error):
        return None
    return Header(destination, version, source, token, is_initial=True)


def _read_bytes(data: bytes, at: int, size: int, most: int) -> tuple[bytes, int]:
    if size > most or at + size > len(data):
        raise ValueError
    return data[at : at + size], at + size


def _read_number(data: bytes, at: int) -> tuple[int, int]:
    """Read a variable-length integer (RFC 9000, section 16)."""
    size = 1 << (data[at] >> 6)
    if at + size > len(data):
        raise ValueError
    return int.from_bytes(data[at : at + size], "big") & ((1 << (8 * size - 2)) - 1), at + size


class Secrets:
    """Derives tokens from a secret key and checks them, so that a gateway keeps no state for them."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def reset_token(self, cid: bytes) -> bytes:
        """Return the stateless reset token of a connection id (RFC 9000, section 10.3.2)."""
        return self._sign(b"reset", cid)[:_RESET_TOKEN]

    def stateless_reset(self, cid: bytes, size: int) -> bytes | None:
        """Return a stateless reset shorter than the ``size`` bytes that triggered it; None if those are too few."""
        length = min(size - 1, 43)
        if length < _LEAST_RESET:
            return None
        noise = bytearray(secrets.token_bytes(length - _RESET_TOKEN))
        noise[0] = 0x40 | noise[0] & 0x3F
        return bytes(noise) + self.reset_token(cid)

    def retry_token(self, address: Any, original: bytes, retry_source: bytes) -> bytes:
        """Return a Retry token, valid for 10 seconds and for this address (RFC 9000, section 8.1.2)."""
        content = struct.pack("!dB", time.time(), len(original)) + original + retry_source
        return content + self._sign(b"retry", _packed(address) + content)

    def check_retry_token(self, address: Any, token: bytes) -> tuple[bytes, bytes] | None:
        """Return both connection ids of a Retry token, None if it is invalid or expired."""
        content, signature = token[:-32], token[-32:]
        if len(content) < 9 or not hmac.compare_digest(signature, self._sign(b"retry", _packed(address) + content)):
            return None
        made, size = struct.unpack_from("!dB", content)
        if not 0 <= time.time() - made <= _TOKEN_SECONDS:
            return None
        return content[9 : 9 + size], content[9 + size :]

    def _sign(self, purpose: bytes, content: bytes) -> bytes:
        return hmac.digest(self._key, purpose + b"\0" + content, hashlib.sha256)


def _packed(address: Any) -> bytes:
    return f"{address[0]} {address[1]} ".encode()


def new_cid() -> bytes:
    """Return a random connection id."""
    return os.urandom(CID_LENGTH)
