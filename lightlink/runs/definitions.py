"""What lasts longer than any run: stored plans, schedules, and whether waves may begin. Stream LIGHTLINK_PLANS.

``ll.plans.plan.<UUID of the name>``, ``ll.plans.schedule.<UUID of the name>`` and ``ll.plans.freeze`` each hold the
last word on something, and those before it, which tell who changed what. Nothing here ages.
Every method raises StoreUnavailable, PermissionDenied, PayloadTooLarge and ClosedError.
"""

from __future__ import annotations

import contextlib
import uuid
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import msgspec

from lightlink.commands.model import UNTOLD
from lightlink.commands.store.access import FAILURES, Access, Conflict, unavailable
from lightlink.commands.store.records import read
from lightlink.errors import DecodeError
from lightlink.jetstream.read import EVERYTHING, LAST_OF_EACH, read_current
from lightlink.protocol import subjects
from lightlink.protocol.subjects import as_text
from lightlink.runs.model.plan import Plan

if TYPE_CHECKING:
    from collections.abc import Callable

    from lightlink.commands.store.schema import StoreOptions
    from lightlink.commands.store.store import CommandStore

T = TypeVar("T", bound="msgspec.Struct")

STREAM = subjects.PLANS_STREAM
_NAMES = uuid.UUID("c6a7f0a3-6d2c-5d0c-8a54-55f7b1d86f0b")
# How many words on the same thing are kept.
_HISTORY = 64


class Freeze(msgspec.Struct, frozen=True, omit_defaults=True):
    """No wave begins, of any run, until it ends: at an instant, or when somebody thaws."""

    is_on: bool
    by: str = ""
    at: datetime = UNTOLD
    reason: str = ""
    until: datetime | None = None


