"""TLS over TCP, and inside a QUIC stream to a gateway.

asyncio's TLS and uvloop's write on the loop's thread only, and ask for a record that is not there, which ends in an
exception, with each message.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lightlink.connection.transports.shortcut import Shortcut

# A TLS record holds at most 16 KiB, so one read returns it whole.
_RECORD = 16 * 1024
# What is encrypted at once, in bytes: of a file's pieces the first leave while the next are encrypted, and they stay in
# the cache: a MiB at once takes 0.45 ms, in pieces 0.33.
_PIECE = 256 * 1024


class TlsLayer(asyncio.Transport, asyncio.Protocol):
    """The protocol of a transport below, and the transport of the protocol above. ``shortcut`` leads to the former.

    OpenSSL lets one thread at a time use a connection: whoever does holds the shortcut's lock. What it has made of a
    frame stands in ``_made`` until it is written, or is about to be by the shortcut, whatever interrupts a caller.
    """

    def __init__(
        self,
        below: asyncio.Transport,
        protocol: asyncio.Protocol,
        context: ssl.SSLContext,
        server_hostname: str,
        shortcut: Shortcut,
    ) -> None:
        super().__init__()
        self._below = below
        self._protocol = protocol
        self._context = context
        self._shortcut = shortcut
        self._received, self._made = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._received, self._made, server_hostname=server_hostname)
        self._loop = asyncio.get_running_loop()
        self._ready: asyncio.Future[None] = self._loop.create_future()
        self._is_open = False
        self._failure: Exception | None = None

    async def shake_hands(self) -> None:
        """Perform the handshake; raises ssl.SSLError, or OSError if the connection ends first."""
        self._below.pause_reading()  # resumed it tells once more of an end that was told to the protocol before
        self._below.set_protocol(self)
        self._advance()
        self._below.resume_reading()
        try:
            await self._ready
        except asyncio.CancelledError:
            self.abort()
            raise

    # From below -----------------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Decrypt received bytes and pass them on."""
        if not self._is_open:
            self._received.write(data)
            self._advance()
            return
        with self._shortcut.lock:
            self._received.write(data)
            pieces, has_ended = self._decrypt()
        if pieces:
            self._protocol.data_received(pieces[0] if len(pieces) == 1 else b"".join(pieces))
        if has_ended:
            self._protocol.eof_received()
            self.close()

    def eof_received(self) -> bool:
        """Pass on the end of file: it ends both directions."""
        if self._is_open:
            self._protocol.eof_received()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the protocol above, or the waiter for the handshake."""
        reason = self._failure or exc
        if self._ready.done():
            self._is_open = False
            self._protocol.connection_lost(reason)
        else:
            self._ready.set_exception(reason or ConnectionResetError("the server closed the connection"))

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
            self.data_received(b"")

    def _decrypt(self) -> tuple[list[bytes], bool]:
        """Return what was received, and whether that was the end."""
        pieces: list[bytes] = []
        try:
            # A read without data raises, which costs as much as handling a message.
            while self._received.pending:
                piece = self._tls.read(_RECORD)
                if not piece:
                    return pieces, True
                pieces.append(piece)
        except ssl.SSLWantReadError:
            pass  # the record is incomplete, or one of the protocol itself
        except ssl.SSLZeroReturnError:
            return pieces, True
        except ssl.SSLError as exc:
            self._fail(exc)
        if self._made.pending:
            self._flush()  # a reply of the protocol itself
        return pieces, False

    def _fail(self, exc: Exception) -> None:
        self._flush()  # the alert with the reason
        self._failure = exc
        self._is_open = False
        self._below.abort()

    def _flush(self) -> None:
        with self._shortcut.lock:
            self._shortcut.write(self._made.read())

    # In a caller's thread -------------------------------------------------------------------------------------------

    def write_here(self, frame: bytes) -> bool:
        """Write a frame, if nothing is before it; False says that the loop has to."""
        with self._shortcut.lock:
            if not self._is_open or self._made.pending or not self._shortcut.is_free():
                return False
            try:
                self._tls.write(frame)
                return self._shortcut.drain(self._made)
            except BaseException:
                # Interrupted, and perhaps encrypted: then it has to leave.
                with contextlib.suppress(RuntimeError):  # the loop has ended, and with it the connection
                    self._loop.call_soon_threadsafe(self._finish)
                raise

    def _finish(self) -> None:
        if not self._below.is_closing():
            self._flush()

    # From who speaks ------------------------------------------------------------------------------------------------

    def write(self, data: Any) -> None:
        """Encrypt and send bytes."""
        size = len(data)
        if size <= _PIECE:
            self._encrypt(data)
            return
        view = memoryview(data)
        for at in range(0, size, _PIECE):
            self._encrypt(view[at : at + _PIECE])

    def _encrypt(self, data: Any) -> None:
        with self._shortcut.lock:
            if self._is_open and not self._below.is_closing():
                self._tls.write(data)
                # The memory BIO accepts everything.
                self._shortcut.write_frames((self._made.read(),))

    def write_frames(self, frames: Sequence[bytes]) -> None:
        """Send several frames in order."""
        self.write(frames[0] if len(frames) == 1 else b"".join(frames))

    def writelines(self, list_of_data: Any) -> None:
        """Send a list of buffers."""
        self.write(b"".join(list_of_data))

    def can_write_eof(self) -> bool:
        """Return False: NATS has no half-closed connections."""
        return False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return what is known of TLS, ``ssl_object`` and ``sslcontext``, and of the connection."""
        known: dict[str, Any] = {"ssl_object": self._tls, "sslcontext": self._context}
        return known[name] if name in known else self._below.get_extra_info(name, default)

    def is_closing(self) -> bool:
        """Whether it is closed or closing."""
        return self._below.is_closing()

    def pause_reading(self) -> None:
        """Stop reading until `resume_reading`."""
        self._below.pause_reading()

    def resume_reading(self) -> None:
        """Read again."""
        self._below.resume_reading()

    def is_reading(self) -> bool:
        """Whether received data is passed on."""
        return self._below.is_reading()

    def get_write_buffer_size(self) -> int:
        """Return the number of bytes waiting to be sent."""
        return self._below.get_write_buffer_size()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Set the limits of the write buffer."""
        self._below.set_write_buffer_limits(high, low)

    def close(self) -> None:
        """Flush and close."""
        if self._below.is_closing():
            return
        with self._shortcut.lock:
            if self._is_open:
                self._is_open = False
                with contextlib.suppress(ssl.SSLError):  # the peer's close_notify is not waited for
                    self._tls.unwrap()
                self._flush()
        self._below.close()

    def abort(self) -> None:
        """Close at once, discarding buffered data."""
        self._below.abort()
