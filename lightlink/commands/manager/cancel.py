"""Cancel commands: by compare-and-set on whatever status they have."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from lightlink.commands import model
from lightlink.commands.store.access import Conflict
from lightlink.commands.store.store import StatusWrite
from lightlink.errors import CommandEnded, StoreUnavailable
from lightlink.jetstream.retry import PAUSE, RetryBudget, retry_seconds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lightlink.commands.manager.promise import CommandPromise
    from lightlink.commands.model import Command, RequestRecord, StatusRecord
    from lightlink.commands.store.store import CommandStore

_AT_ONCE = 500


class Canceller:
    """Cancels in the name of ``by``, unless another is given."""

    def __init__(self, store: CommandStore, by: str) -> None:
        self._store = store
        self._by = by

    def cancel(self, request: RequestRecord, reason: str, issued_by: str | None) -> Command:
        """Cancel one command and return it as it stands then; raises CommandEnded, StoreUnavailable."""
        last = self._store.read_written_status(request.client_id, request.command_id)
        return self._cancel(request, last, reason, issued_by or self._by)

    def cancel_all(self, promises: Sequence[CommandPromise], reason: str) -> int:
        """Cancel commands by what is known of them here, many at a time; return how many were cancelled."""
        cancelled = 0
        for start in range(0, len(promises), _AT_ONCE):
            at = self._store.clock.now()
            block = [(promise, promise.last) for promise in promises[start : start + _AT_ONCE]]
            block = [(promise, last) for promise, last in block if model.is_open(last[0])]
            writes = [
                StatusWrite(each.client_id, each.command_id, model.cancelled(status, at, self._by, reason), revision)
                for each, (status, revision) in block
            ]
            revisions, unknown = self._write_all(writes)
            for (promise, last), stored in zip(block, revisions, strict=True):
                try:
                    if stored is None:  # it has moved, or was not written
                        self._cancel(promise.request, last, reason, self._by, unknown)
                    cancelled += 1
                except CommandEnded:
                    pass  # it was quicker
        return cancelled

    def _write_all(self, writes: Sequence[StatusWrite]) -> tuple[list[int | None], bool]:
        """Return the revision of each write, None where it is not stored, and whether it may be stored all the same."""
        try:
            return self._store.write_statuses(writes), False
        except StoreUnavailable as exc:
            if not retry_seconds(exc, self._store.timeout):
                raise
            return [None] * len(writes), True

    def _cancel(
        self,
        request: RequestRecord,
        last: tuple[StatusRecord | None, int],
        reason: str,
        issued_by: str,
        unknown: bool = False,
    ) -> Command:
        """Cancel a command with a known status; ``unknown`` says that this may have been done already."""
        budget = RetryBudget(self._store.timeout)
        while True:
            status, revision = last
            at = self._store.clock.now()
            command = model.fold(request, status, at)
            if command.ended and not (unknown and _is_ours(status, issued_by, reason)):
                raise CommandEnded(command)
            if command.ended or command.cancel_requested:
                return command
            record = model.cancelled(status, at, issued_by, reason)
            try:
                try:
                    self._store.write_status(request.client_id, request.command_id, record, revision)
                except Conflict:
                    # It has just moved; look again.
                    last = self._store.read_written_status(request.client_id, request.command_id)
                else:
                    return model.fold(request, record, at)
            except StoreUnavailable as exc:
                unknown = unknown or exc.unknown
                if not budget.allows(exc):
                    raise StoreUnavailable("cancelling a command", exc.reason, unknown) from exc
            if last[1] <= revision:
                time.sleep(PAUSE)


def _is_ours(status: StatusRecord | None, by: str, reason: str) -> bool:
    return (
        status is not None
        and (status.status_detail, status.by, status.cancel_reason) == (model.CANCELLED, by, reason)
        and not status.instance
    )
