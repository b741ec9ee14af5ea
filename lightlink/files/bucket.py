"""An object store's stream, and the messages in it that describe its objects (ADR-20)."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from lightlink.errors import DecodeError, InvalidName, InvalidOption, LinkError, PayloadTooLarge, StoredFileNotFound
from lightlink.files.info import ObjectMeta
from lightlink.jetstream import api
from lightlink.jetstream.errors import STORE_FAILED, STREAM_NOT_FOUND, JetStreamError
from lightlink.jetstream.placement import check_placement
from lightlink.jetstream.read import LAST_OF_EACH, read_current
from lightlink.jetstream.retry import is_unheard, while_electing
from lightlink.protocol import codec, subjects
from lightlink.protocol.subjects import as_text
from lightlink.validators import integer, seconds, string_map

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from lightlink.connection.connection import Connection
    from lightlink.jetstream.answers import StreamInfo

# So much our own bucket holds where nobody says otherwise: a full one takes no other along.
_DEFAULT_BYTES = 4 * 1024**3
# Room for the headers of a meta message.
_HEADER_BYTES = 256


class Bucket:
    """The objects of one bucket. Methods that ask raise JetStreamError, NoReply, PermissionDenied and ClosedError."""

    def __init__(
        self,
        connection: Connection,
        name: str,
        ttl: float | None = None,
        max_bytes: int | None = None,
        replicas: int = 1,
        storage: str = "file",
        **more: Any,
    ) -> None:
        self.name = subjects.bucket_name(name)
        self.stream = subjects.files_stream(name)
        self._connection = connection
        self._config = _stream_config(name, ttl, max_bytes, replicas, storage) | _more_config(**more)
        self._create = api.create_stream if max_bytes is not None else api.create_bounded_stream
        self._made = False
        self._limited: bool | None = None

    def make(self, timeout: float) -> None:
        """Make the bucket unless it is there."""
        if self._made:
            return
        with self._needs_jetstream():
            self._create(self._connection, self._config, timeout)
        self._made = True

    def make_again(self, timeout: float) -> None:
        """Make the bucket, which may be gone since."""
        self.forget()
        self.make(timeout)

    def forget(self) -> None:
        """Make the bucket anew at the next upload: it may be gone."""
        self._made = False

    def info(self, timeout: float) -> StreamInfo | None:
        """Return what the server says of the stream, None while there is none."""
        with self._needs_jetstream():
            return api.stream_info(self._connection, self.stream, timeout)

    def destroy(self, timeout: float) -> bool:
        """Remove the bucket with all that it holds; tell whether there was one."""
        self.forget()
        try:
            with self._needs_jetstream():
                api.delete_stream(self._connection, self.stream, timeout)
        except JetStreamError as exc:
            if exc.err_code != STREAM_NOT_FOUND:
                raise
            return False
        return True

    def find(self, file_id: str, timeout: float) -> tuple[ObjectMeta, datetime]:
        """Return an object's description and when it was stored.

        Raises StoredFileNotFound, DecodeError, InvalidName.
        """
        subject = subjects.object_meta(self.name, file_id)
        try:
            with self._needs_jetstream():
                message = api.get_last_written(self._connection, self.stream, subject, timeout)
        except JetStreamError as exc:
            if exc.err_code != STREAM_NOT_FOUND:
                raise
            message = None
        if message is None:
            raise StoredFileNotFound(self.name, file_id)
        meta = codec.decode(message.data, subject, ObjectMeta)
        if meta.deleted:
            raise StoredFileNotFound(self.name, file_id)
        # What it was asked for by, and not what it says of itself.
        meta.name, meta.bucket = file_id, self.name
        return meta, message.created

    def list(self, timeout: float) -> list[tuple[ObjectMeta, datetime]]:
        """Return the descriptions of all objects, newest first; one that cannot be read goes to the error hook."""
        pattern = subjects.object_metas(self.name)
        try:
            found = read_current(self._connection, self.stream, pattern, timeout, policy=LAST_OF_EACH)
        except JetStreamError as exc:
            if exc.err_code != STREAM_NOT_FOUND:
                raise
            found = []
        listed: list[tuple[ObjectMeta, datetime]] = []
        for delivery in sorted(found, key=lambda delivery: -delivery.seq):
            try:
                meta = self._described(as_text(delivery.subject), delivery.data)
            except DecodeError as exc:
                self._connection.report(exc)
                continue
            if not meta.deleted:
                listed.append((meta, delivery.created))
        return listed

    def _described(self, subject: str, data: bytes) -> ObjectMeta:
        """Return the description on a subject; raises DecodeError, also for one of an object with another name."""
        meta = codec.decode(data, subject, ObjectMeta)
        try:
            expected = subjects.object_meta(self.name, meta.name)
        except InvalidName as exc:
            raise DecodeError(subject, str(exc), data[:64]) from None
        # Other clients leave the padding of the name's base64 away.
        if expected.rstrip("=") != subject.rstrip("="):
            raise DecodeError(subject, f"it describes another object, {meta.name[:64]!r}", data[:64])
        return meta

    def put(self, meta: ObjectMeta, timeout: float) -> None:
        """Store an object's description in place of the one before; to do so twice does no harm."""
        subject, body = subjects.object_meta(self.name, meta.name).encode(), meta.encode()
        headers = {api.ROLLUP: "sub"}
        while_electing(
            lambda limit: api.publish(self._connection, self.stream, subject, body, limit, headers),
            timeout,
            is_unheard,
            repeatable=True,
        )

    def remove(self, meta: ObjectMeta, timeout: float) -> None:
        """Put a word that an object is deleted in place of its description, for those that watch the bucket.

        In a bucket whose size is limited nothing stays of it, or deleting would fill it; neither does where it is full.
        """
        try:
            self.put(meta.as_deleted(), timeout)
        except JetStreamError as exc:
            if exc.err_code != STORE_FAILED:
                raise
        else:
            if not self._is_limited(timeout):
                return
        api.purge(self._connection, self.stream, subjects.object_meta(self.name, meta.name), timeout)

    def _is_limited(self, timeout: float) -> bool:
        if self._limited is None:
            info = api.stream_info(self._connection, self.stream, timeout)
            self._limited = info is not None and (info.config.max_bytes > 0 or info.config.max_msgs > 0)
        return self._limited

    def put_new(self, meta: ObjectMeta, timeout: float) -> None:
        """Store the description of a new object, whose chunks are there."""
        if not meta.chunks:  # then nothing has shown yet that the bucket is there
            self.make_again(timeout)
        self.put(meta, timeout)

    def check_size(self, meta: ObjectMeta) -> None:
        """Raise PayloadTooLarge for a description that would not be taken in the end."""
        size, limit = len(meta.encode()) + _HEADER_BYTES, self._connection.max_payload
        if size > limit:
            raise PayloadTooLarge(subjects.object_meta(self.name, meta.name), size, limit)

    @contextlib.contextmanager
    def _needs_jetstream(self) -> Iterator[None]:
        """Raise LinkError when there is no JetStream: waiting does not bring it."""
        try:
            yield
        except JetStreamError as exc:
            if exc.no_responders:
                raise LinkError(f"using file store {self.name!r}", exc.description) from exc
            raise


