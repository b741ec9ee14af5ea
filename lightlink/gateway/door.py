"""The UDP socket of a gateway: route each datagram to its connection, and admit new connections."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from typing import TYPE_CHECKING, Any

from qh3.quic.configuration import QuicConfiguration
from qh3.quic.events import ConnectionIdIssued, ConnectionIdRetired, PingAcknowledged
from qh3.quic.packet import encode_quic_retry, encode_quic_version_negotiation

from lightlink.connection.transports.quic_link import Core, Link
from lightlink.gateway.packets import CID_LENGTH, LEAST_INITIAL, VERSION, Secrets, new_cid, read_header
from lightlink.gateway.path import Path
from lightlink.gateway.pipe import Pipe
from lightlink.protocol.edge import ALPN, EdgeCode

if TYPE_CHECKING:
    from collections.abc import Callable

    from qh3.quic.events import QuicEvent
    from qh3.quic.tls_bridge import QuicTlsBridge

    from lightlink.connection.transports.quic_errors import GatewayError
    from lightlink.connection.transports.quic_stream import QuicStream
    from lightlink.gateway.counts import Counts
    from lightlink.gateway.options import GatewayOptions
    from lightlink.gateway.packets import Header

_log = logging.getLogger("lightlink.gateway")

_IDLE = 15.0
# The flow control window in bytes: a client that leaves gaps can make us buffer this much.
_MAX_DATA, _MAX_STREAM_DATA = 4 * 1024 * 1024, 2 * 1024 * 1024
# Streams that a connection may open over its life.
_MOST_STREAMS_EVER = 1024
_RESETS_A_SECOND = 100
# Where the connection id ends in a short header.
_CID_END = 1 + CID_LENGTH
# Beyond this many times `retry_above`, further half-open connections are ignored even from validated addresses.
_VALIDATED_SHARE = 8


class ServerCore(Core):
    """A qh3 connection that tells authentic packets, and issues reset tokens that another process can recompute."""

    def __init__(self, *, reset_token: Callable[[bytes], bytes], **options: Any) -> None:
        super().__init__(**options)
        self._reset_token = reset_token

    def _create_tls(self, remote_source_cid: bytes | None) -> QuicTlsBridge:
        bridge = super()._create_tls(remote_source_cid)
        bridge.stateless_reset_token = self._reset_token(self.host_cid)
        self.write_parameters(bridge)  # qh3 wrote them with a random token
        return bridge

    def receive_authentic(self, data: bytes, now: float) -> bool:
        """Process one datagram after the handshake; tell whether it is authentic and not a replay."""
        report = self._call_core(self._require_core().receive_datagram, data, self._remote_addr, now, len(data))
        self._drain_core()
        return bool(report[2])


class ClientConnection(Link):
    """One client's QUIC connection."""

    def __init__(self, quic: ServerCore, door: Door, address: Any) -> None:
        super().__init__(quic, self._send_to_client)
        self.address = address
        self.cids: set[bytes] = set()
        self.is_connected = False
        self._door = door
        self._seen: set[int] = set()
        self._path = Path(address)
        self._server = quic
        self._deadline = self._loop.call_later(door.options.handshake_timeout, self._give_up)

    def on_connected(self) -> None:
        """Accept the connection if there is room."""
        self.is_connected = True
        self._deadline.cancel()
        self._door.connected(self)
        self._expect_stream()

    def on_ended(self, error: GatewayError) -> None:
        """Remove the connection."""
        self._deadline.cancel()
        self._door.forget(self, error)

    def on_event(self, event: QuicEvent) -> None:
        """Track the connection ids that the client uses, and validation of its path."""
        if isinstance(event, PingAcknowledged):
            self._path.note_acknowledged(event.uid)
        elif isinstance(event, ConnectionIdIssued):
            self._door.name(event.connection_id, self)
        elif isinstance(event, ConnectionIdRetired):
            self._door.unname(event.connection_id, self)

    def receive(self, datagrams: list[bytes], address: Any) -> None:
        """Process datagrams; migrate the path when an authentic one comes from a new address."""
        if address == self._path.current:
            self._path.note_received(sum(map(len, datagrams)))
            super().receive(datagrams, self.address)
        elif self.is_connected:
            for data in datagrams:
                if self._attempt(self._server.receive_authentic, data, self._loop.time()):
                    self._follow(address, len(data))
            self._handle_events()
            self.transmit()

    def _follow(self, address: Any, size: int) -> None:
        now = self._loop.time()
        if self._path.is_move(address, now):
            self._attempt(self.quic.send_ping, self._path.move(address, size, now))
            self._door.moved(self, address)
        else:
            self._path.note_received(size)

    def _send_to_client(self, datagrams: list[bytes], _: Any) -> None:
        if not self._path.is_validated:
            # What exceeds the anti-amplification limit counts as lost in the network, and is retransmitted.
            now = self._loop.time()
            datagrams = [data for data in datagrams if self._path.may_send(len(data), now)]
        if datagrams:
            self._door.send(datagrams, self._path.current)

    def on_stream(self, number: int) -> QuicStream | None:
        """Create a pipe for a stream that the client opened."""
        if number in self._seen:
            return None  # a late packet of a stream that has ended
        is_of_use = number % 4 == 0 and len(self.streams) < self._door.options.max_streams
        if not is_of_use or len(self._seen) >= _MOST_STREAMS_EVER:
            self.refuse(EdgeCode.TOO_MANY_STREAMS)
            return None
        self._seen.add(number)
        self._deadline.cancel()
        stream = self.add_stream(number)
        stream.set_protocol(Pipe(stream, self._door.options, self._door.counts))
        return stream

    def on_forgotten(self) -> None:
        """Close the connection unless another stream opens soon."""
        if not self.streams and not self.ended:
            self._expect_stream()

    def refuse(self, code: EdgeCode) -> None:
        """Close the connection with a reason."""
        if not self.ended:
            self._door.counts.refusals[code.name.lower()] += 1
            self.close(code, code.name.lower())

    def _expect_stream(self) -> None:
        self._deadline.cancel()
        if not self.ended:
            timeout = self._door.options.preamble_timeout
            self._deadline = self._loop.call_later(timeout, self.refuse, EdgeCode.PREAMBLE_TIMEOUT)

    def _give_up(self) -> None:
        self._door.counts.refusals["handshake_timeout"] += 1
        self.close(EdgeCode.NO_ERROR)


