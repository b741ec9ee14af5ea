"""``lightlink schedule``: run plans by the clock."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from lightlink.cli.command import clock
from lightlink.cli.runs import orchestrating, params_argument, plan_argument
from lightlink.cli.terminal.exits import Exit, report
from lightlink.cli.terminal.options import json_option, link_options, to_json
from lightlink.cli.terminal.printing import say
from lightlink.runs import Window
from lightlink.runs.model.times import next_time

if TYPE_CHECKING:
    from lightlink.cli.terminal.options import Link
    from lightlink.runs import Plan


@click.group()
def schedule() -> None:
    r"""Have plans run by the clock, once for each time however many orchestrators there are.

    \b
        lightlink schedule add nightly rollout.yaml '{"version": "4"}' --cron "30 2 * * *" --tz Europe/Berlin
    """


@schedule.command()
@click.argument("name")
@plan_argument
@params_argument
@click.option("--cron", required=True, metavar="FIELDS", help='Five fields, as "30 2 * * *".')
@click.option("--tz", default="UTC", show_default=True, metavar="ZONE", help="Their time zone.")
@click.option(
    "--overlap", type=click.Choice(["skip", "allow"]), default="skip", show_default=True, help="While one runs."
)
@click.option(
    "--missed",
    type=click.Choice(["skip", "run"]),
    default="skip",
    show_default=True,
    help="When the service was unavailable.",
)
@click.option(
    "--window",
    "opens",
    metavar="TIME",
    help='Let waves of its runs begin only for --hours from then, whatever the plan says: "Sat 22:00", or five fields.',
)
@click.option("--hours", type=float, metavar="NUMBER", help="How long the window is open.")
@link_options
def add(
    link: Link,
    name: str,
    plan: Plan | str,
    params: dict[str, Any],
    opens: str | None,
    hours: float | None,
    **options: Any,
) -> None:
    """Have a plan run at each of some times. One of the same name is replaced."""
    if (opens is None) != (hours is None):
        raise click.UsageError("--window and --hours go together: when it opens, and for how long")
    if opens is not None and hours is not None:
        options["window"] = Window(opens, hours, options["tz"])
    with orchestrating(link) as orchestrator:
        made = orchestrator.schedule(name, plan, params, **options)
        say(f"{name}: next at {clock(next_time(made.cron, made.tz, orchestrator.now()))}")


@schedule.command("list")
@json_option
@link_options
def list_(link: Link, as_json: bool) -> None:
    """Print schedules: the next time, and what came of the last."""
    with orchestrating(link) as orchestrator:
        for each in orchestrator.schedules():
            following = next_time(each.cron, each.tz, orchestrator.now())
            if as_json:
                say(to_json({"schedule": each, "next": following}))
                continue
            last = f"  last {clock(each.last)}: {each.error or each.run_id}" if each.last else ""
            say(f"{each.name}  {each.plan.name}  {each.cron} {each.tz}  next {clock(following)}{last}")


@schedule.command()
@click.argument("name")
@link_options
@click.pass_context
def remove(ctx: click.Context, link: Link, name: str) -> None:
    """Remove a schedule; runs that it has started go on. Exit code 1 says that there is none."""
    with orchestrating(link) as orchestrator:
        if not orchestrator.unschedule(name):
            report(f"there is no schedule {name!r}")
            ctx.exit(Exit.FAILED)
