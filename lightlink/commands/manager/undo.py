"""Take back one command, by what its agent said takes it back."""

from __future__ import annotations

import contextlib
import uuid
from typing import TYPE_CHECKING

from lightlink.commands import model
from lightlink.commands.store import history
from lightlink.commands.store.store import read_status
from lightlink.errors import DecodeError, UndoRefused
from lightlink.protocol import subjects
from lightlink.protocol.subjects import as_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lightlink.commands.model import RequestRecord, StatusRecord, UndoTold
    from lightlink.commands.store.store import CommandStore

_NAMESPACE = uuid.UUID("b0a3f6f4-2f6e-5f1f-9c55-8f6a3d1d2c11")
# Ends that an agent writes at one time may be stored in another order than they came in; so many revisions at most.
_SIDE_BY_SIDE = 1000
_MOST_TRIES = 100


def undo_id(command_id: str, attempt: int) -> str:
    """Return the id of the command that takes another back: a UUIDv5, so that of two who try it one does it."""
    return str(uuid.uuid5(_NAMESPACE, f"{command_id}\0{attempt}"))


def undone_by(store: CommandStore, request: RequestRecord) -> str | None:
    """Return the id of the command that takes one back or has done so; None when none does."""
    for command_id, tried in _attempts(store, request.client_id, request.command_id):
        if model.is_open(tried) or _is_completed(tried):
            return command_id
    return None


def undo_of(store: CommandStore, request: RequestRecord) -> tuple[str, UndoTold]:
    """Return the id and the contents of the command that takes one back; raises UndoRefused."""
    status, revision = store.read_written_status(request.client_id, request.command_id)
    if status is None or status.status != model.COMPLETED:
        raise UndoRefused(request.command_id, f"it is {model.status_at(request, status, store.clock.now())}")
    if status.undo is None:
        raise UndoRefused(request.command_id, "its agent has not said what takes it back")
    attempts = 0
    for command_id, tried in _attempts(store, request.client_id, request.command_id):
        if model.is_open(tried):
            raise UndoRefused(request.command_id, f"command {command_id} is at it")
        if _is_completed(tried):
            raise UndoRefused(request.command_id, f"command {command_id} has done so")
        attempts += 1
    if attempts == _MOST_TRIES:
        raise UndoRefused(request.command_id, f"{_MOST_TRIES} attempts have failed")
    _refuse_later(store, request, status, revision)
    return undo_id(request.command_id, attempts), status.undo


def _attempts(store: CommandStore, client_id: str, command_id: str) -> Iterator[tuple[str, StatusRecord | None]]:
    """Yield the id and the status of each command that was sent to take one back, the first one first."""
    for attempt in range(_MOST_TRIES):
        tried = undo_id(command_id, attempt)
        if store.get_request(client_id, tried) is None:
            return
        yield tried, store.read_written_status(client_id, tried)[0]


def _is_completed(status: StatusRecord | None) -> bool:
    return status is not None and status.status == model.COMPLETED


def _refuse_later(store: CommandStore, request: RequestRecord, status: StatusRecord, revision: int) -> None:
    """Raise UndoRefused when a later command changed the same, and was not taken back."""
    resource = status.undo.resource if status.undo is not None else ""
    if not resource:
        return
    for command_id, later in _ended_since(store, request.client_id, revision):
        if command_id == request.command_id or not _is_later(status, later, resource):
            continue
        if not any(_is_completed(tried) for _, tried in _attempts(store, request.client_id, command_id)):
            raise UndoRefused(request.command_id, f"command {command_id} has changed {resource!r} since")


def _ended_since(store: CommandStore, client_id: str, revision: int) -> Iterator[tuple[str, StatusRecord]]:
    """Yield the statuses of an agent's commands that were stored since a revision, whenever they were sent."""
    state = history.stream_state(store, subjects.STATUS_STREAM)
    first, end = max(revision - _SIDE_BY_SIDE, 1), 0 if state is None else state.last_seq + 1
    pattern = subjects.command_status(client_id, "*")
    while first < end:
        block, first = history.read_block(store, subjects.STATUS_STREAM, [pattern], first, end)
        for delivery in block:
            subject = as_text(delivery.subject)
            with contextlib.suppress(DecodeError):  # what is no status has changed nothing that is known
                yield subjects.command_ids(subject)[1], read_status(delivery.data, subject)


def _is_later(status: StatusRecord, other: StatusRecord, resource: str) -> bool:
    if other.undo is None or other.undo.resource != resource:
        return False
    return (other.completed_at or other.at) > (status.completed_at or status.at)
