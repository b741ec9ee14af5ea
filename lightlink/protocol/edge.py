"""What a QUIC gateway and its clients say to each other before and around a NATS connection; docs/wire.md."""

from __future__ import annotations

import enum
import re

# What is negotiated in QUIC's handshake (ALPN, RFC 7301).
ALPN = "lightlink-nats/1"
DEFAULT_PORT = 8474
# The name in the certificate of nats-server that clients verify inside; no gateway has it in its own.
INNER_NAME = "nats.lightlink.internal"

_PREAMBLE = re.compile(rb"LLQ/1 ([a-z]{1,16})")
_MAX_PREAMBLE = 32


class Kind(enum.Enum):
    """What a stream's NATS connection is for."""

    MAIN = "main"
    BULK = "bulk"


class EdgeCode(enum.IntEnum):
    """Why a gateway ends a stream or a connection (QUIC application error codes, RFC 9000, section 20.2)."""

    NO_ERROR = 0x00
    SHUTTING_DOWN = 0x01
    BAD_PREAMBLE = 0x02
    PREAMBLE_TIMEOUT = 0x03
    TOO_MANY_CONNECTIONS = 0x04
    TOO_MANY_STREAMS = 0x05
    UPSTREAM_UNREACHABLE = 0x06
    UPSTREAM_SLOW = 0x07
    UPSTREAM_LOST = 0x08


def preamble(kind: Kind) -> bytes:
    """Return the line that a stream begins with."""
    return f"LLQ/1 {kind.value}\n".encode()


def read_preamble(data: bytes) -> tuple[Kind, bytes] | None:
    """Return a stream's kind and what follows its preamble; None while that is not whole. Raises ValueError."""
    line, newline, rest = data.partition(b"\n")
    if len(line) >= _MAX_PREAMBLE:
        raise ValueError("the preamble is too long")
    if not newline:
        return None
    found = _PREAMBLE.fullmatch(line)
    if found is None:
        raise ValueError("the stream does not begin with a preamble of version 1")
    return Kind(found[1].decode()), rest
