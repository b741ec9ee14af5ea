"""The connection to a server under nats-py's client."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import nats.errors
from nats.aio.transport import TcpTransport

if TYPE_CHECKING:
    import ssl


class Transport(TcpTransport):
    """nats-py's connection to a server; not a WebSocket."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    async def connect_tls(self, uri: Any, ssl_context: ssl.SSLContext, buffer_size: int, connect_timeout: int) -> None:
        """Speak TLS from now on."""
        await super().connect_tls(uri, ssl_context, buffer_size, connect_timeout)
        # As asyncio's own streams have it; without this each end of a connection is a warning in the log.
        self._io_writer._protocol._over_ssl = True  # type: ignore[union-attr]

    async def readline(self) -> bytes:
        """Return the next line; empty at the end."""
        line: bytes = await super().readline()  # type: ignore[no-untyped-call]
        return line

    async def listen(self, pause: float) -> None:
        """Raise what the server says within ``pause`` seconds if that is an error, or its end."""
        try:
            line = await asyncio.wait_for(self.readline(), pause)
        except asyncio.TimeoutError:
            return
        if not line:
            raise ConnectionResetError("the server closed the connection")
        if line.startswith(b"-ERR"):
            raise nats.errors.Error(f"nats: {line[4:].strip().decode()}")

    def write(self, payload: bytes) -> None:
        """Write bytes."""
        super().write(payload)  # type: ignore[no-untyped-call]

    def abort(self) -> None:
        """Close at once; what is not written yet is lost."""
        if self._io_writer is not None:
            self._io_writer.transport.abort()
