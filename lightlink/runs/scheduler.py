"""Start runs by the clock: any number of orchestrators look, and each planned time makes one run."""

from __future__ import annotations

import logging
import uuid
from datetime import timedelta
from typing import TYPE_CHECKING

import msgspec

from lightlink.commands.store.access import Conflict
from lightlink.errors import ClosedError, LightLinkError, RunNotFound, StoreUnavailable
from lightlink.runs.model import machine
from lightlink.runs.model.times import last_time

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from lightlink.runs.definitions import Definitions, Schedule
    from lightlink.runs.model.records import RunPlan
    from lightlink.runs.store import RunStore

_log = logging.getLogger("lightlink")

EVERY_SECONDS = 5.0
# One that is later than this was missed: nobody was there to start it.
_GRACE = timedelta(seconds=120)
_NAMESPACE = uuid.UUID("d2b6e0f7-1f53-5c0e-8d0a-6a5f4b0a7c93")


def planned_run_id(name: str, planned: datetime) -> str:
    """Return the id of the run that a schedule makes at a planned time, whichever process starts it."""
    return str(uuid.uuid5(_NAMESPACE, f"{name}\0{planned.isoformat()}"))


class Scheduler:
    """Looks which schedules are due. ``prepare(schedule, run_id)`` makes the run of one."""

    def __init__(self, definitions: Definitions, store: RunStore, prepare: Callable[[Schedule, str], RunPlan]) -> None:
        self._definitions = definitions
        self._store = store
        self._prepare = prepare

    def look(self) -> None:
        """Start what is due now."""
        try:
            self.fire(self._store.clock.now())
        except (StoreUnavailable, ClosedError) as exc:
            _log.debug("lightlink: schedules wait for the store: %s", exc)

    def fire(self, at: datetime) -> None:
        """Start what is due at an instant."""
        for schedule, revision in self._definitions.schedules():
            try:
                planned = last_time(schedule.cron, schedule.tz, at)
                if planned <= (schedule.last or schedule.at):
                    continue
                self._definitions.write_schedule(self._dealt_with(schedule, planned, at), revision)
            except Conflict:
                continue  # another has dealt with it
            except StoreUnavailable:
                raise
            except LightLinkError as exc:
                _log.warning("lightlink: schedule %s: %s", schedule.name, exc)
            except Exception:
                _log.exception("lightlink: schedule %s", schedule.name)  # the others are looked at all the same

    def _dealt_with(self, schedule: Schedule, planned: datetime, at: datetime) -> Schedule:
        """Start the run of a planned time, unless it is not to be, and return what is to be noted."""
        after = msgspec.structs.replace(schedule, last=planned, error="")
        run_id = planned_run_id(schedule.name, planned)
        if self._is_started(run_id):  # by one who died before it could note that
            return msgspec.structs.replace(after, run_id=run_id)
        if at - planned > _GRACE and schedule.missed == "skip":
            return msgspec.structs.replace(after, error="missed: nobody was there to start it")
        if schedule.overlap == "skip" and self._runs_still(schedule.run_id):
            return msgspec.structs.replace(after, error=f"left out: run {schedule.run_id} had not ended")
        try:
            self._store.create(self._prepare(schedule, run_id), machine.started)
        except StoreUnavailable:
            raise
        except LightLinkError as exc:
            _log.warning("lightlink: schedule %s starts nothing: %s", schedule.name, exc)
            return msgspec.structs.replace(after, error=str(exc))
        return msgspec.structs.replace(after, run_id=run_id)

    def _is_started(self, run_id: str) -> bool:
        try:
            self._store.state(run_id)
        except RunNotFound:
            return False
        return True

    def _runs_still(self, run_id: str) -> bool:
        try:
            return bool(run_id) and not self._store.state(run_id)[0].ended
        except RunNotFound:
            return False
