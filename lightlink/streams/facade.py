"""Durable events as clients and services expose them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from lightlink.errors import InvalidOption, StreamError
from lightlink.events.message import EventHandler
from lightlink.streams.consumption import Consumption
from lightlink.streams.durable import ACK_WAIT, Durable
from lightlink.streams.job import Settings
from lightlink.streams.message import decoder_of
from lightlink.streams.partitions import stored_subject
from lightlink.streams.stream import Stream, stream_name, stream_of
from lightlink.validators import integer, seconds

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from lightlink.connection.connection import Connection
    from lightlink.middleware import Stack
    from lightlink.streams.message import StoredMessage

DEFAULT_RETRIES = (1.0, 5.0, 30.0, 300.0)


def settings_of(options: dict[str, Any]) -> Settings:
    """Return the settings for a user's options; raises InvalidOption."""
    try:
        return _make_settings(**options)
    except TypeError as exc:
        raise InvalidOption("consume", str(exc).rpartition("() ")[2], sorted(options)) from None


def _make_settings(
    *,
    workers: int = 1,
    key: Callable[[StoredMessage], Hashable] | None = None,
    timeout: float = 60.0,
    retries: Sequence[float] = DEFAULT_RETRIES,
    dead_letters: bool = True,
    on_dead_letter: Callable[[StoredMessage, str], object] | None = None,
    batch: int | None = None,
    within: float = 1.0,
    raw: bool = False,
    ack_wait: float = ACK_WAIT,
    update: bool = False,
    partitions: int | None = None,
) -> Settings:
    """Return validated settings; raises InvalidOption."""
    for option, value in (("workers", workers), ("batch", 1 if batch is None else batch)):
        integer(option, value)
    if isinstance(retries, (str, bytes)) or not isinstance(retries, Sequence):
        raise InvalidOption("retries", "must be a list of seconds", retries)
    if key is not None and not callable(key):
        raise InvalidOption("key", "must be a function of the message", key)
    if on_dead_letter is not None:
        if not callable(on_dead_letter):
            raise InvalidOption("on_dead_letter", "must be a function of a message and an error", on_dead_letter)
        if not dead_letters:
            raise InvalidOption("on_dead_letter", "needs dead letters, but dead_letters is false", on_dead_letter)
    if key is not None and batch is not None:
        raise InvalidOption("batch", "cannot be combined with key: a batch has no order", batch)
    if partitions is not None:
        integer("partitions", partitions)
        if key is not None or batch is not None:
            raise InvalidOption(
                "partitions", "deliver one event at a time, by its subject: no key, no batch", partitions
            )
    return Settings(
        workers=workers,
        key=key,
        timeout=seconds("timeout", timeout),
        retries=tuple(seconds("retries", each) for each in retries),
        dead_letters=dead_letters,
        on_dead_letter=on_dead_letter,
        batch=batch,
        within=seconds("within", within),
        raw=raw,
        ack_wait=seconds("ack_wait", ack_wait),
        update=bool(update),
        partitions=partitions,
    )


def consume(
    connection: Connection,
    subjects: str | Sequence[str],
    handler: Callable[[Any], object],
    name: str,
    settings: Settings,
    middleware: Stack,
    *,
    stream: str | None,
    since: Any,
    timeout: float,
) -> Consumption:
    """Start delivering the events on some subjects to a function, as a named durable consumer.

    Raises StreamError, InvalidName, InvalidOption.
    """
    filters = [subjects] if isinstance(subjects, str) else list(subjects)
    if not filters:
        raise InvalidOption("subjects", "must contain at least one subject", subjects)
    if stream is None:
        stream = stream_of(connection, filters[0], timeout)
    found_stream = Stream(connection, stream_name(stream), timeout)
    make = partial(Durable, connection, stream, timeout=timeout)
    durables = _durables(make, found_stream, filters, name, settings, since)
    handle: Callable[[Any], object] = handler
    handle_data: Callable[[Any], object] | None = None
    decode = decoder_of(settings.raw)
    if settings.batch is None:
        event = EventHandler(handler, settings.raw)
        handle, decode = event.handle_message, event.decode
        handle_data = None if event.wants_message else handler
    found = Consumption(connection, stream, name, durables, handle, handle_data, decode, settings, middleware, timeout)
    found.start()
    return found


def _durables(
    make: Callable[[str], Durable], stream: Stream, filters: list[str], name: str, settings: Settings, since: Any
) -> list[Durable]:
    """Return the consumer, or one per partition, created or compared with the existing ones."""
    divided, wanted = stream.partitions, settings.partitions
    options: dict[str, Any] = {"since": since, "ack_wait": settings.ack_wait, "update": settings.update}
    if wanted is None:
        made = make(name)
        made.ensure([stored_subject(each) for each in filters] if divided else filters, **options)
        return [made]
    if wanted != divided:
        raise StreamError(stream.name, "consume", f"it has {divided or 'no'} partitions, not {wanted}")
    found = []
    for partition in range(wanted):
        made = make(f"{name}-{partition}")
        # max_ack_pending 1 keeps the order: the server delivers the next event once the previous one is settled.
        made.ensure([stored_subject(each, partition) for each in filters], **options, max_ack_pending=1)
        found.append(made)
    return found
