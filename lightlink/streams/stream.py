"""Streams of stored events: create or compare, inspect, purge (ADR-1)."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import attrs

from lightlink.connection.connection import NoReply
from lightlink.errors import InvalidName, InvalidOption, StreamError, StreamNotFound
from lightlink.jetstream import api
from lightlink.jetstream.errors import STREAM_NOT_FOUND, JetStreamError
from lightlink.protocol import subjects
from lightlink.streams.partitions import partitions_in, stored_subject, transform_of
from lightlink.validators import integer, seconds

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import TypeVar

    from lightlink.connection.connection import Connection

    T = TypeVar("T")

_FAILURES = (JetStreamError, NoReply, TimeoutError)
_SECOND = 1_000_000_000
_SEQUENCES = 2**64
_DEDUPLICATION = 120.0
# Settings whose difference makes `ensure` refuse an existing stream.
_COMPARED = ("subjects", "retention", "max_age", "max_bytes", "max_msgs", "num_replicas", "storage", "duplicate_window")


@attrs.frozen(kw_only=True)
class StreamInfo:
    """What a stream holds: the ``subjects`` it captures, its ``messages`` and ``bytes``, its first and last sequence.

    ``partitions`` is the number of its partitions, 0 if it is not partitioned.
    """

    name: str
    subjects: tuple[str, ...]
    messages: int
    bytes: int
    first_sequence: int
    last_sequence: int
    consumers: int
    work_queue: bool
    partitions: int = 0


def config_of(
    name: str,
    subjects_: Sequence[str],
    *,
    max_age: float | None,
    max_bytes: int | None,
    max_messages: int | None,
    replicas: int,
    storage: Literal["file", "memory"],
    work_queue: bool,
    deduplication: float,
    description: str,
    partitions: int | None,
) -> dict[str, Any]:
    """Return a stream configuration for the JetStream API; raises InvalidName, InvalidOption."""
    stream_name(name)
    if isinstance(subjects_, str) or not subjects_:
        raise InvalidOption("subjects", "must be a list of subjects, such as ['orders.>']", subjects_)
    for subject in subjects_:
        subjects.subscribe_subject(subject)
    if storage not in ("file", "memory"):
        raise InvalidOption("storage", "must be file or memory", storage)
    for option, value in (("max_bytes", max_bytes), ("max_messages", max_messages), ("replicas", replicas)):
        if value is not None:
            integer(option, value)
    age = 0.0 if max_age is None else seconds("max_age", max_age)
    window = min(seconds("deduplication", deduplication), age or deduplication)
    divided = {} if partitions is None else {"subject_transform": transform_of(subjects_, partitions)}
    return {
        "name": name,
        "description": description,
        "subjects": list(subjects_),
        "retention": "workqueue" if work_queue else "limits",
        "max_age": round(age * _SECOND),
        "max_bytes": max_bytes or -1,
        "max_msgs": max_messages or -1,
        "num_replicas": replicas,
        "storage": storage,
        "duplicate_window": round(window * _SECOND),
        "discard": "old",
        "allow_direct": True,
        **divided,
    }


def stream_name(name: str) -> str:
    """Return the name of a stream or consumer: letters, digits, ``-`` and ``_``; raises InvalidName."""
    try:
        return subjects.client_id(name)
    except InvalidName as exc:
        raise InvalidName("stream name", name, exc.reason) from None


class Stream:
    """A stream, made by `Client.stream`. Methods raise StreamError, StreamNotFound, PermissionDenied, ClosedError."""

    def __init__(self, connection: Connection, name: str, timeout: float) -> None:
        self.name = name
        self._connection = connection
        self._timeout = timeout

    def __repr__(self) -> str:
        return f"<Stream {self.name!r}>"

    def ensure(self, config: dict[str, Any], update: bool) -> None:
        """Create the stream, or compare an existing one with what is wanted; with ``update``, change it.

        Raises StreamError with the differences of an existing stream.
        """
        if self._ask("make", partial(api.create_stream, self._connection, config)):
            return
        found = self._ask("read", partial(api.stream_config, self._connection, self.name))
        divided, wanted = partitions_in(found), partitions_in(config)
        if divided != wanted:
            reason = (
                f"it has {divided or 'no'} partitions, not {wanted or 'none'}: stored events cannot be repartitioned"
            )
            raise StreamError(self.name, "use", reason)
        differences = _differences(config, found)
        if not differences:
            return
        if not update:
            raise StreamError(
                self.name, "use", f"its configuration differs: {'; '.join(differences)}; update=True changes it"
            )
        self._ask(
            "update", partial(api.api, self._connection, f"STREAM.UPDATE.{self.name}", {**(found or {}), **config})
        )

    def info(self) -> StreamInfo:
        """Return the stream's info."""
        found = self._ask("read", partial(api.stream_info, self._connection, self.name))
        if found is None:
            raise StreamNotFound(self.name)
        config = self._ask("read", partial(api.stream_config, self._connection, self.name)) or {}
        return StreamInfo(
            name=self.name,
            subjects=tuple(config.get("subjects", ())),
            messages=found.state.messages,
            bytes=config.get("bytes", 0) or found.state.bytes,
            first_sequence=found.state.first_seq,
            last_sequence=found.state.last_seq,
            consumers=len(self.consumers()),
            work_queue=config.get("retention") == "workqueue",
            partitions=partitions_in(config),
        )

    @property
    def partitions(self) -> int:
        """The number of its partitions, 0 if it is not partitioned. Asks the server."""
        return partitions_in(self._ask("read", partial(api.stream_config, self._connection, self.name)))

    def consumers(self) -> list[str]:
        """Return the names of the stream's consumers, sorted."""
        return sorted(self._ask("list the consumers of", partial(api.consumer_names, self._connection, self.name)))

    def purge(self, subject: str | None = None) -> int:
        """Purge the stored messages, or those on a subject or wildcard; return how many were removed."""
        body = None if subject is None else {"filter": self.stored(subjects.subscribe_subject(subject))}
        answer = self._ask("purge", partial(api.api, self._connection, f"STREAM.PURGE.{self.name}", body))
        return int(answer.get("purged", 0))

    def delete(self) -> None:
        """Delete the stream with its messages and consumers."""
        self._ask("delete", partial(api.api, self._connection, f"STREAM.DELETE.{self.name}", None))

    def stored(self, subject: str) -> str:
        """Return the stored subject for a subject or wildcard."""
        return stored_subject(subject) if self.partitions else subject

    def _ask(self, operation: str, question: Callable[[float], T]) -> T:
        return ask(self.name, operation, question, self._timeout)


