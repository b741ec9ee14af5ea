"""The group that holds every subcommand."""

from __future__ import annotations

import importlib.metadata
import platform

import click

from lightlink.cli.demo.command import demo
from lightlink.cli.link import call, pub, sub
from lightlink.cli.run import run
from lightlink.cli.server import server

# In the order of the help. A new command or group needs one line here.
COMMANDS: tuple[click.Command, ...] = (
    demo,
    server,
    run,
    call,
    pub,
    sub,
)


class _InOrder(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(self.commands)


def _versions() -> str:
    packages = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("nats-py", "anyio", "msgspec"))
    return f"lightlink {importlib.metadata.version('lightlink')} (Python {platform.python_version()}, {packages})"


@click.group(
    cls=_InOrder,
    commands={command.name or "": command for command in COMMANDS},
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="Exit codes: 0 done, 1 an error, 2 bad command line, 3 could not connect, 4 no answer in time, "
    "5 nobody serves it or it is busy, 130 Ctrl-C.",
)
@click.version_option(message="%(version)s", version=_versions())
def cli() -> None:
    """NATS for plain blocking Python: RPC, events and services."""
