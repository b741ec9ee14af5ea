"""``lightlink call``, ``pub`` and ``sub``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from lightlink.cli.terminal.exits import Exit, report
from lightlink.cli.terminal.following import count_option, give_up_option, next_of
from lightlink.cli.terminal.options import (
    SECONDS,
    json_bytes,
    json_object,
    json_option,
    link_options,
    print_data,
    read_argument,
    to_json,
)
from lightlink.cli.terminal.printing import say
from lightlink.concurrency.deadline import Deadline
from lightlink.errors import DecodeError
from lightlink.protocol import codec

if TYPE_CHECKING:
    import lightlink
    from lightlink.cli.terminal.options import Link


@click.command()
@click.argument("service")
@click.argument("method", required=False)
@click.argument("args", metavar="[JSON]", callback=json_object, default="{}")
@click.option("--timeout", type=SECONDS, default=5.0, show_default=True, metavar="SECONDS", help="Wait for the answer.")
@json_option
@link_options
def call(link: Link, service: str, method: str | None, args: dict[str, Any], timeout: float, as_json: bool) -> None:
    """Call METHOD of SERVICE and print its result; without METHOD list the methods.

    JSON is an object with the arguments by name, "-" reads it from standard input:

        lightlink call math add '{"a": 1, "b": 2}'
    """
    with link.connect() as client:
        if method is None:
            from lightlink.cli.services import list_methods  # noqa: PLC0415 - a call need not wait for tables

            list_methods(client, service, timeout, as_json=as_json)
            return
        result = client.call(service, method, args, timeout=timeout)
    print_data(result, as_json=as_json)


@click.command()
@click.argument("subject")
@click.argument("data", metavar="JSON")
@click.option("--raw", is_flag=True, help="Publish the argument unchanged; it need not be JSON.")
@click.option("--timeout", type=SECONDS, default=5.0, show_default=True, metavar="SECONDS", help="Wait for the server.")
@json_option
@link_options
def pub(link: Link, subject: str, data: str, raw: bool, timeout: float, as_json: bool) -> None:
    """Publish JSON on SUBJECT.

    "-" reads it from standard input. It returns once the server has the message; whether anybody listens is not known.
    """
    body = read_argument(data) if raw else json_bytes(click.get_current_context(), None, data)
    with link.connect() as client:
        client.publish(subject, body)
        client.flush(timeout=timeout)
    if as_json:
        say(to_json({"subject": subject, "bytes": len(body)}))
    else:
        say(f"published {len(body)} bytes on {subject}")


@click.command()
@click.argument("subject")
@click.option("--queue", metavar="NAME", help="Queue group: each message goes to one member.")
@count_option("messages")
@give_up_option
@click.option("--raw", is_flag=True, help="Print payloads only, as they are.")
@json_option
@link_options
@click.pass_context
def sub(
    ctx: click.Context,
    link: Link,
    subject: str,
    queue: str | None,
    count: int | None,
    timeout: float | None,
    raw: bool,
    as_json: bool,
) -> None:
    """Print what is published on SUBJECT.

    SUBJECT may hold the wildcards * and >; Ctrl-C ends it. With --json a line holds subject, data, headers and reply.
    A payload that is not JSON is reported on stderr, and the listening goes on; --raw prints such payloads too.
    """
    deadline = Deadline(timeout)
    with link.connect() as client, client.subscribe(subject, queue=queue or "", raw=True) as subscription:
        client.flush()
        say(f"listening on {subject}", err=True)
        received = 0
        while count is None or received < count:
            message = next_of(subscription, deadline)
            if message is None:
                report(f"{received} messages on {subject} within {timeout:g} s")
                ctx.exit(Exit.TIMEOUT)
            received += 1
            _show(message, raw=raw, as_json=as_json)


def _show(message: lightlink.Message, *, raw: bool, as_json: bool) -> None:
    if raw:
        click.echo(message.data)
        return
    try:
        data = codec.decode(message.data, message.subject)
    except DecodeError as exc:
        report(str(exc), kind="skipped")
        return
    if as_json:
        say(to_json({"subject": message.subject, "data": data, "headers": message.headers, "reply": message.reply}))
    else:
        say(f"{message.subject}  {to_json(data)}")