def ask(stream: str, operation: str, question: Callable[[float], T], timeout: float) -> T:
    """Return JetStream's answer to a request about a stream; raises StreamError, StreamNotFound."""
    try:
        return question(timeout)
    except _FAILURES as exc:
        if isinstance(exc, JetStreamError) and exc.err_code == STREAM_NOT_FOUND:
            raise StreamNotFound(stream) from exc
        raise StreamError(stream, operation, str(exc)) from exc


def streams_on(connection: Connection, subject: str, timeout: float) -> list[str]:
    """Return the names of the streams that capture a subject or wildcard; all names for an empty one."""
    return ask(subject or ">", "find streams on", partial(api.stream_names, connection, subject), timeout)


def stream_of(connection: Connection, subject: str, timeout: float) -> str:
    """Return the one stream that captures a subject; raises StreamError when there is none or more than one."""
    found = streams_on(connection, subject, timeout)
    if len(found) != 1:
        reason = f"more than one stream captures it: {', '.join(found)}; name one" if found else "no stream captures it"
        raise StreamError(subject, "consume", reason)
    return found[0]


def _differences(wanted: dict[str, Any], found: dict[str, Any] | None) -> list[str]:
    found = found or {}
    apart = []
    for name in _COMPARED:
        ours, theirs = wanted[name], found.get(name)
        if name == "subjects":
            ours, theirs = sorted(ours), sorted(theirs or [])
        if ours != theirs and not (not theirs and ours in (0, -1)):
            apart.append(f"{name} is {_shown(name, theirs)}, not {_shown(name, ours)}")
    return apart


def _shown(name: str, value: Any) -> str:
    if name in ("max_age", "duplicate_window") and isinstance(value, int):
        return f"{value / _SECOND:g} s"
    return repr(value)


def start_of(since: Any) -> dict[str, Any]:
    """Return a consumer's start for first, new, a sequence, a time, or a timedelta ago; raises InvalidOption."""
    if since == "first":
        return {"deliver_policy": "all"}
    if since == "new":
        return {"deliver_policy": "new"}
    if isinstance(since, timedelta):
        since = datetime.now().astimezone() - since
    if isinstance(since, datetime):
        if since.tzinfo is None:
            raise InvalidOption("since", "must be an aware datetime", since)
        instant = since.astimezone(timezone.utc)
        # Not by strftime, which writes years before 1000 with fewer digits.
        text = instant.replace(tzinfo=None).isoformat(timespec="microseconds")
        return {"deliver_policy": "by_start_time", "opt_start_time": f"{text}Z"}
    if isinstance(since, int) and not isinstance(since, bool) and 0 < since < _SEQUENCES:
        return {"deliver_policy": "by_start_sequence", "opt_start_seq": since}
    raise InvalidOption("since", "must be first, new, a sequence, an aware datetime or a timedelta", since)
