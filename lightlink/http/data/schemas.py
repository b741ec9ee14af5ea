"""What requests and replies about services, streams, state and files are made of."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

import attrs
from msgspec import UNSET, Meta, UnsetType

from lightlink.http.schemas import Count

_MOST = 1_000_000_000_000
BucketName = Annotated[str, Meta(pattern="^[A-Za-z0-9_-]+$", max_length=200, description="The name of a bucket.")]
Subject = Annotated[str, Meta(min_length=1, max_length=512, description="A subject; it may hold wildcards.")]
Number = Annotated[int, Meta(ge=1, le=_MOST)]
Limit = Annotated[int, Meta(ge=1, le=1000, description="How many at most.")]


# Requests -------------------------------------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class CallMethod:
    """A call of a service's method."""

    arguments: Annotated[dict[str, Any], Meta(description="The arguments by name.")] = attrs.Factory(dict)
    timeout: Annotated[float, Meta(gt=0, le=60, description="Seconds to wait for the answer.")] = 10.0


@attrs.frozen(kw_only=True)
class PublishEvent:
    """An event to publish."""

    subject: Annotated[str, Meta(min_length=1, max_length=512, description="Where to; without wildcards.")]
    data: Annotated[Any, Meta(description="Any JSON.")] = None


@attrs.frozen(kw_only=True)
class TailQuery:
    """Which events to show as they pass."""

    subject: Subject = ">"


@attrs.frozen(kw_only=True)
class DeadLetterAt:
    """Which dead letter."""

    stream: Annotated[str, Meta(pattern="^[A-Za-z0-9_-]+$", max_length=200)]
    consumer: Annotated[str, Meta(pattern="^[A-Za-z0-9_-]+$", max_length=200)]
    number: Number


@attrs.frozen(kw_only=True)
class KeysQuery:
    """Which keys to list."""

    pattern: Annotated[str, Meta(min_length=1, max_length=512, description="`*` is a token, `>` the rest.")] = ">"
    limit: Limit = 100
    skip: Annotated[int, Meta(ge=0, le=1_000_000)] = 0


@attrs.frozen(kw_only=True)
class WriteValue:
    """A value, based on the revision that was looked at; 0: the key has none."""

    value: Annotated[Any, Meta(description="Any JSON.")] = None
    revision: Annotated[int, Meta(ge=0, le=_MOST)]


@attrs.frozen(kw_only=True)
class RevisionQuery:
    """The revision that was looked at."""

    revision: Annotated[int, Meta(ge=1, le=_MOST)] | UnsetType = UNSET


@attrs.frozen(kw_only=True)
class FileQuery:
    """Which bucket the files are in."""

    bucket: BucketName | UnsetType = UNSET


@attrs.frozen(kw_only=True)
class UploadQuery:
    """A file's own name, and its bucket."""

    name: Annotated[str, Meta(min_length=1, max_length=255)]
    bucket: BucketName | UnsetType = UNSET


# Replies --------------------------------------------------------------------------------------------------------------


@attrs.frozen(kw_only=True, slots=False)
class Answered:
    """What a method has returned, and how long that took in seconds."""

    success: Literal[True] = True
    result: Any
    seconds: float


@attrs.frozen(kw_only=True, slots=False)
class Done:
    """It is done."""

    success: Literal[True] = True


@attrs.frozen(kw_only=True, slots=False)
class ConsumerView:
    """How far a consumer is behind."""

    name: str
    waiting: Count
    in_flight: Count
    retried: Count
    paused: bool
    oldest: float | UnsetType = UNSET


@attrs.frozen(kw_only=True, slots=False)
class StreamView:
    """A stream and its consumers; ``max_bytes`` is left out where there is no limit."""

    name: str
    subjects: list[str]
    messages: Count
    bytes: Count
    max_bytes: Count | UnsetType = UNSET
    consumers: list[ConsumerView]


@attrs.frozen(kw_only=True, slots=False)
class StreamList:
    """The streams of events, by name."""

    success: Literal[True] = True
    streams: list[StreamView]


@attrs.frozen(kw_only=True, slots=False)
class DeadLetterView:
    """An event that a consumer could not handle. What is not JSON is ``text``."""

    number: int
    stream: str
    consumer: str
    subject: str
    attempts: Count
    error: str
    at: datetime
    data: Any = UNSET
    text: str | UnsetType = UNSET


@attrs.frozen(kw_only=True, slots=False)
class DeadLetterList:
    """Dead letters of all consumers, oldest first; ``complete`` says whether that is all."""

    success: Literal[True] = True
    complete: bool
    letters: list[DeadLetterView]


@attrs.frozen(kw_only=True, slots=False)
class BucketView:
    """A bucket: how many ``values`` it stores, older ones of its keys among them."""

    name: str
    values: Count
    bytes: Count


@attrs.frozen(kw_only=True, slots=False)
class BucketList:
    """Buckets, by name."""

    success: Literal[True] = True
    buckets: list[BucketView]


@attrs.frozen(kw_only=True, slots=False)
class KeyList:
    """Keys of a bucket that have a value, sorted; ``total`` is how many match."""

    success: Literal[True] = True
    total: Count
    keys: list[str]


@attrs.frozen(kw_only=True, slots=False)
class RevisionView:
    """A value as it was written, or that it was removed. What is not JSON is ``text``."""

    revision: int
    operation: Literal["put", "delete", "purge"]
    at: datetime
    value: Any = UNSET
    text: str | UnsetType = UNSET


@attrs.frozen(kw_only=True, slots=False)
class KeyView:
    """A key: its revisions, newest first."""

    success: Literal[True] = True
    key: str
    revisions: list[RevisionView]


@attrs.frozen(kw_only=True, slots=False)
class Written:
    """The revision that was written."""

    success: Literal[True] = True
    revision: int


@attrs.frozen(kw_only=True, slots=False)
class FileView:
    """A stored file."""

    id: str
    name: str
    size: Count
    digest: str
    content_type: str
    created: datetime
    metadata: dict[str, str]


@attrs.frozen(kw_only=True, slots=False)
class FileList:
    """Files of a bucket, newest first, and the buckets that there are; ``total`` is how many files."""

    success: Literal[True] = True
    bucket: str
    buckets: list[str]
    total: Count
    files: list[FileView]


@attrs.frozen(kw_only=True, slots=False)
class OneFile:
    """A stored file."""

    success: Literal[True] = True
    file: FileView
