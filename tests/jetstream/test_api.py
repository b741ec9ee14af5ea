"""JetStream in requests, against a real server."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pytest
from helpers.waiting import eventually

import lightlink
from lightlink.errors import InvalidName, PayloadTooLarge
from lightlink.jetstream import api, read
from lightlink.jetstream.errors import STREAM_NOT_FOUND, WRONG_LAST_SEQUENCE, JetStreamError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import StartServer
    from helpers.raw import RawPeer

    from lightlink.connection.connection import Connection


@pytest.fixture
def connection(url: str) -> Iterator[Connection]:
    with lightlink.connect(url) as client:
        yield client._connection


@pytest.fixture
def stream(connection: Connection, prefix: str) -> str:
    """A stream of the test's own on the subjects ``<its name>.>``."""
    api.create_stream(connection, settings(prefix), 5)
    return prefix


def settings(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "subjects": [f"{name}.>"], "allow_direct": True, **more}


def store(connection: Connection, subject: str, data: bytes = b"data", **headers: str) -> int:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return api.publish(connection, subject.partition(".")[0], subject.encode(), data, 5, named).seq


# Storing and reading one message ------------------------------------------------------------------------------------


def test_what_is_published_is_acknowledged_and_read_back(connection: Connection, stream: str) -> None:
    before = datetime.now(timezone.utc) - timedelta(seconds=1)
    ack = api.publish(connection, stream, f"{stream}.a".encode(), b"one", 5)
    assert (ack.stream, ack.seq, ack.duplicate) == (stream, 1, False)
    store(connection, f"{stream}.a", b"two", Colour="red")
    store(connection, f"{stream}.b", b"three")
    for message in (
        api.get_last(connection, stream, f"{stream}.a", 5),
        api.get_message(connection, stream, 2, 5),
        api.get_last_written(connection, stream, f"{stream}.a", 5),
        api.find_last(connection, stream, "*.a", 5),
    ):
        assert message is not None
        assert (message.subject, message.seq, message.data) == (f"{stream}.a", 2, b"two")
        assert message.headers["Colour"] == "red"
        assert before < message.created < datetime.now(timezone.utc) + timedelta(seconds=1)


def test_what_is_not_there_is_none(connection: Connection, stream: str) -> None:
    store(connection, f"{stream}.a")
    assert api.get_last(connection, stream, f"{stream}.none", 5) is None
    assert api.get_last_written(connection, stream, f"{stream}.none", 5) is None
    assert api.find_last(connection, stream, "*.none", 5) is None
    assert api.get_message(connection, stream, 99, 5) is None
    assert api.stream_info(connection, f"{stream}_none", 5) is None


def test_an_expected_sequence_is_compared(connection: Connection, stream: str) -> None:
    expect = api.EXPECTED_LAST_SUBJECT_SEQUENCE
    ack = api.publish(connection, stream, f"{stream}.a".encode(), b"", 5, {expect: "0"})
    api.publish(connection, stream, f"{stream}.a".encode(), b"", 5, {expect: str(ack.seq)})
    with pytest.raises(JetStreamError) as caught:
        api.publish(connection, stream, f"{stream}.a".encode(), b"", 5, {expect: str(ack.seq)})
    assert caught.value.err_code in WRONG_LAST_SEQUENCE


def test_where_no_stream_listens_there_are_no_responders(connection: Connection, prefix: str) -> None:
    for use in (
        lambda: store(connection, f"{prefix}.a"),
        lambda: api.get_last(connection, prefix, f"{prefix}.a", 5),
        lambda: api.get_message(connection, prefix, 1, 5),
    ):
        with pytest.raises(JetStreamError) as caught:
            use()
        assert caught.value.no_responders


def test_a_message_whose_headers_exceed_the_limit_is_not_sent(connection: Connection, stream: str) -> None:
    limit = connection.max_payload
    with pytest.raises(PayloadTooLarge) as caught:
        store(connection, f"{stream}.a", bytes(limit - 5), Colour="red")
    assert caught.value.limit == limit
    assert connection.status is lightlink.Status.CONNECTED
    assert store(connection, f"{stream}.a", bytes(limit)) == 1


# Streams ------------------------------------------------------------------------------------------------------------


def _count(connection: Connection, stream: str) -> int:
    info = api.stream_info(connection, stream, 5)
    return 0 if info is None else info.state.messages


def test_a_stream_is_made_once_and_then_left_as_it_is(connection: Connection, prefix: str) -> None:
    assert api.create_stream(connection, settings(prefix, max_msgs=5), 5)
    assert api.create_stream(connection, settings(prefix, max_msgs=5), 5)
    assert not api.create_stream(connection, settings(prefix, max_msgs=6), 5)
    info = api.stream_info(connection, prefix, 5)
    assert info is not None
    assert info.config.max_msgs == 5


def test_a_stream_that_cannot_be_says_why(connection: Connection, stream: str) -> None:
    with pytest.raises(JetStreamError, match="overlap"):
        api.create_stream(connection, {"name": f"{stream}_2", "subjects": [f"{stream}.>"]}, 5)


def test_purging_removes_the_messages_of_a_subject(connection: Connection, stream: str) -> None:
    for n in range(3):
        store(connection, f"{stream}.a.{n}")
    store(connection, f"{stream}.b")
    assert api.purge(connection, stream, f"{stream}.a.1", 5) == 1
    assert api.purge(connection, stream, f"{stream}.a.1", 5) == 0
    for pattern in (f"{stream}.a.*", f"{stream}.>", ">", "a b"):
        with pytest.raises(InvalidName):
            api.purge(connection, stream, pattern, 5)
    assert api.subjects_of(connection, stream, f"{stream}.a.*", 5) == {f"{stream}.a.0", f"{stream}.a.2"}
    assert api.get_last(connection, stream, f"{stream}.b", 5) is not None


