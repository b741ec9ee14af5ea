"""Follow the states of all runs as they change."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lightlink.concurrency.deadline import instant_after
from lightlink.concurrency.mailbox import Closed, MessageQueue
from lightlink.errors import DecodeError
from lightlink.protocol import subjects
from lightlink.protocol.subjects import as_text
from lightlink.runs.store import read_state

if TYPE_CHECKING:
    from typing_extensions import Self

    from lightlink.connection.connection import Connection
    from lightlink.runs.model.records import RunState

_KEPT = 10_000
_KEPT_BYTES = 16 * 1024 * 1024


class RunWatcher:
    """Brings every state that a run comes to, from now on; a context manager."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._queue = MessageQueue(_KEPT, _KEPT_BYTES)
        self._route = connection.subscribe(subjects.run_event("*"), "", self._hear)

    def get(self, timeout: float) -> RunState | None:
        """Return the next state; None after ``timeout`` seconds, or once it is closed."""
        try:
            state: RunState = self._queue.get(instant_after(timeout))
        except (TimeoutError, Closed):
            return None
        return state

    def close(self) -> None:
        """Follow no more. Idempotent."""
        self._connection.session.unroute(self._route, 1.0)
        self._queue.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _hear(self, subject: bytes, _reply: bytes, data: bytes, _headers: bytes | None) -> None:
        try:
            state = read_state(data, as_text(subject))
        except DecodeError as exc:
            self._connection.session.report(exc)
            return
        self._queue.put(state, len(data))
