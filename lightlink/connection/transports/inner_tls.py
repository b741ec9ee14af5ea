"""TLS with nats-server inside a QUIC stream to a gateway.

asyncio's TLS takes twice as long for messages of a call's size, and uvloop's accepts only uvloop transports.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightlink.connection.transports.quic_stream import QuicStream

# A TLS record holds at most 16 KiB, so one read returns it whole.
_RECORD = 16 * 1024
# What is encrypted at once, in bytes: of a file's pieces the first leave while the next are encrypted, and they stay in
# the cache: a MiB at once takes 0.45 ms, in pieces 0.33.
_PIECE = 256 * 1024


class InnerTls(asyncio.Transport, asyncio.Protocol):
    """The asyncio protocol of a stream, and the transport of the protocol above it."""

    def __init__(
        self, stream: QuicStream, protocol: asyncio.Protocol, context: ssl.SSLContext, server_hostname: str
    ) -> None:
        super().__init__()
        self._stream = stream
        self._protocol = protocol
        self._context = context
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=server_hostname)
        self._ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._is_open = False

    async def shake_hands(self) -> None:
        """Perform the handshake; raises ssl.SSLError, or OSError if the stream ends first."""
        self._stream.set_protocol(self)
        self._advance()
        try:
            await self._ready
        except asyncio.CancelledError:
            self.abort()
            raise

    # From the stream ------------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Decrypt received bytes and pass them on."""
        self._incoming.write(data)
        if self._is_open:
            self._read()
        else:
            self._advance()

    def eof_received(self) -> bool:
        """Pass on the end of file: it ends both directions."""
        if self._is_open:
            self._protocol.eof_received()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the protocol above, or the waiter for the handshake."""
        if self._is_open:
            self._is_open = False
            self._protocol.connection_lost(exc)
        elif not self._ready.done():
            self._ready.set_exception(exc or ConnectionResetError("the server closed the connection"))

    def pause_writing(self) -> None:
        """Pause the writer above."""
        if self._is_open:
            self._protocol.pause_writing()

    def resume_writing(self) -> None:
        """Resume the writer above."""
        if self._is_open:
            self._protocol.resume_writing()

    def _advance(self) -> None:
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self._flush()
        except ssl.SSLError as exc:
            self._fail(exc)
        else:
            self._flush()
            self._is_open = True
            self._protocol.connection_made(self)
            if not self._ready.done():
                self._ready.set_result(None)
            self._read()

    def _read(self) -> None:
        pieces: list[bytes] = []
        has_ended = False
        try:
            # A read without data raises, which costs as much as handling a message.
            while self._incoming.pending and not has_ended:
                piece = self._tls.read(_RECORD)
                has_ended = not piece
                pieces.append(piece)
        except ssl.SSLWantReadError:
            pass  # the record is incomplete
        except ssl.SSLZeroReturnError:
            has_ended = True
        except ssl.SSLError as exc:
            self._fail(exc)
            return
        if self._outgoing.pending:
            self._flush()  # a reply of the TLS protocol itself
        if pieces:
            self._protocol.data_received(pieces[0] if len(pieces) == 1 else b"".join(pieces))
        if has_ended:
            self.eof_received()
            self.close()

    def _fail(self, exc: Exception) -> None:
        self._flush()  # the alert with the reason
        self._stream.reset(0, exc)

    def _flush(self) -> None:
        self._stream.write(self._outgoing.read())

    # From who speaks ------------------------------------------------------------------------------------------------

    def write(self, data: Any) -> None:
        """Encrypt and send bytes."""
        if not self._is_open or self._stream.is_closing():
            return
        size = len(data)
        if size <= _PIECE:
            self._encrypt(data)
            return
        view = memoryview(data)
        for at in range(0, size, _PIECE):
            self._encrypt(view[at : at + _PIECE])

    def _encrypt(self, data: Any) -> None:
        # The memory BIO accepts everything.
        self._tls.write(data)
        self._stream.write(self._outgoing.read())

    def writelines(self, list_of_data: Any) -> None:
        """Send a list of buffers."""
        self.write(b"".join(list_of_data))

    def can_write_eof(self) -> bool:
        """Return False: NATS has no half-closed connections."""
        return False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return what is known of TLS, ``ssl_object`` and ``sslcontext``, and of the connection."""
        known: dict[str, Any] = {"ssl_object": self._tls, "sslcontext": self._context}
        return known[name] if name in known else self._stream.get_extra_info(name, default)

    def is_closing(self) -> bool:
        """Whether it is closed or closing."""
        return self._stream.is_closing()

    def pause_reading(self) -> None:
        """Stop reading from the stream until `resume_reading`."""
        self._stream.pause_reading()

    def resume_reading(self) -> None:
        """Read again."""
        self._stream.resume_reading()

    def is_reading(self) -> bool:
        """Whether received data is passed on."""
        return self._stream.is_reading()

    def get_write_buffer_size(self) -> int:
        """Return the number of bytes waiting to be sent."""
        return self._stream.get_write_buffer_size()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Set the limits of the write buffer."""
        self._stream.set_write_buffer_limits(high, low)

    def close(self) -> None:
        """Flush and close."""
        if self._stream.is_closing():
            return
        if self._is_open:
            with contextlib.suppress(ssl.SSLError):  # the peer's close_notify is not waited for
                self._tls.unwrap()
            self._flush()
        self._stream.close()

    def abort(self) -> None:
        """Close at once, discarding buffered data."""
        self._stream.abort()