def test_the_subjects_of_a_pattern_are_told(connection: Connection, stream: str) -> None:
    for name in ("a.1", "a.2", "a.1", "b.1"):
        store(connection, f"{stream}.{name}")
    assert api.subjects_of(connection, stream, f"{stream}.a.*", 5) == {f"{stream}.a.1", f"{stream}.a.2"}
    assert api.subjects_of(connection, stream, f"{stream}.none", 5) == set()


@pytest.mark.slow
def test_more_subjects_than_fit_a_page_are_told(connection: Connection, prefix: str) -> None:
    api.create_stream(connection, settings(prefix, storage="memory"), 5)
    for n in range(120_000):
        connection.publish(f"{prefix}.{n}".encode(), b"")
    connection.flush(20)
    eventually(lambda: _count(connection, prefix) == 120_000, 20)
    assert len(api.subjects_of(connection, prefix, f"{prefix}.*", 20)) == 120_000
    last = read.read_current(connection, prefix, f"{prefix}.*", 30, policy=read.LAST_OF_EACH, headers_only=True)
    assert len(last) == 120_000
    api.api(connection, f"STREAM.DELETE.{prefix}", None, 5)


def test_without_jetstream_the_error_says_so(fresh_server: StartServer) -> None:
    with lightlink.connect(fresh_server(jetstream=False).url) as client:
        with pytest.raises(JetStreamError, match="JetStream") as caught:
            api.stream_info(client._connection, "any", 5)
        assert caught.value.no_responders


@pytest.mark.parametrize(
    ("text", "microseconds"),
    [
        ("2026-11-22T15:00:44.536158132Z", 536158),
        ("2026-11-22T15:00:44.5Z", 500000),
        ("2026-11-22T15:00:44Z", 0),
        ("2026-11-22T15:00:44.000001Z", 1),
    ],
)
def test_the_servers_times_are_read_to_the_microsecond(text: str, microseconds: int) -> None:
    expected = datetime(2026, 11, 22, 15, 0, 44, microseconds, timezone.utc)
    assert api.parse_time(text) == expected


# Reading many -------------------------------------------------------------------------------------------------------


def test_everything_is_read_in_order(connection: Connection, stream: str) -> None:
    for n in range(600):
        store(connection, f"{stream}.{n % 7}", str(n).encode())
    found = read.read_current(connection, stream, f"{stream}.>", 10)
    assert [delivery.seq for delivery in found] == list(range(1, 601))
    assert [int(delivery.data) for delivery in found] == list(range(600))
    last = read.read_current(connection, stream, f"{stream}.>", 10, policy=read.LAST_OF_EACH)
    assert [delivery.seq for delivery in last] == list(range(594, 601))
    some = read.read_current(connection, stream, f"{stream}.3", 10)
    assert [delivery.seq for delivery in some] == list(range(4, 601, 7))


def test_a_range_is_read(connection: Connection, stream: str) -> None:
    for n in range(50):
        store(connection, f"{stream}.{n % 2}.{n}")
    patterns = [f"{stream}.0.*", f"{stream}.1.*"]
    found, reached = read.read_range(connection, stream, patterns, 10, 20, 10)
    assert ([delivery.seq for delivery in found], reached) == (list(range(10, 20)), 20)
    assert read.read_range(connection, stream, [f"{stream}.none"], 1, 51, 10) == ([], 51)
    odd, _ = read.read_range(connection, stream, patterns[1:], 1, 10, 10)
    assert [delivery.seq for delivery in odd] == [2, 4, 6, 8]
    few, reached = read.read_range(connection, stream, patterns, 10, 20, 10, max_bytes=10)
    assert ([delivery.seq for delivery in few], reached) == ([10, 11, 12], 13)


def test_headers_alone_are_read_on_demand(connection: Connection, stream: str) -> None:
    store(connection, f"{stream}.a", b"x" * 1000, Colour="red")
    (delivery,) = read.read_current(connection, stream, f"{stream}.a", 10, headers_only=True)
    assert delivery.data == b""
    assert b"Colour: red" in (delivery.headers or b"")


def test_messages_of_many_sizes_all_come(connection: Connection, stream: str) -> None:
    sizes = [1, 900_000, 5, 1_000_000, 300_000] * 12
    for size in sizes:
        store(connection, f"{stream}.a", bytes(size))
    found = read.read_current(connection, stream, f"{stream}.a", 20)
    assert [len(delivery.data) for delivery in found] == sizes


def test_reading_leaves_no_consumer_behind(connection: Connection, stream: str, peer: RawPeer) -> None:
    store(connection, f"{stream}.a")
    for _ in range(5):
        assert len(read.read_current(connection, stream, f"{stream}.a", 10)) == 1
    # The server confirms a flush before it has done what it was asked to; left alone, a consumer would stay for longer.
    eventually(lambda: peer.run(peer.nc.jetstream().consumers_info(stream)) == [])


def test_reading_a_stream_that_is_not_there_says_so(connection: Connection, prefix: str) -> None:
    with pytest.raises(JetStreamError) as caught:
        read.read_current(connection, prefix, f"{prefix}.>", 5)
    assert caught.value.err_code == STREAM_NOT_FOUND
