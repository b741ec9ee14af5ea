"""What is known of a stored file, for the user and on the wire (ADR-20)."""

from __future__ import annotations

import base64
import binascii
import mimetypes
import os
import uuid
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import attrs
import msgspec

from lightlink.errors import FileCorrupt, InvalidOption
from lightlink.jetstream.answers import bucket_facts
from lightlink.protocol import codec, html, subjects
from lightlink.protocol.ids import new_id

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lightlink.jetstream.answers import StreamInfo

# Where our own facts are kept in an object's metadata, beside the user's.
NAME_KEY = "file_name"
TYPE_KEY = "content_type"

_DIGEST = "SHA-256="
_NUID_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_NUID_LENGTH = 22


@attrs.frozen
class FileInfo:
    """A stored file: ``size`` in bytes, ``created`` in UTC, ``digest`` as ``SHA-256=<base64url>``.

    ``name`` is the file's own name, which need not be unique; ``id`` is. ``metadata`` are the uploader's own pairs of
    text. ``sender`` is the name of the client that sent it, where it was announced, otherwise empty, and ``headers``
    are what it sent along.
    """

    id: str
    name: str
    size: int
    digest: str
    chunks: int
    created: datetime
    content_type: str | None = None
    metadata: dict[str, str] = attrs.field(factory=dict, hash=False)
    sender: str = ""
    headers: dict[str, str] = attrs.field(factory=dict, hash=False, eq=False, repr=False)

    def _repr_html_(self) -> str:
        """Return how a notebook shows it."""
        return html.facts(self.name or self.id, attrs.asdict(self))


class ObjectLink(msgspec.Struct):
    """Another object that an object stands for; without a name, another bucket."""

    bucket: str = ""
    name: str | None = None

    def __post_init__(self) -> None:
        """Refuse, as it is decoded, a bucket that could not be one."""
        if not subjects.is_plain_token(self.bucket):
            raise ValueError(f"a link to the bucket {self.bucket[:64]!r}")


class ObjectOptions(msgspec.Struct):
    """How an object is stored."""

    max_chunk_size: int | None = None
    link: ObjectLink | None = None


