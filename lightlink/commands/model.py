"""What a command is, and the moves it may make. Pure: no clock, no network; every function gets the time it needs.

::

    pending ----> executing ----> completed | failed | timeout
       |              ^  |
       |              +--+  (another attempt of an idempotent command; a wish to cancel)
       +--------------------> failed | timeout

A command's facts are two records. The request is written once and never changed; the status is a sequence of revisions,
each written by compare-and-set on the one before. No status at all means pending.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any, Final, Literal

import attrs
import msgspec

from lightlink.errors import DecodeError, LightLinkError
from lightlink.protocol import codec, html

PENDING: Final = "pending"
EXECUTING: Final = "executing"
COMPLETED: Final = "completed"
FAILED: Final = "failed"
TIMEOUT: Final = "timeout"
StatusName = Literal["pending", "executing", "completed", "failed", "timeout"]
STATUSES = (PENDING, EXECUTING, COMPLETED, FAILED, TIMEOUT)
ENDED = frozenset({COMPLETED, FAILED, TIMEOUT})

CANCELLED = "cancelled"  # somebody no longer wanted it
REJECTED = "rejected"  # the agent does not know the type, or the payload does not fit
INTERRUPTED = "interrupted"  # the agent died while running it
DELIVERY_TIMEOUT = "delivery_timeout"  # no agent took it in time
EXECUTION_TIMEOUT = "execution_timeout"  # it ran longer than it may
UNREADABLE = "unreadable"  # what its agent wrote is no status, or what its sender wrote no request

# Clocks of manager, agent and reader differ a little, and a terminal write takes a moment: others leave a command this
# long past its deadline to its agent before they call it overdue.
GRACE = timedelta(seconds=2)
_GRACE_SECONDS = GRACE.total_seconds()
# How far the clocks of managers, agents and servers may be apart for looking something up by time.
CLOCKS_APART = timedelta(minutes=10)
UNTOLD = datetime.fromtimestamp(0, timezone.utc)  # a peer did not say when
_FIRST = datetime(2, 1, 1, tzinfo=timezone.utc)

_LEGAL: dict[str, frozenset[str]] = {
    PENDING: frozenset({EXECUTING, FAILED, TIMEOUT}),
    EXECUTING: frozenset({EXECUTING, COMPLETED, FAILED, TIMEOUT}),
    # The end is the end; only `with_late_result` may still add to it.
    COMPLETED: frozenset(),
    FAILED: frozenset(),
    TIMEOUT: frozenset(),
}


class IllegalMove(LightLinkError):
    """A status that may not follow the one before."""


class RequestRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """A command as it was asked for; ``timeout`` in seconds from ``created_at``."""

    command_id: str
    client_id: str
    command_type: str
    created_at: datetime
    timeout: float
    payload: msgspec.Raw = msgspec.Raw(b"null")
    priority: int = 0
    batch_id: str | None = None
    issued_by: str = ""
    idempotency_key: str | None = None
    headers: dict[str, str | list[str]] | None = None

    @property
    def deadline(self) -> datetime:
        """The instant at which the command is overdue."""
        return self.created_at + timedelta(seconds=self.timeout)

    @property
    def overdue_at(self) -> float:
        """When nobody needs to wait for its agent any more, as a timestamp."""
        return self.created_at.timestamp() + self.timeout + _GRACE_SECONDS


class UndoTold(msgspec.Struct, frozen=True, omit_defaults=True):
    """What an agent says takes back a command that it has completed: a command of its own, with its payload.

    ``resource`` names what the command has changed; of two that changed the same the later is taken back first.
    """

    command: str
    payload: Any = None
    resource: str = ""


class StatusRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """One revision of a command's status. ``at`` is when it was written, ``by`` who wrote it."""

    status: StatusName
    at: datetime = UNTOLD
    by: str = ""
    status_detail: str = ""
    instance: str = ""
    attempt: int = 0
    started_at: datetime | None = None
    completed_at: datetime | None = None
    result: Any = None
    error: str = ""
    cancel_requested: bool = False
    cancel_reason: str = ""
    outcome_unknown: bool = False
    late_result: Any = None
    late: bool = False  # all that is new in this revision is the late result
    undo: UndoTold | None = None

    @property
    def ended(self) -> bool:
        """Whether this is the command's end."""
        return self.status in ENDED


@attrs.frozen
class Progress:
    """How far a handler says it has come: a ``fraction`` from 0 to 1 and a ``note``."""

    fraction: float
    note: str = ""


