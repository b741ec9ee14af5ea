"""UDP sockets that send and receive batches in one system call where the kernel supports it (GRO, GSO)."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import TYPE_CHECKING, Any

# Private, but qh3's only access to batches; a test pins it.
from qh3.asyncio._transport import create_optimized_datagram_transport

if TYPE_CHECKING:
    from collections.abc import Callable

_BUFFER_BYTES = 4 * 1024 * 1024


class UdpSocket(asyncio.DatagramProtocol):
    """An unconnected socket, so that its address may change; ``on_datagrams`` gets (datagrams, address)."""

    def __init__(self, on_datagrams: Callable[[list[bytes], Any], object]) -> None:
        self.datagrams_received = on_datagrams
        self._transport: Any = None

    @classmethod
    async def open(cls, local: Any, family: int, on_datagrams: Callable[[list[bytes], Any], object]) -> UdpSocket:
        """Open a socket on a local address; raises OSError."""
        sock = socket.socket(family, socket.SOCK_DGRAM)
        try:
            for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
                with contextlib.suppress(OSError):
                    sock.setsockopt(socket.SOL_SOCKET, option, _BUFFER_BYTES)
            sock.setblocking(False)
            sock.bind(local)
        except BaseException:
            sock.close()
            raise
        loop = asyncio.get_running_loop()
        _, opened = await create_optimized_datagram_transport(loop, lambda: cls(on_datagrams), sock)
        assert isinstance(opened, UdpSocket)
        return opened

    @property
    def socket(self) -> Any:
        """The socket."""
        return self._transport.get_extra_info("socket")

    def send(self, datagrams: list[bytes], address: Any) -> None:
        """Send datagrams to an address."""
        if self._transport.is_closing():
            return
        many = getattr(self._transport, "sendto_many", None)
        if many is not None:
            many(datagrams, address)
            return
        for datagram in datagrams:
            self._transport.sendto(datagram, address)

    def close(self) -> None:
        """Close the socket."""
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: Any) -> None:
        """Keep the transport."""
        self._transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        """Handle a single datagram."""
        self.datagrams_received([data], addr)

    def error_received(self, exc: Exception) -> None:
        """Ignore ICMP errors: anybody can forge them, and QUIC detects loss itself."""
