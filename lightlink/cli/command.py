"""``lightlink command``: send commands to agents, follow them, look at them."""

from __future__ import annotations

import contextlib
import getpass
from typing import TYPE_CHECKING, Any

import click

from lightlink.cli.terminal.exits import Exit, report
from lightlink.cli.terminal.following import count_option, give_up_option
from lightlink.cli.terminal.options import SECONDS, json_bytes, json_option, link_options, print_data, to_json
from lightlink.cli.terminal.printing import say
from lightlink.commands import CommandManager
from lightlink.commands.model import STATUSES
from lightlink.commands.store.changes import Changes
from lightlink.concurrency.deadline import Deadline

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from lightlink.cli.terminal.options import Link
    from lightlink.commands import Command
    from lightlink.commands.manager.promise import CommandPromise

_timeout = click.option(
    "--timeout", type=SECONDS, default=30.0, show_default=True, metavar="SECONDS", help="When the command expires."
)
_priority = click.option("--priority", type=int, default=0, help="Waiting commands with a higher priority run first.")
_no_wait = click.option("--no-wait", is_flag=True, help="Print the id and end, once the command is stored.")
_TIME = click.DateTime(["%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M:%S", "%Y-%m-%d"])


@contextlib.contextmanager
def managing(link: Link, *, with_runs: bool = False) -> Iterator[CommandManager]:
    """Manage commands in the user's name. The long-running managers write down what is overdue."""
    settings: dict[str, Any] = {"name": f"cli:{user()}", "sweep_interval": None}
    with link.connect() as client:
        if with_runs:
            from lightlink.runs import Orchestrator  # noqa: PLC0415 - it takes longer to import

            manager: CommandManager = Orchestrator(client, work=False, **settings)
        else:
            manager = CommandManager(client, **settings)
        with manager:
            yield manager