class ObjectMeta(msgspec.Struct):
    """The body of an object's meta message, as any client writes it."""

    name: str
    bucket: str = ""
    nuid: str = ""
    size: int | None = None
    chunks: int | None = None
    digest: str | None = None
    deleted: bool | None = None
    description: str | None = None
    metadata: dict[str, Any] | None = None
    headers: Any = None
    options: ObjectOptions | None = None

    def __post_init__(self) -> None:
        """Refuse, as it is decoded, an id of chunks that would be more than one token of a subject.

        Anyone who may write to the bucket chooses it, and it becomes part of subjects that are read and purged.
        """
        if self.nuid and not subjects.is_plain_token(self.nuid):
            raise ValueError(f"chunks under {self.nuid[:64]!r}, which is not one token of a subject")

    @property
    def has_chunks(self) -> bool:
        """Whether there may be chunks of it: a link has none, nor has what other clients describe without an id."""
        return bool(self.nuid) and self.link is None

    @property
    def link(self) -> ObjectLink | None:
        """What it stands for, if it has no content of its own."""
        return self.options.link if self.options is not None else None

    @property
    def chunk_size(self) -> int:
        """How many bytes are in each chunk but the last, as far as that is known; at least 1."""
        told = self.options.max_chunk_size if self.options is not None else None
        return max(told or (self.size or 0) // max(self.chunks or 1, 1), 1)

    def as_deleted(self) -> ObjectMeta:
        """Return the description of the object once it is deleted."""
        return msgspec.structs.replace(self, deleted=True, size=0, chunks=0, digest=None)

    def encode(self) -> bytes:
        """Return the body; what is absent is left out, but for the numbers, which every client wants."""
        fields = {name: value for name, value in msgspec.structs.asdict(self).items() if value not in (None, {}, "")}
        if self.options is not None:
            options = msgspec.structs.asdict(self.options)
            fields["options"] = {name: value for name, value in options.items() if value is not None}
        fields |= {"size": self.size or 0, "chunks": self.chunks or 0}
        # ADR-20 does not store the time, but clients that cannot ask for the message's show this.
        fields["mtime"] = datetime.now(timezone.utc).isoformat().replace("+00:00", "Z")
        return codec.encode_json(fields, f"the description of file {self.name!r}")

    def to_info(self, created: datetime) -> FileInfo:
        """Return what the user gets to know; of an object put by another client, its own name is the file's name."""
        metadata = {key: value for key, value in (self.metadata or {}).items() if isinstance(value, str)}
        name = metadata.pop(NAME_KEY, None) or (self.description if _is_uuid(self.name) else None) or self.name
        content_type = metadata.pop(TYPE_KEY, None)
        size, chunks, digest = self.size or 0, self.chunks or 0, self.digest or ""
        return FileInfo(self.name, name, size, digest, chunks, created, content_type, metadata)

    def check_digest(self, digest: bytes) -> None:
        """Raise FileCorrupt unless the SHA-256 of what was read is what was stored; without one all is well."""
        if not self.digest:
            return
        kind, _, encoded = self.digest.partition("=")
        try:
            stored = base64.urlsafe_b64decode(encoded.rstrip("=") + "=" * (-len(encoded.rstrip("=")) % 4))
        except (binascii.Error, ValueError):
            stored = b""
        if kind.upper() != "SHA-256" or not stored:
            raise FileCorrupt(self.name, f"its digest cannot be read: {self.digest[:80]!r}")
        if stored != digest:
            raise FileCorrupt(self.name, f"its SHA-256 is {encode_digest(digest)[len(_DIGEST) :]}, not {encoded}")


def new_meta(
    name: str, content_type: str | None, metadata: Mapping[str, str] | None, chunk_size: int, bucket: str
) -> ObjectMeta:
    """Return the description of a new object; raises InvalidOption."""
    for option, text in (("name", name), ("content_type", content_type)):
        if text is not None and not _is_text(text):
            raise InvalidOption(option, "must be text", text)
    pairs = _checked_metadata(metadata)
    if name:
        pairs[NAME_KEY] = name
    content_type = content_type or mimetypes.guess_type(name)[0]
    if content_type:
        pairs[TYPE_KEY] = content_type
    meta = ObjectMeta(new_id(), bucket, new_nuid())
    meta.description, meta.metadata, meta.options = name, pairs, ObjectOptions(chunk_size)
    return meta


def encode_digest(digest: bytes) -> str:
    """Return a SHA-256 as ADR-20 writes it."""
    return _DIGEST + base64.urlsafe_b64encode(digest).decode()


def new_nuid() -> str:
    """Return the id of an object's chunks: 22 random letters and digits."""
    return "".join(_NUID_ALPHABET[byte % len(_NUID_ALPHABET)] for byte in os.urandom(_NUID_LENGTH))


def _checked_metadata(metadata: Mapping[str, str] | None) -> dict[str, str]:
    """Return the user's pairs; raises InvalidOption unless all are text and none takes the place of ours."""
    if not hasattr(metadata or {}, "items"):
        raise InvalidOption("metadata", "must map text to text", type(metadata).__name__)
    pairs = dict(metadata or {})
    for key, value in pairs.items():
        if not _is_text(key) or not _is_text(value):
            raise InvalidOption("metadata", "must map text to text", {key: value})
        if key in (NAME_KEY, TYPE_KEY):
            raise InvalidOption("metadata", "has an argument of its own, name= or content_type=", key)
    return pairs


def _is_text(value: Any) -> bool:
    """Tell whether a value is text that can be written as UTF-8."""
    if not isinstance(value, str):
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_uuid(text: str) -> bool:
    try:
        return str(uuid.UUID(text)) == text.lower()
    except ValueError:
        return False


@attrs.frozen(kw_only=True)
class FileStoreInfo:
    """A bucket of files as it is: how it was made, and what it holds.

    Times in seconds, None for no limit; sizes in bytes. ``messages`` counts chunks and descriptions.
    """

    name: str
    messages: int
    bytes: int
    ttl: float | None
    storage: str
    replicas: int
    max_bytes: int | None
    compression: bool
    description: str
    metadata: dict[str, str]

    @classmethod
    def of(cls, info: StreamInfo) -> FileStoreInfo:
        """Return what the server's answer says of a bucket."""
        return cls(**bucket_facts(info, subjects.FILES_STREAMS))
