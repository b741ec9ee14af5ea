"""What a bucket is made with, and the stream configuration that says so (ADR-8, ADR-43, ADR-48)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import attrs

from lightlink.errors import InvalidOption
from lightlink.jetstream.answers import bucket_facts
from lightlink.jetstream.api import nanoseconds
from lightlink.jetstream.placement import check_placement
from lightlink.protocol import subjects
from lightlink.validators import FOR_EVER, field, integer, string_map

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lightlink.jetstream.answers import StreamInfo


MAX_HISTORY = 64
MAX_REPLICAS = 5
# The server takes no shorter life for one message.
MIN_TTL_SECONDS = 1.0
_DUPLICATE_WINDOW_SECONDS = 120.0
# So much our own buckets hold where nobody says otherwise: a full one takes no other along.
_DEFAULT_BYTES = {
    subjects.STATE_BUCKET: 1024**3,
    subjects.LOCKS_BUCKET: 16 * 1024**2,
    subjects.FLEET_BUCKET: 128 * 1024**2,
}


def _whole(least: int, most: int | None = None) -> Any:
    def check(_: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
        if value is None and attribute.default is None:
            return
        integer(attribute.name, value, least, most)

    return check


def _seconds(least: float) -> Any:
    def check(_: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
        if value is not None:
            check_seconds(attribute.name, value, least)

    return check


def check_seconds(name: str, value: Any, least: float) -> float:
    """Return a number of seconds; raises InvalidOption unless the server can hold it and it is at least ``least``."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value <= FOR_EVER:
        raise InvalidOption(name, f"must be a number of seconds, from {least:g} to {FOR_EVER:g}", value)
    return float(value)


def _of(kind: type) -> Any:
    def check(_: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
        if not isinstance(value, kind):
            raise InvalidOption(attribute.name, f"must be of type {kind.__name__}", value)

    return check


def _storage(_: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
    if value not in ("file", "memory"):
        raise InvalidOption(attribute.name, "must be 'file' or 'memory'", value)


def _placement(_: Any, __: Any, value: Any) -> None:
    check_placement(value)


def _republish(_: Any, __: Any, value: Any) -> None:
    if value is None:
        return
    subjects.publish_subject(value)
    if value.startswith("$"):
        raise InvalidOption("republish", "must not begin with $, which NATS uses itself", value)


@attrs.frozen(kw_only=True)
class BucketOptions:
    """How a bucket is made when it is not there yet; one that is there stays as it is.

    ``history`` is how many values of a key are kept (1 to 64), ``ttl`` how many seconds each value lives, ``storage``
    ``"file"`` or ``"memory"``, on ``replicas`` servers. ``max_value_size`` and ``max_bytes`` (of the whole bucket) are
    in bytes. A full bucket refuses what comes. By default only LightLink's own buckets have a bound,
    ``light_link_state`` one of 1 GiB, or of less where the server has less.
    ``marker_ttl`` makes the server leave a marker for that many seconds where a value's time ran out, so that
    watches hear of it, and lets those of deleted keys go as soon; a value's own ``ttl`` is raised to it. In a bucket
    with a bound they stay for a day otherwise.
    ``compression`` has the server compress the files, ``metadata`` is kept with the bucket. ``placement`` names the
    cluster (``{"cluster": "east"}``) or tags (``{"tags": ["ssd"]}``) of the servers. What is stored is also published
    below ``republish``, as ``<republish>.<key>``, for plain subscribers.
    ``purgeable`` allows roll-ups, which `StateBucket.purge` and other NATS tools need. With it any identity that may
    write one key can erase the whole bucket by a header:
    turn it off where writers do not trust each other.
    """

    history: int = attrs.field(default=1, validator=_whole(1, MAX_HISTORY))
    ttl: float | None = attrs.field(default=None, validator=_seconds(0.1))
    replicas: int = attrs.field(default=1, validator=_whole(1, MAX_REPLICAS))
    storage: Literal["file", "memory"] = attrs.field(default="file", validator=_storage)
    max_value_size: int | None = attrs.field(default=None, validator=_whole(1))
    max_bytes: int | None = attrs.field(default=None, validator=_whole(1))
    marker_ttl: float | None = attrs.field(default=None, validator=_seconds(MIN_TTL_SECONDS))
    purgeable: bool = attrs.field(default=True, validator=_of(bool))
    description: str = attrs.field(default="", validator=_of(str))
    compression: bool = attrs.field(default=False, validator=_of(bool))
    metadata: Mapping[str, str] = attrs.field(factory=dict, validator=field(string_map))
    placement: Mapping[str, Any] | None = attrs.field(default=None, validator=_placement)
    republish: str | None = attrs.field(default=None, validator=_republish)

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> BucketOptions:
        """Return options from arguments by name; raises InvalidOption."""
        unknown = settings.keys() - {field.name for field in attrs.fields(cls)}
        if unknown:
            raise InvalidOption(", ".join(sorted(unknown)), "no such setting of a bucket")
        return cls(**settings)

    def stream_config(self, bucket: str) -> dict[str, Any]:
        """Return the configuration of the stream behind the bucket, as any ADR-8 client would make it."""
        window = min(_DUPLICATE_WINDOW_SECONDS, self.ttl or _DUPLICATE_WINDOW_SECONDS)
        config: dict[str, Any] = {
            "name": subjects.state_stream(bucket),
            "description": self.description,
            "subjects": [f"{subjects.state_keys(bucket)}>"],
            "retention": "limits",
            "discard": "new",
            "storage": self.storage,
            "num_replicas": self.replicas,
            "max_msgs_per_subject": self.history,
            "max_age": nanoseconds(self.ttl or 0),
            "max_bytes": self.max_bytes or _DEFAULT_BYTES.get(bucket, -1),
            "max_msg_size": self.max_value_size or -1,
            "max_msgs": -1,
            "max_consumers": -1,
            "duplicate_window": nanoseconds(window),
            "allow_direct": True,
            "allow_rollup_hdrs": self.purgeable,
            "deny_delete": True,
            "allow_msg_ttl": True,
        }
        if self.compression:
            config["compression"] = "s2"
        if self.metadata:
            config["metadata"] = dict(self.metadata)
        if self.placement is not None:
            config["placement"] = dict(self.placement)
        if self.republish is not None:
            config["republish"] = {"src": f"{subjects.state_keys(bucket)}>", "dest": f"{self.republish}.>"}
        if self.marker_ttl is not None:
            config["subject_delete_marker_ttl"] = nanoseconds(self.marker_ttl)
        return config


@attrs.frozen(kw_only=True)
class BucketInfo:
    """A bucket as it is: how it was made, and what it holds. Times in seconds, None for no limit; sizes in bytes.

    ``messages`` counts values, those of the history and markers of deleted keys too.
    """

    name: str
    messages: int
    bytes: int
    history: int
    ttl: float | None
    storage: str
    replicas: int
    max_bytes: int | None
    max_value_size: int | None
    compression: bool
    description: str
    metadata: dict[str, str]
    mirror: str | None

    @classmethod
    def of(cls, info: StreamInfo) -> BucketInfo:
        """Return what the server's answer says of a bucket."""
        config = info.config
        return cls(
            **bucket_facts(info, subjects.STATE_STREAMS),
            history=max(config.max_msgs_per_subject, 1),
            max_value_size=config.max_msg_size if config.max_msg_size > 0 else None,
            mirror=config.mirror.name.removeprefix(subjects.STATE_STREAMS) if config.mirror else None,
        )