@attrs.frozen(kw_only=True)
class Command:
    """A command as it stands at one instant. ``timeout`` in seconds; times are aware datetimes in UTC.

    ``undo`` is the type of the command that takes it back, as its agent said at the end; empty when nothing does.
    """

    command_id: str
    client_id: str
    command_type: str
    payload: Any
    status: StatusName
    status_detail: str
    created_at: datetime
    timeout: float
    result: Any = None
    error: str = ""
    sent_at: datetime | None = None
    completed_at: datetime | None = None
    priority: int = 0
    attempt: int = 0
    instance: str = ""
    progress: Progress | None = None
    batch_id: str | None = None
    issued_by: str = ""
    cancel_requested: bool = False
    outcome_unknown: bool = False
    late_result: Any = None
    undo: str = ""

    @property
    def ended(self) -> bool:
        """Whether it is completed, failed or timed out."""
        return self.status in ENDED

    def _repr_html_(self) -> str:
        """Return how a notebook shows it."""
        shown = {name: value for name, value in attrs.asdict(self, recurse=False).items() if value is not False}
        return html.facts(f"{self.command_type} on {self.client_id}: {self.status}", shown)


def now() -> datetime:
    """Return the time, in UTC."""
    return datetime.now(timezone.utc)


def shortly_before(instant: datetime) -> datetime:
    """Return from when on clocks may have told an instant."""
    return max(instant, _FIRST) - CLOCKS_APART


def is_overdue(request: RequestRecord, at: datetime, grace: timedelta = GRACE) -> bool:
    """Tell whether a command that has not ended is past its deadline, and its agent past all hope."""
    return at > request.deadline + grace


def is_open(status: StatusRecord | None) -> bool:
    """Tell whether a command with this last status has not ended."""
    return status is None or not status.ended


def status_at(request: RequestRecord, status: StatusRecord | None, at: datetime) -> StatusName:
    """Return the status alone that `fold` would give."""
    if is_open(status) and is_overdue(request, at):
        return TIMEOUT
    return PENDING if status is None else status.status


def fold(
    request: RequestRecord, status: StatusRecord | None, at: datetime, progress: Progress | None = None
) -> Command:
    """Return the command that a request and its last status make at an instant.

    An overdue one is shown as timeout, even when nobody has written that down.
    """
    if is_open(status) and is_overdue(request, at):
        status = expired(request, status, at)
    payload, fault = _payload(request)
    common: dict[str, Any] = {
        "command_id": request.command_id,
        "client_id": request.client_id,
        "command_type": request.command_type,
        "payload": payload,
        "created_at": request.created_at,
        "timeout": request.timeout,
        "priority": request.priority,
        "batch_id": request.batch_id,
        "issued_by": request.issued_by,
        "progress": progress,
    }
    if status is None:
        return Command(status=PENDING, status_detail=UNREADABLE if fault else "", error=fault, **common)
    return Command(
        status=status.status,
        status_detail=status.status_detail,
        result=status.result,
        error=status.error,
        sent_at=status.started_at,
        completed_at=status.completed_at,
        attempt=status.attempt,
        instance=status.instance,
        cancel_requested=status.cancel_requested,
        outcome_unknown=status.outcome_unknown,
        late_result=status.late_result,
        undo="" if status.undo is None else status.undo.command,
        **common,
    )


def _payload(request: RequestRecord) -> tuple[Any, str]:
    """Return a request's payload, or None and why it cannot be read: its writer may be of another language."""
    try:
        return codec.decode(bytes(request.payload), request.command_id), ""
    except DecodeError as exc:
        return None, f"its payload cannot be read: {exc.reason}"


def unreadable_command(client_id: str, command_id: str, at: datetime, reason: str) -> Command:
    """Return what is shown of a command whose request cannot be read, and which no agent can run."""
    return Command(
        command_id=command_id,
        client_id=client_id,
        command_type="",
        payload=None,
        status=FAILED,
        status_detail=UNREADABLE,
        created_at=at,
        timeout=0.0,
        error=reason,
    )


# Moves. Each returns the status to write over `current`, or raises IllegalMove. --------------------------------------


def check_move(current: StatusRecord | None, following: StatusRecord) -> StatusRecord:
    """Return ``following`` if it may follow ``current``."""
    before = current.status if current is not None else PENDING
    if following.status not in _LEGAL[before]:
        raise IllegalMove(f"a command that is {before} cannot become {following.status}")
    return following


def claimed(current: StatusRecord | None, at: datetime, instance: str) -> StatusRecord:
    """Return what an agent's instance writes to take the command; a further attempt if another instance had it."""
    attempt = current.attempt + 1 if current is not None else 1
    status = StatusRecord(status=EXECUTING, at=at, by=instance, instance=instance, attempt=attempt, started_at=at)
    return check_move(current, status)


def ended(current: StatusRecord, status: StatusName, at: datetime, **facts: Any) -> StatusRecord:
    """Return how the command ended, in the words of the agent that ran it."""
    return check_move(current, msgspec.structs.replace(current, status=status, at=at, completed_at=at, **facts))


