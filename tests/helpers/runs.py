"""Orchestrators and agents whose handlers write down what they did, on a server of their own."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from helpers.commands import FAST, World
from lightlink.runs import Orchestrator

if TYPE_CHECKING:
    from lightlink.commands import Agent, StoreOptions


class RunWorld(World):
    """A world with orchestrators; ``done`` holds (client id, command type, payload) of each handler that ran."""

    def __init__(self, url: str, options: StoreOptions | None = FAST) -> None:
        super().__init__(url, options)
        self.done: list[tuple[str, str, Any]] = []
        self.failing: set[tuple[str, str]] = set()  # (client id, command type)
        self.gates: dict[str, threading.Event] = {}  # what handlers of a type wait for

    def orchestrator(self, name: str = "ops", **options: Any) -> Orchestrator:
        """Return an orchestrator with a client of its own."""
        settings = {"store": self.options, **options}
        return self._stack.enter_context(Orchestrator(self.client(name=name, timeout=5.0), **settings))

    def agents(self, *names: str, labels: dict[str, str] | None = None, types: str = "info install verify") -> None:
        """Start agents that take commands of some types, and ``undo.<type>`` of each."""
        for name in names:
            agent = self.agent(name, labels=labels or {})
            for kind in types.split():
                for each in (kind, f"undo.{kind}"):
                    agent.register(each, self._handler(agent, each))
            agent.start()

    def _handler(self, agent: Agent, kind: str) -> Any:
        def handle(version: str = "", **more: Any) -> dict[str, Any]:
            self.done.append((agent.client_id, kind, version or more or None))
            gate = self.gates.get(kind)
            if gate is not None:
                assert gate.wait(30)
            if (agent.client_id, kind) in self.failing:
                raise ValueError(f"{kind} is broken here")
            return {"version": "3", "ok": True, "did": kind}

        return handle

    def of(self, kind: str) -> list[str]:
        """Return on which agents handlers of a type ran, in order."""
        return [client_id for client_id, each, _ in list(self.done) if each == kind]
