"""qh3 as it is, as a client or a server that would take early data and datagrams, driven by the test's own thread."""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING, Any

from qh3.quic.configuration import QuicConfiguration
from qh3.quic.connection import QuicConnection

from lightlink.protocol.edge import ALPN

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from qh3.quic.events import QuicEvent
    from qh3.tls import SessionTicket
    from typing_extensions import Self

HOST = "127.0.0.1"
_DATAGRAM = 1200
_TURN = 0.01
_PATIENCE = 30.0


class RawQuic:
    """A UDP socket and the QUIC connections on it; ``events`` holds what they told, ``datagrams`` what came."""

    def __init__(self) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind((HOST, 0))
        self.socket.settimeout(_TURN)
        self.port: int = self.socket.getsockname()[1]
        self.connections: dict[Any, QuicConnection] = {}
        self.events: list[QuicEvent] = []
        self.datagrams: list[bytes] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def accept(self, _data: bytes, _address: Any) -> QuicConnection | None:
        """Return the connection of an address that was not heard of before, None to ignore it."""
        return None

    def turn(self) -> None:
        """Send what is due, and take what comes within a moment."""
        for connection in self.connections.values():
            for data, to in connection.datagrams_to_send(time.monotonic()):
                self.socket.sendto(data, to)
        try:
            data, address = self.socket.recvfrom(65536)
        except TimeoutError:
            data, address = b"", None
        if data:
            self.datagrams.append(data)
            found = self.connections.get(address) or self.accept(data, address)
            if found is not None:
                self.connections[address] = found
                found.receive_datagram(data, address, time.monotonic())
        for connection in self.connections.values():
            timer = connection.get_timer()
            if timer is not None and timer <= time.monotonic():
                connection.handle_timer(time.monotonic())
            self.events.extend(iter(connection.next_event, None))

    def turn_until(self, is_so: Callable[[], bool]) -> None:
        """Go on until something is so; AssertionError after half a minute."""
        deadline = time.monotonic() + _PATIENCE
        while not is_so():
            assert time.monotonic() < deadline, f"not so after {_PATIENCE:g} s; told: {self.events}"
            self.turn()

    def of(self, kind: type[Any]) -> list[Any]:
        """Return the events of a kind."""
        return [event for event in self.events if isinstance(event, kind)]


class RawQuicClient(RawQuic):
    """A client; it keeps the ``tickets`` that it is given, and may come with one."""

    def __init__(self, port: int, ca: Path, ticket: SessionTicket | None = None) -> None:
        super().__init__()
        self.tickets: list[SessionTicket] = []
        configuration = QuicConfiguration(
            alpn_protocols=[ALPN], server_name=HOST, session_ticket=ticket, max_datagram_frame_size=_DATAGRAM
        )
        configuration.load_verify_locations(str(ca))
        self.quic = QuicConnection(configuration=configuration, session_ticket_handler=self.tickets.append)
        self.quic.connect((HOST, port), time.monotonic())
        self.connections[HOST, port] = self.quic


class RawQuicServer(RawQuic):
    """A server that hands out tickets for early data; ``asked`` are those with which clients came back."""

    def __init__(self, cert: Path, key: Path) -> None:
        super().__init__()
        self.tickets: dict[bytes, SessionTicket] = {}
        self.asked: list[bytes] = []
        self._configuration = QuicConfiguration(
            is_client=False, alpn_protocols=[ALPN], max_datagram_frame_size=_DATAGRAM
        )
        self._configuration.load_cert_chain(cert, key)

    def accept(self, data: bytes, _address: Any) -> QuicConnection | None:
        """Take each client that begins."""
        if not data[0] & 0x80:
            return None
        return QuicConnection(
            configuration=self._configuration,
            original_destination_connection_id=data[6 : 6 + data[5]],
            session_ticket_handler=lambda ticket: self.tickets.update({ticket.ticket: ticket}),
            session_ticket_fetcher=self._fetch,
        )

    def _fetch(self, identity: bytes) -> SessionTicket | None:
        self.asked.append(identity)
        return self.tickets.get(identity)
