"""Explicit fetch and acknowledgement, a consumer's lag, pause and reset, and replays."""

from __future__ import annotations

import itertools
import os
import queue
import threading
import time
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING

import pytest
from helpers.waiting import eventually

import lightlink
from lightlink.errors import ClosedError, DecodeError, InvalidOption, StreamError, StreamNotFound
from lightlink.jetstream import api

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import StartPython, StartServer

    from lightlink.streams import Consumer, HeldMessage, StoredMessage


def fill(client: lightlink.Client, count: int = 5) -> None:
    """Store ``count`` events, and create the consumer ``hand``."""
    for number in range(count):
        client.publish_stored("orders.new", number)
    from lightlink.streams.durable import Durable

    Durable(client._connection, "ORDERS", "hand", 5.0).ensure(["orders.>"], ack_wait=1.0)


def take(consumer: Consumer, count: int) -> list[HeldMessage]:
    """Fetch until there are ``count`` events; one call returns those that have arrived."""
    found: list[HeldMessage] = []
    while len(found) < count:
        more = consumer.fetch(count - len(found), timeout=30)
        assert more
        found += more
    return found


def test_events_are_fetched_and_settled_one_by_one(client: lightlink.Client) -> None:
    fill(client)
    with client.consumer("ORDERS", "hand") as consumer:
        first, second, third = take(consumer, 3)
        assert [each.data for each in (first, second, third)] == [0, 1, 2]
        first.done()
        first.done()
        second.retry()
        third.reject("not this one")
        again = take(consumer, 3)
        assert sorted((each.data, each.attempt) for each in again) == [(1, 2), (3, 1), (4, 1)]
        for each in again:
            each.done()
        eventually(lambda: (consumer.lag().waiting, consumer.lag().in_flight) == (0, 0))
        assert consumer.fetch(1, timeout=0.1) == []
    (letter,) = client.dead_letters("ORDERS", "hand").list()
    assert (letter.data, letter.error) == (b"2", "not this one")


def test_held_events_are_kept_until_close_releases_them(client: lightlink.Client) -> None:
    fill(client, 2)
    with client.consumer("ORDERS", "hand") as consumer:
        (held, _) = take(consumer, 2)
        assert consumer.lag().in_flight == 2
        assert held.attempt == 1
    with client.consumer("ORDERS", "hand") as other:
        assert sorted((each.data, each.attempt) for each in take(other, 2)) == [(0, 2), (1, 2)]


def test_an_event_that_cannot_be_decoded_hides_none_before_it(client: lightlink.Client) -> None:
    client.publish_stored("orders.new", 1)
    client.publish_stored("orders.new", b"{")
    client.publish_stored("orders.new", 3)
    fill(client, 0)
    with client.consumer("ORDERS", "hand") as consumer:
        found: list[HeldMessage] = []
        errors: list[DecodeError] = []
        while len(found) < 2 and len(errors) < 3:
            try:
                found += consumer.fetch(3, timeout=30)
            except DecodeError as exc:
                errors.append(exc)
        assert sorted(each.data for each in found) == [1, 3]
        assert errors[0].start == b"{"
        for each in found:
            each.done()
        eventually(lambda: consumer.lag().in_flight <= 1)


def test_what_ctrl_c_keeps_from_its_caller_is_given_back(client: lightlink.Client) -> None:
    fill(client, 2)
    with client.consumer("ORDERS", "hand") as consumer:
        take_next, calls = consumer._next, itertools.count(1)

        def interrupted(deadline: float | None) -> HeldMessage:
            if next(calls) == 2:
                raise KeyboardInterrupt
            return take_next(deadline)

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(consumer, "_next", interrupted)
            with pytest.raises(KeyboardInterrupt):
                consumer.fetch(3, timeout=30)
        assert sorted((each.data, each.attempt) for each in take(consumer, 2)) == [(0, 2), (1, 1)]


def test_a_consumer_is_paused_and_resumed(client: lightlink.Client) -> None:
    fill(client, 1)
    with client.consumer("ORDERS", "hand") as consumer:
        consumer.pause(datetime.now(timezone.utc) + timedelta(hours=1))
        assert consumer.lag().paused
        assert consumer.fetch(1, timeout=0.3) == []
        consumer.resume()
        assert [each.data for each in consumer.fetch(1)] == [0]
        with pytest.raises(InvalidOption):
            consumer.pause(datetime.now())  # noqa: DTZ005 - a naive datetime is refused


