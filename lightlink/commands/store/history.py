"""Read stored commands: pages of them, newest first."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from lightlink.commands import model
from lightlink.commands.model import Command, RequestRecord
from lightlink.commands.store import checks, schema
from lightlink.commands.store.access import FAILURES, unavailable
from lightlink.commands.store.store import read_request
from lightlink.errors import DecodeError, InvalidOption
from lightlink.jetstream import read
from lightlink.protocol.subjects import as_text

if TYPE_CHECKING:
    from datetime import datetime

    from lightlink.commands.store.store import CommandStore
    from lightlink.jetstream.answers import StreamState
    from lightlink.jetstream.read import Delivery

MAX_LIMIT = 1000
# How many times as wide as the last the next stretch of the stream is, when a page is not full yet.
_WIDEN = 4
# And how wide it may become, so that memory stays flat. What the server passes over costs nothing here.
_WIDEST = 10_000
_WIDEST_OF_ONE = 1_000_000
_MOST_STATUSES = 2000


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
        checks.text_or_none("command_type", self.command_type)
        checks.text_or_none("batch_id", self.batch_id)
        checks.aware("since", self.since)
        checks.aware("until", self.until)

    @property
    def earliest(self) -> datetime | None:
        """Before when, by the server's clock, nothing that passes was stored; None when that is not known."""
        made_at = None if self.batch_id is None else schema.batch_made_at(self.batch_id)
        bounds = [bound for bound in (self.since, made_at) if bound is not None]
        return model.shortly_before(max(bounds)) if bounds else None

    @property
    def shows_unreadable(self) -> bool:
        """Whether a request that cannot be read passes: it has failed, and of its type and batch nothing is known."""
        return self.status in (None, model.FAILED) and self.command_type is None and self.batch_id is None

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


def list_commands(store: CommandStore, wanted: Filter, limit: int, after: str | None) -> Page:
    """Return one page of commands, newest first; raises StoreUnavailable, InvalidOption.

    The stream is read backwards in stretches that widen while they hold too little; with a client filter the server
    passes over everybody else's commands.
    """
    if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= MAX_LIMIT:
        raise InvalidOption("limit", f"must be a whole number from 1 to {MAX_LIMIT}", limit)
    state = stream_state(store, schema.REQUESTS)
    if state is None:
        return Page([], None)
    first, before = state.first_seq, _before(after, state.last_seq)
    pattern = schema.request_subject(wanted.client_id or "*", "*")
    found: list[tuple[int, Command]] = []
    width = limit + 1
    while before > first and len(found) <= limit:
        low = max(first, before - width)
        stretch = read_block(store, schema.REQUESTS, [pattern], low, before)
        found += _matching(store, stretch, wanted, limit + 1 - len(found))
        before, width = low, min(width * _WIDEN, _WIDEST if wanted.client_id is None else _WIDEST_OF_ONE)
        if wanted.earliest is not None and stretch and stretch[0].created < wanted.earliest:
            break
    page = found[:limit]
    return Page([command for _, command in page], str(page[-1][0]) if len(found) > limit else None)


def read_block(store: CommandStore, stream: str, patterns: list[str], first: int, before: int) -> list[Delivery]:
    """Return the stored messages from sequence ``first`` to below ``before``; raises StoreUnavailable."""
    try:
        return read.read_range(store.connection, stream, patterns, first, before, store.timeout)
    except FAILURES as exc:
        raise unavailable(f"reading {stream}", exc) from exc


def stream_state(store: CommandStore, stream: str) -> StreamState | None:
    """Return what the server says a stream holds, None when there is no such stream; raises StoreUnavailable."""
    info = store.stream_info(stream, f"reading {stream}")
    return None if info is None else info.state


def _matching(store: CommandStore, stretch: list[Delivery], wanted: Filter, most: int) -> list[tuple[int, Command]]:
    """Return (sequence, command) for at most so many of a stretch that pass, newest first."""
    candidates = []
    unreadable: list[tuple[int, Command]] = []
    for delivery in reversed(stretch):
        try:
            request = read_request(delivery.data, as_text(delivery.subject), delivery.created)
        except DecodeError as exc:
            ids = schema.ids_of(as_text(delivery.subject))
            if not all(map(str.isascii, ids)):
                store.connection.report(exc)  # nobody could ask for it by its id
            elif wanted.shows_unreadable:
                unreadable.append((delivery.seq, model.unreadable_command(*ids, delivery.created, exc.reason)))
            continue
        if wanted.wants(request):
            candidates.append((delivery.seq, request))
    found: list[tuple[int, Command]] = []
    size = most
    while candidates and len(found) < most:
        block, candidates = candidates[:size], candidates[size:]
        statuses = store.read_statuses([(request.client_id, request.command_id) for _, request in block])
        at = store.clock.now()
        passing = [
            (seq, request, status)
            for (seq, request), (status, _) in zip(block, statuses, strict=True)
            if wanted.status is None or model.status_at(request, status, at) == wanted.status
        ]
        running = [(each.client_id, each.command_id) for _, each, status in passing if status and not status.ended]
        progress = dict(zip(running, store.read_progress(running), strict=True))
        for seq, request, status in passing:
            told = progress.get((request.client_id, request.command_id))
            found.append((seq, model.fold(request, status, at, told)))
        size = min(size * _WIDEN, _MOST_STATUSES)
    return sorted(found + unreadable, key=lambda each: -each[0])[:most]


def _before(after: str | None, last: int) -> int:
    if after is None:
        return last + 1
    if not isinstance(after, str) or not checks.is_sequence(after):
        raise InvalidOption("after", "must be the `next` of an earlier page", after)
    return min(int(after), last + 1)
