"""What the handshake does not offer: early data (0-RTT), which anybody can replay, and DATAGRAM frames."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, Any

import pytest
from helpers.pki import tls_of
from helpers.raw_quic import HOST, RawQuicClient, RawQuicServer
from qh3.quic.events import HandshakeCompleted, StreamDataReceived

import lightlink
from lightlink.protocol.edge import Kind, preamble

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from helpers.edge import StartGateway
    from qh3.tls import SessionTicket

# The first byte of a 0-RTT packet (RFC 9000, section 17.2.3).
_EARLY = 0xD0


def is_early(datagram: bytes) -> bool:
    return datagram[0] & 0xF0 == _EARLY


@pytest.fixture
def server(identities: Path) -> Iterator[RawQuicServer]:
    with RawQuicServer(identities / "gateway.pem", identities / "gateway.key") as running:
        yield running


def complete(client: RawQuicClient) -> HandshakeCompleted:
    client.turn_until(lambda: bool(client.of(HandshakeCompleted)))
    found: HandshakeCompleted = client.of(HandshakeCompleted)[0]
    return found


@contextlib.contextmanager
def served(server: RawQuicServer) -> Iterator[None]:
    """Run a server in a thread meanwhile."""
    ended = threading.Event()

    def work() -> None:
        while not ended.is_set():
            server.turn()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@pytest.fixture
def ticket(server: RawQuicServer, identities: Path) -> SessionTicket:
    """A session ticket that allows early data, from a server with the gateway's certificate."""
    with served(server), RawQuicClient(server.port, identities / "ca.pem") as client:
        client.turn_until(lambda: bool(client.tickets))
        return client.tickets[0]


# The gateway ----------------------------------------------------------------------------------------------------------


def test_a_server_with_early_data_accepts_the_ticket(
    server: RawQuicServer, ticket: SessionTicket, identities: Path
) -> None:
    # The control for the tests below: where early data is allowed, this ticket and these bytes are accepted.
    with served(server), RawQuicClient(server.port, identities / "ca.pem", ticket) as client:
        client.quic.send_stream_data(0, preamble(Kind.MAIN))
        assert complete(client).early_data_accepted
    assert any(is_early(data) for data in server.datagrams)


def test_a_gateway_accepts_no_early_data(start_gateway: StartGateway, ticket: SessionTicket, identities: Path) -> None:
    gateway = start_gateway()
    with RawQuicClient(gateway.address[1], identities / "ca.pem", ticket) as client:
        client.quic.send_stream_data(0, preamble(Kind.MAIN))
        told = complete(client)
        assert (told.early_data_accepted, told.session_resumed) == (False, False)
        # It is served after it has sent the same again as 1-RTT data.
        client.turn_until(lambda: any(b"INFO " in event.data for event in client.of(StreamDataReceived)))
    assert gateway.counts.accepted == 1


def test_a_gateway_issues_no_tickets_and_accepts_no_datagrams(start_gateway: StartGateway, identities: Path) -> None:
    gateway = start_gateway()
    with RawQuicClient(gateway.address[1], identities / "ca.pem") as client:
        complete(client)
        bridge: Any = client.quic._tls
        assert not bridge.remote_transport_parameters.max_datagram_frame_size
        client.quic.send_stream_data(0, preamble(Kind.MAIN))
        # Tickets would come before stream data.
        client.turn_until(lambda: bool(client.of(StreamDataReceived)))
        assert not client.tickets
        with pytest.raises(ValueError, match="DATAGRAM"):
            client.quic.send_datagram_frame(b"junk")


# The client -----------------------------------------------------------------------------------------------------------


def connect(server: RawQuicServer, identities: Path) -> Any:
    """Let a client shake hands, and hang up; return what the server was told of it."""

    def attempt() -> None:
        url = f"quic://{HOST}:{server.port}"
        with contextlib.suppress(lightlink.LightLinkError):
            lightlink.connect(url, name="web", tls=tls_of(identities, "web"), connect_timeout=30.0).close()

    known = set(server.connections)
    shaken = len(server.of(HandshakeCompleted))
    thread = threading.Thread(target=attempt)
    thread.start()
    server.turn_until(lambda: len(server.of(HandshakeCompleted)) > shaken)
    made = [connection for address, connection in server.connections.items() if address not in known]
    for connection in made:
        connection.close()
    server.turn_until(lambda: not thread.is_alive())
    return made


def test_a_client_sends_no_ticket_and_no_early_data(server: RawQuicServer, identities: Path) -> None:
    for _ in range(2):
        assert connect(server, identities)
    assert server.tickets
    assert not server.asked
    assert not any(is_early(data) for data in server.datagrams)
    assert not any(event.session_resumed for event in server.of(HandshakeCompleted))


def test_a_client_announces_that_it_accepts_no_datagrams(server: RawQuicServer, identities: Path) -> None:
    told = [connection._tls.remote_transport_parameters for connection in connect(server, identities)]
    assert told
    assert not any(parameters.max_datagram_frame_size for parameters in told)
