"""Order across processes: events of one partition are handled one at a time, by whichever process."""

from __future__ import annotations

import threading
import time
from collections import Counter, defaultdict
from typing import TYPE_CHECKING

import pytest
from helpers.waiting import eventually

from lightlink.errors import InvalidOption, Reject, StreamError
from lightlink.streams import StoredMessage

if TYPE_CHECKING:
    from collections.abc import Callable

    import lightlink

CUSTOMERS = "abcdefgh"


@pytest.fixture
def client(connect: Callable[..., lightlink.Client]) -> lightlink.Client:
    """A client, with the stream ORDERS in four partitions, by customer."""
    made = connect()
    made.stream("ORDERS", ["orders.*.>"], partitions=4)
    return made


def test_two_clients_share_partitions_and_keep_the_order(
    client: lightlink.Client, connect: Callable[..., lightlink.Client]
) -> None:
    running: Counter[str] = Counter()
    seen: dict[str, list[int]] = defaultdict(list)
    overlaps: list[str] = []
    by: Counter[int] = Counter()
    lock = threading.Lock()

    def take_part(member: lightlink.Client, number: int) -> None:
        @member.consume("orders.>", name="billing", partitions=4, workers=4, retries=[0.02])
        def bill(message: StoredMessage) -> None:
            _, customer, _ = message.subject.split(".")
            with lock:
                running[customer] += 1
                if running[customer] > 1:
                    overlaps.append(customer)
                by[number] += 1
                seen[customer].append(message.data)
            time.sleep(0.001)
            with lock:
                running[customer] -= 1
            if message.data == 7 and message.attempt == 1:
                raise ValueError("once")

    take_part(client, 1)
    take_part(connect(), 2)
    for number in range(20):
        for customer in CUSTOMERS:
            client.publish_stored(f"orders.{customer}.new", number)
    eventually(lambda: sum(map(len, seen.values())) == 21 * len(CUSTOMERS))
    assert overlaps == []
    assert all(seen[customer] == sorted([*range(20), 7]) for customer in CUSTOMERS)
    assert set(by) == {1, 2}


def test_readers_do_not_see_the_prefix_of_partitions(client: lightlink.Client) -> None:
    for number, customer in enumerate("abc"):
        client.publish_stored(f"orders.{customer}.new", number)
    subjects = ["orders.a.new", "orders.b.new", "orders.c.new"]
    assert [each.subject for each in client.replay("orders.>")] == subjects
    assert [each.data for each in client.replay("orders.b.*")] == [1]
    seen: list[str] = []

    @client.consume(["orders.a.>", "orders.c.>"], name="audit")
    def audit(message: StoredMessage) -> None:
        seen.append(message.subject)
        if message.data == 2:
            raise Reject("not that one")

    eventually(lambda: sorted(seen) == ["orders.a.new", "orders.c.new"])
    (letter,) = eventually(client.dead_letters("ORDERS", "audit").list)
    assert letter.subject == "orders.c.new"
    stream = client.stream("ORDERS")
    assert (stream.info().partitions, stream.info().subjects) == (4, ("orders.*.>",))
    assert stream.purge("orders.b.>") == 1
    assert [each.data for each in client.replay("orders.>")] == [0, 2]


def test_dead_letters_of_all_partitions_are_of_one_consumer(client: lightlink.Client) -> None:
    broken, seen = threading.Event(), []
    broken.set()

    @client.consume("orders.>", name="billing", partitions=4, workers=2)
    def bill(message: StoredMessage) -> None:
        if broken.is_set():
            raise Reject("no such customer")
        seen.append((message.subject, message.data, message.attempt))

    client.publish_stored("orders.a.new", 1)
    letters = client.dead_letters("ORDERS", "billing")
    (letter,) = eventually(letters.list)
    broken.clear()
    letters.redeliver(letter.number)
    eventually(lambda: seen == [("orders.a.new", 1, 1)])
    assert client.stream("ORDERS").consumers() == [f"billing-{number}" for number in range(4)]


def test_invalid_partitions_are_refused_by_name(client: lightlink.Client) -> None:
    for subjects in (["bills.>"], ["bills.*", "taxes.*"]):
        with pytest.raises(InvalidOption, match="need one subject with a"):
            client.stream("BILLS", subjects, partitions=4)
    with pytest.raises(InvalidOption, match="partitions 0: must be an integer from 1 to 1024"):
        client.stream("BILLS", ["bills.*"], partitions=0)
    for wanted in (None, 8):
        with pytest.raises(StreamError, match=f"it has 4 partitions, not {wanted or 'none'}"):
            client.stream("ORDERS", ["orders.*.>"], partitions=wanted, update=True)
    client.stream("BILLS", ["bills.*"])
    for subject, has in (("orders.>", "4"), ("bills.>", "no")):
        with pytest.raises(StreamError, match=f"it has {has} partitions, not 8"):
            client.consume(subject, name="x", partitions=8)(print)
    for options in ({"key": len}, {"batch": 10}):
        with pytest.raises(InvalidOption, match="no key, no batch"):
            client.consume("orders.>", name="x", partitions=4, **options)
