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

_DAY = 86_400
_WEEK = 7 * _DAY
_YEAR = 366 * _DAY

ClientId = Annotated[str, Meta(pattern="^[A-Za-z0-9_-]+$", max_length=200, description="The id of an agent.")]
CommandType = Annotated[str, Meta(min_length=1, max_length=256, description="What kind of command it is.")]
MessageType = Annotated[str, Meta(min_length=1, max_length=256, description="What kind of message it is.")]
Payload = Annotated[Any, Meta(description="Any JSON; the arguments by name for an agent's function.")]
# Where a request says nothing, or 0 as many front ends do.
DEFAULT_TIMEOUT = 30.0
Timeout = Annotated[
    float, Meta(ge=0, le=_WEEK, description="Seconds until the command is over at the latest; 0 stands for 30.")
]
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
    timeout: Timeout = DEFAULT_TIMEOUT
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
    timeout: Timeout = DEFAULT_TIMEOUT
    wait: Annotated[bool, Meta(description=f"Reply when all have ended, after {MAX_WAIT} seconds at most.")] = True
    queue: Annotated[bool, Meta(description="Whether commands may wait for agents that are offline.")] = True


@attrs.frozen(kw_only=True)
class CancelCommand:
    """Why a command is no longer wanted."""

    reason: Annotated[str, Meta(max_length=1024)] = ""


@attrs.frozen(kw_only=True)
class UndoCommand:
    """Nothing needs to be said of an undo."""


@attrs.frozen(kw_only=True)
class ResendCommand:
    """Nothing needs to be said to send a command again."""


@attrs.frozen(kw_only=True)
class SendMessage:
    """A message for one agent; it is not stored."""

    client_id: ClientId
    type: MessageType = "command"
    payload: Payload = None
    wait_ack: Annotated[bool, Meta(description="Reply when the agent has handled it, not when it has it.")] = False


@attrs.frozen(kw_only=True)
class BroadcastMessage:
    """A message for all agents; it is not stored."""

    type: MessageType = "event"
    payload: Payload = None


@attrs.frozen(kw_only=True)
class CommandQuery:
    """How to look at one command."""

    wait: Annotated[float, Meta(ge=0, le=MAX_WAIT, description="Seconds to wait for the command's end.")] = 0.0


Labels = Annotated[
    str,
    Meta(
        pattern="^[^,=]+=[^,=]+(,[^,=]+=[^,=]+)*$",
        max_length=1024,
        description="name=value, several with commas; all must be there.",
    ),
]


@attrs.frozen(kw_only=True)
class ListQuery:
    """Which commands to list."""

    client_id: ClientId | UnsetType = UNSET
    label: Labels | UnsetType = UNSET
    status: StatusName | UnsetType = UNSET
    command_type: CommandType | UnsetType = UNSET
    batch_id: Annotated[str, Meta(min_length=1, max_length=64, description="Only of a batch.")] | UnsetType = UNSET
    last: Annotated[float, Meta(gt=0, le=_YEAR, description="Only those of so many seconds until now.")] | UnsetType = (
        UNSET
    )
    limit: Annotated[int, Meta(ge=1, le=1000, description="How many at most.")] = 100
    after: (
        Annotated[str, Meta(pattern="^[0-9]+$", max_length=18, description="The `next` of the page before.")]
        | UnsetType
    ) = UNSET
    page: (
        Annotated[int, Meta(ge=1, le=1000, description="Which page of `page_size`; `after` is faster.")] | UnsetType
    ) = UNSET
    page_size: Annotated[int, Meta(ge=1, le=100, description="How many on a page.")] | UnsetType = UNSET


@attrs.frozen(kw_only=True)
class BatchQuery:
    """How much of a batch to show."""

    results: Annotated[
        Literal["all", "none"], Meta(description="`none` leaves the results out; the counts are of all.")
    ] = "all"


@attrs.frozen(kw_only=True)
class StreamQuery:
    """Which changes to tell of."""

    client_id: ClientId | UnsetType = UNSET
    status: StatusName | UnsetType = UNSET


@attrs.frozen(kw_only=True)
class SummaryQuery:
    """Of how long to count."""

    last: Annotated[float, Meta(ge=60, le=_DAY, description="Seconds until now, cut into 60 stretches.")] = 3600.0


@attrs.frozen(kw_only=True)
class AgentsQuery:
    """Which agents to list."""

    label: Labels | UnsetType = UNSET
    find: Annotated[str, Meta(max_length=200, description="What is in the agent's id.")] = ""
    command_type: CommandType | UnsetType = UNSET
    online: bool | UnsetType = UNSET
    queue: Annotated[bool, Meta(description="Whether to count what waits for each.")] = False
    limit: Annotated[int, Meta(ge=1, le=1000, description="How many at most.")] = 50
    skip: Annotated[int, Meta(ge=0, le=1_000_000, description="How many to leave out at the beginning.")] = 0


