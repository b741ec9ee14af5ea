"""A rare command among many is found by an index, and counts as it stands in the store."""

from __future__ import annotations

import json
import random
import zlib
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from helpers.commands import World
from helpers.waiting import eventually

from lightlink import InvalidName
from lightlink.commands import model
from lightlink.commands.model import RequestRecord, StatusRecord
from lightlink.commands.store import catalogue, excerpt, history, index
from lightlink.commands.store.filter import Filter
from lightlink.commands.store.store import StatusWrite
from lightlink.protocol import subjects
from lightlink.protocol.ids import new_id

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import StartServer

    from lightlink.commands import CommandManager
    from lightlink.commands.model import StatusName


@pytest.fixture
def world(fresh_server: StartServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """A server of the test's own, on which an index is begun soon."""
    monkeypatch.setattr(history, "_WORTH_AN_INDEX", 1)
    with World(fresh_server().url) as world:
        yield world


@pytest.fixture
def manager(world: World) -> CommandManager:
    """A manager that knows who is in the fleet, so that there is a bucket for it."""
    manager = world.manager(sweep_interval=None)
    manager.assign_labels("a", {})
    return manager


def put(manager: CommandManager, count: int, **facts: Any) -> list[RequestRecord]:
    common = {"client_id": "a", "command_type": "work", "created_at": model.now(), "timeout": 3600.0, **facts}
    records = [RequestRecord(command_id=new_id(), **common) for _ in range(count)]
    stored: list[Exception | None] = []
    manager._store.put_requests(records, lambda _, error: stored.append(error))
    eventually(lambda: len(stored) == count)
    assert set(stored) == {None}
    return records


def end(manager: CommandManager, records: list[RequestRecord], status: StatusName) -> None:
    record = StatusRecord(status=status, at=model.now(), by="test")
    manager._store.write_statuses([StatusWrite(each.client_id, each.command_id, record, 0) for each in records])


def test_commands_of_several_agents_are_listed_together(manager: CommandManager) -> None:
    put(manager, 30, client_id="other")
    mine = [*put(manager, 3, client_id="b"), *put(manager, 30, client_id="other"), *put(manager, 3, client_id="c")]
    wanted = [each for each in reversed(mine) if each.client_id != "other"]

    assert listed(manager, client_id=["c", "b"]) == [each.command_id for each in wanted]
    page = manager.list({"b", "c"}, "pending", limit=4)
    assert [each.command_id for each in page] == [each.command_id for each in wanted[:4]]
    assert [each.command_id for each in manager.list(("b", "c"), limit=4, after=page.next)] == [
        each.command_id for each in wanted[4:]
    ]
    end(manager, wanted[:2], "failed")
    eventually(lambda: listed(manager, client_id=["b", "c"], status="failed") == [e.command_id for e in wanted[:2]])
    assert listed(manager, client_id=[]) == []
    with pytest.raises(InvalidName):
        manager.list(["b", "no such name"])


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
    end(manager, failed, "failed")
    end(manager, timed, "timeout")
    end(manager, running, "executing")
    end(manager, done, "completed")
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
    manager._connection.request(subjects.command_request("a", "broken").encode(), b"{", 5.0)
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


# What is kept of it ---------------------------------------------------------------------------------------------------


def keep(manager: CommandManager, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have an excerpt kept as things are, and the index let go."""
    with monkeypatch.context() as patch:
        patch.setattr(index, "_RENEWED_AFTER", 0)
        manager._index.stop()
        manager._index.keep()
    assert not manager._index.is_following
    assert excerpt.load(manager._store) is not None


def looked_through(manager: CommandManager, **wanted: Any) -> list[str]:
    """Return what a listing finds without an index."""
    page = history.list_commands(manager._store, Filter(**wanted), 1000, None)
    return [command.command_id for command in page]


def test_a_new_process_reads_only_what_came_since(
    world: World, manager: CommandManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed, rare, waiting = put(manager, 2), put(manager, 2, command_type="rare"), put(manager, 3)
    batch = put(manager, 30, batch_id="b1")
    done = put(manager, 700)
    end(manager, failed, "failed")
    end(manager, rare + batch + done, "completed")
    keep(manager, monkeypatch)
    late = put(manager, 3, command_type="late", batch_id="b2")
    end(manager, waiting[:1], "failed")
    end(manager, waiting[1:2], "completed")
    another = world.manager(sweep_interval=None)
    expected = {
        ("status", "failed"): ids(failed + waiting[:1]),
        ("status", "pending"): ids(waiting[2:] + late),
        ("status", "executing"): [],
        ("status", "timeout"): [],
        ("command_type", "rare"): ids(rare),
        ("command_type", "late"): ids(late),
        ("command_type", "never"): [],
        ("batch_id", "b1"): ids(batch),
        ("batch_id", "b2"): ids(late),
        ("batch_id", "never"): [],
    }
    for (name, value), found in expected.items():
        assert listed(another, **{name: value}) == found, value
    known = another._index._known
    assert set(known.entries) == set(ids(failed + rare + waiting + late)), "no more was read"


def test_for_what_is_not_kept_all_is_read(
    world: World, manager: CommandManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalogue, "_RARE", 20)
    common, other = put(manager, 30, command_type="common"), put(manager, 300)
    end(manager, common + other, "completed")
    keep(manager, monkeypatch)
    another = world.manager(sweep_interval=None)
    assert listed(another, status="failed") == []
    assert not another._index._known.is_whole
    assert listed(another, command_type="common") == ids(common)
    assert another._index._known.is_whole


def test_what_is_kept_is_right_at_any_moment(
    world: World, manager: CommandManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalogue, "_RARE", 12)
    monkeypatch.setattr(catalogue, "_MOST_BATCHES", 2)
    chance = random.Random(7)
    waiting: list[RequestRecord] = put(manager, 40)
    for round_ in range(8):
        facts = {"command_type": chance.choice("xyz"), "batch_id": f"b{round_}"}
        waiting += put(manager, chance.randint(1, 9), **facts)
        chance.shuffle(waiting)
        statuses: tuple[StatusName, ...] = ("completed", "failed", "timeout", "completed")
        for status in statuses:
            size = len(waiting) // 6
            end(manager, waiting[:size], status)
            del waiting[:size]
            if chance.random() < 0.4:
                keep(manager, monkeypatch)
        another = world.manager(sweep_interval=None)
        questions = [("status", each) for each in model.STATUSES] + [("command_type", each) for each in "xyz"]
        for name, value in [*questions, *(("batch_id", f"b{each}") for each in range(round_ + 2))]:
            assert listed(another, **{name: value}) == looked_through(another, **{name: value}), (round_, value)


def unusable(manager: CommandManager) -> dict[str, bytes]:
    """Return what could be found in place of an excerpt."""
    kept = excerpt.load(manager._store)
    assert kept is not None
    good = json.loads(zlib.decompress(_packed(manager)))

    def packed(**changes: Any) -> bytes:
        return zlib.compress(json.dumps({**good, **changes}).encode())

    return {
        "junk": b"junk",
        "not JSON": zlib.compress(b"junk"),
        "cut short": packed()[:-5],
        "far too large": zlib.compress(b" " * (20 * 1024 * 1024)),
        "wildcards": packed(rows=[[1, ">", "*", "work", None, None, "failed"]]),
        "another stream": packed(made=["2020-01-01T00:00:00Z", "2020-01-01T00:00:00Z"], rows=[]),
        "ahead": packed(requests=10_000_000, rows=[]),
    }


def _packed(manager: CommandManager) -> bytes:
    message = manager._store.read(subjects.FLEET_STREAM, subjects.EXCERPT)
    assert message is not None
    return message.data


def test_what_is_no_excerpt_of_this_stream_counts_for_nothing(
    world: World, manager: CommandManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = put(manager, 3)
    put(manager, 50)
    end(manager, failed, "failed")
    keep(manager, monkeypatch)
    for what, data in unusable(manager).items():
        manager._store.put(subjects.FLEET_STREAM, subjects.EXCERPT, data, {}, "writing")
        another = world.manager(sweep_interval=None)
        assert listed(another, status="failed") == ids(failed), what
        assert another._index._known.is_whole, what


def test_the_manager_that_sweeps_keeps_it(
    world: World, manager: CommandManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index, "_RENEWED_AFTER", 100)
    sweeping = world.manager(sweep_interval=0.05)
    put(manager, 120)
    first = eventually(lambda: excerpt.load(manager._store))
    assert (first.requests, len(first.rows)) == (120, 120)
    end(manager, put(manager, 120), "completed")
    eventually(lambda: (kept := excerpt.load(manager._store)) and kept.requests == 240)
    eventually(lambda: not sweeping._index.is_following)


def test_many_that_nobody_asks_about_are_not_read(manager: CommandManager, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index, "_RENEWED_AFTER", 10)
    monkeypatch.setattr(index, "_MOST_UNASKED", 50)
    put(manager, 300)
    manager._index.keep()
    assert excerpt.load(manager._store) is None
    assert listed(manager, status="failed") == []
    assert excerpt.load(manager._store) is not None
