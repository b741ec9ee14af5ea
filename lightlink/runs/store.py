"""Runs in JetStream: the stream LIGHTLINK_RUNS, where each revision of a run's state is an item of work.

``ll.runs.<run id>.plan`` is written once, ``.state`` by compare-and-set; ``.call.<id>`` is what became of a service's
call, ``ll.runs.<lock>.lock`` says which run has a lock. One durable consumer, ``runners``, hands the states to whoever
pulls. Every method raises StoreUnavailable, PermissionDenied, PayloadTooLarge and ClosedError.
"""

from __future__ import annotations

import contextlib
import uuid
from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec

from lightlink.commands.model import UNTOLD, StatusRecord
from lightlink.commands.store.access import FAILURES, Access, Conflict, RecordWrite, unavailable
from lightlink.commands.store.records import read
from lightlink.errors import DecodeError, InvalidName, RunNotFound, StoreUnavailable
from lightlink.jetstream import api
from lightlink.jetstream.answers import ConsumerInfo
from lightlink.jetstream.batch import MOST_MESSAGES
from lightlink.jetstream.errors import ATOMIC_DISABLED, JetStreamError
from lightlink.jetstream.read import LAST_OF_EACH, read_current
from lightlink.protocol import codec, subjects
from lightlink.protocol.subjects import as_text
from lightlink.runs.model.records import RunPlan, RunState

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lightlink.commands.store.schema import StoreOptions
    from lightlink.commands.store.store import CommandStore
    from lightlink.jetstream.read import Delivery

STREAM = subjects.RUNS_STREAM
CONSUMER = "runners"
_SECOND = 1_000_000_000
_CONSUMER_EXISTS = frozenset({10013, 10105, 10148})
_LOCKS = uuid.UUID("c6a7f0a3-6d2c-5d0c-8a54-55f7b1d86f0b")


class Lock(msgspec.Struct, frozen=True, omit_defaults=True):
    """A lock and which run has it, None for none; where somebody took it ``by`` hand, who, when and ``from_run``.

    ``revision`` is that of the run's state over which the run took it.
    """

    name: str
    run_id: str | None = None
    revision: int = 0
    by: str = ""
    at: datetime = UNTOLD
    from_run: str = ""


def lock_subject(name: str) -> str:
    """Return the subject of a lock, whose name may be any text."""
    return subjects.run_lock(str(uuid.uuid5(_LOCKS, name)))


def run_id(text: str) -> str:
    """Return the id of a run: letters, digits, ``-`` and ``_``; raises InvalidName."""
    try:
        return subjects.client_id(text)
    except InvalidName as exc:
        raise InvalidName("run id", text, exc.reason) from None


def read_state(data: bytes, subject: str) -> RunState:
    """Return the state in a stored or republished message; raises DecodeError."""
    return read(data, subject, RunState, "at", "started_at", "until", "deadline")


def stream_config(options: StoreOptions) -> dict[str, Any]:
    """Return what the stream of runs has to be."""
    return {
        "name": STREAM,
        "subjects": [
            subjects.run_plan("*"),
            subjects.run_state("*"),
            subjects.run_lock("*"),
            subjects.run_call("*", "*"),
        ],
        "storage": options.storage,
        "num_replicas": options.replicas,
        # Every revision is kept: they are the audit of runs.
        "max_age": round(options.audit_retention * _SECOND),
        "discard": "new",
        "duplicate_window": _SECOND // 10,
        "allow_direct": True,
        "deny_delete": True,
        "deny_purge": True,
        "allow_rollup_hdrs": False,
        # A run takes all its locks, or none. A server before 2.12 does not know of it.
        "allow_atomic": True,
        "republish": {"src": subjects.run_state("*"), "dest": subjects.run_event("{{wildcard(1)}}")},
    }


