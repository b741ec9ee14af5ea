"""``lightlink agent`` and ``lightlink clients``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from lightlink.cli.command import labels, managing
from lightlink.cli.options import SECONDS, json_option, link_options, to_json
from lightlink.cli.printing import say
from lightlink.cli.serving import load, point, serve, wait_option
from lightlink.commands import Agent

if TYPE_CHECKING:
    from lightlink.cli.options import Link


@click.group()
def agent() -> None:
    """Run commands that are sent to this machine."""


@agent.command()
@click.argument("target", metavar="MODULE[:AGENT]")
@click.option("--drain-timeout", type=SECONDS, default=10.0, show_default=True, help="Seconds to finish what runs.")
@wait_option
@link_options
def run(link: Link, target: str, drain_timeout: float, wait: float | None) -> None:
    """Run the Agent that a module defines.

    Until Ctrl-C or SIGTERM; then it finishes what runs, hands back what waits, and stops. MODULE is looked for in the
    current folder first; the agent is called "agent" unless named:

        lightlink agent run plant.pump:agent

    The options for the connection win over those in the code.
    """
    found = load(target, Agent, "agent")
    point(found, link, wait)
    # Like its `run`, for as long as it takes.
    serve(found, f"agent {found.client_id} takes commands", drain_timeout, lambda: found.start(timeout=None))


@click.command()
@click.option("--label", "label", multiple=True, metavar="NAME=VALUE", callback=labels, help="Only those with it.")
@json_option
@link_options
def clients(link: Link, label: dict[str, str], as_json: bool) -> None:
    """Print which agents are online."""
    with managing(link) as manager:
        found = manager.clients(label)
    for each in found:
        if as_json:
            say(to_json(each))
            continue
        marks = " ".join(f"{name}={value}" for name, value in sorted(each.labels.items()))
        load = f"{each.in_flight} running, {each.queued} waiting"
        say(f"{each.client_id}  since {each.connected_at[:19]}Z  from {each.remote_addr}  {load}  {marks}".rstrip())
