"""Files in one bucket: put, fetched, listed and removed by blocking calls."""

from __future__ import annotations

import contextlib
import functools
import hashlib
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, TypeVar, cast

from lightlink.connection.connection import NoReply
from lightlink.errors import FileCorrupt, InvalidOption, LinkError
from lightlink.files import announce, sweep
from lightlink.files.bucket import Bucket
from lightlink.files.info import FileInfo, FileStoreInfo, ObjectMeta, encode_digest, new_meta
from lightlink.files.reader import ChunkReader
from lightlink.files.source import open_source
from lightlink.files.target import open_target
from lightlink.files.transfer import Transfer, operation
from lightlink.files.window import UploadWindow
from lightlink.files.writer import ChunkWriter, discard
from lightlink.jetstream.errors import JetStreamError
from lightlink.jetstream.retry import across_outages
from lightlink.protocol import codec, subjects
from lightlink.validators import integer, seconds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from lightlink.connection.connection import Connection
    from lightlink.files.source import FileSource, Source
    from lightlink.files.target import FileTarget, Write
    from lightlink.files.transfer import Progress
    from lightlink.protocol.codec import HeaderMap

Method = TypeVar("Method", bound="Callable[..., Any]")

DEFAULT_STALL_TIMEOUT = 120.0  # so a transfer goes on after a server was gone for a minute, and waited for
DEFAULT_SWEEP_AGE = 86_400.0
DEFAULT_CHUNK_SIZE = 128 * 1024  # as ADR-20 has it

# How much all transfers of a store have in flight together.
_IN_FLIGHT_BYTES = 8 * 1024 * 1024
# What a chunk's headers may need beside it, within the server's limit for a message.
_HEADER_BYTES = 256


def _in_use(method: Method) -> Method:
    """Have a method keep the connection from resting meanwhile."""

    @functools.wraps(method)
    def keeping(self: FileStore, *args: Any, **kwargs: Any) -> Any:
        with self._connection.in_use():
            return method(self, *args, **kwargs)

    return cast("Method", keeping)


