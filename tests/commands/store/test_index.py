"""A rare command among many is found by an index, and counts as it stands in the store."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from helpers.commands import World
from helpers.waiting import eventually

from lightlink.commands import model
from lightlink.commands.model import RequestRecord, StatusRecord
from lightlink.commands.store import history, index, schema
from lightlink.commands.store.store import StatusWrite
from lightlink.protocol.ids import new_id

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import StartServer

    from lightlink.commands import CommandManager


@pytest.fixture
def manager(fresh_server: StartServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[CommandManager]:
    """A manager that is quick to begin an index, on a server of the test's own."""
    monkeypatch.setattr(history, "_WORTH_AN_INDEX", 1)
    with World(fresh_server().url) as world:
        yield world.manager(sweep_interval=None)


def put(manager: CommandManager, count: int, **facts: Any) -> list[RequestRecord]:
    common = {"client_id": "a", "command_type": "work", "created_at": model.now(), "timeout": 3600.0, **facts}
    records = [RequestRecord(command_id=new_id(), **common) for _ in range(count)]
    stored: list[Exception | None] = []
    manager._store.put_requests(records, lambda _, error: stored.append(error))
    eventually(lambda: len(stored) == count)
    assert set(stored) == {None}
    return records


def end(manager: CommandManager, records: list[RequestRecord], status: str) -> None:
    record = StatusRecord(status=status, at=model.now(), by="test")  # type: ignore[arg-type]
    manager._store.write_statuses([StatusWrite(each.client_id, each.command_id, record, 0) for each in records])


def listed(manager: CommandManager, **wanted: Any) -> list[str]:
    return [command.command_id for command in manager.list(**wanted)]


def ids(records: list[RequestRecord]) -> list[str]:
    return [each.command_id for each in reversed(records)]


def test_each_status_type_and_batch_is_found(manager: CommandManager) -> None:
    failed, timed, running = put(manager, 2), put(manager, 2), put(manager, 2)
    long_ago = model.now() - timedelta(seconds=50)
    overdue, other = (
        put(manager, 2, timeout=0.0, created_at=long_ago),
        put(manager, 2, command_type="other", batch_id="b1"),
    )
    done = put(manager, 300)
    for records, status in ((failed, "failed"), (timed, "timeout"), (running, "executing"), (done, "completed")):
        end(manager, records, status)
    expected = {
        ("status", "failed"): ids(failed),
        ("status", "executing"): ids(running),
        ("status", "timeout"): ids(overdue) + ids(timed),
        ("status", "pending"): ids(other),
        ("status", "completed"): ids(done)[:100],
        ("command_type", "other"): ids(other),
        ("batch_id", "b1"): ids(other),
    }
    for (name, value), found in expected.items():
        assert listed(manager, **{name: value}) == found, value
    assert manager._index.is_following
    assert listed(manager, status="failed", command_type="other") == []


def test_what_was_just_done_is_seen(manager: CommandManager) -> None:
    put(manager, 200)
    assert listed(manager, status="failed") == []
    assert manager._index.is_following
    for number in range(20):
        promise = manager.send("b", "work")
        assert promise.command_id in listed(manager, status="pending")
        manager.cancel(promise.command_id)
        assert listed(manager, status="failed")[0] == promise.command_id, number
        assert promise.command_id not in listed(manager, status="pending")


def test_pages_go_on_where_the_one_before_ended(manager: CommandManager) -> None:
    failed = put(manager, 25)
    put(manager, 200)
    end(manager, failed, "failed")
    found: list[str] = []
    after = None
    while True:
        page = manager.list(status="failed", limit=10, after=after)
        found += [command.command_id for command in page]
        after = page.next
        if after is None:
            break
    assert found == ids(failed)


def test_an_unreadable_request_counts_as_failed(manager: CommandManager) -> None:
    manager._connection.request(schema.request_subject("a", "broken").encode(), b"{", 5.0)
    put(manager, 300)
    assert listed(manager, status="failed") == ["broken"]
    assert manager._index.is_following
    assert listed(manager, status="failed") == ["broken"]


def test_a_stream_that_is_too_large_is_looked_through(manager: CommandManager, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index, "MOST_BYTES", 1000)
    failed = put(manager, 2)
    put(manager, 200)
    end(manager, failed, "failed")
    assert listed(manager, status="failed") == ids(failed)
    assert not manager._index.is_following


def test_an_index_that_nobody_asks_is_let_go(manager: CommandManager, monkeypatch: pytest.MonkeyPatch) -> None:
    put(manager, 200)
    assert listed(manager, status="failed") == []
    assert manager._index.is_following
    monkeypatch.setattr(index, "_IDLE_SECONDS", 0.0)
    eventually(lambda: not manager._index.is_following)
    assert len(listed(manager, status="pending")) == 100


def test_an_index_follows_across_an_outage(fresh_server: StartServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "_WORTH_AN_INDEX", 1)
    server = fresh_server()
    with World(server.url) as world:
        manager = world.manager(sweep_interval=None)
        records = put(manager, 100)
        assert listed(manager, status="failed") == []
        server.restart()
        assert manager._client.wait_connected(30)
        end(manager, records[:1], "failed")
        assert listed(manager, status="failed") == ids(records[:1])
