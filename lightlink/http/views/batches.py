"""Views of commands for many agents."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import attrs
from msgspec import UNSET
from werkzeug.exceptions import BadRequest, NotFound, RequestEntityTooLarge

from lightlink.commands import model
from lightlink.commands.store.history import MAX_LIMIT
from lightlink.errors import AgentOffline, StoreUnavailable
from lightlink.http.limits import MAX_WAIT
from lightlink.http.schemas import DEFAULT_TIMEOUT, BatchResult, BatchStarted, BatchView
from lightlink.http.views.representations import batch_view, sent_to
from lightlink.protocol import codec

if TYPE_CHECKING:
    from lightlink.commands.manager.batch import Batch
    from lightlink.commands.model import Command
    from lightlink.http.call import Call

_STORE_SECONDS = 30.0


def send_commands(call: Call) -> BatchView | BatchStarted:
    """Send a command to many agents, and wait for all of them or not at all."""
    # A client that is refused for lack of room sends again, so nothing may have been sent.
    with call.seat() if call.body.wait else contextlib.nullcontext():
        return _send(call)


def _send(call: Call) -> BatchView | BatchStarted:
    body = call.body
    targets = _targets(call)
    for client_id in targets:
        call.check(client_id, body.command_type)
    _refuse_too_much(call, targets)
    asked_at = call.manager.now()
    targets, offline = (targets, []) if body.queue else _online(call, targets)
    if not targets:
        return batch_view("", [], offline)
    timeout = body.timeout or DEFAULT_TIMEOUT
    batch = call.manager.send_many(targets, body.command_type, body.payload, timeout=timeout, issued_by=call.issued_by)
    if not batch.wait_stored(_STORE_SECONDS):
        raise StoreUnavailable("sending commands", f"not all were stored within {_STORE_SECONDS:g} s", unknown=True)
    unsent = _unsent(batch)
    for promise in batch.promises:
        if promise.command_id not in unsent:
            call.app.metrics.follow(promise, asked_at)
    if not body.wait:
        count = len(batch) - len(unsent)
        lost = f"; {len(unsent)} could not be stored" if unsent else ""
        lost += f"; {len(offline)} are offline" if offline else ""
        return BatchStarted(batch_id=batch.batch_id, total=count, message=sent_to(count) + lost)
    call.wait_seated(MAX_WAIT, lambda seconds: batch.wait(seconds) or None)
    commands = [promise.command() for promise in batch.promises if promise.command_id not in unsent]
    return batch_view(batch.batch_id, commands, [*unsent.values(), *offline])


def get_batch(call: Call) -> BatchView:
    """Look at a batch; any process can, as its commands say that they belong to it."""
    batch_id = call.path["batch_id"]
    manager = call.manager
    commands: list[Command] = []
    after: str | None = None
    while True:
        page = manager.list(batch_id=batch_id, limit=MAX_LIMIT, after=after, brief=call.query.results == "none")
        commands += page
        after = page.next
        if after is None:
            break
    visible = [command for command in commands if call.may_see(command)]
    if not visible:
        raise NotFound(f"Batch not found: {batch_id}")
    view = batch_view(batch_id, sorted(visible, key=lambda command: command.client_id))
    return view if call.query.results == "all" else attrs.evolve(view, results=[])


def _refuse_too_much(call: Call, targets: list[str]) -> None:
    """Raise the HTTP error 413 for what would use up the store, or leave consumers of agents that never come."""
    limits, size = call.app.limits, len(codec.encode_json(call.body.payload))
    if size * len(targets) > limits.max_batch_bytes:
        many = f"{size} bytes to each of {len(targets)} clients"
        raise RequestEntityTooLarge(f"{many} are more than the {limits.max_batch_bytes} bytes that a batch may store")
    if len(targets) > limits.max_unknown:
        unknown = len(call.manager.never_seen(targets))
        if unknown > limits.max_unknown:
            raise RequestEntityTooLarge(
                f"{unknown} of the clients were never heard of; a batch may name {limits.max_unknown} such"
            )


def _targets(call: Call) -> list[str]:
    body = call.body
    if (body.client_ids is UNSET) == (body.labels is UNSET):
        raise BadRequest("client_ids: give either client_ids or labels")
    if body.client_ids is not UNSET:
        return list(dict.fromkeys(body.client_ids))
    online = [presence.client_id for presence in call.manager.clients(body.labels)]
    return [client_id for client_id in online if call.may_address(client_id)]


def _online(call: Call, targets: list[str]) -> tuple[list[str], list[BatchResult]]:
    """Return those who are online, and what becomes of the commands of the others."""
    online = {presence.client_id for presence in call.manager.clients()}
    offline = [
        BatchResult(client_id=each, command_id="", status=model.FAILED, error=str(AgentOffline(each)))
        for each in targets
        if each not in online
    ]
    return [each for each in targets if each in online], offline


def _unsent(batch: Batch) -> dict[str, BatchResult]:
    """Return the commands that could not be stored; raises StoreUnavailable when that is all of them."""
    failed = {promise: promise.error for promise in batch.promises if promise.error is not None}
    if failed and len(failed) == len(batch):
        raise next(iter(failed.values()))
    return {
        promise.command_id: BatchResult(
            client_id=promise.client_id, command_id=promise.command_id, status=model.FAILED, error=str(error)
        )
        for promise, error in failed.items()
    }
