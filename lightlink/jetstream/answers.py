"""What JetStream's API answers, checked where it is decoded (ADR-31 and the API's schemas).

Where JetStream is not there, or in another account, somebody else may answer in its name.
"""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

import msgspec

from lightlink.protocol import subjects


class External(msgspec.Struct):
    """Where a mirrored stream is that is not in this account."""

    api: str = ""

    def __post_init__(self) -> None:
        """Refuse, as it is decoded, what could not stand before a subject."""
        if self.api and not all(map(subjects.is_plain_token, self.api.split("."))):
            raise ValueError(f"an API below {self.api[:64]!r}")


class Mirror(msgspec.Struct):
    """The stream of which another is a copy."""

    name: str = ""
    external: External | None = None


class StreamConfig(msgspec.Struct):
    """What of a stream's configuration is looked at by name; durations in nanoseconds."""

    subjects: list[str] | None = None
    name: str = ""
    description: str = ""
    storage: str = "file"
    compression: str = ""
    metadata: dict[str, str] | None = None
    mirror: Mirror | None = None
    num_replicas: int = 1
    max_age: int = 0
    max_bytes: int = -1
    max_msgs: int = -1
    max_msg_size: int = -1
    max_msgs_per_subject: int = -1
    allow_msg_ttl: bool = False
    allow_atomic: bool = False
    subject_delete_marker_ttl: int = 0
    duplicate_window: int = 0


class StreamState(msgspec.Struct):
    """What a stream holds; ``subjects`` counts messages by subject, where that was asked."""

    messages: int = 0
    bytes: int = 0
    first_seq: int = 0
    last_seq: int = 0
    subjects: dict[str, int] | None = None

    def messages_in(self, size: int) -> int:
        """Return about how many of its messages are ``size`` bytes together, at least one."""
        return max(size * self.messages // self.bytes, 1) if self.bytes > 0 else size


class StreamInfo(msgspec.Struct):
    """What the server says of a stream."""

    config: StreamConfig = msgspec.field(default_factory=StreamConfig)
    state: StreamState = msgspec.field(default_factory=StreamState)
    created: str = ""
    ts: str = ""
    total: int = 0

    def __post_init__(self) -> None:
        """Refuse a malformed time while decoding."""
        _ = self.told_at

    @property
    def told_at(self) -> datetime | None:
        """When the server said so, by its clock; None where it does not tell."""
        return parse_time(self.ts) if self.ts else None


def bucket_facts(info: StreamInfo, prefix: str) -> dict[str, Any]:
    """Return what buckets of state and of files both tell of their stream, whose name begins with ``prefix``.

    Times in seconds, None for no limit; sizes in bytes.
    """
    config = info.config
    return {
        "name": config.name.removeprefix(prefix),
        "messages": info.state.messages,
        "bytes": info.state.bytes,
        "ttl": config.max_age / 1e9 or None,
        "storage": config.storage,
        "replicas": config.num_replicas,
        "max_bytes": config.max_bytes if config.max_bytes > 0 else None,
        "compression": config.compression not in ("", "none"),
        "description": config.description,
        "metadata": dict(config.metadata or {}),
    }


class StreamPage(msgspec.Struct):
    """A page of streams."""

    total: int = 0
    streams: list[StreamInfo] | None = None


class RawStreamInfo(msgspec.Struct):
    """A stream's whole configuration as the server wrote it, to be sent back with changes."""

    config: dict[str, Any] = {}


class Progress(msgspec.Struct):
    """How far a consumer has come, in numbers of deliveries and of the stream."""

    consumer_seq: int = 0
    stream_seq: int = 0


class ConsumerConfig(msgspec.Struct):
    """What of a consumer's configuration is looked at; durations in nanoseconds."""

    ack_wait: int = 0
    ack_policy: str = ""
    deliver_policy: str = "all"
    opt_start_seq: int = 0
    opt_start_time: str = ""
    max_ack_pending: int = 0
    deliver_subject: str = ""
    max_deliver: int = -1
    backoff: list[int] | None = None
    filter_subject: str = ""
    filter_subjects: list[str] | None = None
    max_batch: int = 0  # of a pull request; 0: no limit
    max_bytes: int = 0


class StreamNames(msgspec.Struct):
    """A page of names of streams."""

    streams: list[str] | None = None
    total: int = 0


class ConsumerNames(msgspec.Struct):
    """A page of the names of a stream's consumers."""

    consumers: list[str] | None = None
    total: int = 0


class ConsumerInfo(msgspec.Struct):
    """What the server says of a consumer."""

    config: ConsumerConfig = msgspec.field(default_factory=ConsumerConfig)
    num_pending: int = 0
    num_ack_pending: int = 0
    num_redelivered: int = 0
    num_waiting: int = 0
    delivered: Progress = msgspec.field(default_factory=Progress)
    ack_floor: Progress = msgspec.field(default_factory=Progress)
    paused: bool = False
    ts: str = ""

    def __post_init__(self) -> None:
        """Refuse a malformed time while decoding."""
        _ = self.told_at

    @property
    def told_at(self) -> datetime | None:
        """When the server said so, by its clock; None where it does not tell."""
        return parse_time(self.ts) if self.ts else None


class PurgeAnswer(msgspec.Struct):
    """How many messages were removed."""

    purged: int = 0


class MessageInAnswer(msgspec.Struct):
    """A message as a stream's leader tells it (ADR-31)."""

    subject: str
    seq: int
    time: str
    hdrs: bytes = b""
    data: bytes = b""


class MessageAnswer(msgspec.Struct):
    """The answer to a question for one message."""

    message: MessageInAnswer


def parse_time(text: str) -> datetime:
    """Return an instant as the server writes it (RFC 3339 with up to nine digits), to the microsecond.

    Raises ValueError for a malformed one.
    """
    whole, _, rest = text.partition(".")
    digits = rest.rstrip("Z").partition("+")[0]
    return datetime.fromisoformat(f"{whole.rstrip('Z')}.{digits[:6]:0<6}+00:00").astimezone(timezone.utc)
