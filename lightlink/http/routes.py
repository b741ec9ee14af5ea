"""Every call there is: its path, who may make it, what it takes and what it gives."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from lightlink.http import agents, batches, operations, run_schemas, runs, schemas, single, stream, survey
from lightlink.http.access import APPROVE, PLAN, READ, SEND

if TYPE_CHECKING:
    from collections.abc import Callable

    from lightlink.http.call import Call


@attrs.frozen(kw_only=True, eq=False)
class Route:
    """One call. ``scope`` is what a token must be good for, None when none is needed.

    ``replies`` are the types of the replies that are not Problems, by status; ``problems`` the statuses that are,
    beside those that each call has. ``content`` is what a reply that is not JSON is.
    """

    method: str
    path: str
    view: Callable[[Call], Any]
    summary: str
    scope: str | None = READ
    query: type[Any] | None = None
    body: type[Any] | None = None
    body_is_optional: bool = False
    replies: dict[int, Any] = attrs.field(factory=dict)
    problems: tuple[int, ...] = ()
    content: str = "application/json"

    @property
    def name(self) -> str:
        """The name of the call, which no other has."""
        return self.view.__name__


ROUTES: tuple[Route, ...] = (
    Route(
        method="POST",
        path="/api/command",
        view=single.send_command,
        summary="Send a command to an agent, which may be offline.",
        scope=SEND,
        body=schemas.SendCommand,
        replies={200: schemas.CommandSent},
        problems=(409,),
    ),
    Route(
        method="POST",
        path="/api/command/multi",
        view=batches.send_commands,
        summary="Send a command to many agents.",
        scope=SEND,
        body=schemas.SendCommands,
        replies={200: schemas.BatchView | schemas.BatchStarted},
    ),
    Route(
        method="GET",
        path="/api/batch/<batch_id>",
        view=batches.get_batch,
        summary="Look at the commands sent to many agents.",
        replies={200: schemas.BatchView},
        problems=(404,),
    ),
    Route(
        method="GET",
        path="/api/command/<command:command_id>",
        view=single.get_command,
        summary="Look at a command, or wait for its end.",
        query=schemas.CommandQuery,
        replies={200: schemas.OneCommand},
        problems=(404,),
    ),
    Route(
        method="POST",
        path="/api/command/<command:command_id>/cancel",
        view=single.cancel_command,
        summary="Cancel a command that has not ended.",
        scope=SEND,
        body=schemas.CancelCommand,
        body_is_optional=True,
        replies={200: schemas.OneCommand},
        problems=(404, 409),
    ),
    Route(
        method="POST",
        path="/api/command/<command:command_id>/undo",
        view=single.undo_command,
        summary="Take a completed command back, by what its agent said takes it back.",
        scope=SEND,
        body=schemas.UndoCommand,
        body_is_optional=True,
        replies={200: schemas.CommandSent},
        problems=(404, 409),
    ),
    Route(
        method="GET",
        path="/api/command/<command:command_id>/history",
        view=single.get_command_history,
        summary="Look at all that happened to a command.",
        replies={200: schemas.AuditList},
        problems=(404,),
    ),
    Route(
        method="GET",
        path="/api/commands/summary",
        view=survey.get_summary,
        summary="Count the commands of the last while: by status, in 60 stretches of time, and how they failed.",
        query=schemas.SummaryQuery,
        replies={200: schemas.Summary},
    ),
    Route(
        method="GET",
        path="/api/audit",
        view=survey.get_audit,
        summary="Look at what happened in the last while: of what, when, by whom.",
        query=schemas.AuditQuery,
        replies={200: schemas.AuditList},
    ),
    Route(
        method="GET",
        path="/api/services",
        view=survey.list_services,
        summary="List the services that run, with their methods and what they have done.",
        replies={200: schemas.ServiceList},
    ),
    Route(
        method="GET",
        path="/api/agents",
        view=agents.list_agents,
        summary="List the agents that were ever seen, those that are offline too.",
        query=schemas.AgentsQuery,
        replies={200: schemas.AgentPage},
    ),
    Route(
        method="GET",
        path="/api/agents/<client_id>/types",
        view=agents.list_command_types,
        summary="Ask an agent that is online for its types of commands, with their schemas.",
        replies={200: schemas.TypeList},
        problems=(404, 504),
    ),
    Route(
        method="GET",
        path="/api/commands",
        view=single.list_commands,
        summary="List stored commands, newest first.",
        query=schemas.ListQuery,
        replies={200: schemas.CommandPage},
    ),
    Route(
        method="GET",
        path="/api/commands/stream",
        view=stream.stream_commands,
        summary="Follow every change of every command, as server-sent events with an OneCommand's command as data.",
        query=schemas.StreamQuery,
        replies={200: str},
        content=stream.MIMETYPE,
    ),
    Route(
        method="GET",
        path="/api/clients",
        view=agents.list_clients,
        summary="List the agents that are online.",
        replies={200: schemas.ClientList},
    ),
    Route(
        method="GET",
        path="/api/clients/<client_id>",
        view=agents.get_client,
        summary="Look at an agent that is online.",
        replies={200: schemas.ClientView},
        problems=(404,),
    ),
    Route(
        method="POST",
        path="/api/send",
        view=agents.send_message,
        summary="Send a message to an agent that is online.",
        scope=SEND,
        body=schemas.SendMessage,
        replies={200: schemas.MessageSent},
        problems=(504,),
    ),
    Route(
        method="POST",
        path="/api/broadcast",
        view=agents.broadcast_message,
        summary="Send a message to all agents that are online.",
        scope=SEND,
        body=schemas.BroadcastMessage,
        replies={200: schemas.MessageSent},
    ),
    Route(
        method="POST",
        path="/api/plans/check",
        view=runs.check_plan,
        summary="Tell what a plan would do now; nothing is sent.",
        scope=PLAN,
        body=run_schemas.CheckPlan,
        replies={200: run_schemas.PlanChecked},
        problems=(404, 501),
    ),
    Route(
        method="GET",
        path="/api/stored-plans",
        view=runs.list_plans,
        summary="List the plans that are stored.",
        replies={200: run_schemas.PlanList},
        problems=(501,),
    ),
    Route(
        method="POST",
        path="/api/stored-plans",
        view=runs.store_plan,
        summary="Keep a plan under its name; one of the same name is replaced.",
        scope=PLAN,
        body=run_schemas.StorePlan,
        replies={200: run_schemas.OnePlan},
        problems=(501,),
    ),
    Route(
        method="DELETE",
        path="/api/stored-plans/<name>",
        view=runs.remove_plan,
        summary="Remove a stored plan; its runs and schedules go on.",
        scope=PLAN,
        replies={200: run_schemas.Removed},
        problems=(404, 501),
    ),
    Route(
        method="POST",
        path="/api/runs",
        view=runs.start_run,
        summary="Start a run of a plan.",
        scope=PLAN,
        body=run_schemas.StartRun,
        replies={200: run_schemas.OneRun},
        problems=(404, 501),
    ),
    Route(
        method="GET",
        path="/api/runs",
        view=runs.list_runs,
        summary="List runs, latest change first.",
        query=run_schemas.RunsQuery,
        replies={200: run_schemas.RunList},
        problems=(501,),
    ),
    Route(
        method="GET",
        path="/api/runs/stream",
        view=runs.stream_runs,
        summary="Follow every state that any run comes to, as server-sent events with a RunView as data.",
        replies={200: str},
        problems=(501,),
        content=stream.MIMETYPE,
    ),
    Route(
        method="GET",
        path="/api/runs/<run:run_id>",
        view=runs.get_run,
        summary="Look at a run: its plan, its steps, its targets.",
        replies={200: run_schemas.RunDetails},
        problems=(404, 501),
    ),
    Route(
        method="GET",
        path="/api/runs/<run:run_id>/history",
        view=runs.get_run_history,
        summary="Look at every state that a run has come to.",
        replies={200: run_schemas.RunHistory},
        problems=(404, 501),
    ),
    Route(
        method="POST",
        path="/api/runs/<run:run_id>/approve",
        view=runs.approve_run,
        summary="Approve what waits at a gate.",
        scope=APPROVE,
        body=run_schemas.Decision,
        body_is_optional=True,
        replies={200: run_schemas.OneRun},
        problems=(404, 409, 501),
    ),
    Route(
        method="POST",
        path="/api/runs/<run:run_id>/reject",
        view=runs.reject_run,
        summary="Reject what waits at a gate.",
        scope=APPROVE,
        body=run_schemas.Decision,
        body_is_optional=True,
        replies={200: run_schemas.OneRun},
        problems=(404, 409, 501),
    ),
    Route(
        method="POST",
        path="/api/runs/<run:run_id>/pause",
        view=runs.pause_run,
        summary="Have nothing new begin in a run.",
        scope=PLAN,
        body=run_schemas.Why,
        body_is_optional=True,
        replies={200: run_schemas.OneRun},
        problems=(404, 409, 501),
    ),
    Route(
        method="POST",
        path="/api/runs/<run:run_id>/resume",
        view=runs.resume_run,
        summary="Let a paused run go on.",
        scope=PLAN,
        body=run_schemas.Why,
        body_is_optional=True,
        replies={200: run_schemas.OneRun},
        problems=(404, 409, 501),
    ),
    Route(
        method="POST",
        path="/api/runs/<run:run_id>/cancel",
        view=runs.cancel_run,
        summary="End a run; what was done stays.",
        scope=PLAN,
        body=run_schemas.Why,
        body_is_optional=True,
        replies={200: run_schemas.OneRun},
        problems=(404, 409, 501),
    ),
    Route(
        method="POST",
        path="/api/runs/<run:run_id>/rollback",
        view=runs.rollback_run,
        summary="Take back what a run has done.",
        scope=PLAN,
        body=run_schemas.Why,
        body_is_optional=True,
        replies={200: run_schemas.OneRun},
        problems=(404, 409, 501),
    ),
    Route(
        method="POST",
        path="/api/runs/<run:run_id>/retry",
        view=runs.retry_run,
        summary="Try again what has failed or was left in a run.",
        scope=PLAN,
        body=run_schemas.Why,
        body_is_optional=True,
        replies={200: run_schemas.OneRun},
        problems=(404, 409, 501),
    ),
    Route(
        method="GET",
        path="/api/schedules",
        view=runs.list_schedules,
        summary="List the plans that are run by the clock.",
        replies={200: run_schemas.ScheduleList},
        problems=(501,),
    ),
    Route(
        method="POST",
        path="/api/schedules",
        view=runs.add_schedule,
        summary="Have a plan run by the clock; one of the same name is replaced.",
        scope=PLAN,
        body=run_schemas.AddSchedule,
        replies={200: run_schemas.ScheduleList},
        problems=(404, 501),
    ),
    Route(
        method="DELETE",
        path="/api/schedules/<name>",
        view=runs.remove_schedule,
        summary="Remove a schedule; runs that it has started go on.",
        scope=PLAN,
        replies={200: run_schemas.Removed},
        problems=(404, 501),
    ),
    Route(
        method="GET",
        path="/health",
        view=operations.get_health,
        summary="Tell whether commands can be stored and read.",
        scope=None,
        replies={200: schemas.Health, 503: schemas.Sickness},
    ),
    Route(
        method="GET",
        path="/metrics",
        view=operations.get_metrics,
        summary="Metrics for Prometheus.",
        replies={200: str},
        content="text/plain",
    ),
    Route(
        method="GET",
        path="/openapi.json",
        view=operations.get_openapi,
        summary="This document.",
        scope=None,
        replies={200: dict[str, Any]},
    ),
)