def _more_config(
    *, description: str = "", compression: bool = False, metadata: Any = None, placement: Any = None
) -> dict[str, Any]:
    for option, value, kind in (("description", description, str), ("compression", compression, bool)):
        if not isinstance(value, kind):
            raise InvalidOption(option, f"must be of type {kind.__name__}", value)
    config: dict[str, Any] = {
        "description": description,
        "compression": "s2" if compression else "",
        "metadata": string_map("metadata", metadata or {}),
        "placement": check_placement(placement),
    }
    return {name: value for name, value in config.items() if value}


def _stream_config(
    bucket: str, ttl: float | None, max_bytes: int | None, replicas: int, storage: str
) -> dict[str, Any]:
    for option, number in (("replicas", replicas), ("max_bytes", max_bytes)):
        if number is not None:
            integer(option, number)
    if storage not in ("file", "memory"):
        raise InvalidOption("storage", "must be 'file' or 'memory'", storage)
    return {
        "name": subjects.files_stream(bucket),
        "description": "files of LightLink",
        "subjects": [subjects.all_chunks(bucket), subjects.object_metas(bucket)],
        "retention": "limits",
        "storage": storage,
        "num_replicas": replicas,
        "max_age": 0 if ttl is None else api.nanoseconds(seconds("ttl", ttl)),
        "max_bytes": max_bytes or (_DEFAULT_BYTES if bucket == subjects.FILES_BUCKET else -1),
        "discard": "new",
        "allow_rollup_hdrs": True,
        "allow_direct": True,
    }
