"""The transport for ``quic://``: a NATS connection on a stream of a QUIC connection to a gateway.

There are two TLS layers with separate identities. QUIC's authenticates the gateway by the host of the URL. TLS with
nats-server runs inside it, where the gateway cannot read it; nats-server's certificate is verified against a name that
no gateway has in its certificate, or a gateway could impersonate nats-server.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
from typing import TYPE_CHECKING, Any, ClassVar

from qh3.quic.configuration import QuicConfiguration

from lightlink.connection.transports.inlet import Inlet
from lightlink.connection.transports.quic_errors import GatewayError, UdpSilence
from lightlink.connection.transports.quic_link import Core, Link
from lightlink.connection.transports.quic_shortcut import QuicShortcut
from lightlink.connection.transports.tcp import TcpTransport
from lightlink.connection.transports.udp import UdpSocket
from lightlink.protocol.edge import ALPN, INNER_NAME, EdgeCode, Kind, preamble

if TYPE_CHECKING:
    from lightlink.options import TLS

# Seconds. NAT mappings live for 30 s or more; a path silent for the idle timeout is given up.
_KEEP_ALIVE = 3.0
_IDLE = 12.0
# Seconds for flushing written data when a connection is closed.
_LINGER = 1.0
# The share of an attempt's time after which it fails here, with the reason.
_SHARE = 0.9
# And if there is another server to try: nothing reports that UDP is blocked.
_WITH_FALLBACK = 2.0


class ClientLink(Link):
    """A client's QUIC connection with its own socket. It closes with its last stream."""

    def __init__(self, quic: Core, udp: UdpSocket) -> None:
        super().__init__(quic, udp.send)
        self._udp = udp
        self._connected: asyncio.Future[None] = self._loop.create_future()
        # Mark it retrieved, or asyncio logs an error that nobody waited for any more.
        self._connected.add_done_callback(lambda done: done.cancelled() or done.exception())
        self._keep_alive: asyncio.TimerHandle | None = None
        self._leave_by = 0.0
        self.left: asyncio.Future[None] = self._loop.create_future()

    async def connect(self, address: Any) -> None:
        """Perform the handshake; raises GatewayError."""
        self._attempt(self.quic.connect, address, self._loop.time())
        self.transmit()
        await asyncio.shield(self._connected)

    def on_connected(self) -> None:
        """Complete `connect`, and start the keep-alive."""
        if not self._connected.done():
            self._connected.set_result(None)
        self._keep_alive = self._loop.call_later(_KEEP_ALIVE, self._ping)

    def _ping(self) -> None:
        if not self.ended:
            self._attempt(self.quic.send_ping, 0)
            self.transmit()
            self._keep_alive = self._loop.call_later(_KEEP_ALIVE, self._ping)

    def on_forgotten(self) -> None:
        """Close after the last stream, once its data is sent."""
        if not self.streams and not self.ended:
            self._leave_by = self._loop.time() + _LINGER
            self._leave()

    def _leave(self) -> None:
        if not self.ended and self._attempt(self.quic.get_send_buffer_size) and self._loop.time() < self._leave_by:
            self._loop.call_later(0.01, self._leave)
        else:
            self.close(EdgeCode.NO_ERROR)

    def on_ended(self, error: GatewayError) -> None:
        """Close the socket."""
        if not self._connected.done():
            self._connected.set_exception(error)
        if self._keep_alive is not None:
            self._keep_alive.cancel()
        self._udp.close()
        if not self.left.done():
            self.left.set_result(None)

    def extra_info(self) -> dict[str, Any]:
        """Return the socket too: a forked child closes its copy."""
        return {**super().extra_info(), "socket": self._udp.socket}


class QuicTransport(TcpTransport):
    """A NATS connection through a gateway."""

    schemes: ClassVar[frozenset[str]] = frozenset({"quic"})

    def __init__(self, tls: TLS | None, *, has_fallback: bool = False, kind: Kind = Kind.MAIN) -> None:
        super().__init__()
        self._tls = tls
        self._has_fallback = has_fallback
        self._kind = kind
        self._link: ClientLink | None = None

    async def connect(self, uri: Any, buffer_size: int, connect_timeout: float) -> None:
        """Connect to the gateway at the first of the host's addresses that answers, and open a stream."""
        self.abort()
        self._in_handshake = False
        limit = min(connect_timeout * _SHARE, _WITH_FALLBACK if self._has_fallback else connect_timeout)
        deadline = asyncio.get_running_loop().time() + limit
        addresses = await asyncio.wait_for(self._resolver.look_up(uri.hostname, uri.port), limit)
        for number, address in enumerate(addresses):
            remaining = deadline - asyncio.get_running_loop().time()
            try:
                share = max(remaining, 0.0) / (len(addresses) - number)
                link = await asyncio.wait_for(self._shake_hands(uri.hostname, address), share)
            except (OSError, asyncio.TimeoutError) as exc:
                if number + 1 < len(addresses) and not isinstance(exc, GatewayError):
                    continue
                if isinstance(exc, asyncio.TimeoutError):
                    raise UdpSilence(uri.hostname, uri.port, limit, self._has_fallback) from None
                raise
            self._link = link
            stream = link.open_stream()
            inlet = Inlet(self.take, buffer_size)
            stream.set_protocol(inlet.protocol)
            inlet.protocol.connection_made(stream)
            self._begin(inlet, stream, QuicShortcut(link, stream))
            stream.write(preamble(self._kind))
            return

    async def connect_tls(
        self, _uri: Any, ssl_context: ssl.SSLContext, _buffer_size: int, connect_timeout: float
    ) -> None:
        """Start TLS with nats-server, verifying the inner name instead of the one nats-py passes."""
        await self._upgrade(INNER_NAME if self._tls is None else self._tls.inner_hostname, ssl_context, connect_timeout)

    async def wait_closed(self) -> None:
        """Wait until the QUIC connection is closed: the stream ends before its last bytes are sent."""
        await super().wait_closed()
        if self._link is not None:
            await asyncio.shield(self._link.left)

    async def _shake_hands(self, host: str, address: tuple[str, int]) -> ClientLink:
        family = socket.AF_INET6 if ipaddress.ip_address(address[0].partition("%")[0]).version == 6 else socket.AF_INET
        link: ClientLink | None = None

        def receive(datagrams: list[bytes], source: Any) -> None:
            # Accept the gateway's address only: others would be taken for a migration.
            if link is not None and source[:2] == address:
                link.receive(datagrams, address)

        udp = await UdpSocket.open(("::" if family == socket.AF_INET6 else "0.0.0.0", 0), family, receive)  # noqa: S104
        try:
            link = ClientLink(Core(configuration=self._configuration(host)), udp)
            await link.connect(address)
        except BaseException:
            udp.close()
            if link is not None and not link.ended:
                link.close(EdgeCode.NO_ERROR)
            raise
        return link

    def _configuration(self, host: str) -> QuicConfiguration:
        configuration = QuicConfiguration(
            is_client=True,
            alpn_protocols=[ALPN],
            server_name=host,
            idle_timeout=_IDLE,
            verify_mode=ssl.CERT_REQUIRED,
            max_datagram_frame_size=0,  # without it a qh3 client offers DATAGRAM frames
        )
        if self._tls is not None and self._tls.ca is not None:
            configuration.load_verify_locations(cafile=str(self._tls.ca))
        else:
            # Some systems have a file of authorities, some a directory, and most both, with the same in them.
            system = ssl.get_default_verify_paths()
            configuration.load_verify_locations(system.cafile, None if system.cafile else system.capath)
        return configuration
