"""Call a service as a step of a run: at most once, unless the step is idempotent, whichever manager runs it."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import attrs
import msgspec

from lightlink.commands import model
from lightlink.commands.model import StatusRecord
from lightlink.commands.store.access import Conflict
from lightlink.errors import CallTimeout, DecodeError, EncodeError, LightLinkError, PayloadTooLarge, ServiceUnavailable
from lightlink.protocol import codec
from lightlink.runs.model.lanes import RESTORE, SNAPSHOT
from lightlink.state import Snapshot

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from lightlink.runs.model.lanes import Attempt
    from lightlink.runs.store import RunStore
    from lightlink.state import StateBucket

_GRACE = timedelta(seconds=5)


class CallExecutor:
    """Calls services in the name of ``by``; ``call(service, method, args, timeout)`` does it.

    ``bucket(name)`` returns a bucket of state, of which snapshots are taken and written back.
    """

    def __init__(
        self,
        store: RunStore,
        by: str,
        call: Callable[[str, str, Any, float], Any],
        bucket: Callable[[str], StateBucket[Any]],
    ) -> None:
        self._store = store
        self._by = by
        self._call = call
        self._bucket = bucket

    def perform(self, run_id: str, attempt: Attempt) -> StatusRecord | None:
        """Call, and return what became of it; None while another manager is at it.

        Who calls has written that down before. When the writer is gone, nobody knows whether the service was called.
        """
        status, revision = self._store.call(run_id, attempt.command_id)
        at = self._store.clock.now()
        if status is not None and status.ended:
            return status
        if status is not None:
            if not _is_abandoned(status, attempt.timeout, at):
                return None
            if not attempt.idempotent:
                return self._write(run_id, attempt.command_id, model.interrupted(status, at, self._by), revision)
        claim = StatusRecord(status=model.EXECUTING, at=at, by=self._by, instance=self._by, attempt=1, started_at=at)
        try:
            revision = self._store.write_call(run_id, attempt.command_id, claim, revision)
        except Conflict:
            return None
        end = self._called(attempt, claim)
        try:
            return self._write(run_id, attempt.command_id, end, revision)
        except (PayloadTooLarge, EncodeError) as exc:
            error = f"the result is too large: {exc}" if isinstance(exc, PayloadTooLarge) else str(exc)
            smaller = msgspec.structs.replace(end, status=model.FAILED, result=None, error=error)
            return self._write(run_id, attempt.command_id, smaller, revision)

    def end_of(self, run_id: str, command_id: str, timeout: float) -> StatusRecord | None:
        """Return how a call that was begun has ended, if need be by the death of its caller; None while that lives."""
        status, revision = self._store.call(run_id, command_id)
        at = self._store.clock.now()
        if status is None or status.ended:
            return status
        if not _is_abandoned(status, timeout, at):
            return None
        return self._write(run_id, command_id, model.interrupted(status, at, self._by), revision)

    def _write(self, run_id: str, command_id: str, status: StatusRecord, revision: int) -> StatusRecord | None:
        try:
            self._store.write_call(run_id, command_id, status, revision)
        except Conflict:
            return None
        return status

    def _called(self, attempt: Attempt, claim: StatusRecord) -> StatusRecord:
        facts: dict[str, Any]
        try:
            facts = {"status": model.COMPLETED, "result": self._done(attempt)}
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

    def _done(self, attempt: Attempt) -> Any:
        if attempt.what == SNAPSHOT:
            name, _, pattern = attempt.payload.partition("/")
            return msgspec.to_builtins(self._bucket(name).snapshot(pattern, timeout=attempt.timeout))
        if attempt.what == RESTORE:
            snapshot = Snapshot.load(codec.encode_json(attempt.payload))
            return attrs.asdict(self._bucket(snapshot.bucket).restore(snapshot, timeout=attempt.timeout))
        service, _, method = attempt.what.partition(".")
        return self._call(service, method, attempt.payload, attempt.timeout)


def _is_abandoned(status: StatusRecord, timeout: float, at: datetime) -> bool:
    begun = status.started_at or status.at
    return at > begun + timedelta(seconds=timeout) + _GRACE
