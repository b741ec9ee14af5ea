"""A TCP proxy that can fail in every way in which a network does."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from helpers.loop import LoopThread

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

_CHUNK = 65536
_HELD_CHUNKS = 64


class _Ends:
    """The two ends of a connection through the proxy."""

    def __init__(self, client: asyncio.StreamWriter) -> None:
        self.client = client
        self.severed = asyncio.Event()  # the server's end is to be closed
        self.deaf = asyncio.Event()  # it is; what the client says goes nowhere


class TcpProxy:
    """Forward connections from a free port of 127.0.0.1 to the target, as long as the test lets it.

    Every method returns when what it says is so. A proxy starts listening when it is made.
    """

    def __init__(self, target_host: str, target_port: int) -> None:
        self._target = (target_host, target_port)
        self._delay = 0.0
        self._mark = (b"", 0)
        self._links: dict[asyncio.Task[None], _Ends] = {}
        self._server: asyncio.Server | None = None
        self._thread = LoopThread("tcp-proxy")
        self.port = 0
        self._thread.run(self._start())

    @property
    def url(self) -> str:
        """Where clients connect to go through the proxy."""
        return f"nats://127.0.0.1:{self.port}"

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return len(self._links)

    def cut(self) -> None:
        """Close every connection at both ends. New ones are taken."""
        self._thread.run(self._cut())

    def half_open(self) -> None:
        """Close every connection at the server's end only; the client's stays open, and deaf. New ones are taken."""
        self._thread.run(self._half_open())

    def inject(self, data: bytes) -> None:
        """Say something to every client in the server's name."""
        self._thread.run(self._inject(data))

    def refuse(self) -> None:
        """Stop listening, so that new connections are refused. Open ones go on."""
        self._thread.run(self._refuse())

    def accept(self) -> None:
        """Listen again, on the same port."""
        self._thread.run(self._accept())

    def pause(self) -> None:
        """Hold every connection, new ones too, open but forward nothing: what a half-open connection looks like."""
        self._thread.run(self._pause())

    def pause_behind(self, data: bytes, times: int) -> None:
        """Do as `pause` once the server has said something so often on a connection that is made from now on."""
        self._mark = (data, times)

    @property
    def is_paused(self) -> bool:
        """Whether everything is held."""
        return not self._flowing.is_set()

    def resume(self) -> None:
        """Forward again, first what was held."""
        self._thread.run(self._resume())

    def delay(self, seconds: float) -> None:
        """Forward everything that comes from now on this much later, in both directions."""
        self._delay = seconds

    def stop(self) -> None:
        """Close everything. Idempotent."""
        if self._thread.loop.is_closed():
            return
        self.refuse()
        self.cut()
        self._thread.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    async def _start(self) -> None:
        self._flowing = asyncio.Event()
        self._flowing.set()
        await self._accept()

    async def _accept(self) -> None:
        if self._server is None:
            self._server = await asyncio.start_server(self._take, "127.0.0.1", self.port)
            self.port = self._server.sockets[0].getsockname()[1]

    async def _refuse(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    async def _pause(self) -> None:
        self._flowing.clear()

    async def _resume(self) -> None:
        self._flowing.set()

    async def _cut(self) -> None:
        links = list(self._links)
        for link in links:
            link.cancel()
        await asyncio.gather(*links, return_exceptions=True)

    async def _half_open(self) -> None:
        severed = list(self._links.values())
        for ends in severed:
            ends.severed.set()
        await asyncio.gather(*(ends.deaf.wait() for ends in severed))

    async def _inject(self, data: bytes) -> None:
        for ends in self._links.values():
            ends.client.write(data)
            await ends.client.drain()

    def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ends = _Ends(writer)
        link = self._thread.loop.create_task(self._link(reader, writer, ends))
        self._links[link] = ends
        link.add_done_callback(self._links.pop)

    async def _link(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, ends: _Ends) -> None:
        writers = [writer]
        tasks: list[asyncio.Task[Any]] = []
        try:
            target_reader, target_writer = await asyncio.open_connection(*self._target)
            writers.append(target_writer)
            for source, sink, mark in ((reader, target_writer, (b"", 0)), (target_reader, writer, self._mark)):
                held: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_HELD_CHUNKS)
                tasks.append(asyncio.create_task(self._receive(source, held)))
                tasks.append(asyncio.create_task(self._send(held, sink, *mark)))
            forwarding = asyncio.create_task(asyncio.wait(tuple(tasks), return_when=asyncio.FIRST_EXCEPTION))
            severed = asyncio.create_task(ends.severed.wait())
            tasks += [forwarding, severed]
            await asyncio.wait([forwarding, severed], return_when=asyncio.FIRST_COMPLETED)
            if severed.done():
                await self._go_deaf(reader, target_writer, ends, tasks)
        except OSError:
            pass  # nobody listens at the target: the client sees its connection closed
        finally:
            ends.deaf.set()
            for task in tasks:
                task.cancel()
            for each in writers:
                each.transport.abort()
            # A broken connection is what a proxy is for: its errors are the two ends' to see.
            await asyncio.gather(*tasks, *(each.wait_closed() for each in writers), return_exceptions=True)

    async def _go_deaf(
        self,
        reader: asyncio.StreamReader,
        target_writer: asyncio.StreamWriter,
        ends: _Ends,
        tasks: list[asyncio.Task[Any]],
    ) -> None:
        target_writer.transport.abort()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        ends.deaf.set()
        while await reader.read(_CHUNK):
            pass

    async def _receive(self, source: asyncio.StreamReader, held: asyncio.Queue[tuple[float, bytes]]) -> None:
        data = b"not the end"
        while data:
            data = await source.read(_CHUNK)
            await held.put((self._thread.loop.time() + self._delay, data))

    async def _send(
        self, held: asyncio.Queue[tuple[float, bytes]], sink: asyncio.StreamWriter, mark: bytes, times: int
    ) -> None:
        said = 0
        while True:
            due, data = await held.get()
            await asyncio.sleep(max(0.0, due - self._thread.loop.time()))
            await self._flowing.wait()
            if not data:
                sink.write_eof()
                return
            sink.write(data)
            await sink.drain()
            if times and said < times:
                said += data.count(mark)
                if said >= times:
                    self._mark = (b"", 0)  # once
                    await self._pause()
