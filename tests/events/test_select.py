"""Subscriptions and watches in a main loop of somebody else's: select, poll."""

from __future__ import annotations

import select
import threading
from typing import TYPE_CHECKING, Any

import pytest

import lightlink
from lightlink.errors import InvalidOption, NoMessage

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def client(url: str) -> Iterator[lightlink.Client]:
    with lightlink.connect(url) as connected:
        yield connected


def is_readable(*waiters: Any, timeout: float = 0.0) -> bool:
    return bool(select.select(waiters, [], [], timeout)[0])


def test_a_subscription_is_readable_while_messages_wait(client: lightlink.Client, prefix: str) -> None:
    with client.subscribe(prefix) as heard:
        assert not is_readable(heard)
        for number in range(3):
            client.publish(prefix, number)
        for number in range(3):
            assert is_readable(heard, timeout=30)
            assert heard.get(timeout=30).data == number
        assert not is_readable(heard)
        with pytest.raises(NoMessage):
            heard.get(timeout=0)
        client.publish(prefix, "again")
        assert is_readable(heard, timeout=30)
        assert heard.get(timeout=0).data == "again"


def test_what_came_before_the_descriptor_is_seen(client: lightlink.Client, prefix: str) -> None:
    with client.subscribe(prefix) as heard:
        client.publish(prefix, 1)
        client.flush()
        assert heard.get(timeout=30).data == 1
        client.publish(prefix, 2)
        client.ping()
        assert is_readable(heard, timeout=30)


def test_a_loop_over_many_wakes_for_the_one_that_has_something(client: lightlink.Client, prefix: str) -> None:
    with client.subscribe(f"{prefix}.a") as first, client.subscribe(f"{prefix}.b") as second:
        poll = select.poll()
        for heard in (first, second):
            poll.register(heard, select.POLLIN)
        publisher = threading.Timer(0.05, client.publish, (f"{prefix}.b", "hello"))
        publisher.start()
        assert poll.poll(30_000) == [(second.fileno(), select.POLLIN)]
        assert second.get(timeout=0).data == "hello"
        publisher.join()


def test_the_end_wakes_a_loop_too(client: lightlink.Client, prefix: str) -> None:
    heard = client.subscribe(prefix)
    assert not is_readable(heard)
    client.close()
    assert is_readable(heard, timeout=30)
    with pytest.raises(lightlink.ClosedError):
        heard.get(timeout=0)


def test_a_watch_is_readable_too(client: lightlink.Client, prefix: str) -> None:
    client.set_state(prefix, 1)
    with client.watch_state(prefix) as watch:
        assert is_readable(watch, timeout=30)
        assert watch.get(timeout=30).value == 1


def test_what_has_a_handler_has_none(client: lightlink.Client, prefix: str) -> None:
    subscription = client.subscribe(prefix, lambda message: None)
    with pytest.raises(InvalidOption, match="has a handler"):
        subscription.fileno()
