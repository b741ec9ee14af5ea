"""The outbox of Django, in this process; killed relays and PostgreSQL are in test_database.py."""

from __future__ import annotations

import queue
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from django.db import connection, transaction
from django.utils import timezone
from helpers.waiting import eventually

import lightlink
from lightlink.contrib.django import publish_on_commit, relay
from lightlink.contrib.django.models import OutboxEvent
from lightlink.contrib.django.signals import event_relayed

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.usefixtures("table")


@pytest.fixture
def table() -> Iterator[None]:
    with connection.schema_editor() as editor:
        editor.create_model(OutboxEvent)  # type: ignore[arg-type]
    yield
    with connection.schema_editor() as editor:
        editor.delete_model(OutboxEvent)  # type: ignore[arg-type]
    connection.close()


@pytest.fixture
def nats(url: str, prefix: str) -> Iterator[lightlink.Client]:
    with lightlink.connect(url, timeout=30) as connected:
        connected.stream(f"S_{prefix}", [f"{prefix}.>"])
        yield connected


def stored(nats: lightlink.Client, prefix: str) -> list[Any]:
    return [event.data for event in nats.replay(f"{prefix}.>")]


def test_a_key_keeps_its_order_whatever_its_writers_clocks_say(nats: lightlink.Client, prefix: str) -> None:
    ids = [publish_on_commit(f"{prefix}.a", number, key="one") for number in range(4)]
    OutboxEvent.objects.filter(id=ids[1]).update(due_at=timezone.now() + timedelta(hours=1))
    assert relay(nats).relay() == 4
    assert stored(nats, prefix) == [0, 1, 2, 3]


def test_what_rests_holds_back_those_behind_it_alone(nats: lightlink.Client, prefix: str) -> None:
    """A refused event rests though one of its key stands before it, as where that was committed later."""
    ids = [publish_on_commit(f"{prefix}.a", number, key="one") for number in range(4)]
    publish_on_commit(f"{prefix}.a", "another's", key="two")
    refused = OutboxEvent.objects.filter(id=ids[1])
    refused.update(attempts=1, due_at=timezone.now() + timedelta(hours=1))
    assert relay(nats).relay() == 2
    assert stored(nats, prefix) == [0, "another's"]
    refused.update(due_at=timezone.now())
    assert relay(nats).relay() == 3
    assert stored(nats, prefix)[2:] == [1, 2, 3]


def test_nobody_waits_for_a_relay_whose_server_says_nothing(nats: lightlink.Client, prefix: str) -> None:
    publish_on_commit(f"{prefix}-silent", 1)
    with nats.subscribe(f"{prefix}-silent") as silent, relay(nats, interval=0.05) as relaying:
        event = silent.get(30)
        with connection.cursor() as cursor:
            cursor.execute("PRAGMA busy_timeout = 0")  # to find the database locked is an error now
            with transaction.atomic():
                publish_on_commit(f"{prefix}.a", 2)
            cursor.execute("PRAGMA busy_timeout = 20000")
        nats.publish(event.reply, {"stream": "S", "seq": 1})
        eventually(lambda: not OutboxEvent.objects.exists())
        assert (stored(nats, prefix), relaying.relayed) == ([2], 2)


def test_relays_that_meet_at_sqlite_tell_of_an_event_once(nats: lightlink.Client, prefix: str) -> None:
    told: queue.Queue[str] = queue.Queue()

    def note(**more: Any) -> None:
        told.put(more["id"])

    event_relayed.connect(note)
    try:
        ids = [publish_on_commit(f"{prefix}{place}", 1, key="one") for place in ("-silent", ".a")]
        relays = [relay(nats, interval=0.05) for _ in range(2)]
        with nats.subscribe(f"{prefix}-silent") as silent:
            for each in relays:
                each.start()
            for event in [silent.get(30) for _ in relays]:
                nats.publish(event.reply, {"stream": "S", "seq": 1})
            eventually(lambda: not OutboxEvent.objects.exists())
            for each in relays:
                each.stop()
    finally:
        event_relayed.disconnect(note)
    assert sum(each.relayed for each in relays) == 2
    assert [told.get_nowait() for _ in ids] == ids
    assert told.empty()
