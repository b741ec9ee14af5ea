"""The TCP transport of nats-py's client, plain or with TLS."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import msgspec
import nats.aio.transport
import nats.errors

from lightlink.connection.dialing.resolver import Resolver
from lightlink.connection.transports.inlet import Inlet
from lightlink.connection.transports.shortcut import Shortcut
from lightlink.connection.transports.tls_layer import TlsLayer

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Sequence

# As asyncio's own, in bytes: twice as much may wait to be read.
_LIMIT_OVER_TLS = 64 * 1024


class _Info(msgspec.Struct):
    """The fields of a server's first INFO that we rely on."""

    version: Annotated[str, msgspec.Meta(pattern=r"^\d+\.\d+")] = "0.0"
    max_payload: Annotated[int, msgspec.Meta(gt=0)] = 1
    auth_required: bool | None = None
    tls_required: bool | None = None
    nonce: str | None = None
    connect_urls: list[str] | None = None


class TcpTransport(nats.aio.transport.TcpTransport):
    """nats-py's connection to a server, plain or with TLS."""

    schemes: ClassVar[frozenset[str]] = frozenset({"nats", "tls"})

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._in_handshake = False
        self._resolver = Resolver()
        self._shortcut = Shortcut()
        # What frames are given to: TLS, or where that writes to itself.
        self._way: Shortcut | TlsLayer = self._shortcut
        self.take: Callable[[bytes], bytes] = _leave

    async def connect(self, uri: Any, buffer_size: int, connect_timeout: float) -> None:
        """Connect, without TLS, to the first of the host's addresses that accepts."""
        # nats-py leaves the connection of a failed attempt open.
        self.abort()
        self._in_handshake = False
        addresses = await asyncio.wait_for(self._resolver.look_up(uri.hostname, uri.port), connect_timeout)
        for number, address in enumerate(addresses, start=1):
            try:
                await asyncio.wait_for(self._open(address, buffer_size), connect_timeout)
            except (OSError, asyncio.TimeoutError):
                if number == len(addresses):
                    raise
            else:
                return

    async def connect_tls(
        self, uri: Any, ssl_context: ssl.SSLContext, _buffer_size: int, connect_timeout: float
    ) -> None:
        """Upgrade to TLS."""
        assert self._io_writer is not None
        if self._io_writer.transport.is_closing():
            raise ConnectionResetError("the server closed the connection")
        await self._upgrade(uri if isinstance(uri, str) else uri.hostname, ssl_context, connect_timeout)

    async def _upgrade(self, server_hostname: str, ssl_context: ssl.SSLContext, timeout: float) -> None:
        assert self._io_writer is not None
        self._in_handshake = True
        below: Any = self._io_writer.transport
        inlet = Inlet(self.take, _LIMIT_OVER_TLS)
        layer = TlsLayer(below, inlet.protocol, ssl_context, server_hostname, self._shortcut)
        await asyncio.wait_for(layer.shake_hands(), timeout)
        self._io_reader, self._io_writer = inlet, inlet.writer(layer)
        self._way = layer
        self._in_handshake = False

    async def _open(self, address: tuple[str, int], limit: int) -> None:
        inlet = Inlet(self.take, limit)
        below, _ = await asyncio.get_running_loop().create_connection(lambda: inlet.protocol, *address)
        self._begin(inlet, below, Shortcut())

    def _begin(self, inlet: Inlet, below: asyncio.Transport, shortcut: Shortcut) -> None:
        self._bare_io_reader = self._io_reader = inlet
        self._bare_io_writer = self._io_writer = inlet.writer(below)
        shortcut.open(below)
        self._shortcut = self._way = shortcut

    async def wait_closed(self) -> None:
        """Wait until the connection is closed."""
        # After a failed handshake asyncio's stream is not told of the close.
        if not self._in_handshake:
            await super().wait_closed()  # type: ignore[no-untyped-call]

    async def readline(self) -> bytes:
        """Return the next line of the handshake, empty at end of file. Raises ValueError for a malformed INFO."""
        line: bytes = await super().readline()  # type: ignore[no-untyped-call]
        if line.startswith(b"INFO "):
            # nats-py does not check it; a malformed field would cause an unrelated error later.
            try:
                msgspec.json.decode(line[5:], type=_Info)
            except (RecursionError, msgspec.MsgspecError) as exc:
                raise ValueError(f"the server's INFO cannot be read: {exc}") from None
        return line

    async def listen(self, pause: float) -> None:
        """Raise an error or disconnect that the server sends within ``pause`` seconds."""
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
        self._way.write(payload)

    def writelines(self, payload: list[bytes]) -> None:
        """Write a list of buffers."""
        self._way.write(b"".join(payload))

    def write_frames(self, frames: Sequence[bytes]) -> None:
        """Write several frames in order."""
        self._way.write_frames(frames)

    def write_here(self, frame: bytes) -> bool:
        """Write bytes from the caller's thread if no data is queued; False means that the loop must write them."""
        return self._way.write_here(frame)

    def close(self) -> None:
        """Close after flushing the write buffer."""
        if self._io_writer is not None:
            self._shortcut.flush()
            super().close()  # type: ignore[no-untyped-call]
        self._shortcut.close()

    def abort(self) -> None:
        """Close at once, discarding unwritten data."""
        self._shortcut.close()
        if self._io_writer is not None:
            self._io_writer.transport.abort()

    def descriptors(self) -> list[int]:
        """Return the file descriptors of the connection, for a forked child to close."""
        try:
            found = [self._io_writer.get_extra_info("socket").fileno(), self._shortcut.fileno()]  # type: ignore[union-attr]
        except AttributeError:  # it was not connected
            return []
        return [each for each in found if each >= 0]


def _leave(data: bytes) -> bytes:
    return data
