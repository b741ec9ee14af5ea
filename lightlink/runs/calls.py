"""Call a service as a step of a run: at most once, unless the step is idempotent, whoever works on the run."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import msgspec

from lightlink.commands import model
from lightlink.commands.model import StatusRecord
from lightlink.commands.store.access import Conflict
from lightlink.errors import CallTimeout, DecodeError, LightLinkError, ServiceUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from lightlink.runs.stage import Attempt
    from lightlink.runs.store import RunStore

_GRACE = timedelta(seconds=5)


class CallExecutor:
    """Calls services in the name of ``by``; ``call(service, method, args, timeout)`` does it."""

    def __init__(self, store: RunStore, by: str, call: Callable[[str, str, Any, float], Any]) -> None:
        self._store = store
        self._by = by
        self._call = call

    def perform(self, run_id: str, attempt: Attempt) -> StatusRecord | None:
        """Call, and return what became of it; None while another manager is at it.

        Who calls has written that down before. When the writer is gone, nobody knows whether the service was called.
        """
        status, revision = self._store.call(run_id, attempt.command_id)
        at = self._store.clock.now()
        if status is not None and status.ended:
            return status
        if status is not None:
            if not _is_abandoned(status, attempt, at):
                return None
            if not attempt.idempotent:
                return self._write(run_id, attempt, model.interrupted(status, at, self._by), revision)
        claim = StatusRecord(status=model.EXECUTING, at=at, by=self._by, instance=self._by, attempt=1, started_at=at)
        try:
            revision = self._store.write_call(run_id, attempt.command_id, claim, revision)
        except Conflict:
            return None
        return self._write(run_id, attempt, self._called(attempt, claim), revision)

    def _write(self, run_id: str, attempt: Attempt, status: StatusRecord, revision: int) -> StatusRecord | None:
        try:
            self._store.write_call(run_id, attempt.command_id, status, revision)
        except Conflict:
            return None
        return status

    def _called(self, attempt: Attempt, claim: StatusRecord) -> StatusRecord:
        service, _, method = attempt.what.partition(".")
        facts: dict[str, Any]
        try:
            facts = {"status": model.COMPLETED, "result": self._call(service, method, attempt.payload, attempt.timeout)}
        except CallTimeout as exc:
            facts = {"status": model.TIMEOUT, "status_detail": model.EXECUTION_TIMEOUT, "outcome_unknown": True}
            facts["error"] = str(exc)
        except ServiceUnavailable as exc:
            facts = {"status": model.TIMEOUT, "status_detail": model.DELIVERY_TIMEOUT, "error": str(exc)}
        except DecodeError as exc:
            facts = {"status": model.FAILED, "status_detail": model.UNREADABLE, "outcome_unknown": True}
            facts["error"] = str(exc)
        except LightLinkError as exc:
            facts = {"status": model.FAILED, "error": str(exc)}
        at = self._store.clock.now()
        return msgspec.structs.replace(claim, at=at, completed_at=at, **facts)


def _is_abandoned(status: StatusRecord, attempt: Attempt, at: datetime) -> bool:
    begun = status.started_at or status.at
    return at > begun + timedelta(seconds=attempt.timeout) + _GRACE
