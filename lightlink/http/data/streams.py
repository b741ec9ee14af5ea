"""Views of streams, their consumers and their dead letters."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import UNSET

from lightlink.errors import StreamNotFound
from lightlink.http.data.content import shown
from lightlink.http.data.schemas import ConsumerView, DeadLetterList, DeadLetterView, Done, StreamList, StreamView
from lightlink.jetstream import api
from lightlink.protocol import subjects
from lightlink.streams.dead import consumers_with_letters
from lightlink.streams.durable import Durable
from lightlink.streams.stream import Stream

if TYPE_CHECKING:
    from lightlink.client import Client
    from lightlink.http.call import Call
    from lightlink.streams.dead import DeadLetter

# What is not for events: state, files, and what LightLink keeps for itself.
_OTHER = (subjects.STATE_STREAMS, subjects.FILES_STREAMS, subjects.OWN_STREAMS)
_MOST_STREAMS = 200
_MOST_CONSUMERS = 100
_MOST_LETTERS = 200
_WHAT = "streams"


def list_streams(call: Call) -> StreamList:
    """List the streams of events."""
    call.check_unlimited(_WHAT)
    client = call.manager.client
    names = [name for name in client.streams() if not name.startswith(_OTHER)][:_MOST_STREAMS]
    return StreamList(streams=[found for name in names if (found := _stream(client, name)) is not None])


def list_dead_letters(call: Call) -> DeadLetterList:
    """List dead letters."""
    call.check_unlimited(_WHAT)
    client = call.manager.client
    letters: list[DeadLetterView] = []
    for stream, consumer in consumers_with_letters(client.connection, client.options.timeout):
        left = _MOST_LETTERS + 1 - len(letters)
        if left <= 0:
            break
        letters += [_letter(each) for each in client.dead_letters(stream, consumer).list(left)]
    return DeadLetterList(complete=len(letters) <= _MOST_LETTERS, letters=letters[:_MOST_LETTERS])


def redeliver_letter(call: Call) -> Done:
    """Have its consumer try an event again."""
    call.check_unlimited(_WHAT)
    body = call.body
    call.manager.client.dead_letters(body.stream, body.consumer).redeliver(body.number)
    return Done()


def drop_letter(call: Call) -> Done:
    """Remove a dead letter for good."""
    call.check_unlimited(_WHAT)
    body = call.body
    call.manager.client.dead_letters(body.stream, body.consumer).drop(body.number)
    return Done()


def _stream(client: Client, name: str) -> StreamView | None:
    connection, timeout = client.connection, client.options.timeout
    stream = Stream(connection, name, timeout)
    try:
        info = stream.info()
        most = (api.stream_config(connection, name, timeout) or {}).get("max_bytes", -1)
        names = stream.consumers()[:_MOST_CONSUMERS]
        consumers = [_consumer(Durable(connection, name, each, timeout)) for each in names]
    except StreamNotFound:
        return None  # removed meanwhile
    return StreamView(
        name=name,
        subjects=list(info.subjects),
        messages=info.messages,
        bytes=info.bytes,
        max_bytes=most if most > 0 else UNSET,
        consumers=consumers,
    )


def _consumer(durable: Durable) -> ConsumerView:
    lag = durable.lag()
    return ConsumerView(
        name=durable.name,
        waiting=lag.waiting,
        in_flight=lag.in_flight,
        retried=lag.retried,
        paused=lag.paused,
        oldest=UNSET if lag.oldest is None else lag.oldest,
    )


def _letter(letter: DeadLetter) -> DeadLetterView:
    names = ("number", "stream", "consumer", "subject", "attempts", "error", "at")
    return DeadLetterView(**{name: getattr(letter, name) for name in names}, **shown(letter.data, "data"))
