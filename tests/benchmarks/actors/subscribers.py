"""Those who receive: many subscriptions on one client, each with a handler that counts."""

from __future__ import annotations

import asyncio
import threading
import time

import nats

_TIMEOUT = 30.0


class _Counter:
    """Counts what arrives, and notes when the first and the last wanted message came."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._done = threading.Event()
        self.expect(1)

    def expect(self, messages: int) -> None:
        with self._lock:
            self._left = self._wanted = messages
            self._first = self._last = 0.0
            self._done.clear()

    def note(self, _message: object = None) -> None:
        with self._lock:
            if self._left == self._wanted:
                self._first = time.perf_counter()
            self._left -= 1
            if not self._left:
                self._last = time.perf_counter()
                self._done.set()

    def rate(self) -> float:
        if not self._done.wait(_TIMEOUT):
            raise TimeoutError(f"{self._left} of {self._wanted} messages did not come within {_TIMEOUT:g} s")
        return (self._wanted - 1) / (self._last - self._first)


class Ours:
    """`Client.subscribe` with a handler, raw."""

    def __init__(self, url: str, subscriptions: int) -> None:
        import lightlink

        self._counter = _Counter()
        self._client = lightlink.connect(url)
        for number in range(subscriptions):
            self._client.subscribe(f"bench.{subscriptions}.ours.{number}", self._counter.note, raw=True)

    def expect(self, messages: int) -> None:
        self._counter.expect(messages)

    def rate(self) -> float:
        return self._counter.rate()


class Asyncio:
    """nats-py's `subscribe` with a callback."""

    def __init__(self, url: str, subscriptions: int) -> None:
        self._counter = _Counter()
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()
        asyncio.run_coroutine_threadsafe(self._open(url, subscriptions), self._loop).result(_TIMEOUT)

    async def _open(self, url: str, subscriptions: int) -> None:
        async def note(_message: object) -> None:
            self._counter.note()

        nc = await nats.connect(url)
        for number in range(subscriptions):
            await nc.subscribe(f"bench.{subscriptions}.asyncio.{number}", cb=note)
        await nc.flush()

    def expect(self, messages: int) -> None:
        self._counter.expect(messages)

    def rate(self) -> float:
        return self._counter.rate()
