"""One manager in each process: an app that was made before a fork is carried by the children too."""

from __future__ import annotations

import os
from concurrent.futures import Future
from functools import partial
from typing import TYPE_CHECKING

from lightlink.commands.manager.manager import CommandManager
from lightlink.concurrency.threads import has_ended
from lightlink.errors import StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable

# The first request of a process may have to wait until it is connected.
_PATIENCE = 15.0


def _itself(manager: CommandManager) -> CommandManager:
    manager.open()
    return manager


class Managers:
    """Finds this process's manager.

    ``source`` is one, which is followed into forked children, or a function that makes one at the first request, when
    NATS need not be there before.
    """

    def __init__(self, source: CommandManager | Callable[[], CommandManager]) -> None:
        # A manager follows into each process by itself.
        self._make: Callable[[], CommandManager] = (
            partial(_itself, source) if isinstance(source, CommandManager) else source
        )
        self._made: dict[int, Future[CommandManager]] = {}

    def get(self) -> CommandManager:
        """Return the manager; raises ConnectError, StoreUnavailable when it cannot be made now."""
        process = os.getpid()
        made = self._made.get(process)
        if made is None:
            # Of threads that come at the same time one makes it, and a child never waits for a thread of its parent.
            mine: Future[CommandManager] = Future()
            made = self._made.setdefault(process, mine)
            if made is mine:
                self._fill(mine, process)
        if not has_ended(made, _PATIENCE):
            raise StoreUnavailable("reaching NATS", "this process is still connecting")
        return made.result()

    def close(self) -> None:
        """Close the manager of this process if there is one; the next use makes another."""
        made = self._made.pop(os.getpid(), None)
        if made is not None and made.done() and made.exception() is None:
            made.result().close()

    def _fill(self, future: Future[CommandManager], process: int) -> None:
        try:
            future.set_result(self._make())
        except BaseException as exc:
            del self._made[process]  # the next request tries again
            future.set_exception(exc)
