"""Managers and agents on a real server, stopped with the test."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import lightlink
from lightlink.commands import Agent, CommandManager, StoreOptions

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

# What takes half a minute by default takes a second.
FAST = StoreOptions(ack_wait=1.0, heartbeat=0.2)


class World:
    """Makes clients, managers and agents for one server; ``options`` are those of the streams."""

    def __init__(self, url: str, options: StoreOptions | None = None) -> None:
        self.url = url
        self.options = options
        self._stack = contextlib.ExitStack()

    def client(self, **options: Any) -> lightlink.Client:
        """Return a client that is closed with the test."""
        return self._stack.enter_context(lightlink.connect(self.url, **{"name": "test", **options}))

    def manager(self, name: str = "manager", timeout: float = 5.0, **options: Any) -> CommandManager:
        """Return a manager with a client of its own, whose operations may take ``timeout`` seconds."""
        settings = {"store": self.options, **options}
        return self._stack.enter_context(CommandManager(self.client(name=name, timeout=timeout), **settings))

    def agent(self, client_id: str, **options: Any) -> Agent:
        """Return an agent that is not started, and is stopped with the test."""
        agent = Agent(client_id, **{"target": self.url, "store": self.options, **options})
        self._stack.callback(agent.stop)
        return agent

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()
