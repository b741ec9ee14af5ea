"""The outbox of Django, in this process; killed relays and PostgreSQL are in test_database.py."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from django.db import connection
from django.utils import timezone

import lightlink
from lightlink.contrib.django import publish_on_commit, relay
from lightlink.contrib.django.models import OutboxEvent

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
    with lightlink.connect(url) as connected:
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
