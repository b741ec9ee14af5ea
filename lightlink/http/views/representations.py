"""From what the commands know to what HTTP shows."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

import attrs
from msgspec import UNSET

from lightlink.commands import model
from lightlink.http.schemas import (
    AgentView,
    AuditView,
    BatchResult,
    BatchView,
    ClientView,
    CommandView,
    MessageSent,
    ProgressView,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lightlink.commands import AuditEntry, Presence, Receipt
    from lightlink.commands.manager.inventory import AgentRecord
    from lightlink.commands.model import Command

_ALWAYS = (
    "command_id",
    "client_id",
    "command_type",
    "payload",
    "status",
    "status_detail",
    "created_at",
    "timeout",
    "priority",
    "attempt",
    "issued_by",
    "cancel_requested",
    "outcome_unknown",
)


_OF_AGENTS = (
    "client_id",
    "online",
    "labels",
    "version",
    "platform",
    "command_types",
    "first_seen",
    "last_seen",
)


def command_view(command: Command) -> CommandView:
    """Return a command as HTTP shows it; what it does not have is left out."""
    facts: dict[str, Any] = {name: getattr(command, name) for name in _ALWAYS}
    for name in ("sent_at", "completed_at", "batch_id", "late_result"):
        value = getattr(command, name)
        facts[name] = UNSET if value is None else value
    for name in ("error", "instance", "undo"):
        facts[name] = getattr(command, name) or UNSET
    if command.progress is not None:
        facts["progress"] = ProgressView(fraction=command.progress.fraction, note=command.progress.note)
    return CommandView(result=_result(command), **facts)


def batch_view(batch_id: str, commands: Sequence[Command], unsent: Sequence[BatchResult] = ()) -> BatchView:
    """Return a batch as HTTP shows it. ``unsent`` are those that could not be stored."""
    results = [
        BatchResult(
            client_id=command.client_id,
            command_id=command.command_id,
            status=command.status,
            result=_result(command),
            error=command.error or UNSET,
        )
        for command in commands
    ]
    results += unsent
    completed = sum(result.status == model.COMPLETED for result in results)
    failed = sum(result.status in (model.FAILED, model.TIMEOUT) for result in results)
    left = len(results) - completed - failed
    message = f"{sent_to(len(results))}: {completed} completed, {failed} failed"
    return BatchView(
        success=failed == 0,
        batch_id=batch_id,
        total=len(results),
        success_count=completed,
        failed_count=failed,
        results=results,
        message=message + (f", {left} not over yet" if left else ""),
    )


def sent_to(count: int) -> str:
    """Return how many clients got a command, in words."""
    return f"Command sent to {count} client{'' if count == 1 else 's'}"


def client_view(presence: Presence, now: datetime) -> ClientView:
    """Return an agent as HTTP shows it at an instant."""
    connected_at = datetime.fromisoformat(presence.connected_at)
    uptime = round(max((now - connected_at).total_seconds(), 0.0), 3)
    return ClientView(
        client_id=presence.client_id,
        remote_addr=presence.remote_addr,
        connected_at=connected_at,
        last_heartbeat=datetime.fromisoformat(presence.last_heartbeat),
        uptime=uptime,
        labels=presence.labels,
        state=presence.state,
        uptime_seconds=uptime,
        connected_at_ms=int(connected_at.timestamp() * 1000),
    )


def agent_view(agent: AgentRecord, waiting: Mapping[str, int] | None = None) -> AgentView:
    """Return what is kept of an agent as HTTP shows it; ``waiting`` is how many commands wait for each."""
    queue = UNSET if waiting is None else waiting.get(agent.client_id, 0)
    return AgentView(**{name: getattr(agent, name) for name in _OF_AGENTS}, queue=queue)


def audit_view(entry: AuditEntry) -> AuditView:
    """Return an entry of the audit as HTTP shows it."""
    return AuditView(**{field.name: getattr(entry, field.name) for field in attrs.fields(AuditView)})


def message_view(receipt: Receipt) -> MessageSent:
    """Return what became of a message as HTTP shows it."""
    done = len(set(receipt.reached) - receipt.errors.keys())
    return MessageSent(
        success=done == receipt.online,
        msg_id=receipt.msg_id,
        total=receipt.online,
        success_count=done,
        failed_count=receipt.online - done,
        errors=receipt.errors or UNSET,
    )


def _result(command: Command) -> Any:
    return command.result if command.status == model.COMPLETED else UNSET
