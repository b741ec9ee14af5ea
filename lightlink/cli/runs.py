"""``lightlink plan`` and ``lightlink runs``: check and start plans, follow their runs, and decide about them."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from lightlink.cli.command import clock, user
from lightlink.cli.terminal.exits import Exit, report
from lightlink.cli.terminal.following import give_up_option
from lightlink.cli.terminal.options import json_object, json_option, link_options, print_data, to_json
from lightlink.cli.terminal.printing import say
from lightlink.concurrency import signals
from lightlink.concurrency.deadline import Deadline
from lightlink.contrib.systemd import notify
from lightlink.errors import PermissionDenied, StoreUnavailable
from lightlink.protocol.text import visible, visible_json
from lightlink.runs import Orchestrator, Plan
from lightlink.runs.model.lanes import OUTCOMES
from lightlink.runs.model.records import STATES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lightlink.cli.terminal.options import Link
    from lightlink.runs import PlanRun, RunState

_OPEN = "open"
_SHOWN = (*OUTCOMES, _OPEN)
_REFRESH_SECONDS = 0.5

_file = click.argument("path", metavar="FILE", type=click.Path(exists=True, dir_okay=False, path_type=Path))
_name = click.argument("name", metavar="NAME")
plan_argument = click.argument("plan", metavar="FILE|NAME", callback=lambda _ctx, _param, text: _file_or_name(text))
params_argument = click.argument("params", metavar="[JSON]", default="{}", callback=json_object)
_targets = click.option(
    "--to", "targets", multiple=True, metavar="ID", help="Run on this agent instead of the plan's targets."
)
_run_id = click.argument("run_id", metavar="RUN")
_reason = click.option("--reason", default="", metavar="TEXT", help="The reason; it is stored with the run.")
_comment = click.option(
    "--comment", default="", metavar="TEXT", help="Evidence for the decision; it is stored with the run."
)
_by = click.option("--by", metavar="NAME", help="Act under this name instead of cli:USER.")
_digest = click.option("--digest", metavar="TEXT", help="Only if the run carries out the plan with this digest.")


@contextlib.contextmanager
def orchestrating(link: Link, *, work: bool = False) -> Iterator[Orchestrator]:
    """Start, follow and decide about runs in the user's name; others carry them out, unless ``work``."""
    name = None if work else f"cli:{user()}"
    sweep = 5.0 if work else None
    with link.connect() as client, Orchestrator(client, work=work, name=name, sweep_interval=sweep) as orchestrator:
        yield orchestrator


@click.group("plan")
def plan() -> None:
    """Check plans, and start them: steps in order, in waves, with approvals and rollback.

    \b
        lightlink plan check rollout.yaml '{"version": "4"}'
        lightlink plan start rollout.yaml '{"version": "4"}' --reason "CHG-1234"
        lightlink plan store rollout.yaml
        lightlink plan start rollout '{"version": "5"}'

    Whoever starts a run does not carry it out: `lightlink runs work` does, any number of them, or programs with an
    Orchestrator.
    """  # noqa: D301 - \b is click's mark for lines to be left as they are


@plan.command()
@plan_argument
@params_argument
@_targets
@click.option("--messages", is_flag=True, help="Also what would be sent to whom, if all conditions held.")
@json_option
@link_options
def check(
    link: Link, plan: Plan | str, params: dict[str, Any], targets: tuple[str, ...], messages: bool, as_json: bool
) -> None:
    """Tell what a plan would do now: its waves, who is offline, how many failures are borne. Nothing is sent."""
    with orchestrating(link) as orchestrator:
        found = orchestrator.check(plan, params, targets=targets or None)
    if as_json:
        print_data(found, as_json=True)
        return
    for number, wave in enumerate(found.waves, 1):
        shown = ", ".join(wave[:10]) + (f" and {len(wave) - 10} more" if len(wave) > 10 else "")
        say(f"wave {number}: {len(wave)} of {found.targets}: {shown}")
    say(f"failures borne: {found.failures_allowed} of {found.targets}")
    if found.offline:
        say(f"offline: {', '.join(found.offline)}")
    for lock in found.locks:
        say(f"lock: {lock}")
    for each in found.messages if messages else ():
        where = f"wave {each.wave}" if each.wave else "once"
        sent = f"not sent: {each.error}" if each.error else to_json(each.payload)
        say(f"{where}, {each.step}{' (if)' if each.conditional else ''}: {each.client_id or '-'}: {each.what} {sent}")
    say(f"digest: {found.digest}")


@plan.command()
@plan_argument
@params_argument
@_targets
@_reason
@_by
@click.option("--key", metavar="TEXT", help="Starting again with the same key returns the first run.")
@click.option("--no-wait", is_flag=True, help="Print the id and end, once the run is stored.")
@json_option
@link_options
@click.pass_context
def start(
    ctx: click.Context,
    /,
    link: Link,
    plan: Plan | str,
    params: dict[str, Any],
    targets: tuple[str, ...],
    reason: str,
    by: str | None,
    key: str | None,
    no_wait: bool,
    as_json: bool,
) -> None:
    """Start a run of a plan and follow it to its end.

    Exit code 1 says that it did not complete. Ctrl-C ends the following, not the run.
    """
    with orchestrating(link) as orchestrator:
        chosen = targets or None
        run = orchestrator.start(plan, params, targets=chosen, reason=reason, idempotency_key=key, issued_by=by)
        _warn_if_idle(orchestrator)
        if no_wait:
            say(to_json({"run_id": run.run_id}) if as_json else run.run_id)
            return
        report(run.run_id, kind="started")
        _follow(ctx, run, as_json, None)


