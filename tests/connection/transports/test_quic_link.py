from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from qh3.quic.configuration import QuicConfiguration

from lightlink.certs import CertificateAuthority
from lightlink.connection.transports import quic_link
from lightlink.connection.transports.quic_link import Core, Link
from lightlink.protocol.edge import ALPN

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

CLIENT, SERVER = ("127.0.0.1", 1), ("127.0.0.1", 2)


class End(Link):
    """A link whose datagrams go straight to the other one; ``sent`` counts them."""

    def __init__(self, core: Core, address: Any) -> None:
        super().__init__(core, self._pass)
        self.sent = 0
        self.received = 0  # pieces of a stream's content
        self.other: End
        self._address = address

    @property
    def is_quiet(self) -> bool:
        """Whether the handshake is done, and nothing is due any more."""
        core: Any = self.quic
        due = core._core is None or core._core.bytes_in_flight or core._core.get_timer()[0] != "idle"
        return self.quic.is_settled and self._transmitting is None and not due

    def _pass(self, datagrams: list[bytes], _: Any) -> None:
        self.sent += len(datagrams)
        self._loop.call_soon(self.other.receive, datagrams, self._address)

    def on_stream(self, number: int) -> Any:
        return self.add_stream(number)

    def _deliver(self, received: Any) -> None:
        self.received += len(received)
        super()._deliver(received)


async def turns(done: Callable[[], bool]) -> None:
    """Let the loop turn until something is so."""

    async def look() -> None:
        while not done():
            await asyncio.sleep(0)

    await asyncio.wait_for(look(), 30)


async def pair(certs: Path) -> tuple[End, End]:
    """Return two ends whose handshake is done and acknowledged."""
    # Without probes of what the path carries, which are packets too.
    outer = QuicConfiguration(alpn_protocols=[ALPN], server_name="127.0.0.1", probe_datagram_size=False)
    outer.load_verify_locations(str(certs / "ca.pem"))
    inner = QuicConfiguration(is_client=False, alpn_protocols=[ALPN])
    inner.load_cert_chain(certs / "gateway.pem", certs / "gateway.key")
    core = Core(configuration=outer)
    client = End(core, CLIENT)
    cid = core.original_destination_connection_id
    server = End(Core(configuration=inner, original_destination_connection_id=cid), SERVER)
    client.other, server.other = server, client
    core.connect(SERVER, asyncio.get_running_loop().time())
    client.transmit()
    await turns(lambda: client.is_quiet and server.is_quiet)
    return client, server


def unacknowledged(end: End) -> int:
    """Return the bytes for which an end waits for an ACK."""
    core: Any = end.quic
    return int(core._core.bytes_in_flight)


def heard(end: End) -> list[int]:
    """Return a list that gets the sizes of what an end's streams receive."""
    sizes: list[int] = []
    add = end.add_stream

    def listening(number: int) -> Any:
        stream: Any = add(number)
        receive = stream.receive
        stream.receive = lambda data, **rest: (sizes.append(len(data)), receive(data, **rest))
        return stream

    end.add_stream = listening  # type: ignore[method-assign]
    return sizes


@pytest.fixture
def certs(tmp_path: Path) -> Path:
    authority = CertificateAuthority.create(tmp_path / "certs")
    authority.issue_gateway(["127.0.0.1"])
    return authority.directory