def test_reset_restarts_a_consumer(client: lightlink.Client) -> None:
    fill(client)
    with client.consumer("ORDERS", "hand") as consumer:
        for each in take(consumer, 5):
            each.done()
        eventually(lambda: consumer.lag().in_flight == 0)
    consumer = client.consumer("ORDERS", "hand")
    consumer.reset(since=4)
    assert consumer.lag().waiting == 2
    consumer.reset(since=timedelta(hours=1))
    assert [each.data for each in take(consumer, 5)] == [0, 1, 2, 3, 4]


def test_a_reset_to_what_cannot_be_leaves_the_consumer(client: lightlink.Client) -> None:
    fill(client)
    with client.consumer("ORDERS", "hand") as consumer:
        for each in take(consumer, 5):
            each.done()
        eventually(lambda: consumer.lag().in_flight == 0)
        for wrong in ("frist", datetime(2026, 1, 1), 0, 1.5, True, None, 2**64):  # noqa: DTZ001 - not aware
            with pytest.raises(InvalidOption, match="since"):
                consumer.reset(wrong)
        assert consumer.lag().waiting == 0
        consumer.reset(datetime(1, 1, 1, tzinfo=timezone.utc))
        assert consumer.lag().waiting == 5


def test_a_reset_that_fails_half_way_says_what_is_gone(fresh_server: StartServer) -> None:
    rule = 'permissions: {publish: {deny: "$JS.API.CONSUMER.CREATE.>"}}'
    users = f"{{user: may, password: p}}, {{user: may_not, password: p, {rule}}}"
    url = fresh_server(config=f"authorization {{ users = [{users}] }}").url
    with (
        lightlink.connect(url, user="may", password="p") as client,
        lightlink.connect(url, user="may_not", password="p") as other,
    ):
        stream = client.stream("ORDERS", ["orders.>"])
        fill(client)
        with pytest.raises(StreamError, match="cannot reset consumer 'ORDERS/hand': it was deleted"):
            other.consumer("ORDERS", "hand").reset("first")
        assert stream.consumers() == []


def test_lag_has_the_age_of_the_oldest_unsettled_event(client: lightlink.Client) -> None:
    fill(client, 0)
    consumer = client.consumer("ORDERS", "hand")
    assert consumer.lag().oldest is None
    for number in range(3):
        client.publish_stored("orders.new", number)
        time.sleep(0.2)  # so that their ages differ by more than a request takes
    first, second, third = client.replay("orders.>")

    def is_oldest(message: StoredMessage) -> bool:
        """Tell whether an event is the oldest; the server runs on this machine's clock."""
        now = datetime.now(timezone.utc)
        oldest = consumer.lag().oldest
        least, most = now - message.stored_at, datetime.now(timezone.utc) - message.stored_at
        return oldest is not None and least <= timedelta(seconds=oldest) <= most

    assert is_oldest(first)
    held = take(consumer, 3)
    assert is_oldest(first)
    held[1].done()  # the first is still unsettled
    eventually(lambda: consumer.lag().in_flight == 2)
    assert is_oldest(first)
    held[0].done()
    eventually(lambda: is_oldest(third) and not is_oldest(second))
    held[2].done()
    eventually(lambda: consumer.lag().oldest is None)


def test_iterating_yields_events_as_they_arrive(client: lightlink.Client) -> None:
    fill(client, 3)
    seen = []
    with client.consumer("ORDERS", "hand") as consumer:
        for message in consumer:
            seen.append(message.data)
            message.done()
            if len(seen) == 3:
                break
    assert seen == [0, 1, 2]


def test_a_missing_stream_or_consumer_is_not_found(client: lightlink.Client) -> None:
    for stream, name in (("ORDERS", "nobody"), ("NOTHING", "x")):
        with pytest.raises(StreamNotFound):
            client.consumer(stream, name).lag()
    with pytest.raises(StreamNotFound):
        client.consumer("ORDERS", "nobody").fetch(1)


