"""UDP sockets that send and receive batches in one system call where the kernel supports it (GRO, GSO)."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
from operator import itemgetter
from typing import TYPE_CHECKING, Any

# Private, but qh3's only access to batches; a test pins it.
from qh3._hazmat import UdpSocketState
from qh3.asyncio._transport import create_optimized_datagram_transport

if TYPE_CHECKING:
    from collections.abc import Callable

_BUFFER_BYTES = 4 * 1024 * 1024
_ADDRESS = itemgetter(1)


class UdpSocket(asyncio.DatagramProtocol):
    """An unconnected socket, so that its address may change; ``on_datagrams`` gets (datagrams, address)."""

    def __init__(self, on_datagrams: Callable[[list[bytes], Any], object]) -> None:
        self.datagrams_received = on_datagrams
        self._transport: Any = None
        self._send_many: Callable[[list[bytes], Any], object] | None = None
        self._reader: _Reader | None = None

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
        opened.read_batches()
        return opened

    def read_batches(self) -> None:
        """Read in batches from now on, if the system can.

        qh3's transport hands on what it has read once an exception tells that there is no more, which costs each call.
        """
        if self._send_many is None:
            return
        with contextlib.suppress(OSError, NotImplementedError):
            self._reader = _Reader(self.socket, self.datagrams_received)
            self._transport.pause_reading()
            self._reader.start()

    @property
    def socket(self) -> Any:
        """The socket."""
        return self._transport.get_extra_info("socket")

    def send(self, datagrams: list[bytes], address: Any) -> None:
        """Send datagrams to an address."""
        if self._transport.is_closing():
            return
        if self._send_many is not None:
            self._send_many(datagrams, address)
            return
        for datagram in datagrams:
            self._transport.sendto(datagram, address)

    def close(self) -> None:
        """Close the socket."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: Any) -> None:
        """Keep the transport."""
        self._transport = transport
        self._send_many = getattr(transport, "sendto_many", None)

    def datagram_received(self, data: bytes, addr: Any) -> None:
        """Handle a single datagram."""
        self.datagrams_received([data], addr)

    def error_received(self, exc: Exception) -> None:
        """Ignore ICMP errors: anybody can forge them, and QUIC detects loss itself."""


class _Reader:
    """Reads a batch in each turn of the loop, which comes back while there is more."""

    def __init__(self, sock: Any, on_datagrams: Callable[[list[bytes], Any], object]) -> None:
        self._descriptor: int = sock.fileno()
        self._receive = UdpSocketState(self._descriptor).recv
        self._on_datagrams = on_datagrams
        self._loop = asyncio.get_running_loop()

    def start(self) -> None:
        self._loop.add_reader(self._descriptor, self._on_readable)

    def close(self) -> None:
        self._loop.remove_reader(self._descriptor)
        del self._receive  # with its copy of the descriptor: the port is free once the transport is closed

    def _on_readable(self) -> None:
        try:
            received = self._receive()
        except OSError:
            return  # there is nothing to read after all, or it is an ICMP error
        for address, group in itertools.groupby(received, key=_ADDRESS):
            self._on_datagrams([datagram for datagram, _ in group], address)
