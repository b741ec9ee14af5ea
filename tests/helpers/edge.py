"""A gateway before a server with mutual TLS, and a UDP relay that does to datagrams what bad links do."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

from helpers.loop import LoopThread
from helpers.proxy import TcpProxy
from lightlink.gateway import Gateway, GatewayOptions
from lightlink.server import EmbeddedServer

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

    import lightlink


# As the library's own sockets: it is the loss that a test asks for that is to be seen, and no other.
_BUFFER_BYTES = 4 * 1024 * 1024


class StartGateway(Protocol):
    def __call__(self, upstream: str | None = None, **options: Any) -> Gateway: ...


class Link(Protocol):
    def __call__(self, name: str = "web", url: str | None = None, **options: Any) -> lightlink.Client: ...


class Serve(Protocol):
    def __call__(self, url: str | None = None) -> lightlink.Service: ...


def gateway_for(identities: Path, upstream: str, **options: Any) -> Gateway:
    """Return a gateway, not yet started, with the certificate ``gateway`` of a directory."""
    files = {"cert": identities / "gateway.pem", "key": identities / "gateway.key"}
    return Gateway(GatewayOptions(**{"listen": "127.0.0.1:0", "upstream": upstream, **files, **options}))


def url_of(gateway: Gateway) -> str:
    """Return where clients connect."""
    return f"quic://127.0.0.1:{gateway.address[1]}"


class EdgeServer(EmbeddedServer):
    """A server with TLS whose ``url`` is that of the gateway before it, for ``--transport quic``.

    Clients verify both by the authority that the variable LIGHTLINK_TLS_CA names. Child processes find the way too.
    """

    def __init__(self, identities: Path) -> None:
        super().__init__(config=f"tls {{ cert_file: {identities}/server.pem, key_file: {identities}/server.key }}")
        self._identities = identities
        self._gateway: Gateway | None = None

    @property
    def url(self) -> str:
        """Where clients connect: at the gateway."""
        return super().url if self._gateway is None else url_of(self._gateway)

    def start(self) -> Self:
        """Start the server, and the gateway with the first of them."""
        super().start()
        if self._gateway is None:
            self._gateway = gateway_for(self._identities, f"tls://127.0.0.1:{self.port}").start()
            os.environ[_variable(self.url)] = f"{self.port} {self._identities}"
        return self

    def stop(self, timeout: float = 5.0) -> None:
        """Stop both. Idempotent."""
        if self._gateway is not None:
            self._gateway.stop()
        super().stop(timeout)


class EdgeProxy(TcpProxy):
    """A proxy between a gateway of its own and a server."""

    def __init__(self, port: int, identities: Path) -> None:
        super().__init__("127.0.0.1", port)
        self._gateway = gateway_for(identities, f"tls://127.0.0.1:{self.port}").start()

    @property
    def url(self) -> str:
        """Where clients connect: at the gateway."""
        return url_of(self._gateway)

    def stop(self) -> None:
        """Stop both. Idempotent."""
        self._gateway.stop()
        super().stop()


def proxy_before(url: str) -> TcpProxy:
    """Return a proxy on the way to a server; where that leads through a gateway, between another one and the server."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    if parts.scheme != "quic":
        return TcpProxy(parts.hostname, parts.port)
    port, identities = os.environ[_variable(url)].split(" ", 1)
    return EdgeProxy(int(port), Path(identities))


def silent_address(url: str) -> tuple[socket.socket, str]:
    """Return a socket that says nothing, and its URL, of the same kind as another."""
    scheme = urlsplit(url).scheme
    silent = socket.socket(socket.AF_INET, socket.SOCK_DGRAM if scheme == "quic" else socket.SOCK_STREAM)
    silent.bind(("127.0.0.1", 0))
    if scheme != "quic":
        silent.listen()
    return silent, f"{scheme}://127.0.0.1:{silent.getsockname()[1]}"