class RunStore(Access):
    """Plans, states, calls and locks over one connection; ``timeout`` seconds for each operation."""

    def __init__(self, commands: CommandStore) -> None:
        super().__init__(commands.connection, commands.timeout)
        self._commands = commands
        self.options = commands.options
        self._is_atomic = False

    def ensure(self) -> None:
        """Make the stream and its consumer unless they exist."""
        options = self._commands.options
        self._commands.make_stream(stream_config(options), options.max_bytes)
        self.ask(f"making consumer {CONSUMER}", self._make_consumer)
        # Which also tells the server's time, by which runs wait, before anything is waited for.
        info = self.stream_info(STREAM, f"reading stream {STREAM}")
        self._is_atomic = info is not None and info.config.allow_atomic

    def _make_consumer(self, timeout: float) -> None:
        config = {
            "name": CONSUMER,
            "durable_name": CONSUMER,
            "filter_subject": subjects.run_state("*"),
            "ack_policy": "explicit",
            # The lease: so long after its manager has died a run goes on elsewhere.
            "ack_wait": round(self._commands.options.ack_wait * _SECOND),
            "deliver_policy": "last_per_subject",
            "max_deliver": -1,
            # What is handed back until later counts as well.
            "max_ack_pending": 100_000,
            "replay_policy": "instant",
        }
        subject = f"CONSUMER.CREATE.{STREAM}.{CONSUMER}.{config['filter_subject']}"
        try:
            api.api(self.connection, subject, {"stream_name": STREAM, "config": config, "action": "create"}, timeout)
        except JetStreamError as exc:
            if exc.err_code not in _CONSUMER_EXISTS:
                raise

    def is_pulled_from(self) -> bool:
        """Tell whether anybody waits for work on runs at the moment."""
        subject = f"CONSUMER.INFO.{STREAM}.{CONSUMER}"

        def question(timeout: float) -> ConsumerInfo:
            return api.api(self.connection, subject, None, timeout, ConsumerInfo)

        return self.ask(f"looking at consumer {CONSUMER}", question).num_waiting > 0

    # Runs -----------------------------------------------------------------------------------------------------------

    def create(self, run: RunPlan, started: Callable[[RunPlan], RunState]) -> RunPlan:
        """Store a run and its first state; return what is stored under its id: this one, or the one that came first."""
        try:
            self.put_record(STREAM, subjects.run_plan(run.run_id), run, 0)
        except Conflict:
            run = self.plan(run.run_id)
        with contextlib.suppress(Conflict):  # whoever came first has begun it
            self.put_record(STREAM, subjects.run_state(run.run_id), started(run), 0)
        return run

    def plan(self, run_id: str) -> RunPlan:
        """Return what a run is to do; raises RunNotFound, DecodeError."""
        message = self.read_written(STREAM, subjects.run_plan(run_id))
        if message is None:
            raise RunNotFound(run_id)
        return read(message.data, message.subject, RunPlan, "created_at", "kept_until")

    def state(self, run_id: str) -> tuple[RunState, int]:
        """Return a run's last state and its revision; raises RunNotFound, DecodeError."""
        message = self.read_written(STREAM, subjects.run_state(run_id))
        if message is None:
            raise RunNotFound(run_id)
        return read_state(message.data, message.subject), message.seq

    def write_state(self, state: RunState, expected: int) -> int:
        """Store a state over the revision it follows, and return the new one; raises Conflict."""
        return self.put_record(STREAM, subjects.run_state(state.run_id), state, expected)

    def states(self) -> list[tuple[RunState, int]]:
        """Return the last state of every run kept, oldest change first; those that cannot be read are left out."""
        return self._decoded(self._last_of_each(subjects.run_state("*")))

    def unlocks(self) -> list[Lock]:
        """Return the locks that somebody took by hand from the runs that had them, as far as they are kept, by time."""
        try:
            found = read_current(self.connection, STREAM, subjects.run_lock("*"), self.timeout)
        except FAILURES as exc:
            raise unavailable("reading runs", exc) from exc
        locks = [read(each.data, as_text(each.subject), Lock, "at") for each in found]
        return sorted((lock for lock in locks if lock.by), key=lambda lock: lock.at)

    def _decoded(self, deliveries: list[Delivery]) -> list[tuple[RunState, int]]:
        found = []
        for delivery in deliveries:
            try:
                found.append((read_state(delivery.data, as_text(delivery.subject)), delivery.seq))
            except DecodeError as exc:
                self.connection.session.report(exc)
        return found

    def history(self, run_id: str = "*") -> list[tuple[RunState, int]]:
        """Return every revision kept of a run's state, or of all runs, in order; what cannot be read is left out."""
        try:
            found = read_current(self.connection, STREAM, subjects.run_state(run_id), self.timeout)
        except FAILURES as exc:
            raise unavailable("reading runs", exc) from exc
        return self._decoded(found)

    # Calls ----------------------------------------------------------------------------------------------------------

    def call(self, run_id: str, command_id: str) -> tuple[StatusRecord | None, int]:
        """Return what became of a call and its revision; (None, 0) when it was not begun."""
        message = self.read_written(STREAM, subjects.run_call(run_id, command_id))
        if message is None:
            return None, 0
        return read(message.data, message.subject, StatusRecord, "at", "started_at", "completed_at"), message.seq

    def write_call(self, run_id: str, command_id: str, status: StatusRecord, expected: int) -> int:
        """Store what became of a call over the revision it follows; raises Conflict."""
        return self.put_record(STREAM, subjects.run_call(run_id, command_id), status, expected)

    # Locks ----------------------------------------------------------------------------------------------------------

    def take_locks(self, names: Sequence[str], state: RunState, expected: int) -> str | None:
        """Store a run's state over the revision it follows, with all its locks: all of that, or nothing of it.

        Returns None once it is stored; otherwise a run that has one of the locks, and has not ended. Raises Conflict
        where the run has moved on.
        """
        while True:
            found = self._read_locks(names)
            for holder in {lock.run_id for lock, _ in found if lock.run_id is not None} - {state.run_id}:
                if not self._has_ended(holder):
                    return holder
            # What the run has already is written again: so nobody takes it, or gives it back, who has read it before.
            writes = [
                RecordWrite(lock_subject(lock.name), Lock(lock.name, state.run_id, expected), revision)
                for lock, revision in found
            ]
            try:
                self._write_with_locks(writes, RecordWrite(subjects.run_state(state.run_id), state, expected))
            except Conflict:
                if self.state(state.run_id)[1] != expected:
                    raise
            else:
                return None

    def _write_with_locks(self, locks: list[RecordWrite], state: RecordWrite) -> None:
        if self._put_at_once([*locks, state], "taking locks"):
            return
        # In one order for all, so that no two runs wait for each other.
        taken: dict[str, int] = {}
        try:
            for write in [*locks, state]:
                taken[write.subject] = self.put_record(STREAM, write.subject, write.record, write.expected)
        except Conflict:
            for lock in locks:
                if lock.subject in taken:
                    with contextlib.suppress(Conflict):
                        free = msgspec.structs.replace(lock.record, run_id=None)
                        self.put_record(STREAM, lock.subject, free, taken[lock.subject])
            raise

    def release_locks(self, names: Sequence[str], run_id: str, revision: int) -> None:
        """Give back those of some locks that a run has taken before a revision of its state."""
        while True:
            writes = [
                RecordWrite(lock_subject(lock.name), Lock(lock.name), seq)
                for lock, seq in self._read_locks(names)
                if lock.run_id == run_id and lock.revision < revision
            ]
            try:
                for start in range(0, len(writes), MOST_MESSAGES):
                    block = writes[start : start + MOST_MESSAGES]
                    if not self._put_at_once(block, "giving back locks"):
                        for write in block:
                            self.put_record(STREAM, write.subject, write.record, write.expected)
            except Conflict:
                continue  # somebody has taken one, as the run has ended; the others are given back
            return

    def _put_at_once(self, writes: list[RecordWrite], operation: str) -> bool:
        """Store all of some records or none; False where the stream, or the server, takes no such batch."""
        if not self._is_atomic or len(writes) > MOST_MESSAGES:
            return False
        try:
            self.put_all(STREAM, writes, operation)
        except StoreUnavailable as exc:
            if isinstance(exc.__cause__, JetStreamError) and exc.__cause__.err_code == ATOMIC_DISABLED:
                self._is_atomic = False  # the stream was made again, by an earlier version
                return False
            raise
        return True

    def take_away(self, holder: str, left: Lock) -> bool:
        """Take a lock from the run that has it, and tell whether it had; ``left`` is what is written instead."""
        ((lock, revision),) = self._read_locks([left.name])
        if lock.run_id != holder:
            return False
        try:
            self.put_record(STREAM, lock_subject(left.name), left, revision)
        except Conflict:
            return False
        return True

    def _read_locks(self, names: Sequence[str]) -> list[tuple[Lock, int]]:
        """Return some locks with their revisions, as the stream's leader has them."""
        found = self.read_all_written(STREAM, [lock_subject(name) for name in names], "reading locks")
        return [
            (Lock(name), 0) if each is None else (codec.decode(each.data, each.subject, Lock), each.seq)
            for name, each in zip(names, found, strict=True)
        ]

    def locks(self) -> dict[str, str]:
        """Return which run has each lock that is taken."""
        found = [
            codec.decode(each.data, as_text(each.subject), Lock) for each in self._last_of_each(subjects.run_lock("*"))
        ]
        return {lock.name: lock.run_id for lock in found if lock.run_id is not None}

    def _has_ended(self, run_id: str) -> bool:
        try:
            return self.state(run_id)[0].ended
        except RunNotFound:
            return True

    # ----------------------------------------------------------------------------------------------------------------

    def _last_of_each(self, pattern: str) -> list[Delivery]:
        try:
            return read_current(self.connection, STREAM, pattern, self.timeout, policy=LAST_OF_EACH)
        except FAILURES as exc:
            raise unavailable("reading runs", exc) from exc
