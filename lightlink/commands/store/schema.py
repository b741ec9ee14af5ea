"""The streams, buckets and subjects that hold commands. JetStream holds everything; each fact is written once."""

from __future__ import annotations

import uuid
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import attrs

from lightlink.errors import InvalidName, InvalidOption
from lightlink.protocol import subjects
from lightlink.protocol.ids import new_id
from lightlink.validators import field, integer, seconds, string_map

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lightlink.jetstream.answers import StreamConfig

_SECOND = 1_000_000_000
_PRESENCE_MESSAGE_BYTES = 64 * 1024
_PROGRESS_MESSAGE_BYTES = 32 * 1024
# Of all that the streams may hold together, in eighteenths.
_SHARES = {
    subjects.COMMANDS_STREAM: 5,
    subjects.STATUS_STREAM: 5,
    subjects.AUDIT_STREAM: 4,
    subjects.AGENTS_STREAM: 1,
    subjects.PROGRESS_STREAM: 1,
    subjects.RUNS_STREAM: 1,
    subjects.PLANS_STREAM: 1,
}
STREAMS = tuple(_SHARES)
_PARTS = sum(_SHARES.values())
LEAST_BYTES = 1024 * 1024
_HEARTBEATS = 3  # so many may be missed
_MAX_CLIENT_ID = 200  # the name of its consumer is longer, and NATS takes 255
_DAY = 86_400.0
_LEAST_RETENTION = 1.0
_LEAST_HEARTBEAT = 0.05
LONGEST = 100 * 365 * _DAY  # the server counts in nanoseconds, and in 64 bits
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
        {
            "name": subjects.COMMANDS_STREAM,
            "subjects": [subjects.command_request("*", "*")],
            "max_age": kept,
            **kept_whole,
            **many_consumers,
        },
        {
            "name": subjects.STATUS_STREAM,
            "subjects": [subjects.command_status("*", "*"), subjects.SWEPT],
            "max_msgs_per_subject": 16,
            "max_age": kept,
            "republish": {
                "src": subjects.command_status("*", "*"),
                "dest": subjects.command_status_event("{{wildcard(1)}}", "{{wildcard(2)}}"),
            },
            **kept_whole,
        },
        {
            "name": subjects.AGENTS_STREAM,
            "subjects": [subjects.agent_presence("*")],
            "max_msgs_per_subject": 1,
            "max_age": round(options.presence_age * _SECOND),
            "max_msg_size": _PRESENCE_MESSAGE_BYTES,
            **kept_whole,
        },
        {
            # Published without waiting for an acknowledgement; small and soon worthless, so the oldest goes first.
            "name": subjects.PROGRESS_STREAM,
            "subjects": [subjects.command_progress("*", "*")],
            "max_msgs_per_subject": 1,
            "max_age": kept,
            "max_msg_size": _PROGRESS_MESSAGE_BYTES,
            "discard": "old",
            "allow_msg_ttl": True,
            **common,
        },
        {
            "name": subjects.AUDIT_STREAM,
            "sources": [{"name": subjects.COMMANDS_STREAM}, {"name": subjects.STATUS_STREAM}],
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
    if stream == subjects.AGENTS_STREAM and age:
        return attrs.evolve(options, heartbeat=max(age / _HEARTBEATS, _LEAST_HEARTBEAT))
    if stream == subjects.COMMANDS_STREAM:
        return attrs.evolve(options, retention=max(age, _LEAST_RETENTION) if age else LONGEST)
    return options


def consumer_request(client_id: str, options: StoreOptions) -> tuple[str, dict[str, Any]]:
    """Return the API subject and the request that make an agent's consumer; one that exists stays as it is.

    It never gives up on a command (max_deliver -1).
    """
    name = subjects.agent_consumer(client_id)
    config = {
        "name": name,
        "durable_name": name,
        "filter_subject": subjects.command_request(client_id, "*"),
        "ack_policy": "explicit",
        "ack_wait": round(options.ack_wait * _SECOND),
        "deliver_policy": "all",
        "max_deliver": -1,
        # One that nobody pulls from is gone when what it could deliver is; an agent's own is made again by a manager.
        "inactive_threshold": round(options.retention * _SECOND),
        "max_ack_pending": 4096,
        "replay_policy": "instant",
    }
    subject = f"CONSUMER.CREATE.{subjects.COMMANDS_STREAM}.{name}.{config['filter_subject']}"
    return subject, {"stream_name": subjects.COMMANDS_STREAM, "config": config, "action": "create"}
