"""Carry out what a stage wants: send, follow, and bring back what became of it."""

from __future__ import annotations

import logging
from collections import deque
from typing import TYPE_CHECKING, Any

import attrs
import msgspec

from lightlink.commands import model
from lightlink.commands.model import RequestRecord
from lightlink.commands.store.access import Conflict
from lightlink.commands.store.store import StatusWrite
from lightlink.concurrency.threads import Condition
from lightlink.errors import EncodeError, PayloadTooLarge
from lightlink.logs import RUN_ID_HEADER
from lightlink.protocol import codec
from lightlink.runs.model.lanes import BARRED, RUN_ITSELF

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from lightlink.commands.manager.cancel import Canceller
    from lightlink.commands.manager.follower import Follower
    from lightlink.commands.manager.promise import CommandPromise
    from lightlink.commands.model import StatusRecord
    from lightlink.commands.store.store import CommandStore
    from lightlink.concurrency.workers import WorkerPool
    from lightlink.runs.calls import CallExecutor
    from lightlink.runs.definitions import Definitions
    from lightlink.runs.model.lanes import Attempt
    from lightlink.runs.model.records import RunPlan
    from lightlink.runs.model.stage import Stage
    from lightlink.runs.store import RunStore

_log = logging.getLogger("lightlink")

_AT_ONCE = 1000


@attrs.frozen
class Ports:
    """What work on runs needs of the manager that does it."""

    name: str
    commands: CommandStore
    runs: RunStore
    definitions: Definitions
    follower: Follower
    canceller: Canceller
    calls: CallExecutor
    pool: WorkerPool
    call_pool: WorkerPool


class StageWork:
    """Sends what one stage wants. ``wake`` is called, on any thread, when there is something to `gather`."""

    def __init__(self, ports: Ports, run: RunPlan, stage: Stage, wake: Callable[[], object]) -> None:
        self._ports = ports
        self._run = run
        self.stage = stage
        self._wake = wake
        self._lock = Condition()
        self._heard: deque[tuple[str, StatusRecord]] = deque()
        self._check: list[CommandPromise] = []
        self._failure: Exception | None = None
        self._batch_id = run.run_id

    def load(self, *, from_leader: bool = False) -> None:
        """Read what is known of the stage's attempts."""
        self.stage.learn_all(read_statuses(self._ports, self._run, self.stage.ids(), from_leader))

    def gather(self) -> bool:
        """Take what was heard since, and tell whether that was anything; raises why the work cannot go on here."""
        with self._lock:
            heard, self._heard = self._heard, deque()
            check, self._check = self._check, []
            failure = self._failure
        if failure is not None:
            raise failure
        for command_id, status in heard:
            self.stage.learn(command_id, status)
        if check:
            # Another manager has sent them: what they came to may have been told before they were followed here.
            found = self._ports.commands.read_written_statuses([(each.client_id, each.command_id) for each in check])
            for promise, last in zip(check, found, strict=True):
                promise.hear(*last)
        return bool(heard or check)

    def send(self, room: int | None) -> None:
        """Send what may be sent now."""
        attempts = self.stage.take(room)
        calls = [each for each in attempts if each.client_id == RUN_ITSELF]
        for attempt in calls:
            self._ports.call_pool.put(self._perform, attempt)
        for start in range(0, len(attempts), _AT_ONCE):
            self._send_block([each for each in attempts[start : start + _AT_ONCE] if each.client_id != RUN_ITSELF])

    def _send_block(self, attempts: Sequence[Attempt]) -> None:
        if not attempts:
            return
        self._ports.commands.ensure_consumers(attempt.client_id for attempt in attempts)
        at = self._ports.commands.clock.now()
        records = []
        for attempt in attempts:
            try:
                record = self._request(attempt, at)
            except EncodeError as exc:
                self._refuse(attempt.client_id, attempt.command_id, exc)
                continue
            self._ports.follower.open(record).on_end(self._on_end)
            records.append(record)
        self._ports.commands.put_requests(records, self._on_stored)

    def _request(self, attempt: Attempt, at: Any) -> RequestRecord:
        payload = codec.encode_json(attempt.payload, f"the payload of {attempt.what!r}")
        return RequestRecord(
            command_id=attempt.command_id,
            client_id=attempt.client_id,
            command_type=attempt.what,
            created_at=at,
            timeout=attempt.timeout,
            payload=msgspec.Raw(payload),
            priority=attempt.priority,
            batch_id=self._batch_id,
            issued_by=self._run.started_by,
            headers={RUN_ID_HEADER: self._run.run_id},
        )

    def follow(self, requests: Iterable[RequestRecord]) -> None:
        """Follow commands that were sent before, by whomever."""
        promises = [self._ports.follower.open(request) for request in requests]
        for promise in promises:
            promise.on_end(self._on_end)
        with self._lock:
            self._check += promises
        self._wake()

    # On threads of the library ----------------------------------------------------------------------------------------

    def _on_stored(self, record: RequestRecord, error: Exception | None) -> None:
        if error is None:
            return
        if isinstance(error, Conflict):
            promise = self._ports.follower.open(record)
            promise.on_end(self._on_end)
            with self._lock:
                self._check.append(promise)
            self._wake()
        elif isinstance(error, PayloadTooLarge):
            self._ports.pool.put(self._refuse, record.client_id, record.command_id, error)
        else:
            self._fail(error)

    def _refuse(self, client_id: str, command_id: str, error: Exception) -> None:
        """Record that a command can never be sent, so that every manager comes to the same result."""
        commands = self._ports.commands
        status = model.rejected(None, commands.clock.now(), self._ports.name, str(error))
        try:
            (revision,) = commands.write_statuses([StatusWrite(client_id, command_id, status, 0)])
            last = status if revision is not None else commands.read_written_status(client_id, command_id)[0]
        except Exception as exc:
            self._fail(exc)  # also on a thread of the pool, where nobody else would hear of it
            return
        if last is not None:
            self._hear(command_id, last)

    def _on_end(self, promise: CommandPromise) -> None:
        status = promise.last[0]
        if promise.error is not None:
            self._fail(promise.error)
        elif status is not None:
            self._hear(promise.command_id, status)

    def _perform(self, attempt: Attempt) -> None:
        try:
            status = self._ports.calls.perform(self._run.run_id, attempt)
        except Exception as exc:
            self._fail(exc)
            return
        if status is None:
            self._fail(StillCalling(attempt.what))
        else:
            self._hear(attempt.command_id, status)

    def _hear(self, command_id: str, status: StatusRecord) -> None:
        with self._lock:
            self._heard.append((command_id, status))
        self._wake()

    def _fail(self, error: Exception) -> None:
        with self._lock:
            self._failure = self._failure or error
        self._wake()


