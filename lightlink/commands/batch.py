"""One command to many agents: sent as fast as it may be, followed as a whole."""

from __future__ import annotations

import logging
from collections import Counter
from typing import TYPE_CHECKING

from lightlink.commands import model
from lightlink.commands.store import Conflict
from lightlink.errors import CommandEnded, LightLinkError
from lightlink.runtime.threads import Condition

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lightlink.commands.model import Command, RequestRecord
    from lightlink.commands.promise import CommandPromise, Follower
    from lightlink.commands.store import CommandStore
    from lightlink.runtime.workers import WorkerPool

_log = logging.getLogger("lightlink")

# How many requests are on their way to the store at a time.
_PIPELINE = 512


class Batch:
    """A command sent to many agents. Made by `CommandManager.send_many`.

    ``promises`` holds one per command sent so far; those that ``max_failures`` held back are in ``not_sent``.
    """

    def __init__(self, batch_id: str, records: list[RequestRecord], cancel: Callable[[str, str], Command]) -> None:
        self.batch_id = batch_id
        self.promises: list[CommandPromise] = []
        self.not_sent: list[str] = []
        self._records = records
        self._cancel_command = cancel
        self._cancelled = False
        self._ended: list[Command] = []
        self._stored = 0
        self._changed = Condition()

    def __len__(self) -> int:
        return len(self._records)

    def __iter__(self) -> Iterator[Command]:
        """Yield each command as it ends; those never sent are not among them."""
        given = 0
        while True:
            with self._changed:
                while len(self._ended) == given:
                    if self._is_over():
                        return
                    self._changed.wait()
                command = self._ended[given]
            given += 1
            yield command

    def counts(self) -> dict[str, int]:
        """Return how many commands are in each status; ``not_sent`` are those never sent."""
        counted: Counter[str] = Counter(promise.command().status for promise in list(self.promises))
        counts = {status: counted.get(status, 0) for status in model.STATUSES}
        counts["not_sent"] = len(self._records) - len(self.promises)
        return counts

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until all have ended, at most ``timeout`` seconds; tell whether they have."""
        with self._changed:
            return self._changed.wait_for(self._is_over, timeout)

    def results(self, timeout: float | None = None) -> dict[str, Command]:
        """Wait, and return the command of each client id, ended or not; those never sent are not among them."""
        self.wait(timeout)
        return {promise.client_id: promise.command() for promise in list(self.promises)}

    def wait_stored(self, timeout: float) -> bool:
        """Wait until all commands sent so far are stored, so that every manager sees them; tell whether they are.

        ``timeout`` in seconds.
        """
        with self._changed:
            return self._changed.wait_for(lambda: self._stored >= len(self.promises), timeout)

    def cancel(self, reason: str = "") -> int:
        """Send no more, and cancel what has not ended; return how many were cancelled."""
        self._cancelled = True
        cancelled = 0
        for promise in list(self.promises):
            if promise.done():
                continue
            try:
                self._cancel_command(promise.command_id, reason)
                cancelled += 1
            except CommandEnded:
                pass  # it was quicker
        return cancelled

    @property
    def is_cancelled(self) -> bool:
        """Whether `cancel` was called."""
        return self._cancelled

    def __repr__(self) -> str:
        return f"<Batch {self.batch_id} {self.counts()}>"

    # For the rollout ------------------------------------------------------------------------------------------------

    def sent(self, promise: CommandPromise) -> None:
        """Take note of a command that is on its way."""
        self.promises.append(promise)

    def stored(self) -> None:
        """Take note that a command is stored, or never will be."""
        with self._changed:
            self._stored += 1
            self._changed.notify_all()

    def ended(self, command: Command) -> None:
        """Take note of a command's end."""
        with self._changed:
            self._ended.append(command)
            self._changed.notify_all()

    def hold_back(self, records: list[RequestRecord]) -> None:
        """Take note of what is never sent."""
        with self._changed:
            self.not_sent += [record.client_id for record in records]
            self._changed.notify_all()

    def _is_over(self) -> bool:
        return len(self._ended) + len(self.not_sent) >= len(self._records)


class Rollout:
    """Sends a batch's commands, no more at a time than asked for, and stops when too many have failed."""

    def __init__(
        self,
        batch: Batch,
        store: CommandStore,
        follower: Follower,
        pool: WorkerPool,
        max_concurrency: int | None,
        max_failures: int | None,
    ) -> None:
        self._batch = batch
        self._store = store
        self._follower = follower
        self._pool = pool
        self._most = max_concurrency
        self._max_failures = max_failures
        self._todo = list(reversed(batch._records))
        self._running = 0
        self._failures = 0
        self._on_way = 0
        self._changed = Condition()

    def start(self) -> None:
        """Send what may be sent at once; the rest follows as commands end."""
        self._advance()

    def _advance(self) -> None:
        """Send the next commands, as many as there is room for; runs on the caller's thread or the pool's."""
        while True:
            with self._changed:
                records = self._next_records()
                if not records:
                    return
                self._running += len(records)
                self._on_way += len(records)
            for record in records:
                promise = self._follower.open(record)
                self._batch.sent(promise)
                promise.add_done_callback(self._on_end)
            self._store.put_requests(records, self._on_stored)
            with self._changed:
                self._changed.wait_for(lambda: self._on_way < _PIPELINE, self._store.timeout)

    def _next_records(self) -> list[RequestRecord]:
        if self._todo and (self._batch.is_cancelled or self._has_failed_too_often()):
            self._batch.hold_back(self._todo)
            self._todo = []
        room = _PIPELINE if self._most is None else min(_PIPELINE, self._most - self._running)
        return [self._todo.pop() for _ in range(min(room, len(self._todo)))]

    def _has_failed_too_often(self) -> bool:
        return self._max_failures is not None and self._failures > self._max_failures

    def _on_stored(self, record: RequestRecord, error: Exception | None) -> None:
        with self._changed:
            self._on_way -= 1
            self._changed.notify_all()
        if error is not None and not isinstance(error, Conflict):
            _log.warning("lightlink: command %s to %s was not stored: %s", record.command_id, record.client_id, error)
            self._pool.put(self._store_again, record, error)
        else:
            self._batch.stored()

    def _store_again(self, record: RequestRecord, error: Exception) -> None:
        """Under the same id a request is stored once, however often it is asked for."""
        try:
            self._store.put_request(record)
        except LightLinkError as exc:
            promise = self._follower.open(record)
            self._follower.discard(promise, exc)
            _log.error("lightlink: command %s was not sent: %s (at first: %s)", record.command_id, exc, error)
        finally:
            self._batch.stored()

    def _on_end(self, promise: CommandPromise) -> None:
        command = promise.command()
        with self._changed:
            self._running -= 1
            if command.status != model.COMPLETED:
                self._failures += 1
        self._batch.ended(command)
        if self._todo:
            self._pool.put(self._advance)
