"""Those who store events and consume them durably."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import nats

from tests.benchmarks.payload import ENCODED, VALUE

_SUBJECT = "bench.durable.event"
_TIMEOUT = 60.0
_FETCH = 100


class Ours:
    """`Client.storing`, and `Client.consume` with eight workers."""

    def __init__(self, url: str) -> None:
        import lightlink

        self._connect = lambda: lightlink.connect(url)
        self._client = self._connect()
        self._client.stream("BENCH", ["bench.durable.>"], storage="memory")
        self._round = 0

    def store(self, count: int) -> float:
        """Store so many events, and return how many a second."""
        self._client.stream("BENCH").purge()
        started = time.perf_counter()
        with self._client.storing(timeout=_TIMEOUT) as batch:
            for _ in range(count):
                batch.publish(_SUBJECT, VALUE)
        return count / (time.perf_counter() - started)

    def consume(self, count: int) -> float:
        """Consume the stored events, and return how many a second."""
        self._round += 1
        lock, done, seen = threading.Lock(), threading.Event(), [0]

        def handle(_: Any) -> None:
            with lock:
                seen[0] += 1
                if seen[0] == count:
                    done.set()

        name = f"ours-{self._round}"
        with self._connect() as client:  # which stops it at the end
            started = time.perf_counter()
            client.consume("bench.durable.>", name=name, workers=8)(handle)
            assert done.wait(_TIMEOUT), f"{seen[0]} of {count} events"
            took = time.perf_counter() - started
        with self._client.consumer("BENCH", name) as consumer:
            consumer.delete()
        return count / took


class Asyncio:
    """nats-py: pipelined `publish_async`, and a loop of `fetch` and `ack`."""

    def __init__(self, url: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._js = self._loop.run_until_complete(self._open(url))
        self._round = 0

    def store(self, count: int) -> float:
        return self._loop.run_until_complete(self._store(count))

    def consume(self, count: int) -> float:
        return self._loop.run_until_complete(self._consume(count))

    async def _open(self, url: str) -> Any:
        return (await nats.connect(url)).jetstream()

    async def _store(self, count: int) -> float:
        await self._js.purge_stream("BENCH")
        started = time.perf_counter()
        acks = [await self._js.publish_async(_SUBJECT, ENCODED) for _ in range(count)]
        await asyncio.gather(*acks)
        return count / (time.perf_counter() - started)

    async def _consume(self, count: int) -> float:
        self._round += 1
        name = f"theirs-{self._round}"
        seen = 0
        started = time.perf_counter()
        subscription = await self._js.pull_subscribe("bench.durable.>", durable=name, stream="BENCH")
        while seen < count:
            for message in await subscription.fetch(min(_FETCH, count - seen), timeout=_TIMEOUT):
                await message.ack()
                seen += 1
        took = time.perf_counter() - started
        await self._js.delete_consumer("BENCH", name)
        return count / took
