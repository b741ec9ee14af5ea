"""What happened to a fleet: one stream in the account AUTH, which nobody but its responders reaches."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import msgspec

from lightlink.errors import DecodeError, LightLinkError
from lightlink.jetstream import api
from lightlink.jetstream.read import read_range
from lightlink.protocol import codec
from lightlink.protocol.subjects import FLEET_AUDIT, FLEET_AUDIT_STREAM, as_text

if TYPE_CHECKING:
    from lightlink.connection.connection import Connection

_log = logging.getLogger("lightlink")

_DAYS = 365
_MAX_BYTES = 1024 * 1024 * 1024
_TIMEOUT = 5.0


class Entry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One event: ``what`` happened to ``name`` at a time (RFC 3339, the server's), and ``why`` it was refused."""

    at: str
    what: str
    name: str
    why: str = ""
    facts: dict[str, str] = {}


class Audit:
    """Writes the audit, and the log; what cannot be stored is in the log."""

    def __init__(self, connection: Connection, *, replicas: int = 1) -> None:
        self._connection = connection
        config = {
            "name": FLEET_AUDIT_STREAM,
            "subjects": [f"{FLEET_AUDIT}.>"],
            "retention": "limits",
            "discard": "old",
            "storage": "file",
            "num_replicas": replicas,
            "max_age": api.nanoseconds(_DAYS * 86_400.0),
            "max_bytes": _MAX_BYTES,
            "allow_direct": True,
            "deny_delete": True,
            "deny_purge": True,
        }
        api.create_stream(connection, config, _TIMEOUT)

    def note(self, what: str, name: str, why: str = "", **facts: str) -> None:
        """Store an event of an identity."""
        at = self._connection.clock.now().isoformat(timespec="milliseconds")
        entry = Entry(at=at, what=what, name=name, why=why, facts=facts)
        _log.log(logging.WARNING if why else logging.INFO, "lightlink fleet: %s %s %s %s", what, name, why, facts or "")
        subject = f"{FLEET_AUDIT}.{what}".encode()
        try:
            api.publish(self._connection, FLEET_AUDIT_STREAM, subject, codec.encode_json(entry), _TIMEOUT)
        except LightLinkError as exc:
            _log.error("lightlink fleet: %s of %s is not in the audit: %s", what, name, exc)

    def read(self, limit: int, after: int, max_bytes: int) -> tuple[list[Entry], int]:
        """Return the last ``limit`` events, or with ``after`` those behind that sequence, oldest first.

        Of more than about ``max_bytes`` it returns the first ones. The other value is the sequence up to which it has
        read; 0: all.
        """
        info = api.stream_info(self._connection, FLEET_AUDIT_STREAM, _TIMEOUT)
        last = 0 if info is None else info.state.last_seq
        first = after + 1 if after else last - limit + 1
        if not last or first > last:
            return [], 0
        patterns = [f"{FLEET_AUDIT}.>"]
        # ``read`` is the sequence that comes next.
        found, read = read_range(
            self._connection, FLEET_AUDIT_STREAM, patterns, first, last + 1, _TIMEOUT, max_bytes=max_bytes
        )
        entries = []
        for delivery in found:
            try:
                entries.append(codec.decode(delivery.data, as_text(delivery.subject), Entry))
            except DecodeError as exc:
                self._connection.report(exc)
        return entries, read - 1 if read <= last else 0
