"""``lightlink state``: values in JetStream key-value buckets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from lightlink.cli.terminal.exits import Exit, remove, report
from lightlink.cli.terminal.following import count_option, give_up_option, next_of
from lightlink.cli.terminal.options import (
    SECONDS,
    json_bytes,
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
from lightlink.protocol.subjects import STATE_BUCKET

if TYPE_CHECKING:
    import lightlink
    from lightlink.cli.terminal.options import Link

_bucket = click.option("--bucket", default=STATE_BUCKET, show_default=True, metavar="NAME", help="The bucket.")
_raw = click.option("--raw", is_flag=True, help="Read and write values unchanged, not as JSON.")
_revision = click.option("--revision", type=click.IntRange(min=0), help="Only if this is the key's last revision.")


@click.group()
def state() -> None:
    """Read, write and follow values that the server keeps.

    \b
        lightlink state set device.sensor01 '{"t": 21.5}'
        lightlink state get device.sensor01
        lightlink state watch 'device.*'
    """  # noqa: D301 - \b is click's mark for lines to be left as they are


@state.command()
@click.argument("key")
@_bucket
@click.option("--entry", is_flag=True, help="Print key, revision and time as well.")
@_raw
@json_option
@link_options
def get(link: Link, key: str, bucket: str, entry: bool, raw: bool, as_json: bool) -> None:
    """Print the value of KEY."""
    with link.connect() as client:
        found = client.state(bucket, value_type=bytes).entry(key)
    if raw and not entry:
        click.echo(found.value)
        return
    value = _read(found.value, key, raw)
    print_data(_fields(found, value) if entry else value, as_json=as_json)


@state.command("set")
@click.argument("key")
@click.argument("value", metavar="JSON")
@_bucket
@_revision
@click.option("--create", is_flag=True, help="Only if the key has no value.")
@click.option("--ttl", type=SECONDS, metavar="SECONDS", help="Remove the value after this time.")
@_raw
@json_option
@link_options
@click.pass_context
def set_(
    ctx: click.Context,
    link: Link,
    key: str,
    value: str,
    bucket: str,
    revision: int | None,
    create: bool,
    ttl: float | None,
    raw: bool,
    as_json: bool,
) -> None:
    """Store JSON under KEY ("-" reads it from standard input) and print its revision.

    The bucket is made if it is not there.
    """
    if create and revision is not None:
        raise click.UsageError("--create and --revision exclude each other", ctx)
    data = read_argument(value) if raw else json_bytes(ctx, None, value)
    with link.connect() as client:
        values = client.state(bucket, value_type=bytes)
        if create:
            written = values.create(key, data, ttl=ttl)
        elif revision is not None:
            written = values.update(key, data, revision=revision, ttl=ttl)
        else:
            written = values.set(key, data, ttl=ttl)
    if as_json:
        say(to_json({"bucket": bucket, "key": key, "revision": written}))
    else:
        say(f"{key} is at revision {written}")


@state.command()
@click.argument("key")
@_bucket
@_revision
@click.option("--purge", is_flag=True, help="Remove the key's history too.")
@json_option
@link_options
def delete(link: Link, key: str, bucket: str, revision: int | None, purge: bool, as_json: bool) -> None:
    """Remove the value of KEY; without effect if it has none."""
    with link.connect() as client:
        values = client.state(bucket)
        (values.purge if purge else values.delete)(key, revision=revision)
    if as_json:
        say(to_json({"bucket": bucket, "key": key, "deleted": True}))
    else:
        say(f"{key} is deleted")


@state.command()
@click.argument("pattern", default=">")
@_bucket
@json_option
@link_options
def keys(link: Link, pattern: str, bucket: str, as_json: bool) -> None:
    """Print the keys that have a value, one a line.

    PATTERN may hold the wildcards * (one token) and > (the rest).
    """
    with link.connect() as client:
        for key in client.state(bucket).keys(pattern):
            say(to_json(key) if as_json else key)


@state.command()
@click.argument("key")
@_bucket
@_raw
@json_option
@link_options
def history(link: Link, key: str, bucket: str, raw: bool, as_json: bool) -> None:
    """Print what the bucket keeps of the changes of KEY, oldest first."""
    with link.connect() as client:
        for change in client.state(bucket, value_type=bytes).history(key):
            _show(change, raw=raw, as_json=as_json)


@state.command()
@click.argument("pattern", default=">")
@_bucket
@click.option("--current", is_flag=True, help="Print the current values, and end.")
@count_option("changes")
@give_up_option
@_raw
@json_option
@link_options
@click.pass_context
def watch(
    ctx: click.Context,
    link: Link,
    pattern: str,
    bucket: str,
    current: bool,
    count: int | None,
    timeout: float | None,
    raw: bool,
    as_json: bool,
) -> None:
    """Print the values of the keys that match PATTERN, then every change.

    PATTERN may hold the wildcards * (one token) and > (the rest); Ctrl-C ends it. The bucket is made if it is not
    there. With --json a line holds key, value, revision, operation and created.
    """
    deadline = Deadline(timeout)
    with link.connect() as client, client.state(bucket, value_type=bytes).watch(pattern) as changes:
        if current:
            for change in changes.current(timeout):
                _show(change, raw=raw, as_json=as_json)
            return
        say(f"watching {pattern} in {bucket}", err=True)
        shown = 0
        while count is None or shown < count:
            following = next_of(changes, deadline)
            if following is None:
                report(f"{shown} changes of {pattern} within {timeout:g} s")
                ctx.exit(Exit.TIMEOUT)
            shown += _show(following, raw=raw, as_json=as_json)


def _show(change: lightlink.StateChange[bytes], *, raw: bool, as_json: bool) -> bool:
    """Print a change; tell whether it was, which one that is not JSON is not."""
    try:
        value = None if change.value is None else _read(change.value, change.key, raw)
    except DecodeError as exc:
        report(str(exc), kind="skipped")
        return False
    if as_json:
        say(to_json({**_fields(change, value), "operation": change.operation}))
        return True
    text = f"({change.operation})" if change.value is None else value if raw else to_json(value)
    say(f"{change.key}  {text}")
    return True


def _read(data: bytes, key: str, raw: bool) -> Any:
    return data.decode("utf-8", "replace") if raw else codec.decode(data, key)


def _fields(found: lightlink.StateEntry[bytes] | lightlink.StateChange[bytes], value: Any) -> dict[str, Any]:
    return {"key": found.key, "value": value, "revision": found.revision, "created": found.created}


@state.command()
@json_option
@link_options
def buckets(link: Link, as_json: bool) -> None:
    """Print the buckets there are: values, size, history, how long values live."""
    with link.connect() as client:
        for each in client.buckets():
            life = f"{each.ttl:g} s" if each.ttl else "for ever"
            shown = f"{each.name}  {each.messages} messages  {each.bytes} bytes  history {each.history}  {life}"
            say(to_json(each) if as_json else shown)


@state.command()
@click.argument("name", metavar="BUCKET")
@click.option("--yes", is_flag=True, help="Without asking.")
@link_options
@click.pass_context
def destroy(ctx: click.Context, /, link: Link, name: str, yes: bool) -> None:
    """Remove a bucket with all its values. Exit code 1 says that there was none."""

    def destroy_bucket() -> bool:
        with link.connect() as client:
            return client.state(name).destroy()

    remove(ctx, "bucket", name, "values", destroy_bucket, yes=yes)
