"""Which manager sweeps, and how far that has come: one record beside the statuses."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import msgspec

from lightlink.commands.store.access import Conflict
from lightlink.connection.session import Status
from lightlink.errors import DecodeError, LightLinkError
from lightlink.jetstream.api import EXPECTED_LAST_SUBJECT_SEQUENCE
from lightlink.protocol import codec, subjects
from lightlink.protocol.ids import new_token

if TYPE_CHECKING:
    from lightlink.commands.store.store import CommandStore


# So long a lease may be; one that claims to be longer is of a machine whose clock is wrong, and does not count.
_LONGEST_SECONDS = 60.0
_LEAST_SECONDS = 1.0
_RELEASE_SECONDS = 1.0
# How many commands whoever comes next may have to read once more.
_FAR = 5000


class Record(msgspec.Struct, frozen=True):
    """Up to which sequence all commands have ended, who sweeps, and until when, in seconds since 1970."""

    reached: int = 0
    holder: str = ""
    until: float = 0.0


class SweepLease:
    """A manager's turn to sweep, kept over three of its sweeps, which are ``interval`` seconds apart.

    Sweeping without it does no harm, as two writers never both succeed: it only keeps managers from all reading the
    same. Times are the server's.
    """

    def __init__(self, store: CommandStore, interval: float) -> None:
        self._store = store
        self._seconds = min(max(3 * interval, _LEAST_SECONDS), _LONGEST_SECONDS)
        self._holder = new_token()
        self._record = Record()
        self._revision = 0

    @property
    def reached(self) -> int:
        """Up to which sequence all commands had ended when that was last written down."""
        return self._record.reached

    def hold(self, reached: int = 0) -> bool:
        """Take the lease, or keep it, and tell whether it is ours; ``reached`` is written down with it.

        Raises StoreUnavailable, PermissionDenied.
        """
        now = self._store.clock.timestamp()
        if not self._is_ours(now):
            self._read()
            if self._record.holder != self._holder and now < self._record.until <= now + 2 * _LONGEST_SECONDS:
                return False
        elif self._record.until - now > self._seconds / 2 and reached < self._record.reached + _FAR:
            return True
        return self._write(reached or self._record.reached, now + self._seconds)

    def release(self, reached: int) -> None:
        """Let another manager have it at once; ``reached`` is written down with it."""
        if self._is_ours(self._store.clock.timestamp()) and self._store.connection.status is Status.CONNECTED:
            with contextlib.suppress(LightLinkError):  # it ends by itself
                self._write(reached or self._record.reached, 0.0, _RELEASE_SECONDS)
        self._record = Record()

    def _is_ours(self, now: float) -> bool:
        return self._record.holder == self._holder and self._record.until > now

    def _read(self) -> None:
        message = self._store.read_written(subjects.STATUS_STREAM, subjects.SWEPT)
        self._record, self._revision = Record(), 0 if message is None else message.seq
        if message is None:
            return
        try:
            self._record = codec.decode(message.data, message.subject, Record)
        except DecodeError as exc:
            self._store.connection.report(exc)

    def _write(self, reached: int, until: float, timeout: float | None = None) -> bool:
        record = Record(reached, self._holder if until else "", until)
        headers = {EXPECTED_LAST_SUBJECT_SEQUENCE: str(self._revision)}
        try:
            self._revision = self._store.put(
                subjects.STATUS_STREAM,
                subjects.SWEPT,
                codec.encode_json(record),
                headers,
                "taking the turn to sweep",
                timeout,
            )
        except Conflict:
            self._record = Record()
            return False  # another manager was quicker
        self._record = record
        return True
