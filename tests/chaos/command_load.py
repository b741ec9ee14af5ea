"""Commands sent without pause to an agent, with every one in the books."""

from __future__ import annotations

import collections
from typing import TYPE_CHECKING, Any

import lightlink
from chaos.ledger import Book
from chaos.load import Repeat
from lightlink.commands import Agent, CommandManager, CommandPromise, StoreOptions
from lightlink.errors import CommandError, StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from chaos.ledger import Ledger


class Commands(Book):
    """Commands that return the number they are given, and call `run` with it. They are not idempotent."""

    name = "commands"

    def __init__(self) -> None:
        super().__init__()
        self._sent: dict[int, CommandPromise] = {}
        self._failed: collections.Counter[str] = collections.Counter()
        self._runs: collections.Counter[int] = collections.Counter()
        self._wrong: list[int] = []
        self._ended: dict[int, str] = {}

    def send(self, manager: CommandManager, client_id: str) -> None:
        """Send a command."""
        number = self._next()
        try:
            promise = manager.send(client_id, "work", {"number": number}, timeout=300)
        except StoreUnavailable as exc:
            self._failed["unknown" if exc.unknown else "refused"] += 1
            return
        with self._changed:
            self._sent[number] = promise
        promise.add_done_callback(lambda _: self._hear(number))

    def run(self, number: int) -> int:
        """Write down that the agent runs it, and return the number: what its handler does."""
        with self._changed:
            self._runs[number] += 1
        return number

    def close(self, manager: CommandManager) -> None:
        """Wait until all that was acknowledged has ended, and write down how, as the store has it."""
        for number, promise in self._sent.items():
            try:
                if promise.result(60) != number:
                    self._wrong.append(number)
            except CommandError as exc:
                self.notes.append(f"{number}: {exc}")
            self._ended[number] = manager.get(promise.command_id).status

    def figures(self) -> dict[str, int]:
        return {"acknowledged": len(self._sent), **self._failed, **collections.Counter(self._ended.values())}

    def faults(self) -> dict[str, list[int]]:
        completed = [number for number, status in self._ended.items() if status == "completed"]
        return {
            "run twice": [number for number, runs in self._runs.items() if runs > 1],
            "lost": [number for number, status in self._ended.items() if status == "pending"],
            "completed and never run": [number for number in completed if number not in self._runs],
            "answered wrongly": self._wrong,
        }

    def _hear(self, number: int) -> None:
        with self._changed:
            self._note()


class CommandLoad:
    """A manager and an agent, each with a connection of its own, which ``settings`` go to. A context manager.

    `finish` closes the book.
    """

    def __init__(self, ledger: Ledger, name: str, urls: str | Sequence[str], replicas: int, **settings: Any) -> None:
        self.book: Commands = ledger.open(Commands())
        self._name = name
        store = StoreOptions(replicas=replicas)
        self._client = lightlink.connect(urls, name=f"{name}-manager", **settings)
        self.manager = CommandManager(self._client, store=store)
        self._agent = Agent(name, urls, store=store, **settings)
        self._agent.register("work", self.book.run)
        self._sending: Any = None

    def __enter__(self) -> CommandLoad:
        self._agent.start()
        self._sending = Repeat(lambda: self.book.send(self.manager, self._name), 0.02)
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._sending.stop()
        finally:
            self._agent.stop()
            self.manager.close()
            self._client.close()

    def wait_progress(self, timeout: float = 60.0) -> None:
        """Wait until some more commands have ended."""
        goal = self.book.progress + 10
        self.book.wait_for(lambda: self.book.progress >= goal, timeout)

    def finish(self) -> None:
        """Send no more, and write down what became of each."""
        self._sending.stop()
        self.book.close(self.manager)
