"""``lightlink stream``, ``lightlink consumer``, ``lightlink dead``: durable events from a terminal."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from lightlink.cli.command import clock, local
from lightlink.cli.terminal.options import SECONDS, json_option, link_options, print_data, to_json
from lightlink.cli.terminal.printing import say

if TYPE_CHECKING:
    from lightlink.cli.terminal.options import Link
    from lightlink.streams import DeadLetter, StoredMessage

_TIME = click.DateTime(["%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M:%S", "%Y-%m-%d"])
_stream = click.argument("stream_name", metavar="STREAM")
_consumer = click.argument("consumer_name", metavar="CONSUMER")
_number = click.argument("number", type=click.IntRange(min=1))


def _since(_ctx: click.Context, _param: click.Parameter, value: str) -> Any:
    """Return ``first``, ``new``, a sequence, or an instant by local time."""
    if value in ("first", "new"):
        return value
    if value.isascii() and value.isdigit():
        return int(value)
    instant: datetime = _TIME.convert(value, _param, _ctx)
    return local(instant)


_since_option = click.option(
    "--since",
    default="first",
    show_default=True,
    metavar="PLACE",
    callback=_since,
    help="first, a sequence, or a time.",
)


@click.group()
def stream() -> None:
    """Make streams of durable events, look at them, replay them."""


@stream.command("list")
@json_option
@link_options
def list_streams(link: Link, as_json: bool) -> None:
    """Print all streams and what they hold."""
    with link.connect() as client:
        for each in client.streams():
            info = client.stream(each).info()
            say(to_json(info) if as_json else f"{each}  {', '.join(info.subjects)}  {info.messages} messages")


@stream.command("info")
@_stream
@json_option
@link_options
def stream_info(link: Link, stream_name: str, as_json: bool) -> None:
    """Print what a stream holds."""
    with link.connect() as client:
        print_data(client.stream(stream_name).info(), as_json=as_json)


@stream.command()
@_stream
@click.argument("subjects", nargs=-1, required=True)
@click.option("--max-age", type=SECONDS, metavar="SECONDS", help="How long events are kept; default: for ever.")
@click.option("--max-bytes", type=click.IntRange(min=1), help="How many bytes are kept at most.")
@click.option("--max-messages", type=click.IntRange(min=1), help="How many events are kept at most.")
@click.option("--replicas", type=click.IntRange(1, 5), default=1, show_default=True)
@click.option("--memory", is_flag=True, help="Keep them in memory, not on disk.")
@click.option("--work-queue", is_flag=True, help="Remove an event once its one consumer has handled it.")
@click.option(
    "--partitions", type=click.IntRange(min=1), help="Keep events that agree in the subject's * tokens in order."
)
@click.option("--update", is_flag=True, help="Change an existing one that differs.")
@link_options
def make(link: Link, stream_name: str, subjects: tuple[str, ...], memory: bool, **options: Any) -> None:
    """Make a stream on some subjects; one whose configuration differs is an error, or with --update is changed."""
    with link.connect() as client:
        client.stream(stream_name, subjects, storage="memory" if memory else "file", **options)


@stream.command()
@click.argument("subject")
@_since_option
@click.option("--follow", is_flag=True, help="Then follow new ones, until Ctrl-C.")
@click.option(
    "--stream", "stream_name", metavar="STREAM", help="The stream to read, where several capture the subject."
)
@json_option
@link_options
def replay(link: Link, subject: str, since: Any, follow: bool, stream_name: str | None, as_json: bool) -> None:
    """Print the stored events on a subject, in order."""
    with link.connect() as client:
        for message in client.replay(subject, since=since, follow=follow, stream=stream_name, raw=True):
            say(_event(message, as_json))


@stream.command()
@_stream
@click.option("--subject", metavar="SUBJECT", help="Only what is on this subject, which may hold wildcards.")
@click.confirmation_option("--yes", prompt="Remove the stored events?")
@link_options
def purge(link: Link, stream_name: str, subject: str | None) -> None:
    """Remove stored events; the stream stays."""
    with link.connect() as client:
        say(f"{client.stream(stream_name).purge(subject)} events removed")


@stream.command()
@_stream
@click.confirmation_option("--yes", prompt="Remove the stream and all that it holds?")
@link_options
def delete(link: Link, stream_name: str) -> None:
    """Remove a stream with all that it holds, and its consumers."""
    with link.connect() as client:
        client.stream(stream_name).delete()


@click.group()
def consumer() -> None:
    """Look at durable consumers, pause them, set them back."""


@consumer.command("list")
@_stream
@json_option
@link_options
def list_consumers(link: Link, stream_name: str, as_json: bool) -> None:
    """Print a stream's consumers and how far they are behind."""
    with link.connect() as client:
        for name in client.stream(stream_name).consumers():
            lag = client.consumer(stream_name, name).lag()
            if as_json:
                say(to_json({"consumer": name, "lag": lag}))
            else:
                paused = ", paused" if lag.paused else ""
                oldest = "" if lag.oldest is None else f", the oldest {lag.oldest:.0f} s old"
                say(f"{name}  {lag.waiting} waiting, {lag.in_flight} in flight, {lag.retried} retried{oldest}{paused}")


