"""Async JetStream API, for code on the event loop; `lightlink.jetstream.api` is for threads that wait."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from lightlink.connection.replies import Waiter
from lightlink.jetstream import api
from lightlink.jetstream.answers import MessageAnswer
from lightlink.jetstream.errors import NO_MESSAGE, JetStreamError
from lightlink.protocol import codec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lightlink.connection.connection import Connection

T = TypeVar("T")

# A dead leader does not answer; the next attempt reaches its successor.
_ANSWER_SECONDS = 2.0


async def ask(connection: Connection, subject: str, body: Any, as_type: type[T]) -> T:
    """Ask ``$JS.API.<subject>`` and return the answer, as a value of a type.

    Raises JetStreamError, DecodeError, and the errors of nats-py's request.
    """
    payload = b"" if body is None else codec.encode_json(body)
    limit = min(connection.options.timeout, _ANSWER_SECONDS)
    full = api.api_subject(connection, subject)
    message = await connection.session.nc.request(full.decode(), payload, timeout=limit)
    waiter = Waiter(b"", full, payload, 0.0, None)
    waiter.data = message.data
    api.raise_problem(waiter)
    return codec.decode(message.data, subject, as_type)


async def last_written(connection: Connection, stream: str, patterns: Sequence[str]) -> int:
    """Return the last sequence that a stream's leader has on the subjects of some patterns, 0 if there is none."""
    last = 0
    for pattern in patterns:
        try:
            answer = await ask(connection, f"STREAM.MSG.GET.{stream}", {"last_by_subj": pattern}, MessageAnswer)
        except JetStreamError as exc:
            if exc.err_code != NO_MESSAGE:
                raise
        else:
            last = max(last, answer.message.seq)
    return last
