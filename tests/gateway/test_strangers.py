from __future__ import annotations

import contextlib
import os
import socket
from typing import TYPE_CHECKING, Any

import pytest
from helpers.edge import UdpRelay, url_of
from helpers.loop import LoopThread
from helpers.stranger import Ear, Stranger
from helpers.waiting import eventually
from qh3.quic.configuration import QuicConfiguration
from qh3.quic.connection import QuicConnection

from lightlink.connection.transports import quic
from lightlink.errors import ConnectError
from lightlink.protocol.edge import ALPN, EdgeCode, preamble
from lightlink.protocol.edge import Kind as StreamKind

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from helpers.edge import Link, Serve, StartGateway

    from lightlink.gateway import Gateway


@pytest.fixture
def thread() -> Iterator[LoopThread]:
    thread = LoopThread("strangers")
    yield thread
    thread.stop()


@pytest.fixture
def stranger(thread: LoopThread, identities: Path) -> Iterator[Any]:
    with contextlib.ExitStack() as stack:

        def connect(gateway: Gateway) -> Stranger:
            made = Stranger(gateway.address[1], identities / "ca.pem", thread)
            stack.callback(made.hang_up)
            return made

        yield connect


def ended(ear: Ear, code: EdgeCode) -> None:
    assert eventually(lambda: ear.code() is not None)
    assert ear.code() == code


def test_a_stream_with_a_bad_preamble_is_reset(start_gateway: StartGateway, stranger: Any) -> None:
    gateway = start_gateway()
    for words in (b"GET / HTTP/1.1\r\n", b"LLQ/2 main\n", b"LLQ/1 other\n", b"x" * 100):
        ended(stranger(gateway).say(words), EdgeCode.BAD_PREAMBLE)
    assert gateway.counts.refusals["bad_preamble"] == 4
    assert eventually(lambda: gateway.counts.streams == 0) is True


def test_an_incomplete_preamble_times_out(start_gateway: StartGateway, stranger: Any) -> None:
    gateway = start_gateway(preamble_timeout=1.0)  # it counts from the handshake, and the half has to come in time
    ear = stranger(gateway).say(b"LLQ/1 ma")
    ended(ear, EdgeCode.PREAMBLE_TIMEOUT)


def test_a_connection_without_a_stream_is_closed(start_gateway: StartGateway, stranger: Any) -> None:
    gateway = start_gateway(preamble_timeout=0.1)
    client = stranger(gateway)
    eventually(lambda: client.link.ended)
    eventually(lambda: gateway.counts.connections == 0)
    assert gateway.counts.refusals["preamble_timeout"] == 1


def test_one_stream_too_many_closes_the_connection(start_gateway: StartGateway, stranger: Any) -> None:
    gateway = start_gateway(max_streams=2)
    client = stranger(gateway)
    ears = [client.say(preamble(StreamKind.MAIN)) for _ in range(3)]
    for ear in ears:
        ended(ear, EdgeCode.TOO_MANY_STREAMS)


def test_one_connection_too_many_of_an_address_is_refused(start_gateway: StartGateway, link: Link) -> None:
    gateway = start_gateway(max_per_address=1)
    link(url=url_of(gateway))
    with pytest.raises(Exception, match="too many connections"):
        link(url=url_of(gateway), connect_timeout=30.0)
    assert gateway.counts.refusals["too_many_connections"] >= 1


