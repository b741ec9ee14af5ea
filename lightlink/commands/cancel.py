"""Cancel commands: by compare-and-set on whatever status they have."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lightlink.commands import model
from lightlink.commands.store import Conflict, StatusWrite
from lightlink.errors import CommandEnded

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lightlink.commands.model import Command, RequestRecord, StatusRecord
    from lightlink.commands.promise import CommandPromise
    from lightlink.commands.store import CommandStore

_AT_ONCE = 500


class Canceller:
    """Cancels in the name of ``by``, unless another is given."""

    def __init__(self, store: CommandStore, by: str) -> None:
        self._store = store
        self._by = by

    def cancel(self, request: RequestRecord, reason: str, issued_by: str | None) -> Command:
        """Cancel one command and return it as it stands then; raises CommandEnded, StoreUnavailable."""
        last = self._store.read_status(request.client_id, request.command_id)
        return self._cancel(request, last, reason, issued_by or self._by)

    def cancel_all(self, promises: Sequence[CommandPromise], reason: str) -> int:
        """Cancel commands by what is known of them here, many at a time; return how many were cancelled."""
        cancelled = 0
        for start in range(0, len(promises), _AT_ONCE):
            at = model.now()
            block = [(promise, *promise.last) for promise in promises[start : start + _AT_ONCE]]
            block = [entry for entry in block if model.is_open(entry[1])]
            writes = [
                StatusWrite(each.client_id, each.command_id, model.cancelled(status, at, self._by, reason), revision)
                for each, status, revision in block
            ]
            for (promise, *_), stored in zip(block, self._store.write_statuses(writes), strict=True):
                try:
                    if stored is None:  # it has moved
                        self.cancel(promise.request, reason, None)
                    cancelled += 1
                except CommandEnded:
                    pass  # it was quicker
        return cancelled

    def _cancel(
        self, request: RequestRecord, last: tuple[StatusRecord | None, int], reason: str, issued_by: str
    ) -> Command:
        while True:
            status, revision = last
            at = model.now()
            command = model.fold(request, status, at)
            if command.ended:
                raise CommandEnded(command)
            if command.cancel_requested:
                return command
            record = model.cancelled(status, at, issued_by, reason)
            try:
                self._store.write_status(request.client_id, request.command_id, record, revision)
            except Conflict:
                # It has just moved; look again.
                last = self._store.read_status(request.client_id, request.command_id)
            else:
                return model.fold(request, record, at)
