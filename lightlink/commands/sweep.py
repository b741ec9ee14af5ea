"""Write down which commands are overdue, so that what nobody takes or finishes has an end."""

from __future__ import annotations

import heapq
import logging
from typing import TYPE_CHECKING

from lightlink import codec
from lightlink.commands import history, model, schema
from lightlink.commands.model import RequestRecord
from lightlink.commands.store import unavailable
from lightlink.errors import StoreUnavailable
from lightlink.runtime import jetstream
from lightlink.runtime.connection import NoReply
from lightlink.runtime.jetstream import JetStreamError

if TYPE_CHECKING:
    from datetime import datetime

    from lightlink.commands.promise import Follower
    from lightlink.commands.store import CommandStore

_log = logging.getLogger("lightlink")

_BLOCK = 2000


class Sweeper:
    """Looks at each stored request once, and again when its deadline has passed.

    It remembers ids and deadlines only, and what it knows can be read again: any number of sweepers need no leader, as
    of two that write the same end one succeeds.
    """

    def __init__(self, store: CommandStore, follower: Follower, timeout: float) -> None:
        self._store = store
        self._follower = follower
        self._timeout = timeout
        self._next = 1
        self._open: list[tuple[datetime, str, str]] = []  # a heap of (deadline, client id, command id)

    def sweep(self) -> int:
        """Write down what has become overdue and return how many commands that were."""
        try:
            self._read_new_requests()
            return sum(self._settle(block) for block in self._due())
        except (StoreUnavailable, NoReply) as exc:
            _log.debug("lightlink: sweeping is put off: %s", exc)
            return 0

    def _read_new_requests(self) -> None:
        try:
            info = jetstream.stream_info(self._store.connection, schema.REQUESTS, self._timeout)
        except JetStreamError as exc:
            raise unavailable("sweeping", exc) from exc
        if info is None:
            return
        end = info["state"]["last_seq"] + 1
        self._next = max(self._next, info["state"]["first_seq"])
        pattern = schema.request_subject("*", "*")
        while self._next < end:
            before = min(self._next + _BLOCK, end)
            for delivery in history.read_block(
                self._store, schema.REQUESTS, [pattern], self._next, before, self._timeout
            ):
                request = codec.decode(delivery.data, delivery.subject.decode(), RequestRecord)
                heapq.heappush(self._open, (request.deadline, request.client_id, request.command_id))
            self._next = before

    def _due(self) -> list[list[tuple[datetime, str, str]]]:
        """Take out what is past its deadline and everybody's patience, in blocks."""
        latest = model.now() - model.GRACE
        due = []
        while self._open and self._open[0][0] < latest:
            due.append(heapq.heappop(self._open))
        return [due[start : start + _BLOCK] for start in range(0, len(due), _BLOCK)]

    def _settle(self, block: list[tuple[datetime, str, str]]) -> int:
        written = 0
        try:
            statuses = self._store.read_statuses([(client_id, command_id) for _, client_id, command_id in block])
            for entry, status in zip(block, statuses, strict=True):
                if status is None or not status.ended:
                    written += self._expire(*entry[1:])
        except (StoreUnavailable, NoReply):
            for entry in block:
                heapq.heappush(self._open, entry)  # the next sweep looks at them again
            raise
        return written

    def _expire(self, client_id: str, command_id: str) -> int:
        request = self._store.get_request(client_id, command_id)
        status, revision = self._store.read_status(client_id, command_id)
        if request is None or (status is not None and status.ended):
            return 0
        self._follower.expire(request, status, revision)
        return 1
