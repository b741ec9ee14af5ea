"""Streams are created or compared, and events are stored when publishing returns."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from lightlink.errors import InvalidName, InvalidOption, NotStored, PayloadTooLarge, StreamError, StreamNotFound
from lightlink.streams import Stored

if TYPE_CHECKING:
    from collections.abc import Callable

    import lightlink


def test_a_stream_is_created_once_then_compared(client: lightlink.Client) -> None:
    stream = client.stream("ORDERS", ["orders.>"])
    assert (stream.info().messages, stream.info().subjects) == (0, ("orders.>",))
    with pytest.raises(StreamError, match=r"max_age is 0 s, not 60 s; duplicate_window is .*; update=True changes it"):
        client.stream("ORDERS", ["orders.>"], max_age=60)
    client.stream("ORDERS", ["orders.>", "bills.*"], max_age=60, deduplication=30, update=True)
    assert set(stream.info().subjects) == {"orders.>", "bills.*"}
    assert client.stream("ORDERS").name == "ORDERS"
    with pytest.raises(StreamNotFound, match="NOTHING"):
        client.stream("NOTHING")
    stream.delete()
    with pytest.raises(StreamNotFound):
        stream.info()


def test_bad_streams_are_refused_by_name(client: lightlink.Client) -> None:
    for name, subjects, options in (
        ("A", "orders.>", {}),
        ("A", [], {}),
        ("A", ["a"], {"storage": "tape"}),
        ("A", ["a"], {"replicas": 0}),
        ("A", ["a"], {"max_bytes": -5}),
    ):
        with pytest.raises(InvalidOption):
            client.stream(name, subjects, **options)  # type: ignore[arg-type]
    for name, subjects in (("A.B", ["a"]), ("A", ["a b"])):
        with pytest.raises(InvalidName):
            client.stream(name, subjects)
    with pytest.raises(StreamError, match="overlap"):
        client.stream("OTHER", ["orders.new"])


def test_an_event_is_stored_when_publishing_returns(client: lightlink.Client) -> None:
    assert client.publish_stored("orders.new", {"n": 1}, id="1") == Stored("ORDERS", 1)
    assert client.publish_stored("orders.new", {"n": 1}, id="1") == Stored("ORDERS", 1, duplicate=True)
    # JetStream's message ids are per stream; LightLink's are per subject.
    assert client.publish_stored("orders.paid", {"n": 1}, id="1", headers={"k": "v"}) == Stored("ORDERS", 2)
    assert client.submit_stored("orders.new", b"raw").result(10) == Stored("ORDERS", 3)
    messages = list(client.replay("orders.>", raw=True))
    assert [(each.subject, each.data, each.sequence) for each in messages] == [
        ("orders.new", b'{"n":1}', 1),
        ("orders.paid", b'{"n":1}', 2),
        ("orders.new", b"raw", 3),
    ]
    assert messages[1].headers["k"] == "v"


def test_an_event_that_no_stream_captures_fails_at_once(client: lightlink.Client) -> None:
    with pytest.raises(NotStored, match="no stream captures this subject") as caught:
        client.publish_stored("nowhere.new", 1)
    assert not caught.value.unknown
    with pytest.raises(NotStored, match="no stream"):
        client.submit_stored("nowhere.new", 1).result(10)
    with pytest.raises(NotStored, match="expected stream does not match"):
        client.publish_stored("orders.new", 1, stream="BILLS")
    with pytest.raises(PayloadTooLarge):
        client.publish_stored("orders.new", b"x" * 2_000_000)


def test_storing_many_events_succeeds_or_names_the_failure(client: lightlink.Client) -> None:
    with client.storing() as batch:
        for number in range(10_000):
            batch.publish("orders.new", number, id=str(number))
    assert batch.stored == 10_000
    assert client.stream("ORDERS").info().messages == 10_000
    batch = client.storing()
    for subject in ("orders.new", "nowhere.1"):
        batch.publish(subject)
    with pytest.raises(NotStored, match=r"'nowhere.1'"):
        batch.wait()


def test_an_exception_in_storing_leaves_no_open_requests(
    client: lightlink.Client,
) -> None:
    with pytest.raises(LookupError), client.storing() as batch:  # noqa: PT012 - it is the block that is tested
        for number in range(100):
            batch.publish("orders.new", number)
        raise LookupError
    assert len(client._connection.session.replies) == 0
    assert client.publish_stored("orders.new", 1).stream == "ORDERS"


def test_purge_removes_a_subject_or_everything(
    client: lightlink.Client, connect: Callable[..., lightlink.Client]
) -> None:
    stream = client.stream("ORDERS")
    for subject in ("orders.a", "orders.b", "orders.b"):
        client.publish_stored(subject, 1)
    assert stream.purge("orders.b") == 2
    assert stream.info().messages == 1
    assert connect().stream("ORDERS").purge() == 1
