from __future__ import annotations

import asyncio
import contextlib
import ssl
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lightlink.certs import CertificateAuthority
from lightlink.connection.transports.shortcut import Shortcut
from lightlink.connection.transports.tls_layer import TlsLayer

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from pathlib import Path

NAME = "nats.lightlink.internal"


class Server:
    """The TLS of a server, and the stream that leads there; ``sizes`` are those of the pieces that come back."""

    def __init__(self, folder: Path, sizes: list[int], asks: bool = False) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / "server.pem", folder / "server.key")
        if asks:
            context.load_verify_locations(folder / "ca.pem")
            context.verify_mode = ssl.CERT_REQUIRED
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self.sizes = sizes
        self.heard = b""
        self.is_open = False
        self.paused = False
        self.protocol: Any = None
        self.closing = False

    def set_protocol(self, protocol: Any) -> None:
        self.protocol = protocol

    def write(self, data: bytes) -> None:
        self._incoming.write(data)
        try:
            if not self.is_open:
                self.tls.do_handshake()
                self.is_open = True
            while True:
                data = self.tls.read(65536)
                self.heard += data
                if not data:
                    return
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError:
            self.is_open = False
        self.answer()

    def answer(self) -> None:
        """Let what the server has said so far reach the client, in pieces."""
        data, at, turn = self._outgoing.read(), 0, 0
        while at < len(data):
            size = self.sizes[turn % len(self.sizes)]
            asyncio.get_running_loop().call_soon(self._deliver, data[at : at + size])
            at, turn = at + size, turn + 1

    def _deliver(self, piece: bytes) -> None:
        if not self.closing:
            self.protocol.data_received(piece)

    def say(self, data: bytes) -> None:
        self.tls.write(data)
        self.answer()

    def say_goodbye(self) -> None:
        with contextlib.suppress(ssl.SSLError):
            self.tls.unwrap()
        self.answer()

    def close(self) -> None:
        if not self.closing:
            self.closing = True
            asyncio.get_running_loop().call_soon(self.protocol.connection_lost, None)

    def abort(self) -> None:
        self.close()

    def get_extra_info(self, _name: str) -> None:
        return None

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass

    def is_closing(self) -> bool:
        return self.closing


class Speaker(asyncio.Protocol):
    def __init__(self) -> None:
        self.heard = b""
        self.ends: list[Any] = []
        self.ended = asyncio.get_running_loop().create_future()

    def data_received(self, data: bytes) -> None:
        self.heard += data

    def eof_received(self) -> bool:
        self.ends.append("eof")
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.ends.append(exc)
        self.ended.set_result(None)


@pytest.fixture(scope="module")
def certs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    authority = CertificateAuthority.create(tmp_path_factory.mktemp("inner") / "certs")
    authority.issue_server(["127.0.0.1"])
    return authority.directory


def begin(certs: Path, server: Server, name: str = NAME) -> tuple[TlsLayer, Speaker]:
    context = ssl.create_default_context(cafile=certs / "ca.pem")
    speaker, stream, shortcut = Speaker(), server, Shortcut()
    shortcut.open(stream)  # type: ignore[arg-type]
    return TlsLayer(stream, speaker, context, name, shortcut), speaker  # type: ignore[arg-type]


def run(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(scenario, 30))


async def turns_until(check: Any) -> None:
    while not check():
        await asyncio.sleep(0)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    sizes=st.lists(st.integers(1, 70_000), min_size=1, max_size=4),
    ours=st.lists(st.integers(1, 600_000), max_size=3),
    theirs=st.lists(st.integers(1, 60_000), max_size=3),
)
def test_what_is_said_comes_whole_in_pieces_of_any_size(
    certs: Path, sizes: list[int], ours: list[int], theirs: list[int]
) -> None:
    sizes[0] = max(sizes[0], 200)  # not thousands of turns

    async def scenario() -> None:
        server = Server(certs, sizes)
        transport, speaker = begin(certs, server)
        await transport.shake_hands()
        sent = b""
        for number, size in enumerate(ours):
            sent += bytes([number]) * size
            transport.write(bytes([number]) * size)
        said = b"".join(bytes([number]) * size for number, size in enumerate(theirs))
        for number, size in enumerate(theirs):
            server.say(bytes([number]) * size)
        assert server.heard == sent
        await turns_until(lambda: len(speaker.heard) >= len(said))
        assert speaker.heard == said

    run(scenario())


def test_the_other_sides_goodbye_is_the_end(certs: Path) -> None:
    async def scenario() -> None:
        server = Server(certs, [1000])
        transport, speaker = begin(certs, server)
        await transport.shake_hands()
        server.say(b"last words")
        server.say_goodbye()
        await speaker.ended
        assert (speaker.heard, speaker.ends) == (b"last words", ["eof", None])
        assert transport.is_closing()
        transport.write(b"unheard")

    run(scenario())


def test_closing_says_goodbye_once(certs: Path) -> None:
    async def scenario() -> None:
        server = Server(certs, [1000])
        transport, speaker = begin(certs, server)
        await transport.shake_hands()
        transport.write(b"words")
        transport.close()
        transport.close()
        await speaker.ended
        assert (server.heard, speaker.ends) == (b"words", [None])

    run(scenario())


def test_a_name_that_is_not_the_servers_ends_the_handshake(certs: Path) -> None:
    async def scenario() -> None:
        server = Server(certs, [1000])
        transport, speaker = begin(certs, server, "elsewhere")
        with pytest.raises(ssl.SSLCertVerificationError, match="elsewhere"):
            await transport.shake_hands()
        assert not speaker.ends

    run(scenario())


def test_a_refusal_after_the_handshake_is_the_ends_reason(certs: Path) -> None:
    async def scenario() -> None:
        transport, speaker = begin(certs, Server(certs, [1000], asks=True))
        await transport.shake_hands()  # TLS 1.3: the client is done before the server has looked
        await speaker.ended
        (reason,) = speaker.ends
        assert isinstance(reason, ssl.SSLError)
        assert "certificate" in str(reason).lower()

    run(scenario())


def test_an_end_in_the_handshake_is_told(certs: Path) -> None:
    async def scenario() -> None:
        server = Server(certs, [1000])
        transport, speaker = begin(certs, server)
        asyncio.get_running_loop().call_soon(server.close)
        with pytest.raises(ConnectionResetError):
            await transport.shake_hands()
        assert not speaker.ends

    run(scenario())


def test_junk_instead_of_a_record_is_the_end(certs: Path) -> None:
    async def scenario() -> None:
        server = Server(certs, [1000])
        transport, speaker = begin(certs, server)
        await transport.shake_hands()
        transport.data_received(b"GET / HTTP/1.1\r\n\r\n")
        await speaker.ended
        assert isinstance(speaker.ends[0], ssl.SSLError)

    run(scenario())
