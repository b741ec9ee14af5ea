"""Store chunks: many at once in flight, each once and in order, across outages (ADR-20).

Chunks are published without waiting for each other's acknowledgements. On one connection they are stored in the order
of sending. When an acknowledgement is missing, the stream is looked at: what it holds behind the last chunk that was
acknowledged is compared with what was sent, and removed where it does not fit. The first chunk that is missing is sent
alone, on the condition that nothing came in between (the expected last sequence of its subject), and then the others.
So nothing is stored twice or out of order. At the end of such an upload, or one that has paused, chunks are counted.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from typing import TYPE_CHECKING

from lightlink.concurrency.deadline import Deadline
from lightlink.connection.pipeline import Broken, Pipeline
from lightlink.connection.session import Status
from lightlink.errors import ClosedError, FileCorrupt, LightLinkError, OutboxFull
from lightlink.jetstream import api
from lightlink.jetstream.api import EXPECTED_LAST_SUBJECT_SEQUENCE
from lightlink.jetstream.errors import JetStreamError
from lightlink.jetstream.retry import across_outages, is_passing
from lightlink.protocol import codec, subjects

if TYPE_CHECKING:
    from lightlink.connection.connection import Connection
    from lightlink.files.bucket import Bucket
    from lightlink.files.transfer import Transfer
    from lightlink.files.window import UploadWindow

_log = logging.getLogger("lightlink")

# When no acknowledgement comes for so long although the connection is good, what was sent is looked for.
_ANSWER_SECONDS = 10.0
_CLEAN_UP_SECONDS = 5.0
# Less than the least time after which an upload that pauses may be swept away.
_PAUSE_SECONDS = 0.5
# A sequence that no stream reaches: a message on this condition is always refused.
_NEVER = str(2**62)


class ChunkWriter:
    """Stores the chunks of one object, as many at once as its window allows. For one thread.

    The transfer's ``done`` counts the bytes acknowledged. Every method that waits raises OutOfTime when nothing was
    stored until the transfer's deadline, JetStreamError when the server refuses, PermissionDenied, ClosedError.
    """

    def __init__(
        self, connection: Connection, bucket: Bucket, nuid: str, window: UploadWindow, transfer: Transfer
    ) -> None:
        self.chunks = 0
        self._connection = connection
        self._bucket = bucket
        self._stream = bucket.stream
        self._subject = subjects.object_chunks(bucket.name, nuid)
        self._window = window
        self._transfer = transfer
        self._held: deque[bytes] = deque()  # in flight, until acknowledged
        self._held_bytes = 0
        self._last_seq = 0  # of the last chunk acknowledged
        self._recovered = False
        self._paused = False
        self._moved = time.monotonic()
        self._pipeline = Pipeline(connection)

    def put(self, chunk: bytes) -> None:
        """Send a chunk; waits while the window is full."""
        self._note_pause()
        while self._held and self._held_bytes + len(chunk) > self._window.size:
            self._settle()
        self._held.append(chunk)
        self._held_bytes += len(chunk)
        self._send(chunk)
        while self._held and self._pipeline.answered:
            self._settle()

    def finish(self) -> None:
        """Return when all chunks are stored; raises FileCorrupt if the stream does not hold what was put."""
        self._note_pause()
        while self._held:
            self._settle()
        if self._recovered or self._paused:
            count = across_outages(
                self._connection,
                self._transfer.deadline(),
                lambda timeout: api.count_messages(self._connection, self._stream, self._subject, timeout),
            )
            if count != self.chunks:
                reason = f"{count} chunks are stored where {self.chunks} were sent"
                raise FileCorrupt(self._transfer.file_id, reason)

    def close(self) -> None:
        """Send nothing more."""
        self._pipeline.close()

    def discard(self) -> None:
        """Remove what was stored, as the function `discard` does, when all that has left has arrived."""
        self._pipeline.close()
        started = time.monotonic()
        if self._connection.status is Status.CONNECTED:
            try:
                # It is refused, but after all that has left before it was taken.
                headers = {EXPECTED_LAST_SUBJECT_SEQUENCE: _NEVER}
                api.publish(self._connection, self._stream, self._subject.encode(), b"", _CLEAN_UP_SECONDS, headers)
            except (LightLinkError, OSError) as exc:
                _log.debug("lightlink: ending the upload to %s: %r", self._subject, exc)
        discard(self._connection, self._stream, self._subject, _CLEAN_UP_SECONDS - (time.monotonic() - started))

    def _note_pause(self) -> None:
        """Note whether nothing was sent for so long that somebody may have swept away what is there."""
        now = time.monotonic()
        self._paused = self._paused or now - self._moved > _PAUSE_SECONDS
        self._moved = now

    def _send(self, chunk: bytes) -> None:
        try:
            self._pipeline.send(self._subject.encode(), chunk, self._transfer.stall_timeout)
        except (Broken, OutboxFull) as exc:
            # `_settle` sends it again.
            _log.debug("lightlink: a chunk on %s has to wait: %r", self._subject, exc)

    def _settle(self) -> None:
        """Take an acknowledgement; when it is missing, go on from the last one."""
        deadline = self._transfer.deadline()
        try:
            request = self._pipeline.next(deadline.at_most(_ANSWER_SECONDS))
            seq = api.parse_ack(self._connection, request, self._stream).seq
            self._window.note(len(self._held[0]), request.took)
            self._advance(seq)
        except JetStreamError as exc:
            if not is_passing(exc):
                raise
            self._recover(deadline, exc)
        except (Broken, TimeoutError) as exc:
            self._recover(deadline, exc)

    def _advance(self, seq: int) -> None:
        chunk = self._held.popleft()
        self._held_bytes -= len(chunk)
        self._last_seq = seq
        self.chunks += 1
        self._transfer.done += len(chunk)
        self._transfer.tell()

    def _recover(self, deadline: Deadline, reason: Exception) -> None:
        _log.debug("lightlink: the upload to %s goes on from chunk %d: %r", self._subject, self.chunks, reason)
        self._recovered = True
        self._pipeline.close()
        stored = across_outages(self._connection, deadline, self._catch_up)
        self._pipeline = Pipeline(self._connection)
        for chunk in list(self._held)[len(stored) :]:
            self._send(chunk)
        for seq in stored:
            self._advance(seq)

    def _catch_up(self, timeout: float) -> list[int]:
        """Return the sequences of the chunks that are stored, of those in flight; there is at least one."""
        if not self.chunks:
            self._bucket.make_again(timeout)
        held = list(self._held)
        stored = self._find_stored(held, timeout)
        if len(stored) < len(held):
            last = stored[-1] if stored else self._last_seq
            if api.get_last_written(self._connection, self._stream, self._subject, timeout) is None:
                last = 0  # some servers (seen: 2.10 to 2.12) know no last one any more once that was removed
            headers = {EXPECTED_LAST_SUBJECT_SEQUENCE: str(last)}
            chunk, subject = held[len(stored)], self._subject.encode()
            stored.append(api.publish(self._connection, self._stream, subject, chunk, timeout, headers).seq)
        return stored

    def _find_stored(self, held: list[bytes], timeout: float) -> list[int]:
        stored: list[int] = []
        seq = self._last_seq
        while found := api.get_next(self._connection, self._stream, self._subject, seq + 1, timeout):
            seq = found.seq
            if len(stored) < len(held) and found.data == held[len(stored)]:
                stored.append(seq)
            else:
                api.delete_message(self._connection, self._stream, seq, timeout)
        return stored


def discard(connection: Connection, stream: str, subject: str, timeout: float = _CLEAN_UP_SECONDS) -> None:
    """Remove the messages of a subject, within ``timeout`` seconds.

    Raises nothing: what cannot be removed now is removed when the connection is back.
    """
    try:
        if timeout > 0 and connection.status is Status.CONNECTED:
            api.purge(connection, stream, subject, timeout)
            return
    except (LightLinkError, OSError) as exc:
        _log.debug("lightlink: removing %s: %r", subject, exc)
    try:
        body = codec.encode_json({"filter": subject})
        connection.publish(api.api_subject(connection, f"STREAM.PURGE.{stream}"), body)
    except (ClosedError, OutboxFull) as exc:
        _log.warning("lightlink: the messages on %s remain: %s", subject, exc)
