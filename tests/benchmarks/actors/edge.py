"""The QUIC edge, and a bad link before it."""

from __future__ import annotations

import asyncio
import multiprocessing
import random
import socket
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.benchmarks.actors.memory import resident_mib

if TYPE_CHECKING:
    from collections.abc import Callable

    from lightlink.gateway import Gateway

_HOST = "127.0.0.1"
_SECONDS = 30.0
_MANY = 100_000


def _gateway(url: str, tls: str, port: int = 0, **options: Any) -> Gateway:
    from lightlink.gateway import Gateway, GatewayOptions

    files = {"cert": Path(tls) / "gateway.pem", "key": Path(tls) / "gateway.key"}
    upstream = url.replace("nats://", "tls://")
    return Gateway(
        GatewayOptions(listen=f"{_HOST}:{port}", upstream=upstream, max_per_address=_MANY, **files, **options)
    ).start()


class Edge:
    """A gateway, the server behind it with TLS."""

    def __init__(self, url: str, tls: str) -> None:
        self._gateway = _gateway(url, tls)

    def port(self) -> int:
        return self._gateway.address[1]

    def memory(self) -> float:
        """Return the resident memory of its process, in MiB."""
        return resident_mib()


class KillableEdge:
    """A gateway in a process of its own, which may be killed and comes back at its port."""

    def __init__(self, url: str, tls: str) -> None:
        self._url, self._tls = url, tls
        self._reset_key = Path(tempfile.mkdtemp(prefix="lightlink-bench-edge-")) / "reset.key"
        self._port = 0
        self.start()

    def port(self) -> int:
        return self._port

    def start(self) -> None:
        """Start it, as fast as a fork can."""
        fork = multiprocessing.get_context("fork")
        ours, its = fork.Pipe()
        self._process = fork.Process(target=self._serve, args=(its,), daemon=True)
        self._process.start()
        self._port = ours.recv()

    def kill(self) -> None:
        """Kill it: it says good-bye to nobody."""
        self._process.kill()
        self._process.join()

    def _serve(self, pipe: Any) -> None:
        running = _gateway(self._url, self._tls, self._port, reset_key=self._reset_key)
        pipe.send(running.address[1])
        threading.Event().wait()


class Crowd:
    """Many NATS connections through a gateway, without a client of NATS behind them: each has got the server's INFO."""

    def __init__(self, port: int, tls: str) -> None:
        self._address = (_HOST, port)
        self._ca = str(Path(tls) / "ca.pem")
        self._members: list[Any] = []
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()

    def grow(self, count: int) -> None:
        """Add so many."""
        for _ in range(count):
            asyncio.run_coroutine_threadsafe(self._join(), self._loop).result(_SECONDS)

    async def _join(self) -> None:
        from qh3.quic.configuration import QuicConfiguration

        from lightlink.connection.transports.quic import ClientLink
        from lightlink.connection.transports.quic_link import Core
        from lightlink.connection.transports.udp import UdpSocket
        from lightlink.protocol.edge import ALPN, Kind, preamble

        configuration = QuicConfiguration(alpn_protocols=[ALPN], server_name=_HOST)
        configuration.load_verify_locations(self._ca)
        links: list[Any] = []
        udp = await UdpSocket.open((_HOST, 0), socket.AF_INET, lambda data, _: links[0].receive(data, self._address))
        links.append(ClientLink(Core(configuration=configuration), udp))
        await links[0].connect(self._address)
        member = _Member()
        stream = links[0].open_stream()
        stream.set_protocol(member)
        stream.write(preamble(Kind.MAIN))
        await member.greeted
        self._members.append(links[0])


class _Member(asyncio.Protocol):
    def __init__(self) -> None:
        self.greeted: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def data_received(self, data: bytes) -> None:
        if not self.greeted.done():
            self.greeted.set_result(None)


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
