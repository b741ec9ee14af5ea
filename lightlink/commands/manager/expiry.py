"""Write down that commands are overdue, many at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lightlink.commands import model
from lightlink.commands.store.store import StatusWrite
from lightlink.errors import StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lightlink.commands.model import RequestRecord, StatusRecord
    from lightlink.commands.store.store import CommandStore

_TRIES = 5


class Expiry:
    """Ends overdue commands in the name of ``by``. Any number of them need no leader: of two writers one succeeds."""

    def __init__(self, store: CommandStore, by: str) -> None:
        self._store = store
        self._by = by

    def settle(
        self, requests: Sequence[RequestRecord], heard: Sequence[StatusRecord | None] = ()
    ) -> list[tuple[StatusRecord | None, int]]:
        """Return the last status of each overdue command, which is then an end, written down if nobody had.

        Only ids and deadline of a request matter. ``heard`` is what was known of each before: where a store that was
        lost or restored knows nothing, the end goes by that. Raises StoreUnavailable.
        """
        settled = self._store.read_statuses([(request.client_id, request.command_id) for request in requests])
        for _ in range(_TRIES):
            open_ones = [index for index, (status, _) in enumerate(settled) if model.is_open(status)]
            if not open_ones:
                return settled
            at = self._store.clock.now()
            writes = []
            for index in open_ones:
                request, (status, revision) = requests[index], settled[index]
                if status is None and heard and model.is_open(heard[index]):
                    status = heard[index]
                record = model.expired(request, status, at, by=self._by)
                writes.append(StatusWrite(request.client_id, request.command_id, record, revision))
            lost: list[int] = []
            for index, write, stored in zip(open_ones, writes, self._store.write_statuses(writes), strict=True):
                if stored is None:
                    lost.append(index)  # another was quicker
                else:
                    settled[index] = write.record, stored
            again = self._store.read_statuses([(requests[i].client_id, requests[i].command_id) for i in lost])
            for index, last in zip(lost, again, strict=True):
                settled[index] = last
        raise StoreUnavailable("writing down what is overdue", "it changes faster than it can be read")
