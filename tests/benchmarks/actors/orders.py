"""Those who send commands and carry them out, and who stores as much without them."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import nats

from tests.benchmarks.actors import timing
from tests.benchmarks.actors.services import echo
from tests.benchmarks.payload import ENCODED, VALUE

_AGENT = "bench-agent"
_SERVICE = "bench-agent-service"
_TIMEOUT = 60.0
_STEPS = 3


class Agent:
    """Carries out the command ``echo``, and serves a method that does the same."""

    def __init__(self, url: str) -> None:
        import lightlink
        from lightlink.commands import Agent as CommandAgent

        self._client = lightlink.connect(url)
        self._agent = CommandAgent(_AGENT, self._client, workers=8)
        self._agent.register("echo", echo)
        self._agent.start()
        self._service = lightlink.Service(_SERVICE, self._client)
        self._service.register("echo", echo)
        self._service.start()


class Manager:
    """Sends commands to that agent, and makes the same calls."""

    def __init__(self, url: str) -> None:
        import lightlink
        from lightlink.commands import CommandManager

        self._client = lightlink.connect(url)
        self._manager = CommandManager(self._client)
        self._round = 0

    def command_times(self, count: int) -> dict[str, Any]:
        return timing.times(self._command, count)

    def call_times(self, count: int) -> dict[str, Any]:
        return timing.times(self._call, count)

    def accept(self, count: int) -> float:
        """Send one batch to ``count`` agents that are offline, and return how many commands a second were stored."""
        agents = [f"bench-{number}" for number in range(count)]
        before = self._stored()
        started = time.perf_counter()
        self._manager.send_many(agents, "echo", VALUE, timeout=3600)
        while self._stored() < before + count:
            if time.perf_counter() - started > _TIMEOUT:
                raise TimeoutError(f"{self._stored() - before} of {count} commands are stored after {_TIMEOUT:g} s")
            time.sleep(0.002)
        return count / (time.perf_counter() - started)

    def _stored(self) -> int:
        from lightlink.jetstream import api

        info = api.stream_info(self._client._connection, "LIGHTLINK_COMMANDS", _TIMEOUT)
        assert info is not None
        # Versions before typed answers, which `--before` measures, return what the server says as it is.
        return int(info["state"]["messages"] if isinstance(info, dict) else info.state.messages)

    def _command(self) -> None:
        assert self._manager.send(_AGENT, "echo", VALUE).result(_TIMEOUT)["n"] == VALUE["n"]

    def _call(self) -> None:
        assert self._client.call(_SERVICE, "echo", VALUE)["n"] == VALUE["n"]


class Fleet:
    """A thousand agents that carry out ``echo``, on one connection."""

    def __init__(self, url: str, count: int = 1000) -> None:
        import lightlink
        from lightlink.commands import Agent as CommandAgent

        self._client = lightlink.connect(url)
        self._agents = [CommandAgent(f"fleet-{number}", self._client, workers=1) for number in range(count)]
        for agent in self._agents:
            agent.register("echo", echo)
            agent.start()

    def names(self) -> list[str]:
        return [agent.client_id for agent in self._agents]


class Orchestrator:
    """Sends a few steps to each agent of the fleet: by a run, and by a batch for each step."""

    def __init__(self, url: str) -> None:
        import lightlink
        from lightlink.runs import Orchestrator as RunOrchestrator
        from lightlink.runs import Plan

        self._client = lightlink.connect(url)
        self._orchestrator = RunOrchestrator(self._client)
        self._plan = Plan("bench")
        for number in range(_STEPS):
            self._plan.step(f"step{number}", "echo", VALUE, timeout=_TIMEOUT)

    def run(self, names: list[str]) -> float:
        started = time.perf_counter()
        run = self._orchestrator.start(self._plan, targets=names)
        state = run.wait(_TIMEOUT)
        took = time.perf_counter() - started
        assert state == "completed", state
        return took

    def batches(self, names: list[str]) -> float:
        started = time.perf_counter()
        for _ in range(_STEPS):
            batch = self._orchestrator.send_many(names, "echo", VALUE, timeout=_TIMEOUT)
            assert batch.wait(_TIMEOUT)
        return time.perf_counter() - started


class Puts:
    """The same number of key-value entries, written with nats-py's `publish_async`, many on their way at once."""

    def __init__(self, url: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._loop.run_until_complete(self._open(url))

    def accept(self, count: int) -> float:
        """Write ``count`` keys, and return how many a second were acknowledged."""
        return self._loop.run_until_complete(self._accept(count))

    async def _open(self, url: str) -> None:
        nc = await nats.connect(url)
        self._js = nc.jetstream()
        await self._js.create_key_value(bucket="bench_puts")

    async def _accept(self, count: int) -> float:
        started = time.perf_counter()
        acks = [await self._js.publish_async(f"$KV.bench_puts.bench-{n}.command", ENCODED) for n in range(count)]
        await asyncio.gather(*acks)
        return count / (time.perf_counter() - started)
