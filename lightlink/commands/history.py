"""Read stored commands: pages of them, newest first, and the audit."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import attrs

from lightlink import codec
from lightlink.commands import model, schema
from lightlink.commands.model import Command, RequestRecord, StatusRecord
from lightlink.commands.store import unavailable
from lightlink.errors import InvalidOption
from lightlink.runtime import jetstream, reader
from lightlink.runtime.connection import NoReply
from lightlink.runtime.jetstream import STREAM_NOT_FOUND, JetStreamError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from lightlink.commands.store import CommandStore
    from lightlink.runtime.reader import Delivery

MAX_LIMIT = 1000
_AUDIT_BLOCK = 1000
# How many times as wide as the last the next stretch of the stream is, when a page is not full yet.
_WIDEN = 4
# How far the clocks of the managers and of the server may be apart.
_CLOCKS_APART = timedelta(minutes=10)


@attrs.frozen(kw_only=True)
class Filter:
    """Which commands to list; what is None does not matter. Times are aware datetimes."""

    client_id: str | None = None
    status: str | None = None
    command_type: str | None = None
    batch_id: str | None = None
    since: datetime | None = None
    until: datetime | None = None

    def __attrs_post_init__(self) -> None:
        if self.status is not None and self.status not in model.STATUSES:
            raise InvalidOption("status", f"must be one of {', '.join(model.STATUSES)}", self.status)

    @property
    def earliest(self) -> datetime | None:
        """Before when, by the server's clock, nothing that passes was stored; None when that is not known."""
        made_at = None if self.batch_id is None else schema.batch_made_at(self.batch_id)
        bounds = [bound for bound in (self.since, made_at) if bound is not None]
        return max(bounds) - _CLOCKS_APART if bounds else None

    def wants(self, request: RequestRecord) -> bool:
        """Tell whether a request passes, its status left aside."""
        return (
            (self.command_type is None or request.command_type == self.command_type)
            and (self.batch_id is None or request.batch_id == self.batch_id)
            and (self.since is None or request.created_at >= self.since)
            and (self.until is None or request.created_at <= self.until)
        )


class Page(list[Command]):
    """Commands, newest first; ``next`` is what to give as ``after`` for the page behind this one, None at the end."""

    def __init__(self, commands: list[Command], following: str | None) -> None:
        super().__init__(commands)
        self.next = following


def list_commands(store: CommandStore, wanted: Filter, limit: int, after: str | None, timeout: float) -> Page:
    """Return one page of commands, newest first; raises StoreUnavailable, InvalidOption.

    The stream is read backwards in stretches that widen while they hold too little; with a client filter the server
    passes over everybody else's commands.
    """
    if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= MAX_LIMIT:
        raise InvalidOption("limit", f"must be a whole number from 1 to {MAX_LIMIT}", limit)
    state = _state(store, timeout)
    if state is None:
        return Page([], None)
    first, before = state["first_seq"], _before(after, state["last_seq"])
    pattern = schema.request_subject(wanted.client_id or "*", "*")
    found: list[tuple[int, Command]] = []
    width = limit * _WIDEN
    while before > first and len(found) <= limit:
        low = max(first, before - width)
        stretch = read_block(store, schema.REQUESTS, [pattern], low, before, timeout)
        found += _matching(store, stretch, wanted)
        before, width = low, width * _WIDEN
        if wanted.earliest is not None and stretch and stretch[0].created < wanted.earliest:
            break
    page = found[:limit]
    return Page([command for _, command in page], str(page[-1][0]) if len(found) > limit else None)


def read_block(
    store: CommandStore, stream: str, patterns: list[str], first: int, before: int, timeout: float
) -> list[Delivery]:
    """Return the stored messages from sequence ``first`` to below ``before``; raises StoreUnavailable."""
    try:
        return reader.read_range(store.connection, stream, patterns, first, before, timeout)
    except (JetStreamError, NoReply, TimeoutError) as exc:
        raise unavailable(f"reading {stream}", exc) from exc


def _matching(store: CommandStore, stretch: list[Delivery], wanted: Filter) -> list[tuple[int, Command]]:
    """Return (sequence, command) for those of a stretch that pass, newest first."""
    requests = [(delivery.seq, _request(delivery)) for delivery in reversed(stretch)]
    candidates = [(seq, request) for seq, request in requests if wanted.wants(request)]
    statuses = store.read_statuses([(request.client_id, request.command_id) for _, request in candidates])
    at = model.now()
    folded = [
        (seq, model.fold(request, status, at)) for (seq, request), status in zip(candidates, statuses, strict=True)
    ]
    return [(seq, command) for seq, command in folded if wanted.status is None or command.status == wanted.status]


def _request(delivery: Delivery) -> RequestRecord:
    return codec.decode(delivery.data, delivery.subject.decode(), RequestRecord)


def _state(store: CommandStore, timeout: float, stream: str = schema.REQUESTS) -> dict[str, int] | None:
    try:
        info = jetstream.stream_info(store.connection, stream, timeout)
    except (JetStreamError, NoReply) as exc:
        if isinstance(exc, JetStreamError) and exc.err_code == STREAM_NOT_FOUND:
            return None
        raise unavailable(f"reading {stream}", exc) from exc
    return None if info is None else info["state"]


def _before(after: str | None, last: int) -> int:
    if after is None:
        return last + 1
    if not isinstance(after, str) or not after.isascii() or not after.isdigit():
        raise InvalidOption("after", "must be the `next` of an earlier page", after)
    return min(int(after), last + 1)


# The audit ------------------------------------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class AuditEntry:
    """Something that happened to a command, as the audit keeps it: its request, or one revision of its status.

    ``at`` is when, and ``by`` who it was: the manager that sent or cancelled, or the agent's instance.
    """

    at: datetime
    command_id: str
    client_id: str
    kind: str
    by: str
    status: str = model.PENDING
    status_detail: str = ""
    attempt: int = 0
    error: str = ""
    command_type: str = ""


def read_audit(
    store: CommandStore, command_id: str | None, since: datetime | None, timeout: float
) -> Iterator[AuditEntry]:
    """Yield every request and transition, oldest first; raises StoreUnavailable."""
    state = _state(store, timeout, schema.AUDIT)
    if state is None:
        return
    token = "*" if command_id is None else schema.command_id(command_id)
    patterns = [schema.request_subject("*", token), schema.status_subject("*", token)]
    first, end = state["first_seq"], state["last_seq"] + 1
    while first < end:
        # One command has a handful of entries; all commands are read block by block, so that memory stays flat.
        before = end if command_id is not None else min(first + _AUDIT_BLOCK, end)
        for delivery in read_block(store, schema.AUDIT, patterns, first, before, timeout):
            if since is None or delivery.created >= since:
                yield _entry(delivery)
        first = before


def _entry(delivery: Delivery) -> AuditEntry:
    subject = delivery.subject.decode()
    client_id, command_id = schema.ids_of(subject)
    common: dict[str, Any] = {"command_id": command_id, "client_id": client_id}
    if subject.startswith("ll.commands."):
        request = _request(delivery)
        return AuditEntry(
            at=request.created_at, kind="request", by=request.issued_by, command_type=request.command_type, **common
        )
    status = codec.decode(delivery.data, subject, StatusRecord)
    facts = {name: getattr(status, name) for name in ("at", "status", "status_detail", "attempt", "error", "by")}
    return AuditEntry(kind="status", **facts, **common)