class StillCalling(Exception):
    """Another manager is calling a service, or was when it died. For use inside this package."""


def read_statuses(
    ports: Ports, run: RunPlan, ids: Sequence[tuple[str, str]], from_leader: bool
) -> dict[str, StatusRecord | None]:
    """Return the last status of each (client id, command id), by command id."""
    found: dict[str, StatusRecord | None] = {}
    commands = [each for each in ids if each[0] != RUN_ITSELF]
    reader = ports.commands.read_written_statuses if from_leader else ports.commands.read_statuses
    for start in range(0, len(commands), _AT_ONCE):
        block = commands[start : start + _AT_ONCE]
        for (_, command_id), (status, _) in zip(block, reader(block), strict=True):
            found[command_id] = status
    for client_id, command_id in ids:
        if client_id == RUN_ITSELF:
            found[command_id] = ports.runs.call(run.run_id, command_id)[0]
    return found


def is_any_sent(ports: Ports, ids: Sequence[tuple[str, str]]) -> bool:
    """Tell whether a request is stored for any of some (client id, command id)."""
    commands = [each for each in ids if each[0] != RUN_ITSELF]
    blocks = (commands[start : start + _AT_ONCE] for start in range(0, len(commands), _AT_ONCE))
    return any(request is not None for block in blocks for request in ports.commands.read_requests(block))


def bar(ports: Ports, run: RunPlan, stage: Stage, *, cancel: bool, reason: str) -> list[tuple[str, str]]:
    """Keep the rest of a stage from starting, also by a delayed manager; return what still runs.

    Each attempt that was not begun gets its end before it could be (a tombstone): an agent that is handed the command
    finds it ended. With ``cancel`` what runs is told that it is no longer wanted.
    """
    running: list[tuple[str, str]] = []
    todo = stage.ids_to_bar()
    while todo:
        known = read_statuses(ports, run, todo, from_leader=True)
        stage.learn_all({command_id: status for command_id, status in known.items() if status and status.ended})
        running += [each for each in todo if (status := known[each[1]]) is not None and not status.ended]
        todo = _write_tombstones(ports, run, stage, [each for each in todo if known[each[1]] is None])
    if cancel:
        commands = [each for each in running if each[0] != RUN_ITSELF]
        requests = [each for each in ports.commands.read_requests(commands) if isinstance(each, RequestRecord)]
        ports.canceller.cancel_all([ports.follower.open(request) for request in requests], reason)
    return running


def _write_tombstones(
    ports: Ports, run: RunPlan, stage: Stage, ids: Sequence[tuple[str, str]]
) -> list[tuple[str, str]]:
    """End what was not begun; return what was begun meanwhile."""
    at = ports.commands.clock.now()
    tombstone = model.cancelled(None, at, ports.name, BARRED)
    missed: list[tuple[str, str]] = []
    commands = [each for each in ids if each[0] != RUN_ITSELF]
    for start in range(0, len(commands), _AT_ONCE):
        block = commands[start : start + _AT_ONCE]
        revisions = ports.commands.write_statuses([StatusWrite(*each, tombstone, 0) for each in block])
        missed += [each for each, revision in zip(block, revisions, strict=True) if revision is None]
    for client_id, command_id in ids:
        if client_id == RUN_ITSELF:
            try:
                ports.runs.write_call(run.run_id, command_id, tombstone, 0)
            except Conflict:
                missed.append((client_id, command_id))
    barred = set(ids) - set(missed)
    stage.learn_all({command_id: tombstone for _, command_id in barred})
    return missed
