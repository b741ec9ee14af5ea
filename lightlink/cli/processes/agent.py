"""``lightlink agent`` and ``lightlink clients``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from lightlink.cli.command import labels, managing
from lightlink.cli.processes import systemd
from lightlink.cli.processes.serving import load, point, serve, wait_option
from lightlink.cli.terminal.options import SECONDS, json_option, link_options, to_json
from lightlink.cli.terminal.printing import say
from lightlink.commands import Agent
from lightlink.contrib.systemd import unit

if TYPE_CHECKING:
    from lightlink.cli.terminal.options import Link
    from lightlink.fleet import AgentFiles

_FOLDER = click.Path(file_okay=False, path_type=Path)


@click.group()
def agent() -> None:
    """Run commands that are sent to this machine."""


@agent.command()
@click.argument("target", metavar="MODULE[:AGENT]")
@click.option(
    "--drain-timeout", type=SECONDS, default=10.0, show_default=True, help="Seconds to finish the commands that run."
)
@click.option("--enrolled", type=_FOLDER, metavar="DIR", help="Connect with what `agent enroll` has written there.")
@click.option("--label", "label", multiple=True, metavar="NAME=VALUE", callback=labels, help="A label beside its own.")
@wait_option
@link_options
def run(
    link: Link,
    target: str,
    drain_timeout: float,
    enrolled: Path | None,
    label: dict[str, str],
    wait: float | None,
) -> None:
    """Run the Agent that a module defines.

    Until Ctrl-C or SIGTERM; then it finishes what runs, hands back what waits, and stops. MODULE is looked for in the
    current folder first; the agent is called "agent" unless named:

        lightlink agent run plant.pump:agent

    The options for the connection win over those in the code. With --enrolled the certificate is renewed by itself.
    """
    found = load(target, Agent, "agent")
    files = None if enrolled is None else _use_enrolled(found, enrolled)
    found.labels = {**found.labels, **label}
    point(found, link, wait)

    def start() -> None:
        # Like its `run`, for as long as it takes.
        found.start(timeout=None)
        if files is not None:
            from lightlink.fleet import keep_renewed  # noqa: PLC0415 - cryptography takes long to import

            keep_renewed(found.client, files)

    serve(found, f"agent {found.client_id} takes commands", drain_timeout, start)


def _use_enrolled(found: Agent, folder: Path) -> AgentFiles:
    """Have an agent connect as the machine was enrolled."""
    files = _files_in(folder)
    if files.name != found.client_id:
        raise click.UsageError(f"the agent is {found.client_id!r}, and this machine was enrolled as {files.name!r}")
    found.use(files.urls, tls=files.tls)
    found.labels = {**found.labels, **files.labels}
    return files


@agent.command("enroll")
@click.argument("token", envvar="LIGHTLINK_TOKEN")
@click.option("--dir", "directory", type=_FOLDER, default="agent", show_default=True, help="Where its files go.")
@click.option("--timeout", type=SECONDS, help="Seconds to wait until somebody accepts; default: as long as it takes.")
@click.option("--force", is_flag=True, help="Replace the files of an earlier enrolment.")
@click.option("--install", "target", metavar="MODULE", help="Then do what `agent install MODULE` does.")
@click.option("--user", is_flag=True, help="With --install: a unit of this user, not of the system.")
@click.pass_context
def enroll_(
    ctx: click.Context,
    token: str,
    directory: Path,
    timeout: float | None,
    force: bool,
    target: str | None,
    user: bool,
) -> None:
    """Enroll this machine with a TOKEN from `lightlink fleet token` (or in LIGHTLINK_TOKEN).

    It makes a key of its own, has it signed, and writes its files into a folder that is private to this user.
    """

    def show(fingerprint: str) -> None:
        say(f"waiting until somebody accepts {fingerprint}")

    from lightlink.fleet import enroll  # noqa: PLC0415 - cryptography takes long to import

    files = enroll(token, directory, timeout=timeout, on_pending=show, force=force)
    say(f"enrolled as {files.name}; an agent's next: lightlink agent run MODULE --enrolled {directory}")
    if target is not None:
        ctx.invoke(install, target=target, enrolled=directory, user=user, only_print=False)


_user = click.option("--user", is_flag=True, help="A unit of this user, not of the system.")


@agent.command()
@click.argument("target", metavar="MODULE[:AGENT]")
@click.option("--enrolled", type=_FOLDER, default="agent", show_default=True, metavar="DIR", help="As for `agent run`.")
@_user
@click.option("--print", "only_print", is_flag=True, help="Print the unit, and do nothing.")
def install(target: str, enrolled: Path, user: bool, only_print: bool) -> None:
    """Have systemd run the Agent of a module on this machine, which was enrolled: now, and at each boot.

    MODULE is looked for in the current folder. The unit is hardened; it is told when the agent is ready, and starts it
    again when it hangs.
    """
    files = _files_in(enrolled)
    command = [sys.executable, "-m", "lightlink.cli", "agent", "run", target, f"--enrolled={files.directory}"]
    text = unit(f"LightLink agent {files.name}", command, Path.cwd(), files.directory, user=user)
    if only_print:
        click.echo(text, nl=False)
        return
    say(f"runs as {systemd.install(_unit_name(files), text, user=user)}")


@agent.command()
@click.option("--enrolled", type=_FOLDER, default="agent", show_default=True, metavar="DIR", help="As for `agent run`.")
@_user
def uninstall(enrolled: Path, user: bool) -> None:
    """Have systemd run the agent of this machine no more. Its files stay."""
    say(f"removed {systemd.uninstall(_unit_name(_files_in(enrolled)), user=user)}")


def _files_in(folder: Path) -> AgentFiles:
    from lightlink.fleet import AgentFiles  # noqa: PLC0415 - cryptography takes long to import

    return AgentFiles.load(folder)


def _unit_name(files: AgentFiles) -> str:
    return f"lightlink-agent-{files.name}"


@click.command()
@click.option("--label", "label", multiple=True, metavar="NAME=VALUE", callback=labels, help="Only those with it.")
@click.option("--online/--offline", "online", default=None, help="Only those that are online, or are not.")
@json_option
@link_options
def agents(link: Link, label: dict[str, str], online: bool | None, as_json: bool) -> None:
    """Print every agent that was ever seen, online or not."""
    with managing(link) as manager:
        found = manager.agents(label, online=online)
    for each in found:
        if as_json:
            say(to_json({**msgspec.to_builtins(each), "labels": each.labels, "online": each.online}))
            continue
        seen = "online" if each.online else f"last seen {each.last_seen[:19]}Z"
        marks = " ".join(f"{name}={value}" for name, value in sorted(each.labels.items()))
        say(f"{each.client_id}  {seen}  {each.version}  {each.platform}  {marks}".rstrip())


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
