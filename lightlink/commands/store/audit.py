"""Everything that happened to the commands, as the audit stream keeps it."""

from __future__ import annotations

import heapq
import itertools
from typing import TYPE_CHECKING, Any

import attrs
import msgspec

from lightlink.commands import model
from lightlink.commands.store import schema
from lightlink.commands.store.access import FAILURES, unavailable
from lightlink.commands.store.history import read_block, stream_state
from lightlink.commands.store.store import read_request, read_status
from lightlink.errors import DecodeError
from lightlink.jetstream import api
from lightlink.protocol import subjects
from lightlink.protocol.subjects import as_text

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from lightlink.commands.model import StatusRecord
    from lightlink.commands.store.store import CommandStore
    from lightlink.jetstream.read import Delivery

# How many sequences are read at once, at first and at the most.
_FIRST_BLOCK = 2000
_BLOCK = 8000
# Two writers' entries may be out of order, though never by more than so many.
_HELD_BACK = 500

REQUEST = "request"
STATUS = "status"
CANCEL = "cancel"
LATE_RESULT = "late_result"
RUN = "run"


@attrs.frozen(kw_only=True)
class AuditEntry:
    """Something that happened to a command, or to a run of a plan.

    ``kind`` is ``request``, ``status`` (it has become ``status``), ``cancel`` (it runs, and is no longer wanted) or
    ``late_result`` (its handler brought one after its end). ``at`` is when, ``by`` who did it: whoever issued the
    request or the cancel, the manager that found it overdue, or the agent's instance. ``instance`` is the agent's
    instance that had taken it by then. Of kind ``run`` a run has become ``status``, by ``event`` and for ``reason``;
    ``command_type`` is its plan's name, ``digest`` that of what it carries out.
    """

    at: datetime
    command_id: str
    client_id: str
    kind: str
    by: str
    status: str = model.PENDING
    status_detail: str = ""
    attempt: int = 0
    instance: str = ""
    error: str = ""
    command_type: str = ""
    run_id: str = ""
    event: str = ""
    reason: str = ""
    digest: str = ""


def read_audit(store: CommandStore, command_id: str | None, since: datetime | None) -> Iterator[AuditEntry]:
    """Yield every request and transition, in order; raises StoreUnavailable.

    The order is that of one command's revisions, and otherwise that of the times which their writers gave.
    """
    state = stream_state(store, subjects.AUDIT_STREAM)
    if state is None:
        return
    first, end = max(state.first_seq, 1), state.last_seq + 1  # a stream that never had a message says 0
    if since is not None:
        first = _first_since(store, since, first, end)
    token = "*" if command_id is None else schema.command_id(command_id)
    # The stream takes turns between its two sources, and one may be far behind the other.
    patterns = [subjects.command_request("*", token), subjects.command_status("*", token)]
    if command_id is not None:
        entries: Iterator[AuditEntry] = itertools.chain.from_iterable(
            _read_all(store, pattern, first, end) for pattern in patterns
        )
    else:
        # One reading for both, so that the first entry comes soon.
        begun, reached = _read(store, schema.EVERYTHING, first, min(first + _FIRST_BLOCK, end))
        requests = [entry for entry in begun if entry.kind == REQUEST]
        others = [entry for entry in begun if entry.kind != REQUEST]
        sources = zip(patterns, (requests, others), strict=True)
        entries = heapq.merge(*(_by_time(store, pattern, each, reached, end) for pattern, each in sources), key=_place)
    for entry in entries:
        if since is None or entry.at >= since:
            yield entry


def _by_time(
    store: CommandStore, pattern: str, entries: list[AuditEntry], first: int, end: int
) -> Iterator[AuditEntry]:
    """Yield the entries of one source by time; two writers' entries may be out of order, though never far.

    The first ``entries`` are read already, up to the sequence ``first``.
    """
    held: list[AuditEntry] = []
    while True:
        held = sorted([*held, *entries], key=_place)
        ready = max(0, len(held) - _HELD_BACK)
        yield from held[:ready]
        held = held[ready:]
        if first >= end:
            break
        if not entries:
            # The other source has filled this stretch, and may have filled many.
            first = _next_of(store, pattern, first, end)
        # Block by block, so that memory stays flat; each reading costs a consumer.
        entries, first = _read(store, pattern, first, min(first + _BLOCK, end))
    yield from held


def _next_of(store: CommandStore, pattern: str, first: int, end: int) -> int:
    """Return the sequence of the next message of a source from ``first`` on, ``end`` when there is none."""
    if first >= end:
        return end
    try:
        message = api.get_next(store.connection, subjects.AUDIT_STREAM, pattern, first, store.timeout)
    except FAILURES as exc:
        raise unavailable("reading the audit", exc) from exc
    return end if message is None else min(message.seq, end)


def _read(store: CommandStore, pattern: str, first: int, before: int) -> tuple[list[AuditEntry], int]:
    """Return the entries in a range, and up to where it was read."""
    found, reached = read_block(store, subjects.AUDIT_STREAM, [pattern], first, before)
    return [_entry(delivery) for delivery in found if as_text(delivery.subject) != subjects.SWEPT], reached


def _read_all(store: CommandStore, pattern: str, first: int, end: int) -> Iterator[AuditEntry]:
    while first < end:
        entries, first = _read(store, pattern, first, end)
        yield from entries


def _place(entry: AuditEntry) -> tuple[datetime, bool]:
    return entry.at, entry.kind != REQUEST


def _first_since(store: CommandStore, since: datetime, first: int, end: int) -> int:
    """Return a sequence from which on everything since an instant is found, by halving."""
    earliest = model.shortly_before(since)
    while first < end:
        middle = (first + end) // 2
        try:
            message = api.get_message(store.connection, subjects.AUDIT_STREAM, middle, store.timeout)
        except FAILURES as exc:
            raise unavailable("reading the audit", exc) from exc
        if message is None or message.created < earliest:
            first = middle + 1  # too early, or too old to be there any more
        else:
            end = middle
    return first


def _entry(delivery: Delivery) -> AuditEntry:
    subject = as_text(delivery.subject)
    client_id, command_id = subjects.command_ids(subject)
    common: dict[str, Any] = {"command_id": command_id, "client_id": client_id}
    try:
        if subject.startswith(subjects.COMMANDS):
            request = read_request(delivery.data, subject)
            return AuditEntry(
                at=request.created_at, kind=REQUEST, by=request.issued_by, command_type=request.command_type, **common
            )
        status = read_status(delivery.data, subject)
    except DecodeError as exc:
        common |= {"by": "", "status_detail": model.UNREADABLE, "error": str(exc)}
        return AuditEntry(at=delivery.created, kind=STATUS, **common)
    names = ("at", "by", "status", "status_detail", "attempt", "instance", "error")
    if status.at == model.UNTOLD:
        status = msgspec.structs.replace(status, at=delivery.created)
    return AuditEntry(kind=_kind(status), **{name: getattr(status, name) for name in names}, **common)


def _kind(status: StatusRecord) -> str:
    if not status.ended:
        return CANCEL if status.cancel_requested else STATUS
    return LATE_RESULT if status.late else STATUS
