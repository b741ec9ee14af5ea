"""The group that holds every subcommand."""

from __future__ import annotations

import importlib
import importlib.metadata
import platform

import click

from lightlink.cli.terminal.printing import say
from lightlink.version import __version__

# Where each command or group is, in the order of the help. A new one needs one line here. They are imported when they
# are used: `lightlink call` need not wait for what `lightlink certs` takes along.
COMMANDS = {
    "demo": "lightlink.cli.demo.command:demo",
    "server": "lightlink.cli.processes.server:server",
    "run": "lightlink.cli.processes.run:run",
    "service": "lightlink.cli.processes.service:service",
    "services": "lightlink.cli.services:services",
    "doctor": "lightlink.cli.doctor:doctor",
    "stub": "lightlink.cli.stub:stub",
    "openapi": "lightlink.cli.stub:openapi",
    "conformance": "lightlink.cli.conformance:conformance",
    "call": "lightlink.cli.link:call",
    "pub": "lightlink.cli.link:pub",
    "sub": "lightlink.cli.link:sub",
    "state": "lightlink.cli.state:state",
    "file": "lightlink.cli.file:file",
    "stream": "lightlink.cli.stream:stream",
    "consumer": "lightlink.cli.stream:consumer",
    "dead": "lightlink.cli.stream:dead",
    "command": "lightlink.cli.command:command",
    "message": "lightlink.cli.message:message",
    "broadcast": "lightlink.cli.message:broadcast",
    "plan": "lightlink.cli.runs:plan",
    "runs": "lightlink.cli.runs:runs",
    "schedule": "lightlink.cli.schedule:schedule",
    "agent": "lightlink.cli.processes.agent:agent",
    "agents": "lightlink.cli.processes.agent:agents",
    "clients": "lightlink.cli.processes.agent:clients",
    "http": "lightlink.cli.processes.http:http",
    "gateway": "lightlink.cli.processes.gateway:gateway",
    "certs": "lightlink.cli.certs:certs",
    "fleet": "lightlink.cli.fleet:fleet",
}


class _Commands(click.Group):
    """A group that imports a command when it is asked for it."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name].partition(":")
        command: click.Command = getattr(importlib.import_module(module), name)
        return command


def _show_version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if not wanted:
        return
    packages = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("nats-py", "msgspec"))
    say(f"lightlink {__version__} (Python {platform.python_version()}, {packages})")
    ctx.exit()


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="Exit codes: 0 done, 1 an error, 2 bad command line, 3 could not connect, 4 no answer in time, "
    "5 nobody is there or it is busy, 130 Ctrl-C.",
)
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_show_version, help="Show the version."
)
def cli() -> None:
    """NATS for plain blocking Python: RPC, events, state, files and commands."""
