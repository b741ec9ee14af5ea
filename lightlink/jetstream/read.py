"""Read what a stream has on some subjects now, all of it or a range."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from lightlink.concurrency.deadline import Deadline
from lightlink.concurrency.threads import Promise
from lightlink.connection.connection import NoReply
from lightlink.jetstream import api
from lightlink.jetstream.cursor import EVERYTHING, LAST_OF_EACH, Delivery, from_stored
from lightlink.jetstream.ordered import OrderedReader
from lightlink.protocol.subjects import as_text

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lightlink.connection.connection import Connection

__all__ = ["EVERYTHING", "LAST_OF_EACH", "Delivery", "OrderedReader", "read_current", "read_range"]

# Somebody waits: when the server that the consumer is on is gone, that has to be noticed soon.
_HEARTBEAT_SECONDS = 1.0


def read_current(
    connection: Connection,
    stream: str,
    pattern: str,
    timeout: float,
    *,
    policy: str = EVERYTHING,
    headers_only: bool = False,
    limit: int = sys.maxsize,
) -> list[Delivery]:
    """Return the messages that a stream has now on the subjects of a pattern, in order, the first ``limit`` of them.

    With the policy LAST_OF_EACH one message a subject, and one of every subject, however busy its writers are: all of
    them. Raises the errors of `OrderedReader.start`.
    """
    deadline = Deadline(timeout)
    found: list[Delivery] = []

    def take(delivery: Delivery) -> bool:
        found.append(delivery)
        return len(found) >= limit

    settings = {"policy": policy, "headers_only": headers_only}
    _read_until(connection, stream, [pattern], timeout, take, settings)
    if policy != LAST_OF_EACH:
        return found
    last = {delivery.subject: delivery for delivery in found}
    return _with_the_missing(connection, stream, pattern, deadline, last)


def _with_the_missing(
    connection: Connection, stream: str, pattern: str, deadline: Deadline, last: dict[bytes, Delivery]
) -> list[Delivery]:
    """Return the last messages in order, with the subjects that were being written, and without those removed.

    The last message of a subject that is written all the time keeps moving to the end of the stream, and the server may
    say that nothing is pending between removing the old one and counting the new (tried with nats-server 2.15.1).
    """
    present = api.subjects_of(connection, stream, pattern, deadline.as_timeout())
    # What only a replica has was removed; the subjects come in pages, so that one may also have been left out.
    for subject in sorted(present ^ {as_text(each) for each in last}):
        remaining = deadline.as_timeout()
        message = api.get_last_written(connection, stream, subject, remaining)
        if message is not None:
            last[subject.encode()] = from_stored(message)
        else:
            last.pop(subject.encode(), None)
    return sorted(last.values(), key=lambda delivery: delivery.seq)


def read_range(
    connection: Connection,
    stream: str,
    patterns: Sequence[str],
    first: int,
    before: int,
    silence: float,
    max_bytes: int = sys.maxsize,
) -> tuple[list[Delivery], int]:
    """Return the messages with sequences from ``first`` to below ``before`` on the subjects of some patterns.

    Of more than ``max_bytes`` it returns the first ones, at least one. The other value is the sequence up to which all
    was read. However long that takes, it waits at most ``silence`` seconds for the next message. Raises the errors of
    `OrderedReader.start`.
    """
    found: list[Delivery] = []
    size = 0

    def take(delivery: Delivery) -> bool:
        nonlocal size
        if delivery.seq < before:
            found.append(delivery)
            size += delivery.size
        return delivery.seq >= before - 1 or size >= max_bytes

    _read_until(connection, stream, patterns, silence, take, {"first": max(first, 1)}, by_silence=True)
    return found, found[-1].seq + 1 if size >= max_bytes else before


def _read_until(
    connection: Connection,
    stream: str,
    patterns: Sequence[str],
    timeout: float,
    take: Callable[[Delivery], bool],
    settings: dict[str, Any],
    *,
    by_silence: bool = False,
) -> None:
    """Give ``take`` what the stream has now, until it returns True.

    ``timeout`` is for all of it, or for the time since the last message.
    """
    deadline = Deadline(timeout)
    done, is_done = Promise(), False

    def finish() -> None:
        nonlocal is_done
        if not is_done:
            is_done = True
            done.keep()

    def deliver(delivery: Delivery) -> None:
        nonlocal deadline
        if by_silence:
            deadline = Deadline(timeout)
        if is_done:
            return  # and not released, so that the reader asks for no more
        if take(delivery):
            finish()
        reader.release(delivery)

    settings = {"on_current": finish, "heartbeat": _HEARTBEAT_SECONDS, **settings}
    reader = OrderedReader(connection, stream, patterns, deliver, **settings)
    reader.start(timeout)
    try:
        while not done.wait(deadline.remaining()):
            if deadline.is_over:
                raise NoReply(patterns[0], timeout, True)
    finally:
        reader.stop()
