"""Take back one command, by what its agent said takes it back."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

from lightlink.commands import model
from lightlink.commands.store import history
from lightlink.commands.store.filter import Filter
from lightlink.errors import UndoRefused

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lightlink.commands.model import RequestRecord, StatusRecord, UndoTold
    from lightlink.commands.store.store import CommandStore

_NAMESPACE = uuid.UUID("b0a3f6f4-2f6e-5f1f-9c55-8f6a3d1d2c11")
_PAGE = 1000
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
    status, _ = store.read_written_status(request.client_id, request.command_id)
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
    _refuse_later(store, request, status)
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


def _refuse_later(store: CommandStore, request: RequestRecord, status: StatusRecord) -> None:
    """Raise UndoRefused when a later command changed the same, and was not taken back."""
    resource = status.undo.resource if status.undo is not None else ""
    if not resource:
        return
    wanted = Filter(client_id=request.client_id, since=request.created_at)
    after = None
    while True:
        page = history.list_commands(store, wanted, _PAGE, after, brief=True)
        ids = [(each.client_id, each.command_id) for each in page if each.command_id != request.command_id]
        for (client_id, command_id), (later, _) in zip(ids, store.read_statuses(ids), strict=True):
            if _is_later(status, later, resource) and not any(
                _is_completed(tried) for _, tried in _attempts(store, client_id, command_id)
            ):
                raise UndoRefused(request.command_id, f"command {command_id} has changed {resource!r} since")
        if page.next is None:
            return
        after = page.next


def _is_later(status: StatusRecord, other: StatusRecord | None, resource: str) -> bool:
    if other is None or other.undo is None or other.undo.resource != resource:
        return False
    return (other.completed_at or other.at) > (status.completed_at or status.at)
