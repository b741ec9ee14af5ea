"""One command to many agents: sent as fast as it may be, followed as a whole."""

from __future__ import annotations

import contextlib
import itertools
import logging
import math
import time
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any

import attrs
import msgspec
from attrs import validators

from lightlink.commands import frames, model
from lightlink.commands.store import checks
from lightlink.commands.store.access import Conflict
from lightlink.concurrency.deadline import Deadline
from lightlink.concurrency.threads import Condition, wait_until
from lightlink.errors import ClosedError, LightLinkError, StoreUnavailable
from lightlink.jetstream.retry import PAUSE, RetryBudget
from lightlink.progress import ProgressBar
from lightlink.validators import field, integer, wait_limit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lightlink.commands.manager.follower import Follower
    from lightlink.commands.manager.promise import CommandPromise
    from lightlink.commands.model import Command, RequestRecord
    from lightlink.commands.store.store import CommandStore
    from lightlink.concurrency.workers import WorkerPool

_log = logging.getLogger("lightlink")

# How many requests are on their way to the store at a time.
_PIPELINE = 1024


@attrs.frozen(kw_only=True)
class Limits:
    """How a batch is rolled out; see `CommandManager.send_many`."""

    max_concurrency: int | None = attrs.field(validator=validators.optional(field(integer)))
    max_failures: int | None = attrs.field(validator=validators.optional(field(integer, 0)))
    repeat: int = attrs.field(validator=field(integer))


class Batch:
    """A command sent to many agents. Made by `CommandManager.send_many`.

    ``promises`` holds one for each command sent so far. ``not_sent`` names the clients of those that ``max_failures``
    or `cancel` held back, or that could not be stored (their promises have the error).
    """

    def __init__(
        self, batch_id: str, records: list[RequestRecord], cancel: Callable[[list[CommandPromise], str], int]
    ) -> None:
        self.batch_id = batch_id
        self.promises: list[CommandPromise] = []
        self.not_sent: list[str] = []
        self.records = records
        self._cancel_commands = cancel
        self._cancelled = False
        self._ended: list[Command] = []
        self._over = 0
        self._stored = 0
        self.changed = Condition()

    def __len__(self) -> int:
        return len(self.records)

    def __iter__(self) -> Iterator[Command]:
        """Yield each command as it ends; those never sent are not among them."""
        for given in itertools.count():
            with self.changed:
                wait_until(self.changed, lambda: len(self._ended) > given or self._is_over())  # noqa: B023 - awaited here
                if len(self._ended) == given:
                    return
                command = self._ended[given]
            yield command

    def counts(self) -> dict[str, int]:
        """Return how many commands are in each status; ``not_sent`` are those that are not sent, or not yet."""
        promises = list(self.promises)
        counted = Counter(promise.status for promise in promises if promise.error is None)
        counts = {status: counted[status] for status in model.STATUSES}
        counts["not_sent"] = len(self.records) - sum(counts.values())
        return counts

    def wait(self, timeout: float | None = None, *, progress: bool = False) -> bool:
        """Wait until all have ended, at most ``timeout`` seconds; tell whether they have.

        With ``progress`` a bar is shown meanwhile (tqdm, if it is installed).
        """
        limit = None if timeout is None else wait_limit(timeout)
        if progress:
            return self._wait_showing(limit)
        with self.changed:
            return wait_until(self.changed, self._is_over, limit)

    def _wait_showing(self, limit: float | None) -> bool:
        deadline = Deadline(math.inf if limit is None else limit)
        with ProgressBar(f"batch {self.batch_id}", len(self), "commands") as bar:
            while True:
                over = self._over
                bar.show(over, len(self), ", ".join(f"{n} {status}" for status, n in self.counts().items() if n))
                remaining = deadline.remaining()
                if self._is_over() or remaining <= 0:
                    return self._is_over()
                with self.changed:
                    wait_until(self.changed, partial(self._has_moved, over), remaining)

    def _has_moved(self, since: int) -> bool:
        return self._over != since

    def to_dataframe(self) -> Any:
        """Return a pandas DataFrame with a row for each command that was sent, as it stands now; needs pandas."""
        return frames.to_dataframe(self._commands())

    def _repr_html_(self) -> str:
        """Return how a notebook shows it."""
        counts = ", ".join(f"{count} {status}" for status, count in self.counts().items() if count)
        return frames.to_html(f"batch {self.batch_id}: {counts}", self._commands())

    def _commands(self) -> list[Command]:
        return [promise.command() for promise in list(self.promises) if promise.error is None]

    def results(self, timeout: float | None = None) -> dict[str, Command]:
        """Wait, and return the command of each client id, ended or not; those never sent are not among them.

        Of a client that got more than one, the last; `promises` holds all.
        """
        self.wait(timeout)
        return {promise.client_id: promise.command() for promise in list(self.promises) if promise.error is None}

    def wait_stored(self, timeout: float) -> bool:
        """Wait until all commands sent so far are stored, so that every manager sees them; tell whether they are.

        ``timeout`` in seconds.
        """
        limit = wait_limit(timeout)
        with self.changed:
            return wait_until(self.changed, lambda: self._stored >= len(self.promises), limit)

    def cancel(self, reason: str = "") -> int:
        """Send no more, and cancel what has not ended; return how many were cancelled. Raises StoreUnavailable."""
        checks.text("reason", reason, may_be_empty=True)
        self._cancelled = True
        return self._cancel_commands([promise for promise in list(self.promises) if not promise.done()], reason)

    @property
    def is_cancelled(self) -> bool:
        """Whether `cancel` was called."""
        return self._cancelled

    def __repr__(self) -> str:
        return f"<Batch {self.batch_id} {self.counts()}>"

    # For the rollout ------------------------------------------------------------------------------------------------

    def sent(self, promises: list[CommandPromise]) -> None:
        """Take note of commands that are on their way."""
        self.promises += promises

    def stored(self) -> None:
        """Take note that a command is stored, or never will be."""
        with self.changed:
            self._stored += 1
            if self._stored >= len(self.promises):
                self.changed.notify_all()

    def ended(self, promise: CommandPromise) -> None:
        """Take note of a command's end, or that nothing more can be learnt of it."""
        command = promise.command() if promise.error is None else None
        with self.changed:
            self._over += 1
            if command is not None:
                self._ended.append(command)
            self.changed.notify_all()

    def hold_back(self, records: list[RequestRecord]) -> None:
        """Take note of what is never sent."""
        with self.changed:
            self.not_sent += [record.client_id for record in records]
            self._over += len(records)
            self.changed.notify_all()

    def _is_over(self) -> bool:
        return self._over >= len(self.records)


