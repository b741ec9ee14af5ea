"""Follow what comes in until so much has come, a time is over, or Ctrl-C."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import click

from lightlink.cli.terminal.options import SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable

    from lightlink.concurrency.deadline import Deadline
    from lightlink.events.receiver import Receiver

T = TypeVar("T")
F = TypeVar("F", bound="Callable[..., None]")

give_up_option = click.option(
    "--timeout", type=SECONDS, metavar="SECONDS", help="Give up after this time, with exit code 4."
)


def count_option(what: str) -> Callable[[F], F]:
    """Return the option that ends the command after so many ``what``."""
    return click.option("--count", type=click.IntRange(min=1), help=f"End after this many {what}.")


def next_of(receiver: Receiver[T], deadline: Deadline) -> T | None:
    """Return the next that a receiver has; None after the deadline."""
    try:
        return receiver.get(timeout=deadline.as_timeout())
    except TimeoutError:
        return None
