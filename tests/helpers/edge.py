"""A gateway before a server with mutual TLS, and a UDP relay that does to datagrams what bad links do."""

from __future__ import annotations

import asyncio
import contextlib
import random
from typing import TYPE_CHECKING, Any, Protocol

from helpers.loop import LoopThread
from lightlink.gateway import Gateway, GatewayOptions

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    from typing_extensions import Self

    import lightlink


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


class _Side(asyncio.DatagramProtocol):
    def __init__(self, take: Any) -> None:
        self._take = take

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self._take(data, addr)


class UdpRelay:
    """Relay datagrams of one client at a time to a port of 127.0.0.1, as long as the test lets them through."""

    def __init__(self, port: int, seed: int = 1) -> None:
        self._target = ("127.0.0.1", port)
        self._thread = LoopThread("udp-relay")
        self._chance = random.Random(seed)
        self.loss = 0.0  # of datagrams, in each direction
        self.seconds = 0.0  # each is that late
        self.jitter = 0.0  # and up to that much more, which reorders them
        self.is_open = True
        self.relayed = 0
        self._client: Any = None
        self._front: Any = None
        self._back: Any = None
        self._other: Any = None
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
        """Let what comes from now on come from another port: the mapping of a NAT was dropped."""
        self._thread.run(self._move())

    def swap(self) -> None:
        """Let what comes from now on come from the other of two ports."""
        self._thread.run(self._swap())

    def stop(self) -> None:
        """Close both sides. Idempotent."""
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
        self._back = await self._open(self._to_client)

    async def _open(self, take: Any) -> Any:
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(lambda: _Side(take), local_addr=("127.0.0.1", 0))
        return transport

    async def _move(self) -> None:
        before, self._back = self._back, await self._open(self._to_client)
        before.close()

    async def _swap(self) -> None:
        if self._other is None:
            self._other = await self._open(self._to_client)
        self._back, self._other = self._other, self._back

    async def _close(self) -> None:
        for each in (self._front, self._back, self._other):
            if each is not None:
                each.close()

    def _to_target(self, data: bytes, client: Any) -> None:
        self._client = client
        self._relay(lambda: self._back.sendto(data, self._target))

    def _to_client(self, data: bytes, _: Any) -> None:
        client = self._client
        self._relay(lambda: self._front.sendto(data, client))

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
