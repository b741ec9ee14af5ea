"""From exceptions to one line on stderr and an exit code; the codes are listed in `lightlink.cli`."""

from __future__ import annotations

import enum
import sys
from typing import TYPE_CHECKING

import click

from lightlink.cli.terminal.printing import say
from lightlink.concurrency import signals
from lightlink.errors import (
    AgentOffline,
    ConnectError,
    DeadlineExceeded,
    InvalidName,
    InvalidOption,
    LightLinkError,
    ServiceBusy,
    ServiceUnavailable,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


class Exit(enum.IntEnum):
    """How the command ended."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    NOT_CONNECTED = 3
    TIMEOUT = 4
    NOT_NOW = 5
    INTERRUPTED = 130


# The first that fits counts.
_CODES: tuple[tuple[tuple[type[Exception], ...], Exit], ...] = (
    ((ConnectError,), Exit.NOT_CONNECTED),
    ((ServiceUnavailable, ServiceBusy, DeadlineExceeded, AgentOffline), Exit.NOT_NOW),
    ((InvalidName, InvalidOption), Exit.USAGE),
    ((TimeoutError,), Exit.TIMEOUT),
)


def exit_code(error: Exception) -> Exit:
    """Return the exit code that an error stands for."""
    return next((code for kinds, code in _CODES if isinstance(error, kinds)), Exit.FAILED)


def run(command: click.Command, args: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code, having said what went wrong on stderr."""
    signals.end_on_sigterm()
    try:
        result = command.main(args, prog_name="lightlink", standalone_mode=False)
    except click.Abort:
        return Exit.INTERRUPTED
    except click.UsageError as exc:
        return _usage(exc)
    except click.ClickException as exc:
        report(exc.format_message())
        return exc.exit_code
    except LightLinkError as exc:
        report(str(exc))
        return exit_code(exc)
    except OSError as exc:
        if exc.filename is None:
            raise  # not about a file that the user named
        report(f"{exc.filename}: {exc.strerror}")
        return Exit.FAILED
    # click returns the code of ctx.exit(), and otherwise what the command returned.
    return result if isinstance(result, int) else Exit.DONE


def report(problem: str, kind: str = "error") -> None:
    """Say what went wrong in one line on stderr."""
    say(f"{kind}: {' '.join(problem.split())}", err=True)


def remove(ctx: click.Context, kind: str, name: str, holds: str, destroy: Callable[[], bool], *, yes: bool) -> None:
    """Remove something with all that it ``holds``, once that is confirmed, or ``yes``; exit code 1 if there is none."""
    if not yes:
        click.confirm(f"Remove the {kind} {name} with all its {holds}?", abort=True)
    if not destroy():
        report(f"there is no {kind} {name!r}")
        ctx.exit(Exit.FAILED)


def _usage(error: click.UsageError) -> int:
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        error.show(sys.stderr)
        return Exit.USAGE
    where = f" (see {error.ctx.command_path} --help)" if error.ctx else ""
    report(f"{error.format_message().rstrip('.')}{where}")
    return Exit.USAGE
