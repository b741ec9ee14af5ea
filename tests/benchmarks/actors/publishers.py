"""Publishers: one thread or task hands over encoded messages as fast as it can, then waits until the server has all."""

from __future__ import annotations

import asyncio
import platform
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import nats

from tests.benchmarks.actors.links import connect, connect_raw
from tests.benchmarks.payload import ENCODED

if TYPE_CHECKING:
    from collections.abc import Callable

    from nats.aio.client import Client as NatsClient

_SUBJECT = "bench.published"
_TIMEOUT = 20.0


def _payload(size: int | None) -> bytes:
    return ENCODED if size is None else b"x" * size


def _turn(payload: bytes) -> int:
    """Return after how many messages to look at the clock."""
    return max(1, min(500, 500_000 // len(payload)))


def _rate(publish: Callable[[], object], flush: Callable[[], object], seconds: float, turn: int) -> float:
    sent = 0
    started = time.perf_counter()
    end = started + seconds
    while time.perf_counter() < end:
        for _ in range(turn):
            publish()
        sent += turn
    flush()
    return sent / (time.perf_counter() - started)


class Ours:
    """`Client.publish`, then `Client.flush`."""

    def __init__(self, url: str, tls: str | None = None) -> None:
        self._client = connect(url, tls)

    def rate(self, seconds: float, size: int | None = None) -> float:
        payload = _payload(size)
        publish, flush = self._client.publish, self._client.flush
        return _rate(lambda: publish(_SUBJECT, payload), lambda: flush(_TIMEOUT), seconds, _turn(payload))

    def run(self, messages: int, samples: int) -> list[float]:
        """Publish many messages, and return the resident memory in MiB before, along the way and after."""
        from tests.benchmarks.actors.memory import resident_mib

        publish = self._client.publish
        memory = [resident_mib()]
        for _ in range(samples):
            for _ in range(messages // samples):
                publish(_SUBJECT, ENCODED)
            memory.append(resident_mib())
        self._client.flush(_TIMEOUT)
        memory.append(resident_mib())
        return memory


class Asyncio:
    """nats-py: `await nc.publish` in a loop, then `await nc.flush`."""

    def __init__(self, url: str, tls: str | None = None) -> None:
        self._loop = asyncio.new_event_loop()
        self._nc = self._loop.run_until_complete(self._connect(url, tls))

    async def _connect(self, url: str, tls: str | None) -> Any:
        return await connect_raw(url, tls)

    async def _flush(self) -> None:
        await self._nc.flush(int(_TIMEOUT))

    def rate(self, seconds: float, size: int | None = None) -> float:
        return self._loop.run_until_complete(self._rate(seconds, _payload(size)))

    async def _rate(self, seconds: float, payload: bytes) -> float:
        sent, turn, publish = 0, _turn(payload), self._nc.publish
        started = time.perf_counter()
        end = started + seconds
        while time.perf_counter() < end:
            for _ in range(turn):
                await publish(_SUBJECT, payload)
            sent += turn
        await self._flush()
        return sent / (time.perf_counter() - started)


class NatsCore(Asyncio):
    """nats-core, the official new client: `await client.publish` in a loop, then `await client.flush`."""

    async def _connect(self, url: str, tls: str | None) -> Any:
        assert tls is None
        if sys.version_info < (3, 13):
            raise RuntimeError(f"nats-core needs Python 3.13, this is {platform.python_version()}")
        from nats.client import connect as connect_core

        return await connect_core(url)

    async def _flush(self) -> None:
        await self._nc.flush(_TIMEOUT)


class NatsCoreUvloop(NatsCore):
    """The same on uvloop."""

    def __init__(self, url: str) -> None:
        import uvloop

        self._loop = uvloop.new_event_loop()
        self._nc = self._loop.run_until_complete(self._connect(url, None))


class Wrapper:
    """One coroutine a message, handed to a loop in a thread."""

    def __init__(self, url: str) -> None:
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()
        self._nc: NatsClient = self._run(nats.connect(url))

    def rate(self, seconds: float, size: int | None = None) -> float:
        payload = _payload(size)
        return _rate(
            lambda: self._run(self._nc.publish(_SUBJECT, payload)), lambda: self._run(self._nc.flush()), seconds, 20
        )

    def _run(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(_TIMEOUT)


class Sync:
    """nats-py-sync. It has no flush; asking for a reply that nobody gives tells as much."""

    def __init__(self, url: str) -> None:
        import nats_sync

        self._client = nats_sync.connect(url)

    def rate(self, seconds: float, size: int | None = None) -> float:
        payload = _payload(size)
        return _rate(lambda: self._client.publish(_SUBJECT, payload), self._flush, seconds, 20)

    def _flush(self) -> None:
        try:
            self._client.request("bench.nobody", b"", timeout=_TIMEOUT)
        except nats.errors.NoRespondersError:
            return


class Pynats2:
    """pynats2. Each publish is two writes to the socket; it cannot wait for the PONG, so a request ends a round."""

    def __init__(self, url: str) -> None:
        from pynats2 import NATSClient

        self._client = NATSClient(url, socket_timeout=_TIMEOUT)
        self._client.connect()

    def rate(self, seconds: float, size: int | None = None) -> float:
        payload = _payload(size)
        return _rate(
            lambda: self._client.publish(_SUBJECT, payload=payload),
            lambda: self._client.request("plain.echo", payload=b"", timeout=_TIMEOUT),
            seconds,
            20,
        )
