"""Read an object's chunks in order, no faster than they are taken, and notice when they are not all there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lightlink.concurrency.mailbox import MessageQueue
from lightlink.jetstream import api
from lightlink.jetstream.read import OrderedReader
from lightlink.jetstream.retry import across_outages
from lightlink.protocol import subjects

if TYPE_CHECKING:
    from lightlink.connection.connection import Connection
    from lightlink.files.info import ObjectMeta
    from lightlink.files.transfer import Transfer
    from lightlink.jetstream.read import Delivery

# When nothing comes for so long, the stream is asked whether there still is anything.
_ANSWER_SECONDS = 2.0
# A consumer is lost with the server that it is on, which is to be noticed soon.
_HEARTBEAT_SECONDS = 1.0
_MAX_CHUNKS = 1024
_UNBOUNDED = 2**62  # the reader's window is what bounds the queue


class ChunkReader:
    """Reads one object's chunks, about ``window`` bytes ahead. For one thread; `close` it in the end."""

    def __init__(self, connection: Connection, stream: str, meta: ObjectMeta, window: int, transfer: Transfer) -> None:
        self._connection = connection
        self._stream = stream
        self._subject = subjects.object_chunks(meta.bucket, meta.nuid)
        self._window = window
        # At least four, so that some come while others are written.
        self._window_chunks = min(max(window // max(meta.chunk_size, 1), 4), _MAX_CHUNKS)
        self._transfer = transfer
        self._last_seq = 0
        # What the reader delivered, and then None: no more was there at the start.
        self._arrived = MessageQueue(_UNBOUNDED, _UNBOUNDED)
        self._reader: OrderedReader | None = None

    def next(self) -> bytes | None:
        """Return the next chunk, None when the stream has no more.

        Raises OutOfTime at the transfer's deadline, JetStreamError when the server refuses, PermissionDenied,
        ClosedError.
        """
        deadline = self._transfer.deadline()
        if self._reader is None:
            self._reader = across_outages(self._connection, deadline, self._start)
        while True:
            try:
                delivery: Delivery | None = self._arrived.get(deadline.at_most(_ANSWER_SECONDS))
            except TimeoutError:
                if across_outages(self._connection, deadline, self._is_exhausted):
                    return None
                continue
            if delivery is None:
                return None
            self._reader.release(delivery)
            if delivery.seq > self._last_seq:
                self._last_seq = delivery.seq
                return delivery.data

    def close(self) -> None:
        """Read no more."""
        if self._reader is not None:
            self._reader.stop()

    def _start(self, timeout: float) -> OrderedReader:
        reader = OrderedReader(
            self._connection,
            self._stream,
            [self._subject],
            lambda delivery: self._arrived.put(delivery, 0),
            on_current=lambda: self._arrived.put(None, 0),
            first=1,  # so that after an outage it goes on where it was
            window=self._window_chunks,
            window_bytes=self._window,
            heartbeat=_HEARTBEAT_SECONDS,
        )
        reader.start(timeout)
        return reader

    def _is_exhausted(self, timeout: float) -> bool:
        found = api.get_next(self._connection, self._stream, self._subject, self._last_seq + 1, timeout)
        # What has been delivered meanwhile counts.
        return found is None and not len(self._arrived)