def test_events_are_replayed_from_any_position(client: lightlink.Client) -> None:
    for number in range(5):
        client.publish_stored(f"orders.{'even' if number % 2 == 0 else 'odd'}", number)
    whole = list(client.replay("orders.>"))
    assert [each.data for each in whole] == [0, 1, 2, 3, 4]
    assert [each.data for each in client.replay("orders.odd")] == [1, 3]
    assert [each.data for each in client.replay("orders.>", since=4)] == [3, 4]
    assert [each.data for each in client.replay("orders.>", since=whole[2].stored_at)] == [2, 3, 4]
    assert [each.data for each in client.replay("orders.>", since=timedelta(hours=1))] == [0, 1, 2, 3, 4]
    following = client.replay("orders.>", since=5, follow=True)
    assert next(following).data == 4
    client.publish_stored("orders.new", 5)
    assert next(following).data == 5
    following.close()  # type: ignore[attr-defined]
    with pytest.raises(InvalidOption):
        list(client.replay("orders.>", since="yesterday"))
    with pytest.raises(StreamError):
        client.replay("nowhere.>")


def test_a_replay_from_a_time_has_all_beside_gaps(client: lightlink.Client) -> None:
    # Made as another program does: without direct gets.
    config = {"name": "GAPS", "subjects": ["gaps.>"]}
    api.api(client._connection, "STREAM.CREATE.GAPS", config, 5.0)
    for number in range(1, 11):
        client.publish_stored("gaps.noise" if number in (2, 3, 6, 9, 10) else "gaps.new", number)
    times = {each.data: each.stored_at for each in client.replay("gaps.>")}
    client.stream("GAPS").purge("gaps.noise")
    kept = [1, 4, 5, 7, 8]
    for first, since in [(1, timedelta(hours=1)), *times.items()]:
        assert [each.data for each in client.replay("gaps.>", since=since)] == [each for each in kept if each >= first]
    client.stream("GAPS").purge()
    assert list(client.replay("gaps.>", since=timedelta(hours=1))) == []


def test_a_replay_ends_as_its_client_is_closed(connect: Callable[..., lightlink.Client]) -> None:
    client = connect()
    client.stream("ORDERS", ["orders.>"])
    client.publish_stored("orders.new", 1)
    following = client.replay("orders.>", follow=True)
    assert next(following).data == 1
    errors: queue.SimpleQueue[Exception] = queue.SimpleQueue()

    def follow() -> None:
        try:
            next(following)
        except Exception as exc:
            errors.put(exc)

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    client.close()
    error = errors.get(timeout=30)
    assert isinstance(error, ClosedError)
    assert str(error) == "the client is closed"
    thread.join(30)


def test_a_replay_says_that_its_stream_was_deleted(client: lightlink.Client) -> None:
    stream = client.stream("ORDERS")
    with client.storing() as batch:
        for number in range(300):  # more than a reader asks for at a time
            batch.publish("orders.new", number)
    replayed = client.replay("orders.>")
    following = client.replay("orders.>", follow=True)
    assert next(replayed).data == next(following).data == 0
    stream.delete()
    with pytest.raises(StreamNotFound, match="ORDERS"):
        list(replayed)
    client.stream("ORDERS", ["orders.>"])
    client.publish_stored("orders.new", "anew")
    assert next(each.data for each in following if each.data == "anew")
    following.close()  # type: ignore[attr-defined]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_cannot_use_its_parents_consumer(client: lightlink.Client, python: StartPython) -> None:
    fill(client, 1)
    code = """
        import os, sys, lightlink
        client = lightlink.connect(sys.argv[1])
        consumer = client.consumer("ORDERS", "hand")
        (held,) = consumer.fetch(timeout=30)
        child = os.fork()
        if not child:
            for use in (held.done, consumer.fetch, lambda: next(iter(consumer))):
                try:
                    use()
                except lightlink.ClosedError as error:
                    assert "parent process" in str(error), error
                else:
                    os._exit(3)
            consumer.close()
            client.close()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        held.done()
        consumer.close()
        client.close()
        print("done")
    """
    process = python(code, client.server, options=())
    assert process.wait().stdout == "done\n", process.stderr
