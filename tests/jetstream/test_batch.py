"""Several messages stored at once, or none of them, against a real server."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import lightlink
from lightlink.jetstream import api
from lightlink.jetstream.batch import MOST_MESSAGES, BatchMessage, publish_batch
from lightlink.jetstream.errors import ATOMIC_DISABLED, WRONG_LAST_SEQUENCE, JetStreamError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lightlink.connection.connection import Connection


@pytest.fixture
def connection(url: str, prefix: str) -> Iterator[Connection]:
    with lightlink.connect(url) as client:
        api.create_stream(client._connection, {"name": prefix, "subjects": [f"{prefix}.>"], "allow_atomic": True}, 5)
        yield client._connection


def test_all_of_a_batch_is_stored_or_nothing(connection: Connection, prefix: str) -> None:
    def message(name: str, expected: int) -> BatchMessage:
        return BatchMessage(f"{prefix}.{name}", name.encode(), expected)

    assert publish_batch(connection, prefix, [message("a", 0), message("b", 0)], 5).seq == 2
    for wrong in ([message("c", 0), message("a", 0)], [message("b", 1), message("c", 0)]):
        with pytest.raises(JetStreamError) as caught:
            publish_batch(connection, prefix, wrong, 5)
        assert caught.value.err_code in WRONG_LAST_SEQUENCE
    assert api.subjects_of(connection, prefix, ">", 5) == {f"{prefix}.a", f"{prefix}.b"}
    assert publish_batch(connection, prefix, [message("b", 2), message("a", 1)], 5).seq == 4
    many = [message(f"n{number}", 0) for number in range(MOST_MESSAGES + 1)]
    with pytest.raises(JetStreamError, match="too large"):
        publish_batch(connection, prefix, many, 5)
    assert publish_batch(connection, prefix, many[1:], 5).seq == 4 + MOST_MESSAGES


def test_a_stream_without_batches_refuses_one(connection: Connection, prefix: str) -> None:
    name = f"{prefix}-plain"
    api.create_stream(connection, {"name": name, "subjects": [f"{name}.>"]}, 5)
    with pytest.raises(JetStreamError) as caught:
        publish_batch(connection, name, [BatchMessage(f"{name}.a", b"", 0), BatchMessage(f"{name}.b", b"", 0)], 5)
    assert caught.value.err_code == ATOMIC_DISABLED
    assert api.subjects_of(connection, name, ">", 5) == set()