@attrs.frozen(kw_only=True)
class AuditQuery:
    """Which part of the audit to show."""

    last: Annotated[float, Meta(gt=0, le=_WEEK, description="Seconds until now.")] = 3600.0
    limit: Annotated[int, Meta(ge=1, le=1000, description="How many at most: the newest.")] = 200


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
    undo: Annotated[str, Meta(description="The type of the command that takes it back.")] | UnsetType = UNSET
    undone_by: (
        Annotated[str, Meta(description="Which command takes it back, or has done so; told of one command only.")]
        | UnsetType
    ) = UNSET


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
    """An agent that is online; ``uptime`` and ``uptime_seconds`` are the same, ``connected_at_ms`` since 1970."""

    client_id: str
    remote_addr: str
    connected_at: datetime
    last_heartbeat: datetime
    uptime: float
    labels: dict[str, str]
    state: str
    uptime_seconds: float
    connected_at_ms: int


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


@attrs.frozen(kw_only=True, slots=False)
class AgentView:
    """An agent that was ever seen; ``last_seen`` may be half a minute old.

    ``queue`` is how many commands wait for it, among the newest 1,000 that wait for the agents of this page.
    """

    client_id: str
    online: bool
    labels: dict[str, str]
    version: str
    platform: str
    command_types: list[str]
    first_seen: str
    last_seen: str
    queue: Count | UnsetType = UNSET


@attrs.frozen(kw_only=True, slots=False)
class AgentPage:
    """Agents by id: ``total`` is how many pass, ``online`` how many of those are there now.

    ``command_types`` are all that they take together.
    """

    success: Literal[True] = True
    total: Count
    online: Count
    command_types: list[str]
    agents: list[AgentView]


@attrs.frozen(kw_only=True, slots=False)
class TypeView:
    """A type of command as its agent describes it; an empty schema allows anything."""

    name: str
    text: str
    arguments: dict[str, Any]


@attrs.frozen(kw_only=True, slots=False)
class TypeList:
    """The types of commands that an agent describes, by name."""

    success: Literal[True] = True
    types: list[TypeView]


@attrs.frozen(kw_only=True, slots=False)
class AuditView:
    """Something that happened to a command, or to a run."""

    at: datetime
    kind: str
    by: str
    command_id: str
    client_id: str
    command_type: str
    status: str
    status_detail: str
    attempt: Count
    instance: str
    error: str
    run_id: str
    event: str


@attrs.frozen(kw_only=True, slots=False)
class AuditList:
    """What happened, oldest first."""

    success: Literal[True] = True
    total: Count
    entries: list[AuditView]


@attrs.frozen(kw_only=True, slots=False)
class FailureView:
    """How many commands of a type failed in the same way."""

    command_type: str
    status: StatusName
    error: str
    count: Count


@attrs.frozen(kw_only=True, slots=False)
class Stretch:
    """What was sent in a stretch of time, by what has become of it."""

    at: datetime
    completed: Count
    failed: Count
    open: Count


@attrs.frozen(kw_only=True, slots=False)
class Summary:
    """The commands of the last while, counted; ``complete`` says whether all of them were."""

    success: Literal[True] = True
    complete: bool
    total: Count
    counts: dict[str, int]
    stretches: list[Stretch]
    failures: list[FailureView]


@attrs.frozen(kw_only=True, slots=False)
class OwnStream:
    """A stream that holds commands, runs or plans; ``max_bytes`` is left out where there is no limit."""

    name: str
    messages: Count
    bytes: Count
    max_bytes: Count | UnsetType = UNSET


@attrs.frozen(kw_only=True, slots=False)
class ServerView:
    """The NATS server, by whose time commands run: ``clock_behind`` is by how much this host's clock is behind it."""

    success: Literal[True] = True
    server: str
    time: datetime
    round_trip: float
    clock_behind: float
    streams: list[OwnStream]


@attrs.frozen(kw_only=True, slots=False)
class MethodView:
    """A method of a service, with what all its instances have done; ``average`` is in seconds.

    ``rate`` is requests a second in the last minute, ``p99`` what 99 of 100 of the last requests took at most, in
    seconds: null where the service does not tell.
    """

    name: str
    text: str
    arguments: dict[str, Any]
    requests: Count
    errors: Count
    last_error: str
    average: float
    rate: float
    p99: float | None


@attrs.frozen(kw_only=True, slots=False)
class InstanceView:
    """One running instance of a service."""

    id: str
    version: str
    host: str


@attrs.frozen(kw_only=True, slots=False)
class ServiceView:
    """A service as it runs."""

    name: str
    text: str
    instances: list[InstanceView]
    methods: list[MethodView]


@attrs.frozen(kw_only=True, slots=False)
class ServiceList:
    """The services that run, by name."""

    success: Literal[True] = True
    services: list[ServiceView]
