"""``lightlink message`` and ``lightlink broadcast``: short messages to agents that are online; none is stored."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from lightlink.cli.command import managing, read_payload
from lightlink.cli.terminal.exits import Exit, report
from lightlink.cli.terminal.options import SECONDS, json_option, link_options, print_data
from lightlink.cli.terminal.printing import say

if TYPE_CHECKING:
    from lightlink.cli.terminal.options import Link
    from lightlink.commands import Receipt

_type = click.argument("message_type", metavar="TYPE")
_json = click.argument("payload", metavar="[JSON]", default="null")


@click.command()
@click.argument("client_id")
@_type
@_json
@click.option("--wait", is_flag=True, help="Wait until the agent has handled it, not only received it.")
@click.option("--timeout", type=SECONDS, default=5.0, show_default=True, metavar="SECONDS", help="For its answer.")
@json_option
@link_options
@click.pass_context
def message(
    ctx: click.Context,
    /,
    link: Link,
    client_id: str,
    message_type: str,
    payload: str,
    wait: bool,
    timeout: float,
    as_json: bool,
) -> None:
    """Send a message to an agent that is online.

    JSON is the payload; "-" reads it from standard input. Exit code 5 says that the agent is not online, 4 that it did
    not answer in time, 1 that its handler failed.
    """
    body = read_payload(payload)
    with managing(link) as manager:
        receipt = manager.message(client_id, message_type, body, wait_ack=wait, timeout=timeout)
    _show(ctx, receipt, as_json)


@click.command()
@_type
@_json
@click.option("--timeout", type=SECONDS, default=2.0, show_default=True, metavar="SECONDS", help="For the answers.")
@json_option
@link_options
@click.pass_context
def broadcast(
    ctx: click.Context, /, link: Link, message_type: str, payload: str, timeout: float, as_json: bool
) -> None:
    """Send a message to all agents that are online, and print which have it."""
    body = read_payload(payload)
    with managing(link) as manager:
        receipt = manager.broadcast(message_type, body, timeout=timeout)
    _show(ctx, receipt, as_json)


def _show(ctx: click.Context, receipt: Receipt, as_json: bool) -> None:
    if as_json:
        print_data(receipt, as_json=True)
    else:
        say(f"{len(receipt.reached)} of {receipt.online} have it")
        for client_id in receipt.reached:
            say(client_id)
    for client_id, error in receipt.errors.items():
        report(f"{client_id}: {error}")
    if receipt.errors:
        ctx.exit(Exit.FAILED)