@consumer.command("info")
@_stream
@_consumer
@json_option
@link_options
def consumer_info(link: Link, stream_name: str, consumer_name: str, as_json: bool) -> None:
    """Print how far a consumer is behind."""
    with link.connect() as client:
        print_data(client.consumer(stream_name, consumer_name).lag(), as_json=as_json)


@consumer.command()
@_stream
@_consumer
@click.argument("until", type=_TIME)
@link_options
def pause(link: Link, stream_name: str, consumer_name: str, until: datetime) -> None:
    """Have nothing handed out until a time, by local time."""
    with link.connect() as client:
        client.consumer(stream_name, consumer_name).pause(local(until))


@consumer.command()
@_stream
@_consumer
@link_options
def resume(link: Link, stream_name: str, consumer_name: str) -> None:
    """End a pause."""
    with link.connect() as client:
        client.consumer(stream_name, consumer_name).resume()


@consumer.command()
@_stream
@_consumer
@_since_option
@link_options
def reset(link: Link, stream_name: str, consumer_name: str, since: Any) -> None:
    """Have a consumer begin anew: from the first event, a sequence, a time, or with what is new."""
    with link.connect() as client:
        client.consumer(stream_name, consumer_name).reset(since)


@click.group()
def dead() -> None:
    """Look at the events that a consumer could not handle; have it try them again, or drop them."""


@dead.command("list")
@_stream
@_consumer
@json_option
@link_options
def list_dead(link: Link, stream_name: str, consumer_name: str, as_json: bool) -> None:
    """Print dead letters, oldest first."""
    with link.connect() as client:
        for each in client.dead_letters(stream_name, consumer_name).list():
            say(to_json(_shown(each)) if as_json else _line(each))


@dead.command()
@_stream
@_consumer
@_number
@link_options
def show(link: Link, stream_name: str, consumer_name: str, number: int) -> None:
    """Print one dead letter whole."""
    with link.connect() as client:
        print_data(_shown(client.dead_letters(stream_name, consumer_name).get(number)), as_json=False)


@dead.command()
@_stream
@_consumer
@_number
@link_options
def redeliver(link: Link, stream_name: str, consumer_name: str, number: int) -> None:
    """Have the consumer, and no other, try an event once more; its attempts count anew."""
    with link.connect() as client:
        client.dead_letters(stream_name, consumer_name).redeliver(number)


@dead.command()
@_stream
@_consumer
@_number
@link_options
def drop(link: Link, stream_name: str, consumer_name: str, number: int) -> None:
    """Remove a dead letter for good."""
    with link.connect() as client:
        client.dead_letters(stream_name, consumer_name).drop(number)


# ---------------------------------------------------------------------------------------------------------------------


def _event(message: StoredMessage, as_json: bool) -> str:
    if as_json:
        return to_json(
            {
                "sequence": message.sequence,
                "subject": message.subject,
                "at": message.stored_at,
                "data": _text(message.data),
            }
        )
    return f"{message.sequence}  {clock(message.stored_at)}  {message.subject}  {_text(message.data)}"


def _line(letter: DeadLetter) -> str:
    return f"{letter.number}  {clock(letter.at)}  {letter.subject}  {letter.attempts} attempts  {letter.error}"


def _shown(letter: DeadLetter) -> dict[str, Any]:
    return {
        "number": letter.number,
        "at": letter.at,
        "subject": letter.subject,
        "sequence": letter.sequence,
        "attempts": letter.attempts,
        "error": letter.error,
        "headers": dict(letter.headers),
        "data": _text(letter.data),
    }


def _text(data: bytes) -> str:
    return data.decode("utf-8", "backslashreplace")