class Schedule(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A plan that is run by the clock; see `Orchestrator.schedule`.

    ``last`` is the planned time that was dealt with last, ``run_id`` the run that came of it, ``error`` why none did.
    """

    name: str
    plan: Plan
    params: dict[str, Any] = {}
    cron: str
    tz: str = "UTC"
    overlap: Literal["skip", "allow"] = "skip"
    missed: Literal["skip", "run"] = "skip"
    by: str = ""
    at: datetime = UNTOLD
    last: datetime | None = None
    run_id: str = ""
    error: str = ""
    removed: bool = False


class StoredPlan(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A plan that is kept under its name: who stored it, or removed it, and when."""

    name: str
    plan: Plan
    by: str = ""
    at: datetime = UNTOLD
    removed: bool = False


class Deed(msgspec.Struct, frozen=True, kw_only=True):
    """What somebody did that is not about one run."""

    at: datetime
    by: str
    event: str
    about: str = ""
    reason: str = ""


def stream_config(options: StoreOptions) -> dict[str, Any]:
    """Return what the stream of stored plans, schedules and freezes has to be."""
    return {
        "name": STREAM,
        "subjects": [subjects.stored_plan("*"), subjects.schedule("*"), subjects.PLANS_FREEZE],
        "storage": options.storage,
        "num_replicas": options.replicas,
        "max_msgs_per_subject": _HISTORY,
        "discard": "new",
        "allow_direct": True,
        "deny_delete": True,
        "deny_purge": True,
        "allow_rollup_hdrs": False,
    }


class Definitions(Access):
    """Stored plans, schedules and freezes over one connection; ``timeout`` seconds for each operation."""

    def __init__(self, commands: CommandStore) -> None:
        super().__init__(commands.connection, commands.timeout)
        self._commands = commands

    def ensure(self) -> None:
        """Make the stream unless it exists."""
        options = self._commands.options
        self._commands.make_stream(stream_config(options), options.max_bytes)

    # Plans ------------------------------------------------------------------------------------------------------------

    def plans(self) -> list[StoredPlan]:
        """Return all stored plans, by name."""
        found = (each for each, _ in self._all(subjects.stored_plan("*"), StoredPlan, "at"))
        return sorted((each for each in found if not each.removed), key=lambda each: each.name)

    def plan(self, name: str) -> StoredPlan | None:
        """Return a stored plan, which may have been removed; None when there never was one."""
        return self._one(_plan_subject(name), StoredPlan, "at")

    def write_plan(self, stored: StoredPlan) -> None:
        """Store a plan over whatever was stored under its name."""
        self._write(_plan_subject(stored.name), stored, None)

    # Schedules --------------------------------------------------------------------------------------------------------

    def schedules(self) -> list[tuple[Schedule, int]]:
        """Return all schedules with their revisions, by name."""
        found = self._all(subjects.schedule("*"), Schedule, "at", "last")
        return sorted(((each, seq) for each, seq in found if not each.removed), key=lambda each: each[0].name)

    def schedule(self, name: str) -> Schedule | None:
        """Return a schedule, which may have been removed; None when there never was one."""
        return self._one(_schedule_subject(name), Schedule, "at", "last")

    def write_schedule(self, schedule: Schedule, expected: int | None = None) -> None:
        """Store a schedule over the one before; raises Conflict where that has not the ``expected`` revision."""
        self._write(_schedule_subject(schedule.name), schedule, expected)

    def replace_schedule(self, name: str, made: Callable[[Schedule | None], Schedule]) -> Schedule:
        """Store what is ``made`` of the schedule of a name, None where there never was one; again where that moved."""
        subject = _schedule_subject(name)
        while True:
            message, before = self.read_written(STREAM, subject), None
            if message is not None:
                with contextlib.suppress(DecodeError):  # whatever it was is replaced
                    before = read(message.data, message.subject, Schedule, "at", "last")
            schedule = made(before)
            with contextlib.suppress(Conflict):  # a run of it has just been started, or somebody else has replaced it
                self._write(subject, schedule, 0 if message is None else message.seq)
                return schedule

    # Freezes ----------------------------------------------------------------------------------------------------------

    def freeze(self) -> Freeze:
        """Return whether waves may begin."""
        return self._one(subjects.PLANS_FREEZE, Freeze, "at", "until") or Freeze(is_on=False)

    def write_freeze(self, freeze: Freeze) -> None:
        """Store whether waves may begin."""
        self._write(subjects.PLANS_FREEZE, freeze, None)

    # ------------------------------------------------------------------------------------------------------------------

    def deeds(self) -> list[Deed]:
        """Return what people did to plans, schedules and freezes, as far as it is kept, by time."""
        plans = [each for each, _ in self._all(subjects.stored_plan("*"), StoredPlan, "at", policy=EVERYTHING)]
        found = [_deed(each, "plan stored", "plan removed") for each in plans]
        schedules = [each for each, _ in self._all(subjects.schedule("*"), Schedule, "at", "last", policy=EVERYTHING)]
        # A schedule's word is also renewed by whoever starts its runs.
        changes = {(each.name, each.at, each.removed): each for each in schedules}
        found += [_deed(each, "schedule added", "schedule removed") for each in changes.values()]
        for freeze, _ in self._all(subjects.PLANS_FREEZE, Freeze, "at", "until", policy=EVERYTHING):
            event = "frozen" if freeze.is_on else "thawed"
            found.append(Deed(at=freeze.at, by=freeze.by, event=event, reason=freeze.reason))
        return sorted(found, key=lambda deed: deed.at)

    def _write(self, subject: str, record: msgspec.Struct, expected: int | None) -> None:
        while True:
            message = self.read_written(STREAM, subject) if expected is None else None
            last = 0 if message is None else message.seq
            try:
                self.put_record(STREAM, subject, record, last if expected is None else expected)
            except Conflict:
                if expected is not None:
                    raise
            else:
                return

    def _one(self, subject: str, as_type: type[T], *times: str) -> T | None:
        message = self.read_written(STREAM, subject)
        return None if message is None else read(message.data, message.subject, as_type, *times)

    def _all(self, pattern: str, as_type: type[T], *times: str, policy: str = LAST_OF_EACH) -> list[tuple[T, int]]:
        """Return the records of some subjects with their revisions; those that cannot be read are left out."""
        try:
            deliveries = read_current(self.connection, STREAM, pattern, self.timeout, policy=policy)
        except FAILURES as exc:
            raise unavailable("reading plans", exc) from exc
        found = []
        for each in deliveries:
            try:
                found.append((read(each.data, as_text(each.subject), as_type, *times), each.seq))
            except DecodeError as exc:
                self.connection.session.report(exc)
        return found


def _deed(record: StoredPlan | Schedule, added: str, removed: str) -> Deed:
    return Deed(at=record.at, by=record.by, event=removed if record.removed else added, about=record.name)


def _plan_subject(name: str) -> str:
    # A name may be any text.
    return subjects.stored_plan(str(uuid.uuid5(_NAMES, name)))


def _schedule_subject(name: str) -> str:
    return subjects.schedule(str(uuid.uuid5(_NAMES, name)))
