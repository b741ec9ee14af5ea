"""``lightlink service``: have systemd run what a module defines."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import click

import lightlink
from lightlink.cli.processes import systemd
from lightlink.cli.processes.serving import load
from lightlink.cli.terminal.printing import say
from lightlink.contrib.systemd import unit


@click.group()
def service() -> None:
    """Have systemd run services."""


_FILE = click.Path(exists=True, dir_okay=False, path_type=Path, resolve_path=True)
_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path, resolve_path=True)
_user = click.option("--user", is_flag=True, help="A unit of this user, not of the system.")


@service.command()
@click.argument("target", metavar="MODULE[:SERVICE]")
@click.option("--environment", "-e", type=_FILE, help="File with lines such as LIGHTLINK_URL=..., which may be secret.")
@click.option("--writable", type=_FOLDER, help="The one folder that it may write to; default: none.")
@_user
@click.option("--print", "only_print", is_flag=True, help="Print the unit, and do nothing.")
def install(target: str, environment: Path | None, writable: Path | None, user: bool, only_print: bool) -> None:
    """Have systemd run the Service of a module on this machine: now, and at each boot.

    MODULE is looked for in the current folder, and imported to see that it is there. The unit is hardened; it is told
    when the service is ready, and starts it again when it hangs.
    """
    found = load(target, lightlink.Service, "service")
    command = [sys.executable, "-m", "lightlink.cli", "run", target]
    description = f"LightLink service {found.name}"
    text = unit(description, command, Path.cwd(), writable, environment_file=environment, user=user)
    if only_print:
        click.echo(text, nl=False)
        return
    say(f"runs as {systemd.install(_unit_name(target), text, user=user)}")


@service.command()
@click.argument("target", metavar="MODULE[:SERVICE]")
@_user
def uninstall(target: str, user: bool) -> None:
    """Have systemd run the Service of a module no more."""
    say(f"removed {systemd.uninstall(_unit_name(target), user=user)}")


def _unit_name(target: str) -> str:
    """Return a unit's name that says what it runs; a module may be gone by the time that its unit is removed."""
    return "lightlink-" + re.sub(r"[^\w.-]", "-", target)
