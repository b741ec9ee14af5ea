from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from qh3.quic.configuration import QuicConfiguration
from qh3.quic.connection import QuicConnection
from qh3.quic.events import ConnectionTerminated

from lightlink.gateway import packets
from lightlink.gateway.door import ServerCore
from lightlink.gateway.packets import Secrets, read_header

if TYPE_CHECKING:
    from pathlib import Path

HOME, EDGE = ("127.0.0.1", 1000), ("127.0.0.1", 2000)
SECRETS = Secrets(b"k" * 32)


@given(st.binary(max_size=1500))
def test_malformed_headers_raise_no_error(data: bytes) -> None:
    header = read_header(data)
    assert header is None or len(header.destination) <= 20


def test_an_initial_packet_of_qh3_is_parsed() -> None:
    client = QuicConnection(configuration=QuicConfiguration(alpn_protocols=["x"], server_name="edge"))
    client.connect(EDGE, 1.0)
    header = read_header(client.datagrams_to_send(1.0)[0][0])
    assert header is not None
    assert header.is_initial
    assert header.destination == client.original_destination_connection_id
    assert header.source == client.host_cid
    assert header.token == b""


def test_a_stateless_reset_ends_the_connection_at_the_client(identities: Path) -> None:
    outer = QuicConfiguration(alpn_protocols=["x"], server_name="127.0.0.1")
    outer.load_verify_locations(str(identities / "ca.pem"))
    client = QuicConnection(configuration=outer)
    client.connect(EDGE, 1.0)
    inner = QuicConfiguration(is_client=False, alpn_protocols=["x"])
    inner.load_cert_chain(identities / "gateway.pem", identities / "gateway.key")
    server = ServerCore(
        configuration=inner,
        original_destination_connection_id=client.original_destination_connection_id,
        reset_token=Secrets(b"k" * 32).reset_token,
    )
    for turn in range(10):
        for data, _ in client.datagrams_to_send(1.0 + turn):
            server.receive_datagram(data, HOME, 1.0 + turn)
        for data, _ in server.datagrams_to_send(1.0 + turn):
            client.receive_datagram(data, EDGE, 1.0 + turn)
    client.send_ping(1)
    (data, _), *_ = client.datagrams_to_send(11.0)
    header = read_header(data)
    assert header is not None
    for secrets, ends in ((Secrets(os.urandom(32)), False), (SECRETS, True)):
        answer = secrets.stateless_reset(header.destination, len(data))
        assert answer is not None
        assert len(answer) < len(data)
        client.receive_datagram(answer, EDGE, 11.0)
        client.handle_timer(12.0)
        heard = list(iter(client.next_event, None))
        assert any(isinstance(event, ConnectionTerminated) for event in heard) is ends


def test_two_peers_do_not_answer_each_others_resets_for_ever() -> None:
    size, answers = 100, 0
    while (answer := SECRETS.stateless_reset(b"c" * 8, size)) is not None:
        size, answers = len(answer), answers + 1
    assert answers < 30


def test_a_retry_token_is_valid_for_one_address_and_10_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    token = SECRETS.retry_token(HOME, b"original", b"retry-id")
    assert SECRETS.check_retry_token(HOME, token) == (b"original", b"retry-id")
    assert SECRETS.check_retry_token(EDGE, token) is None
    assert Secrets(b"x" * 32).check_retry_token(HOME, token) is None
    assert SECRETS.check_retry_token(HOME, token[:-1]) is None
    later = packets.time.time() + 11
    monkeypatch.setattr(packets.time, "time", lambda: later)
    assert SECRETS.check_retry_token(HOME, token) is None
