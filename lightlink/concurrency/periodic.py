"""Many things done again and again on few threads, however many they are."""

from __future__ import annotations

import logging
import os
import threading
import time
import weakref
from typing import TYPE_CHECKING

from lightlink.concurrency.notifier import Notifier
from lightlink.concurrency.workers import WorkerPool

if TYPE_CHECKING:
    from collections.abc import Callable

    from lightlink.connection.connection import Connection

_log = logging.getLogger("lightlink")

_THREADS = 4
_STOP_SECONDS = 0.5


class Round:
    """A function called every ``interval`` seconds until `stop`. It may block, and may fail: that is logged."""

    def __init__(self, rounds: Rounds, interval: float, function: Callable[[], object]) -> None:
        self._rounds = rounds
        self._interval = interval
        self._function = function
        self._runner = 0
        self._stopped = False
        self._changed = threading.Condition()

    def stop(self, timeout: float) -> None:
        """End it, waiting at most ``timeout`` seconds for a call that is under way, unless that is who asks."""
        with self._changed:
            first, self._stopped = not self._stopped, True
            if self._runner != threading.get_ident():
                self._changed.wait_for(lambda: not self._runner, timeout)
        if first:
            self._rounds.leave()

    def run(self, due: float) -> None:
        """Call the function, and have it called again."""
        with self._changed:
            if self._stopped:
                return
            self._runner = threading.get_ident()
        try:
            self._function()
        except Exception:
            _log.exception("lightlink: %r failed; it goes on", self._function)
        finally:
            with self._changed:
                self._runner = 0
                self._changed.notify_all()
        self.plan(max(due + self._interval, time.monotonic()))

    def plan(self, due: float) -> None:
        """Have the function called at an instant of `time.monotonic`."""
        self._rounds.timer.post_at(due, self._rounds.pool.put, self.run, due)


class Rounds:
    """The rounds of a connection: a thread that knows when, and a few that call. They end with the last round."""

    def __init__(self, connection: Connection) -> None:
        name = connection.options.name
        self.timer = Notifier(f"rounds-{name}")
        self.pool = WorkerPool(f"lightlink-rounds-{name}", _THREADS)
        self._connection = weakref.ref(connection)
        self.pid = os.getpid()
        self.members = 0
        # Here, where an error reaches whoever wants a round.
        self.timer.start()
        self.pool.start()

    def leave(self) -> None:
        """Take note that a round has ended."""
        with _lock:
            self.members -= 1
            ended = self.members == 0
            connection = self._connection()
            # What is still planned may hold the connection, which then would never be forgotten.
            if ended and connection is not None and _of_connection.get(connection) is self:
                del _of_connection[connection]
        if ended:
            self.timer.stop(_STOP_SECONDS)
            self.pool.stop(_STOP_SECONDS)


_lock = threading.Lock()
_of_connection: weakref.WeakKeyDictionary[Connection, Rounds] = weakref.WeakKeyDictionary()


def every(connection: Connection, interval: float, function: Callable[[], object]) -> Round:
    """Call a function every ``interval`` seconds, on a thread shared with the other rounds of the connection."""
    with _lock:
        rounds = _of_connection.get(connection)
        if rounds is None or rounds.pid != os.getpid():
            rounds = _of_connection[connection] = Rounds(connection)
        rounds.members += 1
    added = Round(rounds, interval, function)
    added.plan(time.monotonic() + interval)
    return added


def _after_fork_in_child() -> None:
    global _lock  # noqa: PLW0603 - another thread of the parent may hold the one that was inherited
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