def test_a_stream_is_reset_when_the_server_stops_reading(start_gateway: StartGateway, stranger: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        gateway = start_gateway(f"nats://127.0.0.1:{deaf.getsockname()[1]}", max_waiting=256 * 1024)
        ear = stranger(gateway).say(preamble(StreamKind.MAIN), *[b"x" * 65536] * 256)
        ended(ear, EdgeCode.UPSTREAM_SLOW)
    assert gateway.counts.refusals["upstream_slow"] == 1
    # At most the kernel's buffers, max_waiting, and what was in flight.
    assert gateway.counts.bytes_in < 16 * 1024 * 1024


def test_dialing_a_server_that_accepts_nothing_times_out(start_gateway: StartGateway, stranger: Any) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full, contextlib.ExitStack() as stack:
        for _ in range(2):  # fill its accept queue
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        gateway = start_gateway(f"nats://127.0.0.1:{full.getsockname()[1]}", dial_timeout=0.1)
        ended(stranger(gateway).say(preamble(StreamKind.MAIN)), EdgeCode.UPSTREAM_UNREACHABLE)
    assert gateway.counts.refusals["upstream_unreachable"] == 1


def test_one_connection_too_many_in_all_is_refused(start_gateway: StartGateway, stranger: Any) -> None:
    gateway = start_gateway(max_connections=1)
    first, second = stranger(gateway), stranger(gateway)
    assert eventually(lambda: second.link.ended)
    assert not first.link.ended
    assert gateway.counts.refusals["too_many_connections"] == 1


def test_data_in_flight_is_forwarded_before_a_stop(
    start_gateway: StartGateway, identities: Path, thread: LoopThread
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as upstream:
        gateway = start_gateway(f"nats://127.0.0.1:{upstream.getsockname()[1]}")
        with UdpRelay(gateway.address[1]) as relay:
            relay.seconds = 0.02  # keeps data in flight
            ear = Stranger(relay.port, identities / "ca.pem", thread).say(preamble(StreamKind.MAIN))
            served, _ = upstream.accept()
            with served:
                content = os.urandom(200 * 1024)  # more than can leave at once
                served.sendall(content)
                assert eventually(lambda: gateway.counts.bytes_out == len(content))
                gateway.stop()
            ended(ear, EdgeCode.SHUTTING_DOWN)
            assert ear.data == content


def test_a_unidirectional_stream_is_refused(start_gateway: StartGateway, stranger: Any, thread: LoopThread) -> None:
    gateway = start_gateway()
    client = stranger(gateway)

    async def speak() -> None:
        client.link.send(client.link.quic.get_next_available_stream_id(is_unidirectional=True), b"LLQ/1 main\n")

    thread.run(speak())
    assert eventually(lambda: client.link.ended)
    assert gateway.counts.refusals["too_many_streams"] == 1


def test_an_incomplete_handshake_times_out(start_gateway: StartGateway, link: Link) -> None:
    gateway = start_gateway(handshake_timeout=0.6)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.sendto(initial(gateway.address[1]), ("127.0.0.1", gateway.address[1]))
        assert eventually(lambda: gateway.counts.refusals["handshake_timeout"] == 1)
    assert gateway.counts.half_open == 0
    link("keeper", url_of(gateway)).set_state("half", 1)


def test_a_client_of_another_protocol_is_refused_and_told(
    start_gateway: StartGateway, link: Link, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway = start_gateway()
    monkeypatch.setattr(quic, "ALPN", "another/1")
    with pytest.raises(ConnectError, match=r"is not a LightLink gateway \(ALPN\)"):
        link("keeper", url_of(gateway), connect_timeout=30.0)
    assert eventually(lambda: gateway.counts.refusals["tls"] >= 1)
    assert gateway.counts.accepted == 0


def test_handshakes_of_validated_addresses_are_bounded_too(start_gateway: StartGateway) -> None:
    gateway = start_gateway(retry_above=1)
    to = ("127.0.0.1", gateway.address[1])
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        first.sendto(initial(to[1]), to)
        assert eventually(lambda: gateway.counts.half_open == 1)
        for _ in range(12):
            client = QuicConnection(configuration=QuicConfiguration(alpn_protocols=[ALPN], server_name="127.0.0.1"))
            client.connect(to, 1.0)
            sock = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            sock.settimeout(30)
            for answer in (lambda: client.receive_datagram(sock.recv(2048), to, 1.0), lambda: None):  # noqa: B023
                for data, _ in client.datagrams_to_send(1.0):
                    sock.sendto(data, to)
                answer()  # first read the Retry, then leave the handshake half-open
        assert eventually(lambda: gateway.counts.refusals["too_many_handshakes"] >= 5)
        assert gateway.counts.half_open == 8
        assert gateway.counts.retries >= 12


def initial(port: int) -> bytes:
    client = QuicConnection(configuration=QuicConfiguration(alpn_protocols=[ALPN], server_name="127.0.0.1"))
    client.connect(("127.0.0.1", port), 1.0)
    return bytes(client.datagrams_to_send(1.0)[0][0])


def test_a_flood_of_initial_packets_keeps_nobody_out(start_gateway: StartGateway, link: Link, serve: Serve) -> None:
    serve()
    gateway = start_gateway(retry_above=8)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as flood:
        for _ in range(200):
            flood.sendto(initial(gateway.address[1]), ("127.0.0.1", gateway.address[1]))
        client = link(url=url_of(gateway))
        assert client.call("user-service", "double", {"number": 21}, timeout=20) == 42
        assert gateway.counts.half_open <= 9
        assert gateway.counts.retries > 0
        client.close()


def test_junk_is_counted_and_others_are_served(start_gateway: StartGateway, link: Link) -> None:
    gateway = start_gateway()
    address = ("127.0.0.1", gateway.address[1])
    client = link("keeper", url_of(gateway))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        good = initial(address[1])
        for junk in (b"", b"\x00" * 1200, b"\x80", b"\xff" * 1200, good[:1199], good[:600] + os.urandom(600)):
            sock.sendto(junk, address)
        for _ in range(100):
            sock.sendto(os.urandom(1200), address)
            sock.sendto(good, address)  # replays of one Initial
    client.set_state("junk", 1)
    assert client.get_state("junk") == 1
    assert gateway.counts.refusals["junk"] > 0
    assert gateway.counts.half_open <= 2
