"""Plans and their runs: steps in order, in waves, with approvals and rollback, whichever manager dies."""

from lightlink.runs.definitions import Schedule, StoredPlan
from lightlink.runs.model.plan import Plan
from lightlink.runs.model.plan_model import Approval, Param, Step, Targets, Undo, Window
from lightlink.runs.model.preview import PlannedMessage
from lightlink.runs.model.records import Attention, RunState
from lightlink.runs.orchestrator import Orchestrator, PlanCheck
from lightlink.runs.plan_run import PlanRun
from lightlink.runs.survey import TargetResult
from lightlink.runs.watch import RunWatcher

__all__ = [
    "Approval",
    "Attention",
    "Orchestrator",
    "Param",
    "Plan",
    "PlanCheck",
    "PlanRun",
    "PlannedMessage",
    "RunState",
    "RunWatcher",
    "Schedule",
    "Step",
    "StoredPlan",
    "TargetResult",
    "Targets",
    "Undo",
    "Window",
]
