"""What is stored of a run: a frozen copy of its plan, written once, and the revisions of its state."""

from __future__ import annotations

import hashlib
import uuid
from datetime import datetime
from typing import Any, Final, Literal

import msgspec

from lightlink.commands.model import UNTOLD
from lightlink.protocol import codec
from lightlink.runs.model.plan import Plan

# What a run is about.
QUEUED: Final = "queued"  # for a lock that another run has
RUNNING: Final = "running"
SOAKING: Final = "soaking"
WAITING: Final = "waiting"  # for somebody to approve
HELD: Final = "held"  # until its window opens, or a freeze ends
PAUSED: Final = "paused"
STOPPING: Final = "stopping"  # nothing begins any more; what runs may finish
ROLLING_BACK: Final = "rolling_back"
COMPLETED: Final = "completed"
FAILED: Final = "failed"
CANCELLED: Final = "cancelled"
ROLLED_BACK: Final = "rolled_back"
ROLLBACK_INCOMPLETE: Final = "rollback_incomplete"
StateName = Literal[
    "queued",
    "running",
    "soaking",
    "waiting",
    "held",
    "paused",
    "stopping",
    "rolling_back",
    "completed",
    "failed",
    "cancelled",
    "rolled_back",
    "rollback_incomplete",
]
STATES: tuple[str, ...] = StateName.__args__  # type: ignore[attr-defined]
ENDED = frozenset({COMPLETED, FAILED, CANCELLED, ROLLED_BACK, ROLLBACK_INCOMPLETE})

# Where a run is.
LOCK: Final = "lock"
FIRST: Final = "first"
WAVE: Final = "wave"
SOAK: Final = "soak"
GATE: Final = "gate"
HOLD: Final = "hold"
HALT: Final = "halt"
UNDO: Final = "undo"
LAST: Final = "last"
END: Final = "end"
StageName = Literal["lock", "first", "wave", "soak", "gate", "hold", "halt", "undo", "last", "end"]
Verdict = Literal["", "failed", "cancelled", "rollback", "rollback_wave"]

_NAMESPACE = uuid.UUID("3a1f6c52-9c0e-5d0b-8d55-1b7e0e1c7f43")
_MOST_ATTENTION = 100


class Target(msgspec.Struct, frozen=True, omit_defaults=True):
    """An agent as the run found it at its start."""

    client_id: str
    labels: dict[str, str] = {}


class RunPlan(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a run is to do. ``digest`` stands for plan, parameters and targets together.

    ``kept_until`` is how long all that its commands have come to is known.
    """

    run_id: str
    plan: Plan
    params: dict[str, Any] = {}
    targets: list[Target] = []
    started_by: str = ""
    reason: str = ""
    created_at: datetime = UNTOLD
    digest: str = ""
    idempotency_key: str | None = None
    kept_until: datetime | None = None

    @property
    def waves(self) -> list[list[Target]]:
        """The targets of each wave."""
        found, start = [], 0
        for size in self.plan.wave_sizes(len(self.targets)):
            found.append(self.targets[start : start + size])
            start += size
        return found


class Approved(msgspec.Struct, frozen=True, omit_defaults=True):
    """Somebody's word at a gate."""

    by: str
    at: datetime
    comment: str = ""


class Attention(msgspec.Struct, frozen=True, omit_defaults=True):
    """Something that nobody but people can settle: of which agent and step, and why."""

    client_id: str
    step: str
    reason: str


class RunState(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One revision of a run of ``plan`` on so many ``targets``. ``event`` says what made it, ``by`` whom, ``at`` when.

    ``passed`` is how many waves after the first had begun before it was tried again. ``verdict`` is what becomes of a
    run that no longer goes on. ``until`` is when a soak or a gate ends, ``remaining`` how many seconds of that and of
    the ``deadline`` were left when it was paused. ``epoch`` counts how often it was tried again, ``undo_epoch`` how
    often rolled back. ``counts`` are those of targets, by outcome.
    """

    run_id: str
    state: StateName
    stage: StageName
    event: str
    plan: str = ""
    started_by: str = ""
    started_at: datetime = UNTOLD
    digest: str = ""
    targets: int = 0
    by: str = ""
    at: datetime = UNTOLD
    wave: int = 0
    passed: int = 0
    epoch: int = 0
    undo_epoch: int = 0
    verdict: Verdict = ""
    halted_in: StageName | None = None
    reason: str = ""
    until: datetime | None = None
    deadline: datetime | None = None
    remaining: dict[str, float] = {}
    paused_from: StateName | None = None
    approvals: list[Approved] = []
    counts: dict[str, int] = {}
    attention: list[Attention] = []
    attention_total: int = 0

    @property
    def ended(self) -> bool:
        """Whether nothing more happens by itself."""
        return self.state in ENDED

    @property
    def waves_begun(self) -> int:
        """How many waves may have begun, now or before the run was tried again."""
        before = (LOCK, FIRST)
        is_before = self.halted_in in before or (self.stage in before and not self.verdict)
        return 0 if is_before and not self.epoch else max(self.wave, self.passed) + 1


def with_attention(state: RunState, found: list[Attention]) -> RunState:
    """Return a state with more that people have to settle; of very many the first are kept, and the number."""
    if not found:
        return state
    kept = [*state.attention, *found][:_MOST_ATTENTION]
    return msgspec.structs.replace(state, attention=kept, attention_total=state.attention_total + len(found))


def digest_of(plan: Plan, params: dict[str, Any], targets: list[Target]) -> str:
    """Return what stands for plan, parameters and targets together: an approval is of exactly these."""
    return hashlib.sha256(codec.encode_json([plan, params, targets])).hexdigest()[:32]


def run_id_of(started_by: str, idempotency_key: str) -> str:
    """Return the id of a run that is started at most once for a key of its starter's."""
    return str(uuid.uuid5(_NAMESPACE, f"{started_by}\0{idempotency_key}"))


def command_id_of(run_id: str, step: str, client_id: str, phase: str, epoch: int, attempt: int) -> str:
    """Return the id of the command that one attempt of a step is, the same in every process."""
    return str(uuid.uuid5(_NAMESPACE, f"{run_id}\0{step}\0{client_id}\0{phase}\0{epoch}\0{attempt}"))