def rejected(current: StatusRecord | None, at: datetime, instance: str, reason: str) -> StatusRecord:
    """Return the end of a command that the agent cannot run at all."""
    status = StatusRecord(
        status=FAILED,
        status_detail=REJECTED,
        at=at,
        by=instance,
        instance=instance,
        attempt=current.attempt if current is not None else 0,
        error=reason,
        completed_at=at,
    )
    return check_move(current, status)


def interrupted(current: StatusRecord, at: datetime, by: str) -> StatusRecord:
    """Return the end of a command whose instance is gone; nobody knows how far it had come."""
    error = f"the agent (instance {current.instance}) died while running it"
    return ended(current, FAILED, at, by=by, status_detail=INTERRUPTED, error=error, outcome_unknown=True)


def cancelled(current: StatusRecord | None, at: datetime, by: str, reason: str) -> StatusRecord:
    """Return what cancelling makes of a command: a pending one ends, one that runs is noted as no longer wanted."""
    if current is None:
        error = with_reason("cancelled", reason)
        return StatusRecord(
            status=FAILED, status_detail=CANCELLED, at=at, by=by, error=error, cancel_reason=reason, completed_at=at
        )
    if current.ended:
        raise IllegalMove(f"a command that is {current.status} cannot be cancelled")
    return msgspec.structs.replace(current, at=at, by=by, cancel_requested=True, cancel_reason=reason)


def with_reason(error: str, reason: str) -> str:
    """Return the error of a cancelled command together with why it was cancelled."""
    return f"{error}: {reason}" if reason else error


def expired(request: RequestRecord, current: StatusRecord | None, at: datetime, by: str = "") -> StatusRecord:
    """Return the end at the deadline: before an agent took the command, or while it ran.

    It ended at the deadline, whichever process records that, and when.
    """
    facts: dict[str, Any] = {"at": at, "by": by, "completed_at": request.deadline}
    if current is None:
        error = f"no agent took it within {request.timeout:g} s"
        return StatusRecord(status=TIMEOUT, status_detail=DELIVERY_TIMEOUT, error=error, **facts)
    error = f"it ran longer than its {request.timeout:g} s"
    facts |= {"status_detail": EXECUTION_TIMEOUT, "error": error, "outcome_unknown": by != current.instance}
    return check_move(current, msgspec.structs.replace(current, status=TIMEOUT, **facts))


def with_late_result(current: StatusRecord, result: Any, at: datetime) -> StatusRecord:
    """Note what the handler brought after its command had ended without it; the status stays."""
    if not current.ended or current.status == COMPLETED:
        raise IllegalMove(f"a command that is {current.status} has no late result")
    return msgspec.structs.replace(current, at=at, late_result=result, late=True)


def may_precede(earlier: StatusRecord, later: StatusRecord | None) -> bool:
    """Tell whether a status can have been stored before another of its command: after an end there is only that end."""
    if not earlier.ended:
        return True
    return later is not None and later.ended and _end(earlier) == _end(later)


def _end(status: StatusRecord) -> tuple[Any, ...]:
    return status.status, status.status_detail, status.by, status.completed_at


def unreadable(at: datetime, reason: str) -> StatusRecord:
    """Return what a status that cannot be read counts as: only the command's own agent can have written it."""
    return StatusRecord(status=FAILED, status_detail=UNREADABLE, at=at, error=reason, outcome_unknown=True)


# What an agent does with a command that is delivered to it. -----------------------------------------------------------


@attrs.frozen
class Run:
    """Write ``claim`` over what was read; once that is stored, run the handler."""

    claim: StatusRecord


@attrs.frozen
class Settle:
    """Write ``status`` over what was read, and do not run it."""

    status: StatusRecord


@attrs.frozen
class Ignore:
    """The command has ended; nothing is to be written."""


def on_delivery(
    request: RequestRecord, current: StatusRecord | None, instance: str, idempotent: bool, begun: bool, at: datetime
) -> Run | Settle | Ignore:
    """Decide by the status, and never by the delivery count, what to do with a delivered command.

    ``begun`` says that this instance has begun to run it before, and knows nothing of its end.
    """
    if current is not None and current.ended:
        return Ignore()
    if is_overdue(request, at, grace=timedelta(0)):
        status = expired(request, current, at, by=instance)
        return Settle(msgspec.structs.replace(status, outcome_unknown=begun or status.outcome_unknown))
    if current is None:
        return Run(claimed(None, at, instance))
    untouched = current.instance == instance and not begun
    if current.cancel_requested:
        error = "cancelled before it ran" if untouched else "cancelled while its agent was gone"
        error = with_reason(error, current.cancel_reason)
        facts = {"by": instance, "status_detail": CANCELLED, "error": error, "outcome_unknown": not untouched}
        return Settle(ended(current, FAILED, at, **facts))
    if untouched:
        # Our claim is stored, only its acknowledgement has never come; written again, it is seen to be the last still.
        return Run(msgspec.structs.replace(current, at=at))
    if idempotent:
        return Run(claimed(current, at, instance))
    return Settle(interrupted(current, at, by=instance))
