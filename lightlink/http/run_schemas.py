"""What requests and replies about plans and runs are made of."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

import attrs
from msgspec import UNSET, Meta, UnsetType

from lightlink.http.schemas import ClientId, Count, IdempotencyKey
from lightlink.runs.model.records import StateName

Reason = Annotated[str, Meta(max_length=1024)]
PlanObject = Annotated[dict[str, Any], Meta(description="A plan, as in its JSON file; see `lightlink plan schema`.")]
PlanName = Annotated[str, Meta(min_length=1, max_length=256, description="The name of a stored plan.")]
Params = Annotated[dict[str, Any], Meta(description="The plan's parameters by name.")]


# Requests -------------------------------------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class CheckPlan:
    """A plan to look at; nothing is sent."""

    plan: PlanObject | PlanName
    params: Params = attrs.Factory(dict)
    targets: Annotated[list[ClientId], Meta(min_length=1, max_length=10_000)] | UnsetType = UNSET
    messages: Annotated[bool, Meta(description="Whether to tell what would be sent, if all conditions held.")] = False


@attrs.frozen(kw_only=True)
class StartRun:
    """A plan to carry out."""

    plan: PlanObject | PlanName
    params: Params = attrs.Factory(dict)
    targets: Annotated[list[ClientId], Meta(min_length=1, max_length=10_000)] | UnsetType = UNSET
    reason: Reason = ""
    idempotency_key: IdempotencyKey | None = None


@attrs.frozen(kw_only=True)
class Decision:
    """Somebody's word at a gate; with a ``digest`` only about exactly that."""

    comment: Reason = ""
    digest: Annotated[str, Meta(max_length=64)] | UnsetType = UNSET


@attrs.frozen(kw_only=True)
class Why:
    """Why something is done to a run."""

    reason: Reason = ""


@attrs.frozen(kw_only=True)
class OpenWindow:
    """When waves may begin: for ``hours`` from each ``opens``, weekday and time or cron fields."""

    opens: Annotated[str, Meta(min_length=1, max_length=256, examples=["Sat 22:00"])]
    hours: float
    tz: Annotated[str, Meta(min_length=1, max_length=64)] = "UTC"


@attrs.frozen(kw_only=True)
class AddSchedule:
    """A plan to be run by the clock: five cron fields in a time zone."""

    name: Annotated[str, Meta(min_length=1, max_length=256)]
    plan: PlanObject | PlanName
    params: Params = attrs.Factory(dict)
    cron: Annotated[str, Meta(min_length=1, max_length=256)]
    tz: Annotated[str, Meta(min_length=1, max_length=64)] = "UTC"
    overlap: Literal["skip", "allow"] = "skip"
    missed: Literal["skip", "run"] = "skip"
    window: OpenWindow | UnsetType = UNSET


@attrs.frozen(kw_only=True)
class StorePlan:
    """A plan to be kept under its own name."""

    plan: PlanObject


@attrs.frozen(kw_only=True)
class RunsQuery:
    """Which runs to list."""

    state: StateName | UnsetType = UNSET
    plan: str | UnsetType = UNSET
    client_id: (
        Annotated[ClientId, Meta(description="Only those with this agent as a target, among the 20 changed last.")]
        | UnsetType
    ) = UNSET
    limit: Annotated[int, Meta(ge=1, le=1000, description="How many at most.")] = 100


# Replies --------------------------------------------------------------------------------------------------------------


@attrs.frozen(kw_only=True, slots=False)
class MessageView:
    """What a step would send to an agent, in a wave from 1 on (0: once), or the ``error`` why it would not."""

    wave: Count
    step: str
    client_id: str
    what: str
    payload: Any
    conditional: bool
    error: str


@attrs.frozen(kw_only=True, slots=False)
class PlanChecked:
    """What a plan would do now."""

    success: Literal[True] = True
    total: Count
    waves: list[list[str]]
    offline: list[str]
    failures_allowed: Count
    locks: list[str]
    digest: str
    messages: list[MessageView] | UnsetType = UNSET


@attrs.frozen(kw_only=True, slots=False)
class RunView:
    """A run as it stands. ``counts`` are those of the waves that have ended, ``until`` the end of a soak or gate."""

    run_id: str
    plan: str
    state: StateName
    event: str
    wave: Count
    targets: Count
    started_by: str
    started_at: datetime
    by: str
    at: datetime
    reason: str
    digest: str
    counts: dict[str, int]
    approvals: list[dict[str, Any]]
    attention: list[dict[str, str]]
    attention_total: Count
    until: datetime | UnsetType = UNSET
    deadline: datetime | UnsetType = UNSET


@attrs.frozen(kw_only=True, slots=False)
class RunList:
    """Runs, latest change first."""

    success: Literal[True] = True
    total: Count
    runs: list[RunView]


@attrs.frozen(kw_only=True, slots=False)
class TargetView:
    """What a target came to, at which step, and why."""

    client_id: str
    wave: Count
    outcome: str
    step: str
    error: str


@attrs.frozen(kw_only=True, slots=False)
class RunDetails:
    """A run with all that is known of it; ``steps`` count targets by outcome."""

    success: Literal[True] = True
    run: RunView
    plan: dict[str, Any]
    params: dict[str, Any]
    steps: dict[str, dict[str, int]]
    targets: list[TargetView]


@attrs.frozen(kw_only=True, slots=False)
class OneRun:
    """A run."""

    success: Literal[True] = True
    run: RunView


@attrs.frozen(kw_only=True, slots=False)
class RunHistory:
    """Every state that a run has come to, in order."""

    success: Literal[True] = True
    states: list[RunView]


@attrs.frozen(kw_only=True, slots=False)
class PlanView:
    """A stored plan: who stored it, and when."""

    name: str
    version: str
    by: str
    at: datetime
    plan: dict[str, Any]


@attrs.frozen(kw_only=True, slots=False)
class PlanList:
    """All stored plans, by name."""

    success: Literal[True] = True
    plans: list[PlanView]


@attrs.frozen(kw_only=True, slots=False)
class OnePlan:
    """A stored plan."""

    success: Literal[True] = True
    plan: PlanView


@attrs.frozen(kw_only=True, slots=False)
class ScheduleView:
    """A schedule, its next time, and what came of its last."""

    name: str
    plan: str
    cron: str
    tz: str
    overlap: str
    missed: str
    by: str
    next: datetime
    run_id: str
    error: str
    last: datetime | UnsetType = UNSET


@attrs.frozen(kw_only=True, slots=False)
class ScheduleList:
    """All schedules, by name."""

    success: Literal[True] = True
    schedules: list[ScheduleView]


@attrs.frozen(kw_only=True, slots=False)
class Removed:
    """It is gone."""

    success: Literal[True] = True
