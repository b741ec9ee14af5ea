"""``lightlink run``: serve what a module defines."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

import lightlink
from lightlink.cli.processes import children
from lightlink.cli.processes.serving import load, point, serve, wait_option
from lightlink.cli.terminal.options import SECONDS, link_options

if TYPE_CHECKING:
    from lightlink.cli.terminal.options import Link


@click.command()
@click.argument("target", metavar="MODULE[:SERVICE]")
@click.option("--reload", is_flag=True, help="Restart when a Python file in the current folder changes.")
@click.option(
    "--drain-timeout",
    type=SECONDS,
    default=10.0,
    show_default=True,
    help="Seconds to finish the requests that are held.",
)
@click.option("--child-of", type=int, hidden=True)
@wait_option
@link_options
def run(link: Link, target: str, reload: bool, drain_timeout: float, child_of: int | None, wait: float | None) -> None:
    """Serve what a module defines.

    Until Ctrl-C or SIGTERM; then it finishes what it holds, and stops. MODULE is looked for in the current folder
    first; the service is called "service" unless named:

        lightlink run shop.prices:service --reload

    The options for the connection win over those in the code.
    """
    if child_of is not None:
        children.die_with(child_of)
        # Bytecode is known by the second and the size of its source: a change within both would not be seen.
        sys.dont_write_bytecode = True
    if reload:
        from lightlink.cli.processes.reload import supervise  # noqa: PLC0415 - only this needs to watch files

        waits = [] if wait is None else [f"--wait={wait}"]
        arguments = [target, f"--drain-timeout={drain_timeout}", *waits, *link.arguments()]
        supervise(arguments, Path.cwd(), drain_timeout + 5)
        return
    service = load(target, lightlink.Service, "service")
    point(service, link, wait)
    serve(service, f"serving {service.name}", drain_timeout)
