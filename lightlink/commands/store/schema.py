"""The streams, buckets and subjects that hold commands. JetStream holds everything; each fact is written once."""

from __future__ import annotations

import uuid
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import attrs

from lightlink.errors import DecodeError, InvalidName, InvalidOption
from lightlink.protocol import subjects
from lightlink.protocol.ids import new_id
from lightlink.validators import field, integer, seconds, string_map

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lightlink.jetstream.answers import StreamConfig

REQUESTS = "LIGHTLINK_COMMANDS"
STATUS_BUCKET = "lightlink_command_status"
AGENTS_BUCKET = "lightlink_agents"
FLEET_BUCKET = subjects.FLEET_BUCKET
STATUS = f"KV_{STATUS_BUCKET}"
AGENTS = f"KV_{AGENTS_BUCKET}"
FLEET = f"KV_{FLEET_BUCKET}"
AUDIT = "LIGHTLINK_COMMANDS_AUDIT"
PROGRESS = "LIGHTLINK_PROGRESS"
RUNS = "LIGHTLINK_RUNS"
PLANS = "LIGHTLINK_PLANS"

STATUS_EVENTS = "ll.status.*.*"  # every stored status revision, republished by the server
PROGRESS_EVENTS = "ll.progress.*.*"

_SECOND = 1_000_000_000
_PRESENCE_MESSAGE_BYTES = 64 * 1024
_PROGRESS_MESSAGE_BYTES = 32 * 1024
# Of all that the streams may hold together, in eighteenths.
_SHARES = {REQUESTS: 5, STATUS: 5, AUDIT: 4, AGENTS: 1, PROGRESS: 1, RUNS: 1, PLANS: 1}
STREAMS = tuple(_SHARES)
_PARTS = sum(_SHARES.values())
LEAST_BYTES = 1024 * 1024
_HEARTBEATS = 3  # so many may be missed
_MAX_CLIENT_ID = 200  # the name of its consumer is longer, and NATS takes 255
_DAY = 86_400.0
_LEAST_RETENTION = 1.0
_LEAST_HEARTBEAT = 0.05
LONGEST = 100 * 365 * _DAY  # the server counts in nanoseconds, and in 64 bits
REQUEST_PREFIX = "ll.commands."
_STATUS_PREFIX = f"$KV.{STATUS_BUCKET}."
# Up to which request all commands have ended. A command's key has two tokens, and no agent may write to this one.
SWEPT = f"{_STATUS_PREFIX}swept"
# What is kept of the index of commands; no agent may write to this one either.
EXCERPT = f"$KV.{FLEET_BUCKET}.commands"
# To read all of a stream. The server counts what passes a narrower filter, which takes 20 ms among 100,000 subjects.
EVERYTHING = ">"


