"""Which command has which status, type and batch, as far as the streams have been read: what the index looks in."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from lightlink.commands import model
from lightlink.commands.store.excerpt import Excerpt, Row
from lightlink.commands.store.store import read_request
from lightlink.errors import DecodeError
from lightlink.protocol import subjects
from lightlink.protocol.subjects import as_text

if TYPE_CHECKING:
    from lightlink.commands.store.filter import Filter
    from lightlink.jetstream.read import Delivery

# A type is rare that has no more commands. Of batches as many are kept, the latest.
_RARE = 500
_MOST_BATCHES = 2_000
_GRACE = model.GRACE.total_seconds()
_OPEN = (model.PENDING, model.EXECUTING)


class Entry(NamedTuple):
    seq: int
    client_id: str
    command_type: str
    batch_id: str | None
    deadline: float | None


class _Slim(msgspec.Struct):
    """What of a status is looked at."""

    status: str = ""


class Catalogue:
    """What has been read so far, or is kept of it; not safe to share."""

    def __init__(self, kept: Excerpt | None = None) -> None:
        self.reached = {subjects.COMMANDS_STREAM: 0, subjects.STATUS_STREAM: 0}
        self.entries: dict[str, Entry] = {}
        self.statuses: dict[str, str] = {}
        # The ids of commands that are open, and of those that have failed or timed out.
        self.open: dict[str, None] = {}
        self.ended: dict[str, dict[str, None]] = {model.FAILED: {}, model.TIMEOUT: {}}
        # The ids of each rare type; the others by name.
        self.types: dict[str, dict[str, None]] = {}
        self.common: set[str] = set()
        # The first and last request of each batch; 0 where the first is not known.
        self.batches: dict[str, tuple[int, int]] = {}
        self.has_all_batches = True
        # Whether also what was completed long ago is known.
        self.is_whole = kept is None
        if kept is not None:
            self._begin_with(kept)

    def _begin_with(self, kept: Excerpt) -> None:
        self.common.update(kept.common)
        for row in kept.rows:
            entry = Entry(row.seq, row.client_id, row.command_type, row.batch_id, row.deadline)
            if row.status != model.PENDING:
                self.statuses[row.command_id] = row.status
            self._enter(row.command_id, entry)
            self._sort(row.command_id, row.status)
        # Last, as the commands of a batch that is not kept say only where a part of it is.
        self.batches = dict(kept.batches)
        self.has_all_batches = kept.has_all_batches
        self.reached = {subjects.COMMANDS_STREAM: kept.requests, subjects.STATUS_STREAM: kept.statuses}

    def note(self, stream: str, delivery: Delivery) -> None:
        """Take a stored request or status."""
        subject = as_text(delivery.subject)
        if subject != subjects.SWEPT:
            client_id, command_id = subjects.command_ids(subject)
            if stream == subjects.STATUS_STREAM:
                self.statuses[command_id] = status = _status_of(delivery)
                self._sort(command_id, status)
            else:
                self._enter(command_id, _entry_of(client_id, delivery, subject))
        self.reached[stream] = max(self.reached[stream], delivery.seq)

    def _enter(self, command_id: str, entry: Entry) -> None:
        self.entries[command_id] = entry
        if entry.deadline is None:
            self.ended[model.FAILED][command_id] = None
            return
        if command_id not in self.statuses:
            self.open[command_id] = None
        if entry.batch_id is not None:
            # One that was not kept may have begun before.
            first, _ = self.batches.get(entry.batch_id, (entry.seq if self.has_all_batches else 0, 0))
            self.batches[entry.batch_id] = first, entry.seq
        if entry.command_type in self.common:
            return
        of_type = self.types.setdefault(entry.command_type, {})
        of_type[command_id] = None
        if len(of_type) > _RARE:
            del self.types[entry.command_type]
            self.common.add(entry.command_type)

    def _sort(self, command_id: str, status: str) -> None:
        if status in _OPEN:
            self.open[command_id] = None
            return
        self.open.pop(command_id, None)
        if status in self.ended:
            self.ended[status][command_id] = None

    def forget_before(self, first: int) -> None:
        """Let go of commands that the stream holds no more; they are the oldest."""
        gone = [each for each, _ in itertools.takewhile(lambda item: item[1].seq < first, self.entries.items())]
        for command_id in gone:
            entry = self.entries.pop(command_id)
            self.statuses.pop(command_id, None)
            for group in (self.open, *self.ended.values(), self.types.get(entry.command_type, {})):
                group.pop(command_id, None)
        if gone:
            self.batches = {each: span for each, span in self.batches.items() if span[1] >= first}

    def can_find(self, wanted: Filter) -> bool:
        """Tell whether all that may pass is among what is known."""
        return self.is_whole or self._group(wanted) is not None

    def _group(self, wanted: Filter) -> list[str] | None:
        """Return the ids of the commands of a rare status or type, None where neither is wanted."""
        if wanted.status in _OPEN:
            return [*self.open]
        if wanted.status == model.TIMEOUT:  # nobody may have written down that it is overdue
            return [*self.open, *self.ended[model.TIMEOUT]]
        if wanted.status == model.FAILED:
            return [*self.ended[model.FAILED]]
        if wanted.command_type is not None and wanted.command_type not in self.common:
            return [*self.types.get(wanted.command_type, {})]
        return None

    def candidates(self, wanted: Filter) -> list[tuple[str, Entry]]:
        """Return the commands among which those wanted are, newest first."""
        group = self._group(wanted)
        if group is None:
            return list(reversed(self.entries.items()))
        found = [(each, self.entries[each]) for each in group if each in self.entries]
        return sorted(found, key=lambda item: item[1].seq, reverse=True)

    def may_pass(self, command_id: str, entry: Entry, wanted: Filter, at: float) -> bool:
        """Tell whether a command passes a filter at a time, as far as is known."""
        if not wanted.is_of(entry.client_id):
            return False
        if entry.deadline is None:  # it cannot be read
            return wanted.shows_unreadable
        if wanted.command_type not in (None, entry.command_type) or wanted.batch_id not in (None, entry.batch_id):
            return False
        if wanted.status is None:
            return True
        status = self.statuses.get(command_id, model.PENDING)
        if status in _OPEN:
            # Nobody may have written down that it is overdue.
            return wanted.status == (status if at <= entry.deadline + _GRACE else model.TIMEOUT)
        return status == wanted.status

    def excerpt(self, made: list[str], statuses: int) -> Excerpt:
        """Return what is to be kept; statuses behind a sequence are read once more by whoever begins with it."""
        common = set(self.common)
        rare: list[str] = []
        for command_type, of_type in sorted(self.types.items(), key=lambda item: len(item[1])):
            if len(rare) + len(of_type) > 4 * _RARE:
                common.add(command_type)
            else:
                rare += of_type
        ids = dict.fromkeys((*self.open, *self.ended[model.FAILED], *self.ended[model.TIMEOUT], *rare))
        rows = [
            Row(entry.seq, entry.client_id, each, *entry[2:], self.statuses.get(each, model.PENDING))
            for each in ids
            if (entry := self.entries.get(each)) is not None
        ]
        rows.sort(key=lambda row: row.seq)
        latest = sorted(self.batches.items(), key=lambda item: item[1][1])[-_MOST_BATCHES:]
        return Excerpt(
            made=made,
            requests=self.reached[subjects.COMMANDS_STREAM],
            statuses=min(statuses, self.reached[subjects.STATUS_STREAM]),
            rows=rows,
            common=sorted(common),
            batches=dict(latest),
            has_all_batches=self.has_all_batches and len(latest) == len(self.batches),
        )


def _entry_of(client_id: str, delivery: Delivery, subject: str) -> Entry:
    try:
        request = read_request(delivery.data, subject, delivery.created)
    except DecodeError:
        return Entry(delivery.seq, client_id, "", None, None)
    deadline = request.deadline.timestamp()
    return Entry(delivery.seq, client_id, request.command_type, request.batch_id, deadline)


def _status_of(delivery: Delivery) -> str:
    try:
        return msgspec.json.decode(delivery.data, type=_Slim).status
    except (ValueError, msgspec.MsgspecError):
        return model.FAILED  # as one is shown that cannot be read
