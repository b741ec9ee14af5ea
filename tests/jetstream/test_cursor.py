"""Where a reader has got to, and what it asks for next."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from lightlink.jetstream.answers import ConsumerInfo, StreamInfo
from lightlink.jetstream.cursor import EVERYTHING, LAST_OF_EACH, Delivery, Position, read_delivery

STREAM: dict[str, Any] = {"created": "2026-01-01T00:00:00Z", "state": {"last_seq": 100}, "config": {"num_replicas": 1}}


def told(info: dict[str, Any]) -> StreamInfo:
    """Return what the server says of the stream."""
    return msgspec.convert(info, StreamInfo)


def position(policy: str = LAST_OF_EACH, first: int = 0) -> Position:
    made = Position("S", ["s.>"], policy, first, headers_only=False)
    made.check_stream(told(STREAM))
    return made


def delivery(seq: int, pending: int, subject: bytes = b"s.a") -> Delivery:
    return Delivery(subject, seq, b"", None, 0, pending, b"c", 1)


@pytest.mark.parametrize("between", [b"", b"hub.ACCOUNTHASH."])
def test_a_delivery_is_read_from_both_forms_of_its_reply_subject(between: bytes) -> None:
    reply = b"$JS.ACK." + between + b"STREAM.consumer.1.17.5.1767225600123456789.3"
    found = read_delivery(b"s.a", reply + (b".token" if between else b""), b"data", b"headers")
    assert found == Delivery(b"s.a", 17, b"data", b"headers", 1767225600123456789, 3, b"consumer", 5)
    assert found.created.isoformat() == "2026-01-01T00:00:00.123456+00:00"


@pytest.mark.parametrize(
    "reply", [b"$JS.ACK.", b"$JS.ACK.S.c.1.x.1.1.0", b"$JS.ACK.d.a.S.c.1.-1.1.1.0", b"$JS.ACK.S.c.1.1"]
)
def test_what_only_looks_like_a_delivery_is_none(reply: bytes) -> None:
    assert read_delivery(b"s", reply, b"", None) is None


def test_what_is_no_delivery_is_none() -> None:
    assert read_delivery(b"_INBOX.a.1", b"", b"", b"NATS/1.0 408 Request Timeout\r\n\r\n") is None


def test_the_policy_counts_until_all_that_was_there_has_come() -> None:
    reading = position()
    reading.begin(ConsumerInfo(num_pending=2))
    assert not reading.is_current
    assert reading.passed(delivery(10, pending=1))
    # An outage here: the last values are asked for again, and the one that came is passed over.
    config = reading.consumer_request()[2]["config"]
    assert config["deliver_policy"] == LAST_OF_EACH
    reading.begin(ConsumerInfo(num_pending=2))
    assert not reading.passed(delivery(10, pending=1))
    assert reading.passed(delivery(20, pending=0))
    assert reading.is_current
    config = reading.consumer_request()[2]["config"]
    assert (config["deliver_policy"], config["opt_start_seq"]) == ("by_start_sequence", 21)


def test_values_overwritten_meanwhile_are_not_waited_for() -> None:
    reading = position()
    reading.begin(ConsumerInfo(num_pending=10))
    reading.passed(delivery(10, pending=3))
    assert not reading.is_current
    reading.passed(delivery(20, pending=0))
    assert reading.is_current


def test_a_restless_writer_does_not_put_off_the_current_values() -> None:
    reading = position()
    reading.begin(ConsumerInfo(num_pending=2))
    reading.passed(delivery(10, pending=50))
    reading.passed(delivery(20, pending=60))
    assert not reading.is_current  # it may have been the same subject, as here
    reading.passed(delivery(30, pending=70, subject=b"s.b"))
    assert reading.is_current
    everything = position(EVERYTHING)
    everything.begin(ConsumerInfo(num_pending=2))
    everything.passed(delivery(10, pending=50))
    everything.passed(delivery(20, pending=60))
    assert everything.is_current


def test_an_empty_stream_is_current_at_once() -> None:
    reading = position()
    reading.begin(ConsumerInfo(num_pending=0))
    assert reading.is_current


def test_a_first_sequence_wins_over_the_policy() -> None:
    reading = position(EVERYTHING, first=7)
    config = reading.consumer_request()[2]["config"]
    assert (config["deliver_policy"], config["opt_start_seq"]) == ("by_start_sequence", 7)
    reading.begin(ConsumerInfo(num_pending=5))
    reading.passed(delivery(9, pending=4))
    assert reading.consumer_request()[2]["config"]["opt_start_seq"] == 10


@pytest.mark.parametrize(
    "info",
    [
        {"created": "2026-02-02T00:00:00Z", "state": {"last_seq": 200}, "config": {}},  # made anew
        {"created": STREAM["created"], "state": {"last_seq": 99}, "config": {}},  # lost its end in a crash
    ],
)
def test_a_stream_that_is_another_is_read_as_at_the_start(info: dict[str, object]) -> None:
    reading = position()
    reading.begin(ConsumerInfo(num_pending=1))
    reading.passed(delivery(100, pending=0))
    reading.check_stream(told(info))
    assert not reading.is_current
    assert reading.consumer_request()[2]["config"]["deliver_policy"] == LAST_OF_EACH
    reading.begin(ConsumerInfo(num_pending=1))
    assert reading.passed(delivery(5, pending=0))


def test_one_filter_is_part_of_the_subject_for_permissions() -> None:
    name, subject, request = position().consumer_request()
    assert subject == f"CONSUMER.CREATE.S.{name.decode()}.s.>"
    assert request["config"]["filter_subject"] == "s.>"
    _, subject, request = Position("S", ["a", "b"], EVERYTHING, 0, headers_only=True).consumer_request()
    assert subject.count(".") == 3
    assert request["config"]["filter_subjects"] == ["a", "b"]
    assert request["config"]["headers_only"]


def test_pulls_are_limited_in_bytes_where_that_loses_nothing() -> None:
    reading = position()
    reading.begin(ConsumerInfo(num_pending=1))
    assert not reading.may_limit_bytes
    reading.passed(delivery(1, pending=0))
    assert reading.may_limit_bytes
    assert position(EVERYTHING).may_limit_bytes


def test_what_a_replica_lacks_is_waited_for() -> None:
    reading = position(EVERYTHING)
    reading.expect(30)
    reading.begin(ConsumerInfo(num_pending=1))
    reading.passed(delivery(10, pending=0))
    assert reading.has_all
    assert not reading.is_current
    reading.passed(delivery(30, pending=0))
    assert reading.is_current


def test_what_was_removed_before_it_came_is_not_waited_for() -> None:
    reading = position(EVERYTHING)
    reading.begin(ConsumerInfo(num_pending=3))
    reading.passed(delivery(10, pending=2))
    assert not reading.has_all
    reading.exhaust()
    assert reading.is_current


def test_an_empty_replica_is_not_an_empty_stream() -> None:
    reading = position()
    reading.expect(30)
    reading.begin(ConsumerInfo(num_pending=0))
    assert reading.has_all
    reading.expect(0)  # it was removed
    assert reading.is_current


def test_what_comes_after_the_start_is_not_waited_for() -> None:
    reading = position(EVERYTHING)
    reading.expect(30)
    reading.begin(ConsumerInfo(num_pending=1))
    reading.passed(delivery(10, pending=0))
    reading.expect(20)
    reading.expect(40)
    reading.passed(delivery(20, pending=0))
    assert reading.is_current


def test_what_a_replica_gives_from_before_is_not_wanted() -> None:
    reading = position(EVERYTHING, first=30)
    reading.expect(29)
    reading.begin(ConsumerInfo(num_pending=0))
    assert reading.is_current
    assert not reading.passed(delivery(28, pending=0))
    assert reading.passed(delivery(30, pending=0))


def test_only_of_a_replicated_stream_the_leader_has_to_be_asked() -> None:
    assert not position().is_unsure
    reading = position()
    reading.check_stream(told({**STREAM, "config": {"num_replicas": 3}}))
    assert reading.is_unsure
    reading.begin(ConsumerInfo(num_pending=0))
    assert not reading.is_unsure
