"""Send datagrams of a QUIC stream from the caller's thread, bypassing the event loop, when nothing is queued."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lightlink.connection.transports.shortcut import Shortcut

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lightlink.connection.transports.quic_link import Link
    from lightlink.connection.transports.quic_stream import QuicStream


class QuicShortcut(Shortcut):
    """Writes to a stream: from callers' threads past the loop, on the loop's through the stream."""

    def __init__(self, link: Link, stream: QuicStream) -> None:
        super().__init__()
        self.lock = link.lock
        self._link = link
        self._stream = stream

    def is_free(self) -> bool:
        """Whether what is sent now comes next; with the lock."""
        if self._socket is None or self._writing is not None or self._stream.is_closing():
            return False
        return self._link.is_free(self._stream.number)

    def _send(self, frames: Sequence[bytes], sent: list[Any]) -> bool:
        assert self._socket is not None
        is_taken = self._link.send_here(self._stream.number, frames, sent, self._socket)
        self._writing = None
        return is_taken

    def _send_many(self, frames: Sequence[bytes]) -> Sequence[bytes]:
        return frames  # the stream sends in batches

    def _rest(self) -> bytes:
        writing, self._writing = self._writing, None
        if writing is None:
            return b""
        frames, sent = writing
        return b"".join(frames) if sent == [0] else b""
