"""``lightlink http``: commands over HTTP."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lightlink.cli.terminal.options import json_option, link_options, to_json
from lightlink.cli.terminal.printing import say
from lightlink.runs import Orchestrator

if TYPE_CHECKING:
    from lightlink.cli.terminal.options import Link

_READABLE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command()
@click.option(
    "--listen", default="127.0.0.1:8475", show_default=True, metavar="HOST:PORT", help="Port 0: any free one."
)
@click.option("--tokens", type=_READABLE, help="JSON file with the bearer tokens; read again when it changes.")
@click.option(
    "--max-waiting", type=click.IntRange(1), default=240, show_default=True, help="Waiting requests at a time."
)
@click.option("--console/--no-console", default=True, show_default=True, help="The web console at /.")
@json_option
@link_options
def http(link: Link, listen: str, tokens: Path | None, max_waiting: int, console: bool, as_json: bool) -> None:
    """Serve commands over HTTP until Ctrl-C or SIGTERM: for browsers, curl and scripts.

    Without --tokens only this machine is answered. Everything is kept in NATS: any number of these may run side by
    side, and one that is started again knows what the one before did.
    """
    try:
        # First the one whose error names the extra, which brings all of them.
        from lightlink.http import Limits, create_app, serve  # noqa: PLC0415 - its packages may be missing
        from lightlink.metrics import register  # noqa: PLC0415
    except ModuleNotFoundError as exc:
        raise click.ClickException(str(exc)) from exc
    # Does nothing when logging has been set up.
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    # It has a line for each client that hangs up, which is how a stream ends.
    logging.getLogger("waitress").setLevel(logging.WARNING)

    def announce(url: str) -> None:
        if as_json:
            say(to_json({"url": url, "pid": os.getpid(), "tokens": tokens is not None}))
            return
        who = "" if tokens else "; no tokens are configured, so only this machine is answered"
        say(f"listening on {url} (process {os.getpid()}{who}); Ctrl-C stops it")

    with link.connect() as client, Orchestrator(client, name="http") as manager:
        app = create_app(manager, tokens=tokens, limits=Limits(max_waiting=max_waiting), console=console)
        register(client, app.metrics.registry)
        serve(app, listen, announce)
