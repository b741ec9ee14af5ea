"""Look through the stored commands for overdue ones, so that what nobody takes or finishes has an end."""

from __future__ import annotations

import heapq
import itertools
import logging
import time
from typing import TYPE_CHECKING

import msgspec

from lightlink.commands import model
from lightlink.commands.model import RequestRecord
from lightlink.commands.store import history, schema
from lightlink.commands.store.access import Conflict
from lightlink.commands.store.store import read_request
from lightlink.connection.session import Status
from lightlink.errors import DecodeError, StoreUnavailable
from lightlink.jetstream.api import EXPECTED_LAST_SUBJECT_SEQUENCE
from lightlink.protocol import codec
from lightlink.protocol.subjects import as_text

if TYPE_CHECKING:
    from datetime import datetime

    from lightlink.commands.manager.expiry import Expiry
    from lightlink.commands.store.store import CommandStore

_log = logging.getLogger("lightlink")

_BLOCK = 2000
_MARK_SECONDS = 60.0
_NOTHING = msgspec.Raw(b"null")


class Sweeper:
    """Looks at each stored request once, and again when its deadline has passed.

    It remembers ids and deadlines only of what was not yet overdue, and what it knows can be read again: any number of
    sweepers need no leader. A mark in the status bucket says up to where all have ended, so that the next manager need
    not begin at the first.
    """

    def __init__(self, store: CommandStore, expiry: Expiry) -> None:
        self._store = store
        self._expiry = expiry
        self._next = 0
        # A heap of (deadline, number, sequence, request without its payload).
        self._open: list[tuple[datetime, int, int, RequestRecord]] = []
        self._numbers = itertools.count()
        self._marked_at = time.monotonic()
        self._mark = 0

    def sweep(self) -> int:
        """Write down what has become overdue and return at how many commands it looked for that."""
        if self._store.connection.status is not Status.CONNECTED:
            return 0
        try:
            looked_at = self._settle_due()
            while self._read_block():
                looked_at += self._settle_due()
            self._leave_mark()
        except StoreUnavailable as exc:
            _log.debug("lightlink: sweeping is put off: %s", exc)
            return 0
        return looked_at

    def _read_block(self) -> bool:
        """Read the next stretch of requests; False says that there are no more, or that it is not to."""
        info = self._store.stream_info(schema.REQUESTS, "sweeping")
        if info is None:
            return False
        first, end = info.state.first_seq, info.state.last_seq + 1
        if not self._next:
            self._mark, _ = self._read_mark()
            self._next = max(self._mark, 1)
        if self._next > end:
            self._next = 1  # the stream is another
        self._next = max(self._next, first)
        if self._next >= end:
            return False
        before = min(self._next + _BLOCK, end)
        pattern = schema.request_subject("*", "*")
        found, reached = history.read_block(self._store, schema.REQUESTS, [pattern], self._next, before)
        for delivery in found:
            try:
                request = read_request(delivery.data, as_text(delivery.subject), delivery.created)
            except DecodeError as exc:
                self._store.connection.report(exc)
                continue
            slim = msgspec.structs.replace(request, payload=_NOTHING)
            heapq.heappush(self._open, (request.deadline, next(self._numbers), delivery.seq, slim))
        self._next = reached
        return True

    def _settle_due(self) -> int:
        """Take out what is past its deadline and everybody's patience, and see to it that it has ended."""
        latest = self._store.clock.now() - model.GRACE
        looked_at = 0
        if not self._open or self._open[0][0] >= latest:
            return looked_at
        at_once = history.statuses_at_once(self._store)
        while self._open and self._open[0][0] < latest:
            due: list[tuple[datetime, int, int, RequestRecord]] = []
            while self._open and self._open[0][0] < latest and len(due) < at_once:
                due.append(heapq.heappop(self._open))
            try:
                self._expiry.settle([entry[-1] for entry in due])
            except StoreUnavailable:
                for entry in due:
                    heapq.heappush(self._open, entry)  # the next sweep looks at them again
                raise
            looked_at += len(due)
        return looked_at

    # The mark -------------------------------------------------------------------------------------------------------

    def _read_mark(self) -> tuple[int, int]:
        """Return up to which sequence all commands have ended, and the revision that says so."""
        message = self._store.read(schema.STATUS, schema.SWEPT)
        if message is None:
            return 0, 0
        try:
            return codec.decode(message.data, message.subject, int), message.seq
        except DecodeError as exc:
            self._store.connection.report(exc)
            return 0, message.seq

    def _leave_mark(self) -> None:
        if time.monotonic() - self._marked_at < _MARK_SECONDS:
            return
        self._marked_at = time.monotonic()
        reached = min((entry[2] for entry in self._open), default=self._next)
        self._mark, revision = self._read_mark()
        if reached <= self._mark:
            return
        headers = {EXPECTED_LAST_SUBJECT_SEQUENCE: str(revision)}
        try:
            self._store.put(schema.STATUS, schema.SWEPT, codec.encode_json(reached), headers, "marking what is swept")
        except Conflict:
            return  # another manager has just done so
        self._mark = reached