def test_a_request_and_its_answer_are_a_packet_each(certs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        monkeypatch.setattr(quic_link, "_MAX_ACK_DELAY", 10_000)  # no probes, however slow the machine
        client, server = await pair(certs)
        monkeypatch.setattr(quic_link, "_ACK_DELAY", 30.0)
        client.open_stream()
        before = client.sent, server.sent
        for number in range(1, 41):
            client.send(0, b"request")
            await turns(lambda number=number: server.received == number)
            server.send(0, b"answer")
            await turns(lambda number=number: client.received == number)
        # The core's pacing now and then lets an ACK go first. Without waiting there are 60 of each.
        assert client.sent < before[0] + 50
        assert server.sent < before[1] + 50

    asyncio.run(scenario())


def test_acks_of_a_batch_travel_with_its_answers(certs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        monkeypatch.setattr(quic_link, "_MAX_ACK_DELAY", 10_000)  # no probes, however slow the machine
        client, server = await pair(certs)
        monkeypatch.setattr(quic_link, "_ACK_DELAY", 30.0)
        sizes = heard(client), heard(server)
        client.open_stream()
        batch = b"several calls" * 300  # four packets
        before = client.sent, server.sent
        for number in range(1, 21):
            for end, size in ((client, sizes[1]), (server, sizes[0])):
                end.send(0, batch)
                await turns(lambda size=size, number=number: sum(size) == number * len(batch))
        # The core's pacing now and then lets an ACK go first. Without waiting there are 100 of each.
        assert client.sent < before[0] + 90
        assert server.sent < before[1] + 90

    asyncio.run(scenario())


def test_what_is_not_answered_is_acknowledged_all_the_same(certs: Path) -> None:
    async def scenario() -> None:
        client, _ = await pair(certs)
        client.open_stream()
        for _ in range(3):
            client.send(0, b"event")
            client.transmit()
            assert unacknowledged(client)
            await turns(lambda: not unacknowledged(client))

    asyncio.run(scenario())


def test_of_many_packets_most_are_acknowledged_at_once(certs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        client, _ = await pair(certs)
        monkeypatch.setattr(quic_link, "_ACK_DELAY", 30.0)
        client.open_stream()
        for _ in range(20):
            client.send(0, b"event")
            client.transmit()
        everything = unacknowledged(client)
        await turns(lambda: unacknowledged(client) < everything / 4)

    asyncio.run(scenario())


def test_what_was_lost_is_sent_again_when_that_shows(certs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        client, server = await pair(certs)
        client.open_stream()
        # No probe is to help: the ACKs of what came after tell what was lost.
        monkeypatch.setattr(client, "_set_timer", lambda _: None)
        deliver, lost = server.receive, []
        monkeypatch.setattr(server, "receive", lambda datagrams, _: lost.extend(datagrams))
        client.send(0, b"first")
        await turns(lambda: bool(lost))
        monkeypatch.setattr(server, "receive", deliver)
        heard: list[bytes] = []
        stream: Any = server.on_stream(0)
        monkeypatch.setattr(stream, "receive", lambda data, **_: heard.append(data))
        for _ in range(4):
            client.send(0, b"later")
            await asyncio.sleep(0)
        await turns(lambda: b"".join(heard).startswith(b"first"))

    asyncio.run(scenario())


def test_acks_are_told_to_come_soon(certs: Path) -> None:
    async def scenario() -> None:
        for end in await pair(certs):
            core: Any = end.quic
            assert core._tls.remote_transport_parameters.max_ack_delay == 8

    asyncio.run(scenario())


def test_a_stream_that_has_ended_both_ways_may_be_reset(certs: Path) -> None:
    async def scenario() -> None:
        client, server = await pair(certs)
        client.open_stream()
        client.send(0, b"request")
        await turns(lambda: server.received == 1)
        server.finish(0)
        client.finish(0)
        await turns(lambda: client.is_quiet and server.is_quiet)
        client.reset(0, 1)
        assert not client.ended

    asyncio.run(scenario())


class Udp:
    """A socket that loses the first datagram."""

    def __init__(self, end: End) -> None:
        self._end = end
        self.lost = 0

    def sendto(self, datagram: bytes, _: Any) -> None:
        if self.lost:
            self._end._loop.call_soon_threadsafe(self._end._pass, [datagram], None)
        self.lost = 1


def test_what_a_caller_sends_is_sent_again_when_lost(certs: Path) -> None:
    async def scenario() -> None:
        client, server = await pair(certs)
        number = client.open_stream().number
        client.send(number, b"first")
        await turns(lambda: server.received == 1)
        await turns(lambda: client.is_quiet)
        udp = Udp(client)
        taken: list[Any] = []

        def send() -> bool:
            with client.lock:
                return client.is_free(number) and client.send_here(number, [b"second"], taken, udp)  # type: ignore[arg-type]

        assert await asyncio.to_thread(send)
        assert taken
        assert udp.lost
        await turns(lambda: server.received == 2)

    asyncio.run(scenario())


def test_nothing_is_sent_past_the_loop_once_it_has_ended(certs: Path) -> None:
    async def scenario() -> None:
        client, _ = await pair(certs)
        number = client.open_stream().number
        client.send(number, b"first")
        client.close(0)
        with client.lock:
            assert not client.is_free(number)

    asyncio.run(scenario())
