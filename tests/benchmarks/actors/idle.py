"""Those who are there and do nothing: what that costs."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from pathlib import Path

import nats

from tests.benchmarks.actors.memory import resident_mib
from tests.benchmarks.actors.services import echo


class _Idle:
    """Tells of its process. What is measured from outside, its processor time, comes with each answer."""

    def memory(self) -> float:
        """Return the resident memory, in MiB."""
        return resident_mib()

    def threads(self) -> int:
        """Return how many threads there are, beside the one that waits for the benchmark."""
        return len(list(Path(f"/proc/{os.getpid()}/task").iterdir())) - 1

    def wait(self, seconds: float) -> None:
        """Let so much time pass."""
        time.sleep(seconds)


class Client(_Idle):
    """A LightLink client."""

    def __init__(self, url: str) -> None:
        import lightlink

        self._client = lightlink.connect(url)


class Service(_Idle):
    """A LightLink service with one method."""

    def __init__(self, url: str) -> None:
        import lightlink

        self._service = lightlink.Service("idle", url)
        self._service.register("echo", echo)
        self._service.start()


class Agent(_Idle):
    """A LightLink agent with one command."""

    def __init__(self, url: str) -> None:
        import lightlink
        from lightlink.commands import Agent as CommandAgent

        self._agent = CommandAgent("idle", lightlink.connect(url))
        self._agent.register("echo", echo)
        self._agent.start()


class Manager(_Idle):
    """A LightLink command manager."""

    def __init__(self, url: str) -> None:
        import lightlink
        from lightlink.commands import CommandManager

        self._manager = CommandManager(lightlink.connect(url))


class Bare(_Idle):
    """nats-py's client, on a loop in a thread."""

    def __init__(self, url: str) -> None:
        loop = asyncio.new_event_loop()
        threading.Thread(target=loop.run_forever, daemon=True).start()
        self._nc = asyncio.run_coroutine_threadsafe(nats.connect(url), loop).result(10)
