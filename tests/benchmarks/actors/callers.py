"""Callers: each asks an echo for its value and gets it back, alone or many at once.

All but `Ours` send and get the value as JSON, with nothing around it.
"""

from __future__ import annotations

import asyncio
import gc
import json
import threading
import time
from typing import TYPE_CHECKING, Any

import nats

from tests.benchmarks.actors import timing
from tests.benchmarks.actors.links import connect, connect_raw
from tests.benchmarks.payload import VALUE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from nats.aio.client import Client as NatsClient

_TIMEOUT = 5.0


class Ours:
    """One client shared by all threads; calls ``echo`` of a service."""

    def __init__(self, url: str, service: str, tls: str | None = None) -> None:
        self._client = connect(url, tls)
        self._service = service

    def times(self, count: int) -> dict[str, Any]:
        return timing.times(self._call, count)

    def rate(self, callers: int, seconds: float) -> dict[str, Any]:
        return timing.rate(lambda _: self._call, callers, seconds)

    def map_rate(self, callers: int, seconds: float) -> dict[str, Any]:
        """Call with ``callers`` calls under way at a time, from this one thread."""

        def arguments() -> Iterator[Any]:
            while time.perf_counter() < end:
                yield VALUE

        count = 0
        gc.collect()
        began = time.perf_counter()
        end = began + seconds
        for result in self._client.map(self._service, "echo", arguments(), concurrency=callers, timeout=_TIMEOUT):
            assert result["n"] == VALUE["n"]
            count += 1
        return {"rate": count / (time.perf_counter() - began), "count": count}

    def _call(self) -> None:
        assert self._client.call(self._service, "echo", VALUE, timeout=_TIMEOUT)["n"] == VALUE["n"]


class Asyncio:
    """nats-py as its documentation shows it: one connection, `request` awaited by tasks."""

    def __init__(self, url: str, tls: str | None = None) -> None:
        self._loop = asyncio.new_event_loop()
        self._nc = self._loop.run_until_complete(connect_raw(url, tls))

    def times(self, count: int) -> dict[str, Any]:
        return self._loop.run_until_complete(timing.async_times(self._call, count))

    def rate(self, callers: int, seconds: float) -> dict[str, Any]:
        return self._loop.run_until_complete(timing.async_rate(self._call, callers, seconds))

    async def _call(self) -> None:
        reply = await self._nc.request("plain.echo", json.dumps(VALUE).encode(), timeout=_TIMEOUT)
        assert json.loads(reply.data)["n"] == VALUE["n"]


class Wrapper:
    """What blocking code around nats-py usually looks like: a loop in a thread, one coroutine handed over a call."""

    def __init__(self, url: str) -> None:
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()
        self._nc: NatsClient = asyncio.run_coroutine_threadsafe(nats.connect(url), self._loop).result(_TIMEOUT)

    def times(self, count: int) -> dict[str, Any]:
        return timing.times(self._call, count)

    def rate(self, callers: int, seconds: float) -> dict[str, Any]:
        return timing.rate(lambda _: self._call, callers, seconds)

    def _call(self) -> None:
        request = self._nc.request("plain.echo", json.dumps(VALUE).encode(), timeout=_TIMEOUT)
        reply = asyncio.run_coroutine_threadsafe(request, self._loop).result(_TIMEOUT + 1)
        assert json.loads(reply.data)["n"] == VALUE["n"]


class PerThread:
    """For clients that one thread at a time may use: a connection for each."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._calls: list[Callable[[], object]] = [self._connect()]

    def times(self, count: int) -> dict[str, Any]:
        return timing.times(self._calls[0], count)

    def rate(self, callers: int, seconds: float) -> dict[str, Any]:
        while len(self._calls) < callers:
            self._calls.append(self._connect())
        return timing.rate(self._calls.__getitem__, callers, seconds)

    def _connect(self) -> Callable[[], object]:
        raise NotImplementedError


class Sync(PerThread):
    """nats-py-sync. Its loop runs during a call only, and for one thread."""

    def _connect(self) -> Callable[[], object]:
        import nats_sync

        client = nats_sync.connect(self._url)

        def call() -> None:
            reply = client.request("plain.echo", json.dumps(VALUE).encode(), timeout=_TIMEOUT)
            assert json.loads(reply.data)["n"] == VALUE["n"]

        return call


class Pynats2(PerThread):
    """pynats2. Each request starts a thread that reads, so a client cannot be shared."""

    def _connect(self) -> Callable[[], object]:
        from pynats2 import NATSClient

        client = NATSClient(self._url, socket_timeout=_TIMEOUT)
        client.connect()

        def call() -> None:
            reply = client.request("plain.echo", payload=json.dumps(VALUE).encode(), timeout=_TIMEOUT)
            assert json.loads(reply.payload)["n"] == VALUE["n"]

        return call
