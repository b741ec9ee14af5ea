"""End stored commands that are overdue: those that no agent takes or finishes."""

from __future__ import annotations

import heapq
import itertools
import logging
import math
from typing import TYPE_CHECKING

import msgspec

from lightlink.commands import model
from lightlink.commands.model import RequestRecord
from lightlink.commands.store import history, schema
from lightlink.commands.store.store import read_request
from lightlink.connection.session import Status
from lightlink.errors import DecodeError, StoreUnavailable
from lightlink.protocol import subjects
from lightlink.protocol.subjects import as_text

if TYPE_CHECKING:
    from lightlink.commands.manager.expiry import Expiry
    from lightlink.commands.manager.lease import SweepLease
    from lightlink.commands.store.index import CommandIndex
    from lightlink.commands.store.store import CommandStore

_log = logging.getLogger("lightlink")

_BLOCK = 2000
# How many commands that are not overdue yet are remembered: those that will be first.
_MOST = 10_000
_NOTHING = msgspec.Raw(b"null")


class Sweeper:
    """Looks at each stored request once, and again when its deadline has passed.

    It remembers ids and deadlines only of what was not yet overdue, and of no more than 10,000 of those: the others are
    read again when they are due. With a ``lease`` it sweeps while that is its own, and begins where the one before left
    off; without one, any number of sweepers need no leader. Of an ``index`` it keeps an excerpt, for all managers.
    """

    def __init__(
        self,
        store: CommandStore,
        expiry: Expiry,
        lease: SweepLease | None = None,
        index: CommandIndex | None = None,
    ) -> None:
        self._store = store
        self._expiry = expiry
        self._lease = lease
        self._index = index
        self._numbers = itertools.count()
        self._forget()

    def _forget(self) -> None:
        self._next = 0
        # A heap of (deadline, number, sequence, request without its payload).
        self._open: list[tuple[float, int, int, RequestRecord]] = []
        # Of what is not remembered: the first sequence, and the first deadline.
        self._left_from, self._left_due = 0, math.inf
        # What is read once more was settled then if it is below that sequence and was due by that time.
        self._read_to, self._settled_by = 0, -math.inf

    def sweep(self) -> int:
        """Write down what has become overdue and return at how many commands it looked for that."""
        if self._store.connection.status is not Status.CONNECTED:
            return 0
        try:
            if not self._may():
                return 0
            looked_at = self._settle_due()
            while self._read_block():
                looked_at += self._settle_due()
                if not self._may():
                    return looked_at
            if self._index is not None:
                self._index.keep()
        except StoreUnavailable as exc:
            _log.debug("lightlink: sweeping is put off: %s", exc)
            return 0
        return looked_at

    def stop(self) -> None:
        """Leave the sweeping to another manager."""
        if self._lease is not None:
            self._lease.release(self._all_ended_before())

    def _may(self) -> bool:
        """Tell whether it is our turn; what another has swept since is not remembered."""
        if self._lease is None or self._lease.hold(self._all_ended_before()):
            return True
        self._forget()
        return False

    def _all_ended_before(self) -> int:
        """Return the sequence below which all commands have ended, as far as is known."""
        first = min((entry[2] for entry in self._open), default=self._next)
        return min(first, self._left_from) if self._left_from else first

    def _read_block(self) -> bool:
        """Read the next stretch of requests; False says that there are no more."""
        info = self._store.stream_info(subjects.COMMANDS_STREAM, "sweeping")
        if info is None:
            return False
        first, end = info.state.first_seq, info.state.last_seq + 1
        if not self._next:
            self._next = max(self._lease.reached if self._lease is not None else 0, 1)
        if self._next > end:
            self._forget()  # the stream is another
            self._next = 1
        if self._left_due < self._latest():
            self._read_to, self._settled_by = self._next, self._left_due
            self._next, self._left_from, self._left_due = self._left_from, 0, math.inf
        self._next = max(self._next, first)
        if self._next >= end:
            return False
        before = min(self._next + _BLOCK, end)
        found, reached = history.read_block(
            self._store, subjects.COMMANDS_STREAM, [schema.EVERYTHING], self._next, before
        )
        for delivery in found:
            try:
                request = read_request(delivery.data, as_text(delivery.subject), delivery.created)
            except DecodeError as exc:
                self._store.connection.report(exc)
                continue
            self._remember(delivery.seq, request)
        self._next = reached
        if len(self._open) > 2 * _MOST:
            self._leave_the_latest()
        return True

    def _remember(self, seq: int, request: RequestRecord) -> None:
        deadline = request.deadline.timestamp()
        if seq < self._read_to and deadline < self._settled_by:
            return
        if deadline >= self._left_due:
            self._leave(seq, deadline)
            return
        slim = msgspec.structs.replace(request, payload=_NOTHING)
        heapq.heappush(self._open, (deadline, next(self._numbers), seq, slim))

    def _leave_the_latest(self) -> None:
        """Remember only those whose deadlines come first."""
        entries = sorted(self._open)
        self._open = entries[:_MOST]  # sorted, and so a heap
        for deadline, _, seq, _ in entries[_MOST:]:
            self._leave(seq, deadline)

    def _leave(self, seq: int, deadline: float) -> None:
        self._left_from = min(self._left_from or seq, seq)
        self._left_due = min(self._left_due, deadline)

    def _latest(self) -> float:
        """Return the deadline before which a command is past its grace period."""
        return (self._store.clock.now() - model.GRACE).timestamp()

    def _settle_due(self) -> int:
        """Take out what is past its deadline plus the grace period, and end it."""
        latest = self._latest()
        looked_at = 0
        if not self._open or self._open[0][0] >= latest:
            return looked_at
        at_once = history.statuses_at_once(self._store)
        while self._open and self._open[0][0] < latest:
            due: list[tuple[float, int, int, RequestRecord]] = []
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