@plan.command()
@_file
@link_options
def store(link: Link, path: Path) -> None:
    """Keep a plan under its own name, for whoever starts it; one of the same name is replaced."""
    loaded = Plan.load(path)
    with orchestrating(link) as orchestrator:
        say(orchestrator.store_plan(loaded).name)


@plan.command("list")
@json_option
@link_options
def list_plans(link: Link, as_json: bool) -> None:
    """Print the plans that are stored."""
    with orchestrating(link) as orchestrator:
        for each in orchestrator.plans():
            steps = ", ".join(step.name for step in each.plan.steps)
            shown = f"{each.name}  {each.plan.version or '-'}  by {each.by} at {clock(each.at)}  {steps}"
            say(to_json(each) if as_json else shown)


@plan.command("show")
@_name
@json_option
@link_options
def show_plan(link: Link, name: str, as_json: bool) -> None:
    """Print a plan that is stored, as its file."""
    with orchestrating(link) as orchestrator:
        text = orchestrator.plan(name).dump(as_json=as_json)
    for each in text.removesuffix("\n").split("\n"):
        say(visible_json(each) if as_json else each)


@plan.command()
@_name
@link_options
@click.pass_context
def remove(ctx: click.Context, link: Link, name: str) -> None:
    """Remove a stored plan; its runs and schedules go on. Exit code 1 says that there is none."""
    with orchestrating(link) as orchestrator:
        if not orchestrator.remove_plan(name):
            report(f"no plan is stored as {name!r}")
            ctx.exit(Exit.FAILED)


@plan.command()
def schema() -> None:
    """Print the JSON Schema of plans, for editors."""
    say(to_json(Plan.schema()))


@click.group("runs")
def runs() -> None:
    """Follow the runs of plans, and decide about them.

    \b
        lightlink runs list --state waiting
        lightlink runs approve RUN --comment "looks good"
        lightlink runs work
    """  # noqa: D301 - \b is click's mark for lines to be left as they are


@runs.command("list")
@click.option("--state", type=click.Choice(STATES), help="In this state.")
@click.option("--plan", metavar="NAME", help="Of this plan.")
@click.option("--limit", type=click.IntRange(1, 1000), default=20, show_default=True, help="At most so many.")
@json_option
@link_options
def list_(link: Link, state: str | None, plan: str | None, limit: int, as_json: bool) -> None:
    """Print runs, latest change first."""
    with orchestrating(link) as orchestrator:
        for each in orchestrator.runs(state=state, plan=plan, limit=limit):
            say(to_json(each) if as_json else line(each))


@runs.command()
@_run_id
@click.option("--targets", "with_targets", is_flag=True, help="Each target, too.")
@json_option
@link_options
def show(link: Link, run_id: str, with_targets: bool, as_json: bool) -> None:
    """Print a run as it stands: its steps, what failed, and what needs attention."""
    with orchestrating(link) as orchestrator:
        run = orchestrator.run(run_id)
        state, steps, targets = run.refresh(), run.steps(), run.targets()
    if as_json:
        print_data({"run": state, "digest": run.digest, "steps": steps, "targets": targets}, as_json=True)
        return
    Console().print(_table(state, steps))
    say(f"digest: {run.digest}")
    for target in targets:
        if with_targets or target.outcome in ("failed", "not_run", "unknown"):
            where = f" at {target.step}" if target.step else ""
            say(f"{target.client_id}: {target.outcome}{where}{f': {target.error}' if target.error else ''}")
    for each in state.attention:
        where = ", ".join(filter(None, (each.client_id, each.step))) or "the run"
        say(f"attention: {where}: {each.reason}")


@runs.command()
@_run_id
@give_up_option
@json_option
@link_options
@click.pass_context
def watch(ctx: click.Context, link: Link, run_id: str, timeout: float | None, as_json: bool) -> None:
    """Follow a run to its end. Exit code 1 says that it did not complete."""
    with orchestrating(link) as orchestrator:
        run = orchestrator.run(run_id)
        if not run.refresh().ended:
            _warn_if_idle(orchestrator)
        _follow(ctx, run, as_json, timeout)


def _decision(name: str, text: str, *options: Callable[[Any], Any]) -> None:
    """Add a command that decides about a run: they are all alike."""

    def decide(link: Link, run_id: str, as_json: bool, **facts: Any) -> None:
        with orchestrating(link) as orchestrator:
            run = orchestrator.run(run_id)
            state = getattr(run, name)(**facts)
        say(to_json(state) if as_json else line(state))

    decide.__doc__ = text
    for option in (_run_id, *options, _by, json_option, link_options)[::-1]:
        decide = option(decide)
    runs.command(name)(decide)


