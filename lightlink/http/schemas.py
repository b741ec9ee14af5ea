"""What requests and replies are made of. The same types check the requests and make the OpenAPI document.

A field that is UNSET is left out of the JSON. Times are RFC 3339, durations in seconds. Replies have no slots, as
msgspec keeps the order of their fields only then.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

import attrs
from msgspec import UNSET, Meta, UnsetType

from lightlink.commands.model import StatusName
from lightlink.http.limits import MAX_WAIT

_WEEK = 7 * 86_400

ClientId = Annotated[str, Meta(pattern="^[A-Za-z0-9_-]+$", max_length=200, description="The id of an agent.")]
CommandType = Annotated[str, Meta(min_length=1, max_length=256, description="What kind of command it is.")]
MessageType = Annotated[str, Meta(min_length=1, max_length=256, description="What kind of message it is.")]
Payload = Annotated[Any, Meta(description="Any JSON; the arguments by name for an agent's function.")]
Timeout = Annotated[float, Meta(gt=0, le=_WEEK, description="Seconds until the command is over at the latest.")]
LabelName = Annotated[str, Meta(min_length=1)]
IdempotencyKey = Annotated[
    str, Meta(min_length=1, max_length=256, description="Sending again with the same key brings the first command.")
]
Count = Annotated[int, Meta(ge=0)]


# Requests -------------------------------------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class SendCommand:
    """A command for one agent."""

    client_id: ClientId
    command_type: CommandType
    payload: Payload = None
    timeout: Timeout = 30.0
    priority: Annotated[
        int, Meta(ge=-1_000_000, le=1_000_000, description="Of those waiting, higher ones go first.")
    ] = 0
    idempotency_key: IdempotencyKey | None = None
    queue: Annotated[bool, Meta(description="Whether the command may wait for an agent that is offline.")] = True


@attrs.frozen(kw_only=True)
class SendCommands:
    """A command for many agents: for those named, or for those online that carry all the labels."""

    client_ids: Annotated[list[ClientId], Meta(min_length=1, max_length=10_000)] | UnsetType = UNSET
    labels: Annotated[dict[LabelName, str], Meta(min_length=1, max_length=64)] | UnsetType = UNSET
    command_type: CommandType
    payload: Payload = None
    timeout: Timeout = 30.0
    wait: Annotated[bool, Meta(description=f"Reply when all have ended, after {MAX_WAIT} seconds at most.")] = True


@attrs.frozen(kw_only=True)
class CancelCommand:
    """Why a command is no longer wanted."""

    reason: Annotated[str, Meta(max_length=1024)] = ""


@attrs.frozen(kw_only=True)
class UndoCommand:
    """Nothing needs to be said of an undo."""


@attrs.frozen(kw_only=True)
class SendMessage:
    """A message for one agent; it is not stored."""

    client_id: ClientId
    type: MessageType
    payload: Payload = None
    wait_ack: Annotated[bool, Meta(description="Reply when the agent has handled it, not when it has it.")] = False


@attrs.frozen(kw_only=True)
class BroadcastMessage:
    """A message for all agents; it is not stored."""

    type: MessageType
    payload: Payload = None


@attrs.frozen(kw_only=True)
class CommandQuery:
    """How to look at one command."""

    wait: Annotated[float, Meta(ge=0, le=MAX_WAIT, description="Seconds to wait for the command's end.")] = 0.0


@attrs.frozen(kw_only=True)
class ListQuery:
    """Which commands to list."""

    client_id: ClientId | UnsetType = UNSET
    status: StatusName | UnsetType = UNSET
    command_type: CommandType | UnsetType = UNSET
    limit: Annotated[int, Meta(ge=1, le=1000, description="How many at most.")] = 100
    after: (
        Annotated[str, Meta(pattern="^[0-9]+$", max_length=18, description="The `next` of the page before.")]
        | UnsetType
    ) = UNSET


@attrs.frozen(kw_only=True)
class StreamQuery:
    """Which changes to tell of."""

    client_id: ClientId | UnsetType = UNSET
    status: StatusName | UnsetType = UNSET


# Replies --------------------------------------------------------------------------------------------------------------


@attrs.frozen(kw_only=True, slots=False)
class Problem:
    """Why a request was not done."""

    success: Literal[False] = False
    error: str


@attrs.frozen(kw_only=True, slots=False)
class CommandSent:
    """The command is stored."""

    success: Literal[True] = True
    command_id: str
    message: str = "Command sent successfully"


@attrs.frozen(kw_only=True, slots=False)
class ProgressView:
    """How far the agent says that it has come, from 0 to 1."""

    fraction: float
    note: str


@attrs.frozen(kw_only=True, slots=False)
class CommandView:
    """A command as it stands."""

    command_id: str
    client_id: str
    command_type: str
    payload: Any
    status: StatusName
    status_detail: str
    created_at: datetime
    timeout: float
    priority: int
    attempt: int
    issued_by: str
    cancel_requested: bool
    outcome_unknown: bool
    result: Any | UnsetType = UNSET
    error: str | UnsetType = UNSET
    sent_at: datetime | UnsetType = UNSET
    completed_at: datetime | UnsetType = UNSET
    instance: str | UnsetType = UNSET
    progress: ProgressView | UnsetType = UNSET
    batch_id: str | UnsetType = UNSET
    late_result: Any | UnsetType = UNSET


@attrs.frozen(kw_only=True, slots=False)
class OneCommand:
    """One command."""

    success: Literal[True] = True
    command: CommandView


@attrs.frozen(kw_only=True, slots=False)
class CommandPage:
    """Commands, newest first; ``total`` is how many are in this reply, ``next`` leads to the older ones."""

    success: Literal[True] = True
    total: Count
    commands: list[CommandView]
    next: str | UnsetType = UNSET


@attrs.frozen(kw_only=True, slots=False)
class BatchStarted:
    """The commands are stored; the batch can be asked for."""

    success: Literal[True] = True
    batch_id: str
    total: Count
    message: str


@attrs.frozen(kw_only=True, slots=False)
class BatchResult:
    """What has become of one command of a batch."""

    client_id: str
    command_id: str
    status: StatusName
    result: Any | UnsetType = UNSET
    error: str | UnsetType = UNSET


@attrs.frozen(kw_only=True, slots=False)
class BatchView:
    """A batch as it stands; ``success`` says that nothing has failed or timed out."""

    success: bool
    batch_id: str
    total: Count
    success_count: Count
    failed_count: Count
    results: list[BatchResult]
    message: str


@attrs.frozen(kw_only=True, slots=False)
class ClientView:
    """An agent that is online; ``uptime`` in seconds."""

    client_id: str
    remote_addr: str
    connected_at: datetime
    last_heartbeat: datetime
    uptime: float
    labels: dict[str, str]
    state: str


@attrs.frozen(kw_only=True, slots=False)
class ClientList:
    """Who is online, by client id."""

    total: Count
    clients: list[ClientView]


@attrs.frozen(kw_only=True, slots=False)
class MessageSent:
    """What became of a message: how many agents were to get it, have it (or have handled it), or failed."""

    success: bool
    msg_id: str
    total: Count
    success_count: Count
    failed_count: Count
    errors: dict[str, str] | UnsetType = UNSET


@attrs.frozen(kw_only=True, slots=False)
class Health:
    """The way to NATS and its JetStream is open."""

    status: Literal["ok"] = "ok"
    time: datetime


@attrs.frozen(kw_only=True, slots=False)
class Sickness:
    """Commands cannot be stored or read at present."""

    success: Literal[False] = False
    status: Literal["unavailable"] = "unavailable"
    error: str
    time: datetime
