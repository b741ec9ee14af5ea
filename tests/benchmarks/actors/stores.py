"""Those who write and read retained state."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import nats

from tests.benchmarks.actors import timing
from tests.benchmarks.payload import VALUE

_KEY = "bench.sensor"


class Ours:
    """`Client.set_state` and `Client.get_state`."""

    def __init__(self, url: str) -> None:
        import lightlink

        self._client = lightlink.connect(url)

    def put_times(self, count: int) -> dict[str, Any]:
        return timing.times(lambda: self._client.set_state(_KEY, VALUE), count)

    def get_times(self, count: int) -> dict[str, Any]:
        return timing.times(self._get, count)

    def _get(self) -> None:
        assert self._client.get_state(_KEY)["n"] == VALUE["n"]


class Asyncio:
    """nats-py's key-value store: `put` and `get`, with JSON around them."""

    def __init__(self, url: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._loop.run_until_complete(self._open(url))

    async def _open(self, url: str) -> None:
        nc = await nats.connect(url)
        self._kv = await nc.jetstream().create_key_value(bucket="bench_state")

    def put_times(self, count: int) -> dict[str, Any]:
        return self._loop.run_until_complete(timing.async_times(self._put, count))

    def get_times(self, count: int) -> dict[str, Any]:
        return self._loop.run_until_complete(timing.async_times(self._get, count))

    async def _put(self) -> None:
        await self._kv.put(_KEY, json.dumps(VALUE).encode())

    async def _get(self) -> None:
        value = (await self._kv.get(_KEY)).value
        assert value is not None
        assert json.loads(value)["n"] == VALUE["n"]