_decision("approve", "Approve what waits at a gate.", _comment, _digest)
_decision("reject", "Reject what waits at a gate: the run ends as its plan says.", _comment, _digest)
_decision("pause", "Have nothing new begin until `resume`; what runs goes on.", _reason)
_decision("resume", "Let a paused run go on.")
_decision("cancel", "End a run: nothing new begins, what runs is told. What was done stays.", _reason)
_decision("rollback", "Take back what a run has done, also if it has ended.", _reason)
_decision("retry", "Try again what has failed or was not begun.")


@runs.command()
@json_option
@link_options
def locks(link: Link, as_json: bool) -> None:
    """Print which run has which lock."""
    with orchestrating(link) as orchestrator:
        for name, run_id in sorted(orchestrator.locks().items()):
            say(to_json({"lock": name, "run_id": run_id}) if as_json else f"{name}  {run_id}")


@runs.command()
@click.argument("name", metavar="LOCK")
@link_options
@click.pass_context
def unlock(ctx: click.Context, link: Link, name: str) -> None:
    """Take a lock from the run that has it. Exit code 1 says that none had."""
    with orchestrating(link) as orchestrator:
        if not orchestrator.unlock(name):
            report(f"no run has the lock {name!r}")
            ctx.exit(Exit.FAILED)


@runs.command()
@_reason
@link_options
def freeze(link: Link, reason: str) -> None:
    """Let no wave of any run begin until `thaw`; what has begun, and rollbacks, go on."""
    with orchestrating(link) as orchestrator:
        orchestrator.freeze(reason)


@runs.command()
@link_options
@click.pass_context
def thaw(ctx: click.Context, link: Link) -> None:
    """Let waves begin again. Exit code 1 says that they might all the time."""
    with orchestrating(link) as orchestrator:
        if not orchestrator.thaw():
            report("nothing is frozen")
            ctx.exit(Exit.FAILED)


@runs.command()
@link_options
def work(link: Link) -> None:
    """Carry out runs, beside any number of others, until Ctrl-C or SIGTERM; others go on with what is left."""
    with orchestrating(link, work=True) as orchestrator:
        report(f"carrying out runs as {orchestrator.name}", kind="ready")
        notify("READY=1")
        signals.wait_for_signal()


# ---------------------------------------------------------------------------------------------------------------------


def _file_or_name(text: str) -> Plan | str:
    """Return the plan in a file, or what can only be the name of a stored one."""
    path = Path(text)
    if path.is_file():
        return Plan.load(path)
    if path.suffix in (".yaml", ".yml", ".json") or len(path.parts) > 1:
        raise click.BadParameter(f"there is no file {text!r}")
    return text


def line(state: RunState) -> str:
    """Return a run in one line."""
    words = f"{state.state}" + (f": {state.reason}" if state.reason else "")
    return f"{clock(state.at)}  {state.run_id}  {state.plan}  {state.targets} targets  wave {state.wave + 1}  {words}"


def _warn_if_idle(orchestrator: Orchestrator) -> None:
    """Say so where nobody is there who would carry a run out: it would look as if it hung."""
    with contextlib.suppress(StoreUnavailable, PermissionDenied):
        if not orchestrator.is_worked_on():
            report("nobody carries out runs now: start `lightlink runs work`, on any machine", kind="note")


def _follow(ctx: click.Context, run: PlanRun, as_json: bool, timeout: float | None) -> None:
    is_live = sys.stdout.isatty() and not as_json
    final = _show_live(run, timeout) if is_live else _print_events(run, as_json, timeout)
    if final is None:
        report(f"it has not ended within {timeout:g} s")
        ctx.exit(Exit.TIMEOUT)
    if final != "completed":
        ctx.exit(Exit.FAILED)


def _print_events(run: PlanRun, as_json: bool, timeout: float | None) -> str | None:
    for state in run.follow(timeout):
        say(to_json(state) if as_json else line(state))
        if state.ended:
            return state.state
    return None


def _show_live(run: PlanRun, timeout: float | None) -> str | None:
    """Show a table that changes while the run goes on; its last form stays."""
    deadline = Deadline(timeout)
    with Live(_table(run.refresh(), run.steps()), console=Console(), refresh_per_second=4) as live:
        while True:
            ended = run.wait(_REFRESH_SECONDS)
            with contextlib.suppress(StoreUnavailable):  # it is asked again, as `wait` does
                live.update(_table(run.refresh(), run.steps()))
            if ended is not None or deadline.is_over:
                return ended


def _table(state: RunState, steps: dict[str, dict[str, int]]) -> Group:
    table = Table()
    names = [name for name in _SHOWN if any(name in counts for counts in steps.values())] or [_OPEN]
    table.add_column("step")
    for name in names:
        table.add_column(name.replace("_", " "), justify="right")
    for step, counts in steps.items():
        table.add_row(Text(visible(step)), *(str(counts.get(name, "")) for name in names))
    reason = [Text(visible(state.reason))] if state.reason else []
    title = visible(f"{state.plan}  {state.run_id}  wave {state.wave + 1}  {state.state}")
    return Group(Text(title), table, *reason)
