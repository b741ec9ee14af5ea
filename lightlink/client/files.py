"""Files in object stores."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lightlink.client.base import ClientBase
from lightlink.concurrency.threads import refuse_at_exit
from lightlink.connection.connection import Connection, Status
from lightlink.protocol import subjects

if TYPE_CHECKING:
    from lightlink.files import FileInfo, FileSource, FileStore, FileStoreInfo, FileTarget, Progress
    from lightlink.protocol.codec import HeaderMap


class Files(ClientBase):
    """A client's files."""

    _default_store: FileStore | None = None

    def file_store(self, bucket: str = subjects.FILES_BUCKET, **options: Any) -> FileStore:
        """Return a store of files, whose bucket is made at the first upload if it is not there.

        ``options`` count only then: ttl, max_bytes, replicas, storage, ...; see `FileStore`. Raises InvalidName,
        InvalidOption.
        """
        refuse_at_exit()
        from lightlink.files import FileStore  # noqa: PLC0415 - not every program has files

        return FileStore(self._connection_for_files(), bucket, **options)

    def _connection_for_files(self) -> Connection:
        if not self.options.has_bulk_connection or self.status is Status.CLOSED:
            return self._connection
        from lightlink.connection.bulk import BulkConnection  # noqa: PLC0415 - not every program has files

        with self._bulk_lock:
            if self._bulk is None:
                self._bulk = BulkConnection(self._connection)
            return self._bulk

    @property
    def _files(self) -> FileStore:
        if self._default_store is None:
            self._default_store = self.file_store()
        return self._default_store

    def upload(
        self, source: FileSource, *, name: str | None = None, progress: Progress | None = None, **options: Any
    ) -> FileInfo:
        """Store a path or binary file object, and return what is known of it; see `FileStore.upload`."""
        return self._files.upload(source, name=name, progress=progress, **options)

    def download(
        self, file_id: str, target: FileTarget, *, progress: Progress | None = None, **options: Any
    ) -> FileInfo:
        """Fetch a file to a path or binary file object, checked; see `FileStore.download`."""
        return self._files.download(file_id, target, progress=progress, **options)

    def send_file(
        self, source: FileSource, to: str = "", *, headers: HeaderMap | None = None, **options: Any
    ) -> FileInfo:
        """Upload a file and announce it, with ``headers``, to a service, or to every one; see `FileStore.send`."""
        return self._files.send(source, to, headers=headers, **options)

    def files(self) -> list[FileInfo]:
        """Return what is known of all files, newest first; see `FileStore.files`."""
        return self._files.files()

    def file_info(self, file_id: str) -> FileInfo:
        """Return what is known of a file; raises StoredFileNotFound; see `FileStore.info`."""
        return self._files.info(file_id)

    def file_stores(self, *, timeout: float | None = None) -> list[FileStoreInfo]:
        """Return all buckets of files that this identity may see, by name; raises LinkError, PermissionDenied."""
        refuse_at_exit()
        from lightlink.files import FileStoreInfo  # noqa: PLC0415 - not every program has files
        from lightlink.files.transfer import operation  # noqa: PLC0415
        from lightlink.jetstream import api  # noqa: PLC0415

        with operation("listing file stores"):
            found = api.streams_on(self._connection, f"{subjects.OBJECTS}>", self._limit(timeout))
        stores = (FileStoreInfo.of(each) for each in found if each.config.name.startswith(subjects.FILES_STREAMS))
        return sorted(stores, key=lambda each: each.name)

    def delete_file(self, file_id: str) -> None:
        """Remove a file; raises StoredFileNotFound; see `FileStore.delete`."""
        self._files.delete(file_id)
