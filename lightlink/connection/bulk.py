"""A separate connection for files, opened with the first transfer and closed when idle."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

import attrs

from lightlink.concurrency.deadline import Deadline
from lightlink.concurrency.threads import join_thread, start_thread
from lightlink.connection.connection import Connection
from lightlink.protocol.edge import Kind

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterator

    from lightlink.connection.session import Session

# Longer than the pauses of a program that sends one file after another, and no longer than a NAT keeps a mapping.
IDLE_SECONDS = 30.0
_CLOSE_SECONDS = 5.0


class BulkConnection(Connection):
    """A connection that closes once nobody has used it for a while, and opens again with the next use.

    So that a fleet which sends a file now and then does not hold two connections for each agent.
    """

    def __init__(self, main: Connection) -> None:
        options = attrs.evolve(main.options, name=f"{main.options.name}-bulk", bulk_connection=False)
        super().__init__(options, Kind.BULK)
        self.middleware = main.middleware
        self._sender = main.sender
        self._users = 0
        self._idle_since = 0.0
        self._resting: threading.Thread | None = None

    @property
    def sender(self) -> str:
        """The name of the client that it belongs to."""
        return self._sender

    @contextlib.contextmanager
    def in_use(self) -> Iterator[None]:
        """Keep the connection meanwhile."""
        with self._lock:
            self._users += 1
        try:
            yield
        finally:
            self._leave()

    def close(self, timeout: float) -> None:
        """Close as any connection does, and wait for one that is closing because it was idle."""
        deadline = Deadline(timeout)
        super().close(timeout)
        resting = self._resting
        if resting is not None:
            join_thread(resting, deadline.remaining())

    def forget_parent(self) -> Session | None:
        """Start anew in a forked child, where none of the parent's other threads uses it."""
        session = super().forget_parent()
        self._users = 0
        self._resting = None
        return session

    def _leave(self) -> None:
        with self._lock:
            self._users = max(self._users - 1, 0)  # in a forked child it had begun in the parent
            session = self._session
            if self._users or session is None:
                return
            self._idle_since = time.monotonic()
        session.notifier.post_at(self._idle_since + IDLE_SECONDS, self._rest, session)

    def _rest(self, session: Session) -> None:
        with self._lock:
            is_idle = not self._users and time.monotonic() - self._idle_since >= IDLE_SECONDS
            if not is_idle or self._closed or self._session is not session:
                return
            self._session = None
        # Not here: the notifier is among the threads that end with the session.
        self._resting = start_thread(session.close, f"lightlink-rest-{self.options.name}", _CLOSE_SECONDS)
