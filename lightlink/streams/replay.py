"""Read stored events again, in order and without acknowledgements, across outages."""

from __future__ import annotations

from contextlib import closing
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from lightlink.concurrency.mailbox import Closed, MessageQueue
from lightlink.connection.session import Status
from lightlink.errors import ClosedError, InvalidOption, StreamNotFound
from lightlink.jetstream import api
from lightlink.jetstream.read import OrderedReader
from lightlink.streams.message import decoder_of, read_stored
from lightlink.streams.stream import Stream, ask

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from lightlink.connection.connection import Connection
    from lightlink.jetstream.cursor import Delivery
    from lightlink.streams.message import StoredMessage

_KEPT = 2**62


def replay(
    connection: Connection, stream: str, subject: str, since: Any, follow: bool, raw: bool, timeout: float
) -> Iterator[StoredMessage]:
    """Yield the stored events on a subject from a position to the last one, or endlessly with ``follow``.

    A stream that is deleted meanwhile raises StreamNotFound; with ``follow`` it is waited for until it is made anew.
    Raises InvalidOption, StreamError, DecodeError, ClosedError.
    """
    queue, decode = MessageQueue(_KEPT, _KEPT), decoder_of(raw)
    first = first_sequence(connection, stream, since, timeout)

    def end(error: Exception | None = None) -> None:
        if not follow:
            queue.put(error, 0)

    reader = OrderedReader(
        connection,
        stream,
        [subject],
        lambda delivery: queue.put(delivery, 0) and None,
        first=first,
        on_current=end,
        on_gone=None if follow else lambda: end(StreamNotFound(stream)),
    )
    forget = connection.on_status(lambda status: queue.close() if status is Status.CLOSED else None)
    try:
        ask(stream, "replay", reader.start, timeout)
        with closing(_deliveries(queue, reader)) as deliveries:
            for delivery in deliveries:
                yield read_stored(delivery, stream, 1, decode)
    except Closed:
        raise connection.failure or ClosedError("the client") from None
    finally:
        forget()


def _deliveries(queue: MessageQueue, reader: OrderedReader) -> Generator[Delivery, None, None]:
    """Yield what arrives in a queue up to None, and stop the reader; raises what is queued to be raised, and Closed."""
    try:
        while True:
            found: Delivery | Exception | None = queue.get(None)
            if found is None:
                return
            if isinstance(found, Exception):
                raise found
            reader.release(found)
            yield found
    finally:
        reader.stop()


def first_sequence(connection: Connection, stream: str, since: Any, timeout: float) -> int:
    """Return the sequence for ``first``, a sequence, an aware datetime or a timedelta ago; raises InvalidOption."""
    if since == "first":
        return 1
    if isinstance(since, int) and not isinstance(since, bool) and since > 0:
        return since
    if isinstance(since, timedelta):
        since = datetime.now().astimezone() - since
    if not isinstance(since, datetime) or since.tzinfo is None:
        raise InvalidOption("since", "must be first, a sequence, an aware datetime or a timedelta", since)
    state = ask(stream, "read", lambda limit: api.stream_info(connection, stream, limit), timeout)
    if state is None:
        Stream(connection, stream, timeout).info()  # raises StreamNotFound
        return 1
    low, high = max(state.state.first_seq, 1), state.state.last_seq + 1
    while low < high:
        middle = (low + high) // 2
        # The next one that is there: in a gap of removed events a sequence has no time of its own.
        message = ask(stream, "read", partial(api.get_next, connection, stream, ">", middle), timeout)
        if message is not None and message.created < since:
            low = message.seq + 1
        else:
            high = middle
    return low
