"""A QUIC client without a NATS client: it says to a gateway whatever it likes."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Any

from qh3.quic.configuration import QuicConfiguration

from lightlink.connection.transports.quic import ClientLink
from lightlink.connection.transports.quic_link import Core
from lightlink.connection.transports.udp import UdpSocket
from lightlink.protocol.edge import ALPN

if TYPE_CHECKING:
    from pathlib import Path

    from helpers.loop import LoopThread


class Stranger:
    """A QUIC client that says what it likes to a gateway."""

    def __init__(self, port: int, ca: Path, thread: LoopThread) -> None:
        self._thread = thread
        self.told: list[Exception | None] = []
        self.link: ClientLink
        thread.run(self._connect(port, ca))

    async def _connect(self, port: int, ca: Path) -> None:
        address = ("127.0.0.1", port)
        links: list[ClientLink] = []
        udp = await UdpSocket.open(("127.0.0.1", 0), socket.AF_INET, lambda data, _: links[0].receive(data, address))
        configuration = QuicConfiguration(alpn_protocols=[ALPN], server_name="127.0.0.1")
        configuration.load_verify_locations(str(ca))
        self.link = ClientLink(Core(configuration=configuration), udp)
        links.append(self.link)
        await self.link.connect(address)

    def say(self, *words: bytes) -> Any:
        """Open a stream, and say something on it; returns what it hears."""
        return self._thread.run(self._say(words))

    async def _say(self, words: tuple[bytes, ...]) -> Any:
        heard = Ear()
        stream = self.link.open_stream()
        stream.set_protocol(heard)
        for each in words:
            stream.write(each)
            await asyncio.sleep(0)
        return heard

    def hang_up(self) -> None:
        self._thread.loop.call_soon_threadsafe(self.link.close, 0)


class Ear(asyncio.Protocol):
    def __init__(self) -> None:
        self.data = b""
        self.end: Any = "open"

    def data_received(self, data: bytes) -> None:
        self.data += data

    def connection_lost(self, exc: Exception | None) -> None:
        self.end = exc

    def code(self) -> int | None:
        return None if self.end == "open" else getattr(self.end, "code", -1)