class Door:
    """Receives every datagram of the gateway."""

    def __init__(
        self, options: GatewayOptions, counts: Counts, secrets: Secrets, send: Callable[[list[bytes], Any], object]
    ) -> None:
        self.options = options
        self.counts = counts
        self.send = send
        self.is_closing = False
        self._secrets = secrets
        self._configuration = QuicConfiguration(
            is_client=False,
            alpn_protocols=[ALPN],
            idle_timeout=_IDLE,
            max_data=_MAX_DATA,
            max_stream_data=_MAX_STREAM_DATA,
            connection_id_length=CID_LENGTH,
        )
        self._configuration.load_cert_chain(options.cert, options.key)
        self._by_cid: dict[bytes, ClientConnection] = {}
        self._connections: set[ClientConnection] = set()
        self._by_host: Counter[str] = Counter()
        self._resets_left = _RESETS_A_SECOND
        self._loop = asyncio.get_running_loop()

    @property
    def connections(self) -> list[ClientConnection]:
        """The open connections."""
        return list(self._connections)

    def receive(self, datagrams: list[bytes], address: Any) -> None:
        """Dispatch datagrams from one address to their connections, in batches per connection."""
        first = datagrams[0]
        cid = first[1:_CID_END]
        connection = self._by_cid.get(cid)
        # The common case: all belong to one connection and have short headers.
        if connection is not None and max(datagrams) < b"\x80" and {data[1:_CID_END] for data in datagrams} == {cid}:
            connection.receive(datagrams, address)
            return
        for data in datagrams:
            self._receive_one(data, address)

    def _receive_one(self, data: bytes, address: Any) -> None:
        header = read_header(data)
        if header is None:
            self.counts.refusals["junk"] += 1
            return
        connection = self._by_cid.get(header.destination)
        if connection is not None:
            connection.receive([data], address)
        elif header.version is None:
            self._reset(header.destination, len(data), address)
        elif header.version != VERSION:
            self._negotiate(header, len(data), address)
        elif header.is_initial and len(data) >= LEAST_INITIAL and not self.is_closing:
            self._open(header, data, address)

    def _negotiate(self, header: Header, size: int, address: Any) -> None:
        # Version 0 is a version negotiation packet: never answer one.
        if header.version and size >= LEAST_INITIAL:
            answer = encode_quic_version_negotiation(
                source_cid=header.destination, destination_cid=header.source, supported_versions=[VERSION]
            )
            self.send([answer], address)

    def _reset(self, cid: bytes, size: int, address: Any) -> None:
        """Send a stateless reset: the connection is unknown here."""
        answer = self._secrets.stateless_reset(cid, size)
        if answer is None or self._resets_left <= 0:
            return
        if self._resets_left == _RESETS_A_SECOND:
            self._loop.call_later(1.0, self._allow_resets)
        self._resets_left -= 1
        self.counts.resets_sent += 1
        self.send([answer], address)

    def _allow_resets(self) -> None:
        self._resets_left = _RESETS_A_SECOND

    def _open(self, header: Header, data: bytes, address: Any) -> None:
        original, retry_source = header.destination, None
        if header.token:
            ids = self._secrets.check_retry_token(address, header.token)
            if ids is None or ids[1] != header.destination:
                self.counts.refusals["bad_token"] += 1
                return
            original, retry_source = ids
        elif self.counts.half_open >= self.options.retry_above:
            self._retry(header, address)
            return
        if self.counts.half_open >= _VALIDATED_SHARE * self.options.retry_above:
            self.counts.refusals["too_many_handshakes"] += 1
            return
        quic = ServerCore(
            configuration=self._configuration,
            original_destination_connection_id=original,
            retry_source_connection_id=retry_source,
            reset_token=self._secrets.reset_token,
        )
        connection = ClientConnection(quic, self, address)
        self._connections.add(connection)
        self.counts.half_open += 1
        self._by_host[address[0]] += 1
        self.name(header.destination, connection)
        self.name(quic.host_cid, connection)
        connection.receive([data], address)

    def _retry(self, header: Header, address: Any) -> None:
        self.counts.retries += 1
        source = new_cid()
        answer = encode_quic_retry(
            version=VERSION,
            source_cid=source,
            destination_cid=header.source,
            original_destination_cid=header.destination,
            retry_token=self._secrets.retry_token(address, header.destination, source),
        )
        self.send([answer], address)

    # Called by the connections --------------------------------------------------------------------------------------

    def connected(self, connection: ClientConnection) -> None:
        """Accept a connection whose handshake is complete, or refuse it."""
        self.counts.half_open -= 1
        self.counts.connections += 1
        self.counts.accepted += 1
        is_one_too_many = self._by_host[connection.address[0]] > self.options.max_per_address
        if is_one_too_many or self.counts.connections > self.options.max_connections:
            connection.refuse(EdgeCode.TOO_MANY_CONNECTIONS)
            return
        _log.info("lightlink: %s connected", _text(connection.address), extra=_facts("connected", connection))

    def moved(self, connection: ClientConnection, address: Any) -> None:
        """Count a connection migration."""
        self.counts.migrations += 1
        facts = {**_facts("moved", connection), "to": list(address[:2])}
        _log.info("lightlink: %s moved to %s", _text(connection.address), _text(address), extra=facts)

    def name(self, cid: bytes, connection: ClientConnection) -> None:
        """Register a connection id."""
        self._by_cid[cid] = connection
        connection.cids.add(cid)

    def unname(self, cid: bytes, connection: ClientConnection) -> None:
        """Retire a connection id."""
        self._by_cid.pop(cid, None)
        connection.cids.discard(cid)

    def forget(self, connection: ClientConnection, error: GatewayError) -> None:
        """Remove a closed connection."""
        for cid in connection.cids:
            self._by_cid.pop(cid, None)
        self._connections.discard(connection)
        host = connection.address[0]
        self._by_host[host] -= 1
        if not self._by_host[host]:
            del self._by_host[host]
        if connection.is_connected:
            self.counts.connections -= 1
        else:
            self.counts.half_open -= 1
            if error.alert is not None:
                self.counts.refusals["tls"] += 1
        # Anybody can start and abandon handshakes: they are counted, so that nobody can fill the log.
        if connection.is_connected:
            facts = {**_facts("ended", connection), "reason": str(error)}
            _log.info("lightlink: %s left: %s", _text(connection.address), error, extra=facts)


def _text(address: Any) -> str:
    return f"{address[0]} port {address[1]}"


def _facts(event: str, connection: ClientConnection) -> dict[str, Any]:
    return {"event": event, "address": list(connection.address[:2])}
