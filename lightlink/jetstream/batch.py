"""Store several messages in a stream at once: all of them, or none (ADR-50; nats-server 2.12)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from lightlink.jetstream import api
from lightlink.protocol.ids import new_id

if TYPE_CHECKING:
    from lightlink.connection.connection import Connection
    from lightlink.jetstream.api import PubAck

# More the server refuses.
MOST_MESSAGES = 1000

_BATCH_ID = "Nats-Batch-Id"
_BATCH_SEQUENCE = "Nats-Batch-Sequence"
_BATCH_COMMIT = "Nats-Batch-Commit"


@attrs.frozen
class BatchMessage:
    """A message to store over the one that has sequence ``expected`` on its subject (0: there is none)."""

    subject: str
    payload: bytes
    expected: int


def publish_batch(connection: Connection, stream: str, messages: list[BatchMessage], timeout: float) -> PubAck:
    """Store messages in a stream that was made with ``allow_atomic``, and return the acknowledgement of the last.

    Where one of them does not follow the message that it expects, none is stored, and the error's ``err_code`` is in
    `WRONG_LAST_SEQUENCE`. Nor is any where this process dies, or is cut off, before the last has left: the server
    forgets the others after 10 s. A server before 2.12 ignores what makes them a batch: see the stream's configuration.
    """
    batch_id = new_id()
    requests = []
    for number, message in enumerate(messages, 1):
        subject = api.write_subject(connection, message.subject)
        headers = {
            _BATCH_ID: batch_id,
            _BATCH_SEQUENCE: str(number),
            api.EXPECTED_LAST_SUBJECT_SEQUENCE: str(message.expected),
        }
        if number == len(messages):
            headers[_BATCH_COMMIT] = "1"
        block = api.checked_block(connection, subject, message.payload, headers)
        requests.append((subject, message.payload, lambda _, block=block: block))
    waiters = connection.request_all(requests, timeout)
    last = waiters[-1]
    if last.error is not None:
        raise last.error
    return api.parse_ack(connection, last, stream)
