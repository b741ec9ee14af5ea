"""Read stored commands: pages of them, newest first."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import attrs

from lightlink.commands import frames, model
from lightlink.commands.model import Command, RequestRecord, StatusRecord
from lightlink.commands.store import checks, schema
from lightlink.commands.store.access import FAILURES, unavailable
from lightlink.commands.store.filter import Filter
from lightlink.commands.store.store import read_request
from lightlink.errors import DecodeError, InvalidOption
from lightlink.jetstream import read
from lightlink.protocol import codec, subjects
from lightlink.protocol.subjects import as_text
from lightlink.validators import integer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lightlink.commands.store.index import CommandIndex
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
# After how many requests of which too few passed it is worth reading all of them into an index.
_WORTH_AN_INDEX = 5_000
# How much is read at once, and when a page ends though it is not full.
BLOCK_BYTES = 8 * 1024 * 1024
PAGE_BYTES = 32 * 1024 * 1024


class Page(list[Command]):
    """Commands, newest first; ``next`` is what to give as ``after`` for the page behind this one, None at the end.

    ``size`` is about how many bytes their payloads and results are.
    """

    def __init__(self, commands: list[Command], following: str | None, size: int = 0) -> None:
        super().__init__(commands)
        self.next = following
        self.size = size

    def to_dataframe(self) -> Any:
        """Return a pandas DataFrame with a row for each command; needs pandas."""
        return frames.to_dataframe(self)

    def _repr_html_(self) -> str:
        """Return how a notebook shows it."""
        return frames.to_html(f"{len(self)} commands", self)


@attrs.define
class _Found:
    """Commands found so far, newest first, and about how many bytes they hold."""

    brief: bool
    commands: list[tuple[int, Command]] = attrs.field(factory=list)
    size: int = 0

    def add(self, seq: int, command: Command, size: int) -> None:
        self.commands.append((seq, command))
        self.size += size

    def is_enough(self, most: int) -> bool:
        return len(self.commands) >= most or self.size >= PAGE_BYTES


def list_commands(
    store: CommandStore,
    wanted: Filter,
    limit: int,
    after: str | None,
    brief: bool = False,
    index: CommandIndex | None = None,
) -> Page:
    """Return one page of commands, newest first; raises StoreUnavailable, InvalidOption.

    With ``brief`` without payloads and results; else a page ends early when those are many bytes. The stream is read
    backwards in stretches that widen while they hold too little, and are no larger than memory bears; with a client
    filter the server passes over everybody else's commands. What is rare is looked up in an ``index``, if there is one,
    when the newest do not fill the page.
    """
    integer("limit", limit, 1, MAX_LIMIT)
    state = stream_state(store, subjects.COMMANDS_STREAM)
    if state is None or wanted.clients == frozenset():
        return Page([], None)
    first, before = state.first_seq, _before(after, state.last_seq)
    one = wanted.client_id
    pattern = schema.EVERYTHING if one is None else subjects.command_request(one, "*")
    found = _Found(brief)
    at_once = statuses_at_once(store)
    fits = state.messages_in(BLOCK_BYTES)
    widest = min(_WIDEST, fits) if wanted.client_id is None else _WIDEST_OF_ONE
    width = min(limit + 1, fits)
    if not wanted.is_selective or state.messages < _WORTH_AN_INDEX:
        index = None
    if index is not None:
        first, before = _narrowed(first, before, wanted, index)
    newest = before
    while before > first and not found.is_enough(limit + 1):
        if index is not None:
            is_far = newest - before >= _WORTH_AN_INDEX
            if (ids := index.find(wanted, before, or_all=is_far)) is not None:
                _look_up(store, ids, wanted, limit + 1, at_once, fits, found)
                break
        low = max(first, before - width)
        stretch, reached = read_block(store, subjects.COMMANDS_STREAM, [pattern], low, before)
        if reached < before:  # the newest are those that were not read: they are larger than most
            width = max((before - low) // _WIDEN, 1)
            continue
        _match(store, stretch, wanted, limit + 1, at_once, found)
        before, width = low, min(width * _WIDEN, widest)
        if wanted.earliest is not None and stretch and stretch[0].created < wanted.earliest:
            break
    page = found.commands[:limit]
    is_last = len(found.commands) <= limit and not found.size >= PAGE_BYTES
    return Page([command for _, command in page], None if is_last else str(page[-1][0]), found.size)


def _narrowed(first: int, before: int, wanted: Filter, index: CommandIndex) -> tuple[int, int]:
    """Begin the index if that costs little, and return the part of a stretch in which a wanted batch is."""
    index.resume()
    if wanted.batch_id is None or not index.is_following or (span := index.span(wanted.batch_id)) is None:
        return first, before
    return max(first, span[0]), min(before, span[1] + 1)


def _look_up(
    store: CommandStore,
    ids: Iterator[tuple[int, str, str]],
    wanted: Filter,
    most: int,
    at_once: int,
    fits: int,
    found: _Found,
) -> None:
    """Add what passes of the commands with some ids, newest first, until that is enough."""
    size = min(most, at_once, fits)
    while not found.is_enough(most) and (block := list(itertools.islice(ids, size))):
        requests = store.read_requests([(client_id, command_id) for _, client_id, command_id in block])
        candidates: list[tuple[int, RequestRecord | Command]] = []
        for (seq, _, _), request in zip(block, requests, strict=True):
            # One that has expired meanwhile is no more.
            if isinstance(request, Command) or (request is not None and wanted.wants(request)):
                candidates.append((seq, request))
        _add(store, candidates, wanted, found)
        size = min(size * _WIDEN, at_once, fits)
    del found.commands[most:]


def statuses_at_once(store: CommandStore) -> int:
    """Return how many statuses, with their results, may be read together; raises StoreUnavailable."""
    state = stream_state(store, subjects.STATUS_STREAM)
    # A result is in the last revision only, of three or four.
    return _MOST_STATUSES if state is None else min(state.messages_in(BLOCK_BYTES // 4), _MOST_STATUSES)


def read_block(
    store: CommandStore, stream: str, patterns: list[str], first: int, before: int
) -> tuple[list[Delivery], int]:
    """Return the stored messages from sequence ``first`` to below ``before``, as many as memory bears.

    The other value is up to where all was read. Raises StoreUnavailable.
    """
    try:
        return read.read_range(store.connection, stream, patterns, first, before, store.timeout, BLOCK_BYTES)
    except FAILURES as exc:
        raise unavailable(f"reading {stream}", exc) from exc


def stream_state(store: CommandStore, stream: str) -> StreamState | None:
    """Return what the server says a stream holds, None when there is no such stream; raises StoreUnavailable."""
    info = store.stream_info(stream, f"reading {stream}")
    return None if info is None else info.state


def _match(
    store: CommandStore, stretch: list[Delivery], wanted: Filter, most: int, at_once: int, found: _Found
) -> None:
    """Add what of a stretch passes, newest first, until that is enough; ``at_once`` statuses are read together."""
    candidates: list[tuple[int, RequestRecord | Command]] = []
    for delivery in reversed(stretch):
        try:
            request = read_request(delivery.data, as_text(delivery.subject), delivery.created)
        except DecodeError as exc:
            ids = subjects.command_ids(as_text(delivery.subject))
            if not all(map(str.isascii, ids)):
                store.connection.report(exc)  # nobody could ask for it by its id
            elif wanted.shows_unreadable and wanted.is_of(ids[0]):
                candidates.append((delivery.seq, model.unreadable_command(*ids, delivery.created, exc.reason)))
            continue
        if wanted.wants(request):
            candidates.append((delivery.seq, request))
    size = min(most, at_once)
    while candidates and not found.is_enough(most):
        block, candidates = candidates[:size], candidates[size:]
        _add(store, block, wanted, found)
        size = min(size * _WIDEN, at_once)
    del found.commands[most:]


def _add(store: CommandStore, block: list[tuple[int, RequestRecord | Command]], wanted: Filter, found: _Found) -> None:
    """Read the statuses of a block's commands, and add those that pass."""
    requests = [each for _, each in block if isinstance(each, RequestRecord)]
    read_ = store.read_statuses([(request.client_id, request.command_id) for request in requests])
    statuses = {request.command_id: status for request, (status, _) in zip(requests, read_, strict=True)}
    running = [
        (each.client_id, each.command_id)
        for each in requests
        if (status := statuses[each.command_id]) is not None and not status.ended
    ]
    progress = dict(zip(running, store.read_progress(running), strict=True))
    at = store.clock.now()
    for seq, each in block:
        if isinstance(each, Command):
            found.add(seq, each, 0)
            continue
        status = statuses[each.command_id]
        if wanted.status is not None and model.status_at(each, status, at) != wanted.status:
            continue
        command = model.fold(each, status, at, progress.get((each.client_id, each.command_id)))
        if found.brief:
            found.add(seq, attrs.evolve(command, payload=None, result=None, late_result=None), 0)
        else:
            found.add(seq, command, len(each.payload) + _size_of(status))


def _size_of(status: StatusRecord | None) -> int:
    """Return about how many bytes a status's results are."""
    if status is None or (status.result is None and status.late_result is None):
        return 0
    return len(codec.encode_json([status.result, status.late_result]))


def _before(after: str | None, last: int) -> int:
    if after is None:
        return last + 1
    if not isinstance(after, str) or not checks.is_sequence(after):
        raise InvalidOption("after", "must be the `next` of an earlier page", after)
    return min(int(after), last + 1)