class FileStore:
    """The files in a bucket, which is made when the first one is uploaded.

    A bucket that is made keeps each file for ``ttl`` seconds (None: for ever), on ``replicas`` servers, in ``storage``
    (``file`` or ``memory``). All files together may have ``max_bytes``; with None as much as the server allows, but in
    ``light_link_files`` 4 GiB, or less where the server has less. A full bucket refuses what comes. ``compression``
    has the server compress its files, ``metadata`` and ``description`` are kept with the bucket, and ``placement``
    names the cluster (``{"cluster": "east"}``) or tags (``{"tags": ["ssd"]}``) of the servers.
    Safe to share between threads; transfers share what may be in flight.
    """

    def __init__(
        self,
        connection: Connection,
        bucket: str = subjects.FILES_BUCKET,
        *,
        ttl: float | None = None,
        max_bytes: int | None = None,
        replicas: int = 1,
        storage: str = "file",
        description: str = "",
        compression: bool = False,
        metadata: Mapping[str, str] | None = None,
        placement: Mapping[str, Any] | None = None,
    ) -> None:
        self._connection = connection
        self._bucket = Bucket(
            connection,
            bucket,
            ttl,
            max_bytes,
            replicas,
            storage,
            description=description,
            compression=compression,
            metadata=metadata,
            placement=placement,
        )
        self._transfers: set[object] = set()

    @property
    def bucket(self) -> str:
        """The bucket's name."""
        return self._bucket.name

    @_in_use
    def upload(
        self,
        source: FileSource,
        *,
        name: str | None = None,
        content_type: str | None = None,
        metadata: Mapping[str, str] | None = None,
        progress: Progress | None = None,
        chunk_size: int | None = None,
        stall_timeout: float = DEFAULT_STALL_TIMEOUT,
    ) -> FileInfo:
        """Store a file and return what is known of it, its new id first of all.

        ``source`` is a path, or a binary file object that is read from where it stands to its end. Of a file that grows
        meanwhile, what was there at the start is stored; one that shrinks is FileCorrupt. ``name`` is by default the
        file's own, ``content_type`` guessed from it. ``progress(done, total)`` is called in this thread with the bytes
        that are stored; the total is None while nobody can tell. Whatever it raises cancels the upload. True instead
        shows a bar (tqdm, if it is installed).

        An upload that fails leaves nothing behind. Raises TransferStalled when nothing could be stored for
        ``stall_timeout`` seconds, InvalidOption, PayloadTooLarge, OSError of the source, LinkError when the server
        refuses, PermissionDenied, ClosedError.
        """
        chunk_size = self._checked_chunk_size(chunk_size)
        with open_source(source) as opened:
            title = opened.name if name is None else name
            meta = new_meta(title, content_type, metadata, chunk_size, self.bucket)
            what = f"the upload of {meta.description or meta.name!r}"
            transfer = Transfer(what, meta.name, opened.size, stall_timeout, progress)
            with transfer.errors():
                self._bucket.check_size(meta)
                across_outages(self._connection, transfer.deadline(), self._bucket.make)
                self._store(opened, meta, transfer)
        return meta.to_info(datetime.now(timezone.utc))

    @_in_use
    def download(
        self,
        file_id: str,
        target: FileTarget,
        *,
        progress: Progress | None = None,
        stall_timeout: float = DEFAULT_STALL_TIMEOUT,
    ) -> FileInfo:
        """Fetch a file, check its size and SHA-256, and return what is known of it.

        ``target`` is a path, which is replaced when the file is there and whole, and not touched otherwise; or a binary
        file object, which keeps what was written until an error. ``progress(done, total)`` is called in this thread
        with the bytes written. Whatever it raises cancels the download.

        Raises StoredFileNotFound, FileCorrupt, TransferStalled when nothing came for ``stall_timeout`` seconds,
        InvalidOption, OSError of the target, LinkError when the server refuses, PermissionDenied, ClosedError.
        """
        transfer = Transfer(f"the download of {file_id!r}", file_id, None, stall_timeout, progress)
        with transfer.errors():
            bucket, meta, created = across_outages(
                self._connection, transfer.deadline(), lambda timeout: self._resolve(file_id, timeout)
            )
            transfer.total = meta.size or 0
            with open_target(target) as write:
                try:
                    self._fetch(bucket.stream, meta, write, transfer)
                except FileCorrupt:
                    # Removed meanwhile, it is not corrupt but gone: this raises StoredFileNotFound then.
                    with contextlib.suppress(JetStreamError, NoReply):
                        bucket.find(meta.name, self._connection.options.timeout)
                    raise
        return meta.to_info(created)

    @_in_use
    def info(self, file_id: str) -> FileInfo:
        """Return what is known of a file; raises StoredFileNotFound, LinkError, PermissionDenied, ClosedError."""
        with operation(f"looking up file {file_id!r}"):
            meta, created = self._bucket.find(file_id, self._connection.options.timeout)
        return meta.to_info(created)

    @_in_use
    def files(self) -> list[FileInfo]:
        """Return all files, newest first; raises LinkError, PermissionDenied, ClosedError."""
        with operation(f"listing file store {self.bucket!r}"):
            return [meta.to_info(created) for meta, created in self._bucket.list(self._connection.options.timeout)]

    @_in_use
    def delete(self, file_id: str) -> None:
        """Remove a file; raises StoredFileNotFound, LinkError, PermissionDenied, ClosedError."""
        timeout = self._connection.options.timeout
        with operation(f"deleting file {file_id!r}"):
            meta, _ = self._bucket.find(file_id, timeout)
            # The description first: a file without its chunks must not stay listed, whatever happens next.
            self._bucket.remove(meta, timeout)
        if meta.has_chunks:
            discard(self._connection, self._bucket.stream, subjects.object_chunks(self.bucket, meta.nuid))

    @_in_use
    def sweep(self, older_than: float = DEFAULT_SWEEP_AGE) -> int:
        """Remove the chunks that uploads have left whose process was killed, and return how many there were.

        An upload is taken for dead when nothing came of it for ``older_than`` seconds, at least 1; one that does go on
        after that is FileCorrupt. Raises InvalidOption, DecodeError, LinkError, PermissionDenied, ClosedError.
        """
        older_than = seconds("older_than", older_than)
        if older_than < 1:
            raise InvalidOption("older_than", "must be at least one second", older_than)
        with operation(f"sweeping file store {self.bucket!r}"):
            return sweep.sweep(self._connection, self._bucket, older_than, self._connection.options.timeout)

    @_in_use
    def store_info(self) -> FileStoreInfo | None:
        """Return how the bucket was made and what it holds, None while there is none.

        Raises LinkError, PermissionDenied, ClosedError.
        """
        with operation(f"looking at file store {self.bucket!r}"):
            found = self._bucket.info(self._connection.options.timeout)
        return None if found is None else FileStoreInfo.of(found)

    @_in_use
    def destroy(self) -> bool:
        """Remove the bucket with all its files; tell whether there was one. The next upload makes it anew.

        Needs the right to delete the bucket's stream, as an admin has it. Raises LinkError, PermissionDenied,
        ClosedError.
        """
        with operation(f"removing file store {self.bucket!r}"):
            return self._bucket.destroy(self._connection.options.timeout)

    @_in_use
    def send(self, source: FileSource, to: str = "", *, headers: HeaderMap | None = None, **options: Any) -> FileInfo:
        """Upload a file as `upload` does, then announce it to a service, or with an empty name to every service.

        ``headers`` go with the announcement and reach the handler as `FileInfo.headers`; a name may have several
        values, in a list.

        Raises what `upload` does, InvalidName, InvalidOption for a store other than the default one, which an
        announcement cannot name, FlushTimeout when the server does not confirm the announcement.
        """
        if self.bucket != subjects.FILES_BUCKET:
            raise InvalidOption("bucket", f"files are sent by way of {subjects.FILES_BUCKET!r}", self.bucket)
        if to:
            subjects.service_name(to)
        checked = codec.checked_headers(headers) if headers else None
        info = self.upload(source, **options)
        announce.announce(self._connection, info, to, checked)
        return info

    def _store(self, source: Source, meta: ObjectMeta, transfer: Transfer) -> None:
        digest = hashlib.sha256()
        with self._share() as share:
            window = UploadWindow(meta.chunk_size, share)
            writer = ChunkWriter(self._connection, self._bucket, meta.nuid, window, transfer)
            try:
                transfer.tell()
                for chunk in source.chunks(meta.chunk_size):
                    digest.update(chunk)
                    writer.put(chunk)
                writer.finish()
                transfer.total = transfer.done
                transfer.tell()
                meta.size, meta.chunks, meta.digest = transfer.done, writer.chunks, encode_digest(digest.digest())
                across_outages(
                    self._connection, transfer.deadline(), lambda timeout: self._bucket.put_new(meta, timeout)
                )
            except BaseException:
                self._bucket.forget()
                if meta.digest:
                    discard(self._connection, self._bucket.stream, subjects.object_meta(self.bucket, meta.name))
                writer.discard()
                raise
            finally:
                writer.close()

    def _fetch(self, stream: str, meta: ObjectMeta, write: Write, transfer: Transfer) -> None:
        size, chunks = meta.size or 0, 0
        digest = hashlib.sha256()
        if not size:
            meta.check_digest(digest.digest())
            transfer.tell()
            return
        with self._share() as share:
            reader = ChunkReader(self._connection, stream, meta, share(), transfer)
            try:
                transfer.tell()
                while transfer.done < size:
                    chunk = reader.next()
                    if chunk is None:
                        break
                    chunks += 1
                    digest.update(chunk)
                    write(chunk)
                    transfer.done += len(chunk)
                    transfer.tell()
            finally:
                reader.close()
        if transfer.done != size or (size and meta.chunks and meta.chunks != chunks):
            found = f"{transfer.done} bytes in {chunks} chunks"
            raise FileCorrupt(meta.name, f"the server holds {found} of {size} bytes in {meta.chunks or chunks} chunks")
        meta.check_digest(digest.digest())

    def _resolve(self, file_id: str, timeout: float) -> tuple[Bucket, ObjectMeta, datetime]:
        """Return where a file's content is, which a link made by another client puts elsewhere."""
        bucket = self._bucket
        meta, created = bucket.find(file_id, timeout)
        if meta.link is not None:
            if not meta.link.name:
                raise LinkError(f"reading file {file_id!r}", f"it stands for the whole bucket {meta.link.bucket!r}")
            bucket = Bucket(self._connection, meta.link.bucket)
            meta, created = bucket.find(meta.link.name, timeout)
            if meta.link is not None:
                raise FileCorrupt(file_id, f"it is a link to {meta.name!r}, which is a link too")
        if not meta.nuid and meta.size:
            raise FileCorrupt(file_id, f"its description names no chunks for its {meta.size} bytes")
        return bucket, meta, created

    @contextlib.contextmanager
    def _share(self) -> Iterator[Callable[[], int]]:
        """Give a function that tells a transfer its share of the bytes that all of them may have in flight."""
        transfer = object()
        self._transfers.add(transfer)
        try:
            yield lambda: _IN_FLIGHT_BYTES // max(len(self._transfers), 1)
        finally:
            self._transfers.discard(transfer)

    def _checked_chunk_size(self, chunk_size: int | None) -> int:
        limit = self._connection.max_payload - _HEADER_BYTES
        if chunk_size is None:
            return min(DEFAULT_CHUNK_SIZE, limit)
        integer("chunk_size", chunk_size, 1, limit)
        return chunk_size
