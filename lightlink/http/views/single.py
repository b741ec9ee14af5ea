"""Views of single commands: send, look, wait, list, cancel."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import attrs
from msgspec import UNSET
from werkzeug.exceptions import Conflict

from lightlink.commands.store.history import MAX_LIMIT, PAGE_BYTES
from lightlink.concurrency.deadline import Deadline
from lightlink.errors import CommandNotFound, InvalidName, InvalidOption
from lightlink.http.schemas import DEFAULT_TIMEOUT, AuditList, CommandPage, CommandSent, OneCommand
from lightlink.http.views.agents import known_agents
from lightlink.http.views.representations import audit_view, command_view

if TYPE_CHECKING:
    from lightlink.commands.model import Command
    from lightlink.http.call import Call
    from lightlink.http.schemas import ListQuery

# How long a token that is not good for most commands may look for a full page of those that it is good for.
_LOOK_SECONDS = 5.0
# Pages that are counted are read from the newest on, each time: a hundred of a hundred.
_PAGE = 100


def send_command(call: Call) -> CommandSent:
    """Send a command to one agent."""
    body = call.body
    call.check(body.client_id, body.command_type)
    asked_at = call.manager.now()
    try:
        promise = call.manager.send(
            body.client_id,
            body.command_type,
            body.payload,
            timeout=body.timeout or DEFAULT_TIMEOUT,
            priority=body.priority,
            idempotency_key=body.idempotency_key,
            queue=body.queue,
            issued_by=call.issued_by,
        )
    except InvalidOption as exc:
        if exc.option == "idempotency_key":
            raise Conflict(str(exc)) from None  # it was used for another command
        raise
    call.app.metrics.follow(promise, asked_at)
    return CommandSent(command_id=promise.command_id)


def get_command(call: Call) -> OneCommand:
    """Look at a command, or wait for its end."""
    command = _find(call)
    if call.query.wait > 0 and not command.ended:
        promise = call.manager.promise(command.command_id)
        command = call.wait(call.query.wait, promise.wait) or promise.command()
        call.recheck()
    view = command_view(command)
    if command.undo:
        view = attrs.evolve(view, undone_by=call.manager.undone_by(command.command_id) or UNSET)
    return OneCommand(command=view)


def resend_command(call: Call) -> CommandSent:
    """Send a new command with all that another was sent with; a browser would change its numbers beyond 2^53."""
    command = _find(call)
    asked_at = call.manager.now()
    promise = call.manager.send(
        command.client_id,
        command.command_type,
        command.payload,
        timeout=command.timeout,
        priority=command.priority,
        issued_by=call.issued_by,
    )
    call.app.metrics.follow(promise, asked_at)
    return CommandSent(command_id=promise.command_id)


def undo_command(call: Call) -> CommandSent:
    """Take a completed command back."""
    command = _find(call)
    asked_at = call.manager.now()
    # What takes it back is another command, of a type that its agent has chosen.
    promise = call.manager.undo(
        command.command_id, issued_by=call.issued_by, check=lambda kind: call.check(command.client_id, kind)
    )
    call.app.metrics.follow(promise, asked_at)
    return CommandSent(command_id=promise.command_id)


def cancel_command(call: Call) -> OneCommand:
    """Cancel a command that has not ended."""
    command = _find(call)
    cancelled = call.manager.cancel(command.command_id, call.body.reason, issued_by=call.issued_by)
    return OneCommand(command=command_view(cancelled))


def get_command_history(call: Call) -> AuditList:
    """Tell all that happened to a command."""
    command = _find(call)
    entries = [audit_view(entry) for entry in call.manager.audit(command.command_id)]
    return AuditList(total=len(entries), entries=entries)


def list_commands(call: Call) -> CommandPage:
    """List stored commands, newest first."""
    query: ListQuery = call.query
    call.check(query.client_id or None, query.command_type or None)
    after = query.after or None
    since = None if query.last is UNSET else call.manager.now() - timedelta(seconds=query.last)
    wanted, skipped = _paging(query)
    clients: str | list[str] | None = query.client_id or None
    if query.label is not UNSET:
        labelled = [agent.client_id for agent in known_agents(call, query.label)]
        clients = [each for each in labelled if clients in (None, each)]
    found: list[Command] = []
    size = 0
    deadline = Deadline(_LOOK_SECONDS)
    while True:
        page = call.manager.list(
            clients,
            query.status or None,
            command_type=query.command_type or None,
            batch_id=query.batch_id or None,
            since=since,
            limit=min(skipped + wanted - len(found), MAX_LIMIT),
            after=after,
        )
        found += [command for command in page if call.may_see(command)]
        after = page.next
        size += page.size
        is_full = len(found) == skipped + wanted
        if after is None or is_full or size >= PAGE_BYTES or deadline.is_over:
            break
    commands = [command_view(command) for command in found[skipped:]]
    return CommandPage(total=len(commands), commands=commands, next=after or UNSET)


def _paging(query: ListQuery) -> tuple[int, int]:
    """Return how many commands are wanted, and behind how many of the newest."""
    size = query.page_size or min(query.limit, _PAGE)
    if query.page is UNSET or query.after:
        return query.page_size or query.limit, 0
    return size, (query.page - 1) * size


def _find(call: Call) -> Command:
    command_id: Any = call.path["command_id"]
    try:
        command = call.manager.get(command_id)
    except InvalidName:
        raise CommandNotFound(command_id) from None  # no command can have such an id
    if not call.may_see(command):
        raise CommandNotFound(command_id)  # a token learns nothing of what it is not good for
    return command
