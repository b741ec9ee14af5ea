"""Remove what uploads have left whose process was killed: chunks that belong to no file (ADR-20)."""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import TYPE_CHECKING

from lightlink.files.info import ObjectMeta
from lightlink.jetstream import api
from lightlink.jetstream.read import LAST_OF_EACH, read_current
from lightlink.protocol import codec, subjects
from lightlink.protocol.subjects import as_text

if TYPE_CHECKING:
    from lightlink.connection.connection import Connection
    from lightlink.files.bucket import Bucket

_log = logging.getLogger("lightlink")


def sweep(connection: Connection, bucket: Bucket, older_than: float, timeout: float) -> int:
    """Remove chunks of no file to which none was added for ``older_than`` seconds; return how many there were.

    ``timeout`` in seconds is for each request. Raises JetStreamError, NoReply, PermissionDenied, ClosedError, and
    DecodeError for a description that cannot be read: nobody knows which chunks are its.
    """
    stream = bucket.stream
    info = api.stream_info(connection, stream, timeout)
    if info is None:
        return 0
    told_at = info.told_at or connection.clock.now()
    before = told_at - timedelta(seconds=older_than)  # by the server's clock, as the chunks
    found = api.subjects_of(connection, stream, subjects.all_chunks(bucket.name), timeout)
    # In this order: a file that is described meanwhile is seen.
    owned = {subjects.object_chunks(bucket.name, nuid) for nuid in _nuids(connection, bucket, timeout)}
    removed = 0
    for subject in sorted(found - owned):
        if not subjects.is_plain_token(subject.rpartition(".")[2]):
            # The server stores what is published under a wildcard; as a pattern it would stand for others' chunks.
            _log.warning("lightlink: not swept, its subject is a wildcard: %r", subject)
            continue
        last = api.get_last_written(connection, stream, subject, timeout)
        if last is not None and last.created < before:
            removed += api.purge(connection, stream, subject, timeout)
    return removed


def _nuids(connection: Connection, bucket: Bucket, timeout: float) -> set[str]:
    pattern = subjects.object_metas(bucket.name)
    metas = read_current(connection, bucket.stream, pattern, timeout, policy=LAST_OF_EACH)
    decoded = [codec.decode(each.data, as_text(each.subject), ObjectMeta) for each in metas]
    return {meta.nuid for meta in decoded if meta.nuid and not meta.deleted}
