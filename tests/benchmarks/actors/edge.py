"""The QUIC edge, and a bad link before it."""

from __future__ import annotations

import asyncio
import random
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

_HOST = "127.0.0.1"
_SECONDS = 10.0


class Edge:
    """A gateway, the server behind it with TLS."""

    def __init__(self, url: str, tls: str) -> None:
        from lightlink.gateway import Gateway, GatewayOptions

        files = {"cert": Path(tls) / "gateway.pem", "key": Path(tls) / "gateway.key"}
        upstream = url.replace("nats://", "tls://")
        self._gateway = Gateway(GatewayOptions(listen=f"{_HOST}:0", upstream=upstream, **files))
        self._gateway.start()

    def port(self) -> int:
        return self._gateway.address[1]


class _Side(asyncio.DatagramProtocol):
    def __init__(self, take: Callable[[bytes, Any], None]) -> None:
        self._take = take

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self._take(data, addr)


class BadLink:
    """A link with delay and loss in both directions, to a port on this host; each client has a port of its own."""

    def __init__(self, port: int, loss: float, seconds: float) -> None:
        self._target = (_HOST, port)
        self._loss, self._seconds = loss, seconds
        self._chance = random.Random(1)
        self._backs: dict[Any, Any] = {}
        self._beginning: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()
        self._front = self._run(self._open(self._to_target))

    def url(self) -> str:
        """Return where clients connect."""
        return f"quic://{_HOST}:{self._front.get_extra_info('sockname')[1]}"

    def move(self) -> None:
        """Let each client come from another port from now on: the mapping of a NAT was dropped."""
        self._run(self._move())

    async def _move(self) -> None:
        for client, before in list(self._backs.items()):
            self._backs[client] = await self._open_back(client)
            before.close()

    async def _open(self, take: Callable[[bytes, Any], None]) -> Any:
        return (await self._loop.create_datagram_endpoint(lambda: _Side(take), local_addr=(_HOST, 0)))[0]

    async def _open_back(self, client: Any) -> Any:
        return await self._open(lambda data, _: self._relay(lambda: self._front.sendto(data, client)))

    def _to_target(self, data: bytes, client: Any) -> None:
        if client in self._backs:
            self._relay(lambda: self._backs[client].sendto(data, self._target))
        else:
            task = self._loop.create_task(self._begin(data, client))
            self._beginning.add(task)
            task.add_done_callback(self._beginning.discard)

    async def _begin(self, data: bytes, client: Any) -> None:
        if client not in self._backs:
            self._backs[client] = await self._open_back(client)
        self._to_target(data, client)

    def _relay(self, send: Callable[[], None]) -> None:
        if self._chance.random() >= self._loss:
            self._loop.call_later(self._seconds, send)

    def _run(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(_SECONDS)