def _lasting(least: float) -> Any:
    def check(_: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
        if not least <= seconds(attribute.name, value) <= LONGEST:
            raise InvalidOption(attribute.name, f"must be from {least:g} to {LONGEST:g} seconds", value)

    return check


def _one_of(*choices: Any) -> Any:
    def check(_: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
        if value not in choices:
            raise InvalidOption(attribute.name, f"must be one of {', '.join(map(str, choices))}", value)

    return check


@attrs.frozen(kw_only=True)
class StoreOptions:
    """How the streams are made by whoever comes first; without effect on streams that exist. Times in seconds.

    ``retention`` is how long commands are kept, ``audit_retention`` how long the audit is. ``ack_wait`` is how long the
    server waits for a dead agent before it delivers a command again. ``heartbeat`` is how often an agent says that it
    lives; after three without one it counts as gone. ``replicas`` is 1 or, in a cluster, 3 or 5; ``storage`` file or
    memory. ``max_bytes`` is how much all of them may hold together, of which each has a share: a full one does not take
    the others along. Where the server has less, they are made that much smaller.
    """

    retention: float = attrs.field(default=7 * _DAY, validator=_lasting(_LEAST_RETENTION))
    audit_retention: float = attrs.field(default=30 * _DAY, validator=_lasting(_LEAST_RETENTION))
    ack_wait: float = attrs.field(default=30.0, validator=_lasting(0.1))
    heartbeat: float = attrs.field(default=10.0, validator=_lasting(_LEAST_HEARTBEAT))
    replicas: int = attrs.field(default=1, validator=_one_of(1, 3, 5))
    storage: str = attrs.field(default="file", validator=_one_of("file", "memory"))
    max_bytes: int = attrs.field(default=1024**3, validator=field(integer, LEAST_BYTES, 2**63 - 1))

    @property
    def presence_age(self) -> float:
        """How long an agent counts as online after its last heartbeat."""
        return _HEARTBEATS * self.heartbeat


def request_subject(client_id: str, command_id: str) -> str:
    """Return the subject of a command's request."""
    return f"{REQUEST_PREFIX}{client_id}.{command_id}"


def status_subject(client_id: str, command_id: str) -> str:
    """Return the subject of a command's status revisions."""
    return f"{_STATUS_PREFIX}{client_id}.{command_id}"


def presence_subject(client_id: str) -> str:
    """Return the subject of an agent's presence."""
    return f"$KV.{AGENTS_BUCKET}.{client_id}"


def status_event(client_id: str, command_id: str) -> str:
    """Return the subject on which the server republishes a command's status revisions."""
    return f"ll.status.{client_id}.{command_id}"


def progress_subject(client_id: str, command_id: str) -> str:
    """Return the subject of a command's progress, of which the last is stored while the command runs."""
    return f"ll.progress.{client_id}.{command_id}"


def consumer_name(client_id: str) -> str:
    """Return the name of an agent's durable consumer."""
    return f"agent-{client_id}"


def ids_of(subject: str) -> tuple[str, str]:
    """Return (client id, command id) from the subject of a stored request or status.

    Raises DecodeError for any other: what its last tokens say need not be who wrote it.
    """
    for prefix in (REQUEST_PREFIX, _STATUS_PREFIX):
        ids = subject.removeprefix(prefix).split(".")
        if subject.startswith(prefix) and len(ids) == 2:
            return ids[0], ids[1]
    raise DecodeError(subject, "not the subject of a request or a status")


def client_id(text: str) -> str:
    """Return the id of an agent: letters, digits, ``-`` and ``_``; raises InvalidName."""
    if len(subjects.client_id(text)) > _MAX_CLIENT_ID:
        raise InvalidName("client id", text, f"longer than {_MAX_CLIENT_ID} characters")
    return text


def labels(given: Mapping[str, str] | None) -> dict[str, str]:
    """Return labels, by name; raises InvalidOption unless they are strings."""
    found = string_map("labels", {} if given is None else given)
    if "" in found:
        raise InvalidOption("labels", "a name must be a non-empty string", found)
    return found


def command_id(text: str) -> str:
    """Return the id of a command: letters, digits, ``-`` and ``_``; raises InvalidName."""
    try:
        return subjects.client_id(text)
    except InvalidName as exc:
        raise InvalidName("command id", text, exc.reason) from None


def new_batch_id(at: datetime) -> str:
    """Return the id of a batch that is made at an instant, which it tells: a UUID of version 7 (RFC 9562)."""
    digits = f"{int(at.timestamp() * 1000):012x}"
    return f"{digits[:8]}-{digits[8:]}-7{new_id()[15:]}"


def batch_made_at(batch_id: str) -> datetime | None:
    """Return when a batch was made, None when its id does not tell."""
    try:
        number = uuid.UUID(batch_id)
        return datetime.fromtimestamp((number.int >> 80) / 1000, timezone.utc) if number.version == 7 else None
    except ValueError:  # no UUID, or one of a year that there is not
        return None


def streams(options: StoreOptions) -> list[dict[str, Any]]:
    """Return the configurations of all streams, in the order in which they are to be made."""
    common = {"storage": options.storage, "num_replicas": options.replicas, "allow_direct": True, "deny_delete": True}
    # No roll-ups: with them one agent could erase the others' messages. Purges are denied for the same reason. Message
    # ids are shared by a whole stream, so one writer could suppress another's message: the window is short.
    common |= {"allow_rollup_hdrs": False, "deny_purge": True, "duplicate_window": _SECOND // 10}
    # The server caps a stream at 1,000 consumers by default, and each agent has one of its own.
    many_consumers = {"max_consumers": 100_000}
    kept, audited = round(options.retention * _SECOND), round(options.audit_retention * _SECOND)
    # Full, they refuse what comes: what was acknowledged must not make room for it.
    kept_whole = {**common, "discard": "new"}
    return [
        {"name": REQUESTS, "subjects": ["ll.commands.*.*"], "max_age": kept, **kept_whole, **many_consumers},
        {
            "name": STATUS,
            "subjects": [f"{_STATUS_PREFIX}*.*", SWEPT],
            "max_msgs_per_subject": 16,
            "max_age": kept,
            "republish": {"src": f"{_STATUS_PREFIX}*.*", "dest": "ll.status.{{wildcard(1)}}.{{wildcard(2)}}"},
            **kept_whole,
        },
        {
            "name": AGENTS,
            "subjects": [f"$KV.{AGENTS_BUCKET}.*"],
            "max_msgs_per_subject": 1,
            "max_age": round(options.presence_age * _SECOND),
            "max_msg_size": _PRESENCE_MESSAGE_BYTES,
            **kept_whole,
        },
        {
            # Published without waiting for an acknowledgement; small and soon worthless, so the oldest goes first.
            "name": PROGRESS,
            "subjects": [PROGRESS_EVENTS],
            "max_msgs_per_subject": 1,
            "max_age": kept,
            "max_msg_size": _PROGRESS_MESSAGE_BYTES,
            "discard": "old",
            "allow_msg_ttl": True,
            **common,
        },
        {
            "name": AUDIT,
            "sources": [{"name": REQUESTS}, {"name": STATUS}],
            "max_age": audited,
            "discard": "old",
            **common,
        },
    ]


def share(stream: str, max_bytes: int) -> int:
    """Return how many bytes of all that the streams may hold together one may hold."""
    return max_bytes * _SHARES[stream] // _PARTS


# What makes a stream that exists another than ours, whatever its sizes and ages are.
_MATTERS = (
    "subjects",
    "retention",
    "max_msgs",
    "max_msgs_per_subject",
    "discard",
    "allow_direct",
    "allow_rollup_hdrs",
    "deny_delete",
    "deny_purge",
    "mirror",
)
_DEFAULTS: dict[str, Any] = {"retention": "limits", "max_msgs": -1, "max_msgs_per_subject": -1, "subjects": []}


def difference(wanted: dict[str, Any], found: dict[str, Any]) -> str:
    """Return in what a stream that exists is another than the one wanted, empty where that does not matter."""
    apart = []
    for setting in _MATTERS:
        default = _DEFAULTS.get(setting)
        ours, theirs = wanted.get(setting, default) or default, found.get(setting, default) or default
        if isinstance(ours, list) and isinstance(theirs, list):
            ours, theirs = sorted(ours, key=str), sorted(theirs, key=str)
        if ours != theirs:
            apart.append(f"{setting} is {theirs!r}, not {ours!r}")
    apart += [
        f"it has {'no' if wanted.get(setting) else 'a setting for'} {setting}"
        for setting in ("sources", "republish")
        if bool(wanted.get(setting)) != bool(found.get(setting))
    ]
    return "; ".join(apart)


def as_made(options: StoreOptions, stream: str, config: StreamConfig) -> StoreOptions:
    """Return the options with what a stream that exists, with this configuration, was made for."""
    age = config.max_age / _SECOND
    if stream == AGENTS and age:
        return attrs.evolve(options, heartbeat=max(age / _HEARTBEATS, _LEAST_HEARTBEAT))
    if stream == REQUESTS:
        return attrs.evolve(options, retention=max(age, _LEAST_RETENTION) if age else LONGEST)
    return options


def consumer_request(client_id: str, options: StoreOptions) -> tuple[str, dict[str, Any]]:
    """Return the API subject and the request that make an agent's consumer; one that exists stays as it is.

    It never gives up on a command (max_deliver -1).
    """
    name = consumer_name(client_id)
    config = {
        "name": name,
        "durable_name": name,
        "filter_subject": f"ll.commands.{client_id}.*",
        "ack_policy": "explicit",
        "ack_wait": round(options.ack_wait * _SECOND),
        "deliver_policy": "all",
        "max_deliver": -1,
        # One that nobody pulls from is gone when what it could deliver is; an agent's own is made again by a manager.
        "inactive_threshold": round(options.retention * _SECOND),
        "max_ack_pending": 4096,
        "replay_policy": "instant",
    }
    subject = f"CONSUMER.CREATE.{REQUESTS}.{name}.{config['filter_subject']}"
    return subject, {"stream_name": REQUESTS, "config": config, "action": "create"}