def labels(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    """Return labels from ``name=value``; a usage error for one that is not."""
    found = {}
    for value in values:
        name, separator, text = value.partition("=")
        if not name or not separator:
            raise click.BadParameter(f"{value!r} is not NAME=VALUE", ctx, param)
        found[name] = text
    return found


@click.group("command")
def command() -> None:
    """Send commands to agents, which may be offline, and follow them.

    \b
        lightlink command send client-001 restart '{"delay_seconds": 5}'
        lightlink command batch restart --label site=berlin --max-concurrency 5
        lightlink command list --status failed
    """  # noqa: D301 - \b is click's mark for lines to be left as they are


@command.command()
@click.argument("client_id")
@click.argument("command_type", metavar="TYPE")
@click.argument("payload", metavar="[JSON]", default="null")
@_timeout
@_priority
@click.option("--key", metavar="TEXT", help="Sending again with the same key returns the first command.")
@click.option("--online", is_flag=True, help="Only if the agent is online; else end with exit code 5.")
@_no_wait
@json_option
@link_options
def send(
    link: Link,
    client_id: str,
    command_type: str,
    payload: str,
    timeout: float,
    priority: int,
    key: str | None,
    online: bool,
    no_wait: bool,
    as_json: bool,
) -> None:
    """Send a command to an agent and print its result.

    JSON is the payload, an object with the arguments by name; "-" reads it from standard input. Exit code 1 says that
    the command failed, 4 that it timed out. Ctrl-C ends the waiting, not the command.
    """
    body = read_payload(payload)
    with managing(link) as manager:
        promise = manager.send(
            client_id,
            command_type,
            body,
            timeout=timeout,
            priority=priority,
            idempotency_key=key,
            queue=not online,
        )
        if no_wait:
            say(to_json({"command_id": promise.command_id}) if as_json else promise.command_id)
            return
        report(promise.command_id, kind="sent")
        print_data(promise.result(), as_json=as_json)


@command.command()
@click.argument("command_id", metavar="ID")
@click.option("--wait", type=SECONDS, metavar="SECONDS", help="Wait this long for its end first.")
@json_option
@link_options
def get(link: Link, command_id: str, wait: float | None, as_json: bool) -> None:
    """Print a command as it stands."""
    with managing(link) as manager:
        if wait is not None:
            manager.promise(command_id).wait(wait)
        print_data(manager.get(command_id), as_json=as_json)


@command.command("list")
@click.option("--client", "client_id", metavar="ID", help="Of one agent.")
@click.option("--status", type=click.Choice(STATUSES), help="With this status.")
@click.option("--type", "command_type", metavar="TYPE", help="Of this type.")
@click.option("--batch", "batch_id", metavar="ID", help="Of this batch.")
@click.option("--since", type=_TIME, metavar="TIME", help="Sent since then, by local time: 2026-01-31T09:30:00.")
@click.option("--until", type=_TIME, metavar="TIME", help="Sent until then.")
@click.option("--limit", type=click.IntRange(1, 1000), default=20, show_default=True, help="At most so many.")
@click.option("--after", metavar="PLACE", help="Continue after this page.")
@json_option
@link_options
def list_(
    link: Link, since: datetime | None, until: datetime | None, limit: int, as_json: bool, **filters: Any
) -> None:
    """Print stored commands, newest first."""
    with managing(link) as manager:
        page = manager.list(since=_aware(since), until=_aware(until), limit=limit, **filters)
    for each in page:
        say(to_json(each) if as_json else line(each))
    if page.next is not None:
        report(f"--after={page.next}", kind="more")


@command.command()
@click.argument("command_id", metavar="[ID]", required=False)
@click.option("--client", "client_id", metavar="ID", help="Of one agent.")
@count_option("changes")
@give_up_option
@json_option
@link_options
@click.pass_context
def watch(
    ctx: click.Context,
    link: Link,
    command_id: str | None,
    client_id: str | None,
    count: int | None,
    timeout: float | None,
    as_json: bool,
) -> None:
    """Print each change of the command ID until it ends, or of all commands until Ctrl-C."""
    deadline = Deadline(timeout)
    shown = 0
    with managing(link) as manager:
        if command_id is not None and client_id is not None:
            raise click.UsageError("an ID and --client exclude each other", ctx)
        for each in _changes(manager, command_id, client_id, deadline):
            say(to_json(each) if as_json else line(each))
            shown += 1
            if shown == count or (command_id is not None and each.ended):
                return
    report(f"{shown} changes within {timeout:g} s")
    ctx.exit(Exit.TIMEOUT)


@command.command()
@click.argument("command_id", metavar="ID")
@click.option("--reason", default="", metavar="TEXT", help="The reason; it is stored with the command.")
@json_option
@link_options
def cancel(link: Link, command_id: str, reason: str, as_json: bool) -> None:
    """Cancel a command: a pending one ends, one that runs is told."""
    with managing(link) as manager:
        cancelled = manager.cancel(command_id, reason)
    say(to_json(cancelled) if as_json else line(cancelled))


@command.command()
@click.argument("command_id", metavar="ID")
@_timeout
@_no_wait
@json_option
@link_options
def undo(link: Link, command_id: str, timeout: float, no_wait: bool, as_json: bool) -> None:
    """Take a completed command back, by what its agent said takes it back; once, and not past a later one."""
    with managing(link) as manager:
        promise = manager.undo(command_id, timeout=timeout)
        if no_wait:
            say(to_json({"command_id": promise.command_id}) if as_json else promise.command_id)
            return
        report(promise.command_id, kind="sent")
        print_data(promise.result(), as_json=as_json)


@command.command()
@click.argument("command_type", metavar="TYPE")
@click.argument("payload", metavar="[JSON]", default="null")
@click.option("--to", "client_ids", multiple=True, metavar="ID", help="To this agent; more than once.")
@click.option(
    "--label",
    "label",
    multiple=True,
    metavar="NAME=VALUE",
    callback=labels,
    help="To agents that are online and have this label.",
)
@click.option("--offline", is_flag=True, help="With --label: also to those that are not online now.")
@_timeout
@_priority
@click.option("--max-concurrency", type=click.IntRange(min=1), help="So many at a time.")
@click.option("--max-failures", type=click.IntRange(min=0), help="Stop sending after more failures than this.")
@json_option
@link_options
@click.pass_context
def batch(
    ctx: click.Context,
    /,
    link: Link,
    command_type: str,
    payload: str,
    client_ids: tuple[str, ...],
    label: dict[str, str],
    as_json: bool,
    **settings: Any,
) -> None:
    """Send a command to many agents and print how each ended, as they end.

    Exit code 1 says that one did not complete, or was not sent. Ctrl-C ends the waiting, not the commands that are
    sent; those that --max-concurrency holds back are not sent then.
    """
    if bool(client_ids) == bool(label):
        raise click.UsageError("give either --to or --label", ctx)
    body = read_payload(payload)
    with managing(link) as manager:
        sent = manager.send_many(client_ids or None, command_type, body, labels=label or None, **settings)
        report(sent.batch_id, kind="batch")
        for each in sent:
            say(to_json(each) if as_json else line(each))
        counts = {status: count for status, count in sent.counts().items() if count}
    report(", ".join(f"{count} {status}" for status, count in counts.items()) or "nobody to send to", kind="ended")
    if set(counts) != {"completed"}:
        ctx.exit(Exit.FAILED)


@command.command()
@click.option(
    "--older-than", type=click.FloatRange(min=0, min_open=True), default=86_400.0, show_default=True, metavar="SECONDS"
)
@json_option
@link_options
def prune(older_than: float, as_json: bool, link: Link) -> None:
    """Free room in the streams of commands: for an administrator.

    Commands asked for longer ago are removed, ended or not, and the earlier revisions of what stays. The audit stays.
    """
    with link.connect() as client, CommandManager(client, sweep_interval=None) as manager:
        removed = manager.prune(older_than)
    say(to_json({"removed": removed}) if as_json else f"{removed} stored messages removed")


@command.command()
@click.argument("command_id", metavar="[ID]", required=False)
@click.option("--since", type=_TIME, metavar="TIME", help="Since then, by local time: 2026-01-31T09:30:00.")
@json_option
@link_options
@click.pass_context
def audit(ctx: click.Context, link: Link, command_id: str | None, since: datetime | None, as_json: bool) -> None:
    """Print everything that happened to the command ID, or to all: when, what, and by whom.

    What has just happened may take a moment to appear. Exit code 1 says that nothing is kept of the command ID.
    """
    empty = True
    with managing(link, with_runs=True) as manager:
        for entry in manager.audit(command_id, _aware(since)):
            empty = False
            if as_json:
                say(to_json(entry))
                continue
            if entry.kind == "run":
                why = f": {entry.reason}" if entry.reason else ""
                by = f"  by {entry.by}" if entry.by else ""
                say(f"{clock(entry.at)}  {entry.command_type}  {entry.run_id}  {entry.event}, {entry.status}{why}{by}")
                continue
            what = entry.command_type if entry.kind == "request" else _words(entry.status, entry.status_detail)
            say(f"{clock(entry.at)}  {entry.client_id}  {entry.command_id}  {entry.kind}  {what}  by {entry.by}")
    if empty and command_id is not None:
        report(f"the audit holds nothing of {command_id}")
        ctx.exit(Exit.FAILED)


# ---------------------------------------------------------------------------------------------------------------------


def line(command: Command) -> str:
    """Return a command in one line."""
    words = _words(command.status, command.status_detail)
    if not command.ended and command.progress is not None:
        words += f" {command.progress.fraction:.0%} {command.progress.note}".rstrip()
    tail = f"  {to_json(command.result)}" if command.status == "completed" else f"  {command.error}"
    identity = f"{command.client_id}  {command.command_type}  {command.command_id}"
    return f"{clock(command.created_at)}  {identity}  {words}{tail if command.ended else ''}"


def _changes(
    manager: CommandManager, command_id: str | None, client_id: str | None, deadline: Deadline
) -> Iterator[Command]:
    if command_id is None:
        yield from _all_changes(manager, client_id, deadline)
    else:
        yield from _changes_of(manager.promise(command_id), deadline)


def _all_changes(manager: CommandManager, client_id: str | None, deadline: Deadline) -> Iterator[Command]:
    with contextlib.closing(Changes(manager.store, client_id)) as changes:
        report(client_id or "all commands", kind="watching")
        while (left := deadline.remaining()) > 0:
            change = changes.get(min(left, 3600.0))
            if change is not None:
                yield change.command


def _changes_of(promise: CommandPromise, deadline: Deadline) -> Iterator[Command]:
    """Yield a command each time it has changed, and at its end."""
    before: Any = None
    while (left := deadline.remaining()) > 0:
        ended = promise.wait(min(left, 0.1) if before is not None else 0)
        command = ended or promise.command()
        seen = (command.status, command.attempt, command.cancel_requested, command.progress)
        if seen != before:
            yield command
        if ended is not None:
            return
        before = seen


def read_payload(text: str) -> Any:
    import msgspec  # noqa: PLC0415 - the payload goes as it was written

    return msgspec.Raw(json_bytes(click.get_current_context(), None, text))


def _aware(instant: datetime | None) -> datetime | None:
    return None if instant is None else local(instant)


def local(instant: datetime) -> datetime:
    """Return an instant that was given by local time; a usage error for the first or the last day of the calendar."""
    try:
        return instant.astimezone()
    except (ValueError, OverflowError):
        raise click.BadParameter(f"{instant} is out of range", click.get_current_context()) from None


def clock(instant: datetime) -> str:
    """Return an instant by local time."""
    with contextlib.suppress(ValueError, OverflowError):  # a peer may write the calendar's first instant
        instant = instant.astimezone()
    return instant.strftime("%Y-%m-%d %H:%M:%S")


def _words(status: str, detail: str) -> str:
    return f"{status} ({detail})" if detail else status


def user() -> str:
    """Return the name of the user that runs this process."""
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):  # there is no such user, as in a container
        return "unknown"