class Rollout:
    """Sends the commands of a batch, as many at a time as it may."""

    def __init__(
        self,
        batch: Batch,
        store: CommandStore,
        follower: Follower,
        pool: WorkerPool,
        limits: Limits,
    ) -> None:
        self._batch = batch
        self._store = store
        self._follower = follower
        self._pool = pool
        self._most = limits.max_concurrency
        self._max_failures = limits.max_failures
        self._todo = list(reversed(batch.records))
        self._running = 0
        self._failures = 0
        self._on_way = 0
        self._again: list[RequestRecord] = []
        self._unknown: set[str] = set()
        self._complaint = logging.ERROR
        self._budget: RetryBudget | None = None
        self._changed = Condition()

    def start(self) -> None:
        """Send what may be sent at once; the rest follows as commands end."""
        self._advance()

    def _advance(self) -> None:
        """Send the next commands, as many as there is room for; runs on the caller's thread or the pool's."""
        while records := self._next_records():
            try:
                promises = self._follower.open_all(records)
            except LightLinkError as exc:  # the manager is closed
                _log.warning("lightlink: batch %s is not sent to its end: %s", self._batch.batch_id, exc)
                with self._changed:
                    records, self._todo = records + self._todo, []
                self._batch.hold_back(records)
                return
            self._batch.sent(promises)
            for promise in promises:
                promise.on_end(self._on_end)
            self._store.put_requests(records, self._on_stored)

    def _next_records(self) -> list[RequestRecord]:
        """Return what may be sent now, waiting for the store to take what is on its way."""
        with self._changed:
            wait_until(self._changed, lambda: self._on_way <= _PIPELINE // 2, self._store.timeout)
            if self._todo and (self._batch.is_cancelled or self._has_failed_too_often()):
                held_back, self._todo = self._todo, []
                self._batch.hold_back(held_back)
            room = _PIPELINE // 2 if self._most is None else min(_PIPELINE // 2, self._most - self._running)
            # Its time counts from here: those that wait for others to end must not be overdue before they are sent.
            at = self._store.clock.now()
            todo = [self._todo.pop() for _ in range(min(room, len(self._todo)))]
            records = [msgspec.structs.replace(record, created_at=at) for record in todo]
            self._running += len(records)
            self._on_way += len(records)
            return records

    def _has_failed_too_often(self) -> bool:
        return self._max_failures is not None and self._failures > self._max_failures

    def _on_stored(self, record: RequestRecord, error: Exception | None) -> None:
        with self._changed:
            stored = error is None or isinstance(error, Conflict)
            again = not stored and self._is_worth_trying(record, error)
            if again:
                self._again.append(record)
            else:
                self._on_way -= 1
                if self._on_way <= _PIPELINE // 2:  # each wake-up costs as much as a command
                    self._changed.notify_all()
            if stored:
                self._budget = None
            first = again and len(self._again) == 1
        if first:
            self._pool.put(self._store_again)
        elif error is not None and not stored and not again:
            self._give_up(record, error)
        if not again:
            self._batch.stored()

    def _is_worth_trying(self, record: RequestRecord, error: Exception | None) -> bool:
        """Tell whether to store again what was not stored, or perhaps not: under the same id it is stored once.

        The budget is for all together; what is left when it is over fails at once.
        """
        if not isinstance(error, StoreUnavailable):
            return False
        if error.unknown:
            self._unknown.add(record.command_id)
        if self._budget is None:
            self._budget = RetryBudget(self._store.timeout)
        return self._budget.allows(error)

    def _store_again(self) -> None:
        time.sleep(PAUSE)
        with self._changed:
            records, self._again = self._again, []
        self._store.put_requests(records, self._on_stored)

    def _give_up(self, record: RequestRecord, error: Exception) -> None:
        # Of thousands the first says why.
        level, self._complaint = self._complaint, logging.DEBUG
        _log.log(level, "lightlink: command %s of a batch was not sent: %s", record.command_id, error)
        if record.command_id in self._unknown:
            return  # it may be stored, and is followed until its deadline
        with self._batch.changed:
            self._batch.not_sent.append(record.client_id)
        with contextlib.suppress(ClosedError):  # then its promise has been told already
            self._follower.open(record).fail(error)

    def _on_end(self, promise: CommandPromise) -> None:
        with self._changed:
            self._running -= 1
            if promise.error is not None or promise.status != model.COMPLETED:
                self._failures += 1
            more = bool(self._todo)
        self._batch.ended(promise)
        if more:
            self._pool.put(self._advance)
