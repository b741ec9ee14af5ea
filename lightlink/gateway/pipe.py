"""One QUIC stream and its connection to nats-server: bytes are forwarded unchanged in both directions."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

from lightlink.protocol.edge import EdgeCode, Kind, read_preamble

if TYPE_CHECKING:
    from lightlink.connection.transports.quic_stream import QuicStream
    from lightlink.gateway.counts import Counts
    from lightlink.gateway.options import GatewayOptions

# In bytes. Before the server's INFO a client sends its preamble, and at most the first message of a TLS handshake.
_MOST_BEFORE_DIALLED = 64 * 1024


class Pipe(asyncio.Protocol):
    """The asyncio protocol of one client stream."""

    def __init__(self, stream: QuicStream, options: GatewayOptions, counts: Counts) -> None:
        self.kind: Kind | None = None
        self._stream = stream
        self._options = options
        self._counts = counts
        self._loop = asyncio.get_running_loop()
        self._first = b""  # received before nats-server accepted the connection
        self._upstream: _Upstream | None = None
        self._dialling: asyncio.Task[None] | None = None
        self._deadline = self._loop.call_later(options.preamble_timeout, self.refuse, EdgeCode.PREAMBLE_TIMEOUT)
        counts.streams += 1

    def refuse(self, code: EdgeCode) -> None:
        """Reset the stream with a reason."""
        if not self._stream.is_closing():
            self._counts.refusals[code.name.lower()] += 1
            self._stream.reset(code)

    # From the client ------------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Forward bytes to nats-server."""
        self._counts.bytes_in += len(data)
        if self._upstream is not None:
            self._upstream.send(data)
            return
        self._first += data
        if len(self._first) > _MOST_BEFORE_DIALLED:
            # After a valid preamble only nats-server can be the slow one.
            self.refuse(EdgeCode.BAD_PREAMBLE if self.kind is None else EdgeCode.UPSTREAM_SLOW)
        elif self.kind is None:
            self._read_preamble()

    def _read_preamble(self) -> None:
        try:
            found = read_preamble(self._first)
        except ValueError:
            self.refuse(EdgeCode.BAD_PREAMBLE)
            return
        if found is not None:
            self.kind, self._first = found
            self._deadline.cancel()
            self._dialling = self._loop.create_task(self._dial())

    async def _dial(self) -> None:
        try:
            _, upstream = await asyncio.wait_for(
                self._loop.create_connection(lambda: _Upstream(self._stream, self), *self._options.upstream_address),
                self._options.dial_timeout,
            )
        except (OSError, asyncio.TimeoutError):
            self.refuse(EdgeCode.UPSTREAM_UNREACHABLE)
            return
        if self._stream.is_closing():
            upstream.abort()
            return
        self._upstream = upstream
        first, self._first = self._first, b""
        if first:
            upstream.send(first)

    def pause_writing(self) -> None:
        """Stop reading from nats-server: the client's link is slower."""
        if self._upstream is not None:
            self._upstream.pause()

    def resume_writing(self) -> None:
        """Resume reading from nats-server."""
        if self._upstream is not None:
            self._upstream.resume()

    def eof_received(self) -> bool:
        """Close both directions: NATS has no half-closed connections."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Close the upstream connection too; abort it if the client's was lost."""
        self._counts.streams -= 1
        self._deadline.cancel()
        if self._dialling is not None and self._upstream is None:
            self._dialling.cancel()
        if self._upstream is not None:
            self._upstream.close(politely=exc is None)

    # From nats-server -----------------------------------------------------------------------------------------------

    def carry_back(self, data: bytes) -> None:
        """Forward bytes to the client."""
        self._counts.bytes_out += len(data)
        self._stream.write(data)

    def overflowed(self, waiting: int) -> bool:
        """Reset the stream if its upstream buffer exceeds the limit; tell whether it did.

        QUIC flow control credits what was received, not what was forwarded: without this limit a client that sends
        faster than nats-server reads could fill the memory.
        """
        if waiting <= self._options.max_waiting:
            return False
        self.refuse(EdgeCode.UPSTREAM_SLOW)
        return True

    def upstream_lost(self, exc: Exception | None) -> None:
        """End the stream: nats-server closed the connection."""
        if exc is None:
            self._stream.close()
        else:
            self.refuse(EdgeCode.UPSTREAM_LOST)


class _Upstream(asyncio.Protocol):
    """The connection to nats-server."""

    def __init__(self, stream: QuicStream, pipe: Pipe) -> None:
        self._stream = stream
        self._pipe = pipe
        self._transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._pipe.carry_back(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._pipe.upstream_lost(exc)

    def send(self, data: bytes) -> None:
        if self._transport.is_closing():
            return
        self._transport.write(data)
        if self._pipe.overflowed(self._transport.get_write_buffer_size()):
            self._transport.abort()

    def pause(self) -> None:
        with contextlib.suppress(RuntimeError):  # raised by uvloop while closing
            self._transport.pause_reading()

    def resume(self) -> None:
        with contextlib.suppress(RuntimeError):
            self._transport.resume_reading()

    def close(self, *, politely: bool) -> None:
        if politely:
            self._transport.close()
        else:
            self._transport.abort()

    def abort(self) -> None:
        self._transport.abort()