def _variable(url: str) -> str:
    return f"LIGHTLINK_TEST_EDGE_{urlsplit(url).port}"


class _Side(asyncio.DatagramProtocol):
    def __init__(self, take: Any) -> None:
        self._take = take

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self._take(data, addr)


class _Mapping:
    """A client, and the ports from which its datagrams come out."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self.back: Any = None
        self.other: Any = None


class UdpRelay:
    """Relay datagrams of clients to a port of 127.0.0.1, as long as the test lets them through."""

    def __init__(self, port: int, seed: int = 1) -> None:
        self._target = ("127.0.0.1", port)
        self._thread = LoopThread("udp-relay")
        self._chance = random.Random(seed)
        self.loss = 0.0  # of datagrams, in each direction
        self.seconds = 0.0  # each is that late
        self.jitter = 0.0  # and up to that much more, which reorders them
        self.is_open = True
        self.relayed = 0
        self.copies: list[bytes] | None = None  # what clients send, for a test that wants it
        self._front: Any = None
        self._mappings: dict[Any, _Mapping] = {}
        self.port = 0
        self._thread.run(self._start())

    @property
    def target_port(self) -> int:
        """The port that it relays to."""
        return self._target[1]

    @property
    def url(self) -> str:
        """Where clients connect to go through it."""
        return f"quic://127.0.0.1:{self.port}"

    def move(self) -> None:
        """Let what comes from now on come from other ports: the mappings of a NAT were dropped."""
        self._thread.run(self._move())

    def swap(self) -> None:
        """Let what comes from now on come from the other of two ports of each client."""
        self._thread.run(self._swap())

    def stop(self) -> None:
        """Close all ports. Idempotent."""
        if not self._thread.loop.is_closed():
            self._thread.run(self._close())
            self._thread.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    async def _start(self) -> None:
        self._front = await self._open(self._to_target)
        self.port = self._front.get_extra_info("sockname")[1]

    async def _open(self, take: Any) -> Any:
        loop = asyncio.get_running_loop()
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            sock.setsockopt(socket.SOL_SOCKET, option, _BUFFER_BYTES)
        sock.bind(("127.0.0.1", 0))
        transport, _ = await loop.create_datagram_endpoint(lambda: _Side(take), sock=sock)
        return transport

    async def _move(self) -> None:
        for mapping in self._mappings.values():
            before, mapping.back = mapping.back, await self._open_back(mapping)
            before.close()

    async def _swap(self) -> None:
        for mapping in self._mappings.values():
            if mapping.other is None:
                mapping.other = await self._open_back(mapping)
            mapping.back, mapping.other = mapping.other, mapping.back

    async def _close(self) -> None:
        ends = [end for mapping in self._mappings.values() for end in (mapping.back, mapping.other)]
        for each in (self._front, *ends):
            if each is not None:
                each.close()

    async def _open_back(self, mapping: _Mapping) -> Any:
        return await self._open(lambda data, _: self._relay(lambda: self._front.sendto(data, mapping.client)))

    def _to_target(self, data: bytes, client: Any) -> None:
        if self.copies is not None:
            self.copies.append(data)
        mapping = self._mappings.get(client)
        if mapping is not None and mapping.back is not None:
            self._relay(lambda: mapping.back.sendto(data, self._target))
        elif mapping is None:
            self._mappings[client] = _Mapping(client)
            self._thread.loop.create_task(self._begin(data, client))

    async def _begin(self, data: bytes, client: Any) -> None:
        mapping = self._mappings[client]
        mapping.back = await self._open_back(mapping)
        self._to_target(data, client)

    def _relay(self, send: Any) -> None:
        if not self.is_open or self._chance.random() < self.loss:
            return
        self.relayed += 1
        late = self.seconds + self._chance.random() * self.jitter
        with contextlib.suppress(RuntimeError):
            if late:
                self._thread.loop.call_later(late, send)
            else:
                send()
