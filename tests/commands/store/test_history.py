"""Looking at stored commands: pages, filters, the audit, and the sweep that leaves none open."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING

import msgspec
import pytest
from helpers.commands import World
from helpers.waiting import eventually

from lightlink.commands import model
from lightlink.commands.manager import sweep
from lightlink.commands.manager.expiry import Expiry
from lightlink.commands.manager.lease import SweepLease
from lightlink.commands.manager.sweep import Sweeper
from lightlink.commands.model import RequestRecord
from lightlink.commands.store.audit import read_audit
from lightlink.commands.store.store import StatusWrite
from lightlink.errors import InvalidName, InvalidOption
from lightlink.protocol import codec, subjects
from lightlink.protocol.ids import new_id

if TYPE_CHECKING:
    from conftest import StartServer

    from lightlink.commands import CommandManager


def put_many(manager: CommandManager, count: int, clients: list[str], **facts: object) -> list[RequestRecord]:
    """Store requests without sending commands one by one; nobody waits for them."""
    records = []
    for start in range(0, count, 2000):
        block = [
            RequestRecord(
                **{  # type: ignore[arg-type]
                    "command_id": new_id(),
                    "client_id": clients[number % len(clients)],
                    "command_type": "work",
                    "created_at": model.now(),
                    "timeout": 3600.0,
                    **facts,
                }
            )
            for number in range(start, min(start + 2000, count))
        ]
        stored: list[Exception | None] = []
        manager._store.put_requests(block, lambda _, error, stored=stored: stored.append(error))  # type: ignore[misc]
        eventually(lambda stored=stored, block=block: len(stored) == len(block), timeout=30)
        assert not any(stored)
        records += block
    return records


def everything(manager: CommandManager, limit: int, **filters: object) -> list[str]:
    """Return the ids of all commands that pass, page by page."""
    found: list[str] = []
    after = None
    while True:
        page = manager.list(limit=limit, after=after, **filters)  # type: ignore[arg-type]
        assert len(page) <= limit
        found += [command.command_id for command in page]
        if page.next is None:
            return found
        assert len(page) == limit
        after = page.next


# Pages ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [1, 7, 10, 25, 1000])
def test_pages_hold_every_command_once_newest_first(manager: CommandManager, prefix: str, limit: int) -> None:
    records = put_many(manager, 25, [prefix])
    put_many(manager, 5, [f"{prefix}-other"])
    assert everything(manager, limit, client_id=prefix) == [record.command_id for record in reversed(records)]


def test_a_page_stays_where_it_is_while_more_is_sent(manager: CommandManager, prefix: str) -> None:
    old = put_many(manager, 10, [prefix])
    first = manager.list(prefix, limit=5)
    put_many(manager, 5, [prefix])
    second = manager.list(prefix, limit=5, after=first.next)
    seen = [command.command_id for command in [*first, *second]]
    assert seen == [record.command_id for record in reversed(old)]
    assert second.next is None


def test_filters_pick_what_they_say(world: World, manager: CommandManager, prefix: str) -> None:
    agent = world.agent(prefix)
    agent.register("good", lambda: 1)
    agent.register("bad", lambda: 1 / 0)
    agent.start()
    batch = manager.send_many([prefix], "good", repeat=3)
    assert batch.wait(30)
    bad = manager.send(prefix, "bad")
    bad.wait(30)
    middle = model.now()
    late = manager.send(f"{prefix}-offline", "good")
    agent.stop()
    assert [c.command_id for c in manager.list(prefix, "failed")] == [bad.command_id]
    assert {c.command_type for c in manager.list(prefix, "completed")} == {"good"}
    assert [c.command_id for c in manager.list(prefix, command_type="bad")] == [bad.command_id]
    assert len(manager.list(batch_id=batch.batch_id)) == 3
    assert [c.command_id for c in manager.list(f"{prefix}-offline", "pending")] == [late.command_id]
    assert [c.command_id for c in manager.list(since=middle) if c.client_id.startswith(prefix)] == [late.command_id]
    assert len(manager.list(prefix, until=middle)) == 4
    assert manager.list(prefix, since=middle) == []
    assert manager.list(f"{prefix}-nobody") == []


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"client_id": "no.token"}, InvalidName),
        ({"status": "done"}, InvalidOption),
        ({"limit": 0}, InvalidOption),
        ({"limit": 1001}, InvalidOption),
        ({"limit": True}, InvalidOption),
        ({"after": "x"}, InvalidOption),
        ({"after": "-1"}, InvalidOption),
        ({"after": "9" * 5000}, InvalidOption),
        ({"since": datetime(2026, 1, 1)}, InvalidOption),  # noqa: DTZ001 - of no time zone
        ({"until": "yesterday"}, InvalidOption),
        ({"batch_id": 5}, InvalidOption),
        ({"command_type": 5}, InvalidOption),
    ],
)
def test_a_question_that_cannot_be_is_refused(
    manager: CommandManager, arguments: dict[str, object], error: type[Exception]
) -> None:
    with pytest.raises(error):
        manager.list(**arguments)  # type: ignore[arg-type]
    if "since" in arguments:
        with pytest.raises(error):
            manager.audit(**arguments)  # type: ignore[arg-type]


def test_a_question_may_reach_from_the_first_instant_to_the_last(manager: CommandManager, prefix: str) -> None:
    (record,) = put_many(manager, 1, [prefix])
    first, last = datetime.min.replace(tzinfo=timezone.utc), datetime.max.replace(tzinfo=timezone.utc)
    assert [command.command_id for command in manager.list(prefix, since=first, until=last)] == [record.command_id]
    assert manager.list(prefix, since=last) == []
    assert eventually(lambda: list(manager.audit(record.command_id, since=first)))
    assert list(manager.audit(record.command_id, since=last)) == []


def test_an_audit_in_which_nothing_is_yet_is_empty(fresh_server: StartServer) -> None:
    with World(fresh_server().url) as world:
        manager = world.manager(sweep_interval=None)
        assert list(manager.audit(since=model.now())) == []


def test_a_batch_id_of_an_impossible_time_is_only_not_found(manager: CommandManager, prefix: str) -> None:
    put_many(manager, 1, [prefix])
    assert manager.list(batch_id="ffffffff-ffff-7fff-bfff-ffffffffffff") == []


def test_a_request_that_cannot_be_read_is_shown_as_such(manager: CommandManager, prefix: str) -> None:
    (good,) = put_many(manager, 1, [prefix])
    connection = manager._connection
    strangers = {"garbage": b"garbage", "lies": msgspec.json.encode(good)}
    for name, data in strangers.items():
        connection.request(f"ll.commands.{prefix}.{name}".encode(), data, 5.0)
    assert everything(manager, 10, client_id=prefix) == ["lies", "garbage", good.command_id]
    assert [command.status_detail for command in manager.list(prefix)] == ["unreadable", "unreadable", ""]
    kinds = eventually(lambda: found if len(found := list(manager.audit("garbage"))) else None)
    assert kinds[-1].status_detail == "unreadable"


def test_an_agent_passes_over_what_it_cannot_read(world: World, manager: CommandManager, prefix: str) -> None:
    manager._store.ensure_consumers([prefix])
    manager._connection.request(f"ll.commands.{prefix}.garbage".encode(), b"garbage", 5.0)
    agent = world.agent(prefix)
    agent.register("work", lambda: 1)
    agent.start()
    assert manager.send(prefix, "work").result(30) == 1


# The audit ------------------------------------------------------------------------------------------------------------


def test_the_audit_tells_the_story_of_a_command_in_order(world: World, manager: CommandManager, prefix: str) -> None:
    agent = world.agent(prefix)
    agent.register("work", lambda: 1)
    agent.start()
    promise = manager.send(prefix, "work", issued_by="alice")
    promise.result(30)
    story = eventually(lambda: found if len(found := list(manager.audit(promise.command_id))) == 3 else None)
    assert [(entry.kind, entry.status) for entry in story] == [
        ("request", "pending"),
        ("status", "executing"),
        ("status", "completed"),
    ]
    assert [entry.by for entry in story] == ["alice", agent.instance, agent.instance]
    assert [entry.instance for entry in story] == ["", agent.instance, agent.instance]
    assert {(entry.client_id, entry.command_id) for entry in story} == {(prefix, promise.command_id)}
    assert story[0].command_type == "work"
    assert [entry.at for entry in story] == sorted(entry.at for entry in story)


def test_the_audit_of_all_is_in_order_and_can_begin_later(
    fresh_server: StartServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lightlink.commands.store.audit._BLOCK", 100)
    with World(fresh_server().url) as world:
        manager = world.manager(sweep_interval=None)
        agent = world.agent("a")
        agent.register("work", lambda: 1)
        agent.start()
        assert manager.send_many(["a"], "work", repeat=300).wait(20)
        middle = model.now()
        assert manager.send_many(["a"], "work", repeat=100).wait(20)
        entries = eventually(lambda: found if len(found := list(manager.audit())) == 1200 else None)
        assert [entry.at for entry in entries] == sorted(entry.at for entry in entries)
        seen: set[str] = set()
        for entry in entries:
            assert (entry.kind == "request") == (entry.command_id not in seen)
            seen.add(entry.command_id)
        later = list(manager.audit(since=middle))
        assert later == [entry for entry in entries if entry.at >= middle]
        # Without reading what lies before.
        monkeypatch.setattr(model, "CLOCKS_APART", timedelta(0))
        assert list(read_audit(manager._store, None, middle)) == later
        assert list(read_audit(manager._store, None, model.now())) == []


def test_the_audit_is_in_order_with_few_statuses(fresh_server: StartServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lightlink.commands.store.audit._BLOCK", 10)
    with World(fresh_server().url) as world:
        manager = world.manager(sweep_interval=None)
        started = model.now()
        second, first, *_ = put_many(manager, 2, ["a"])

        def claim(request: RequestRecord, seconds: float) -> None:
            status = model.claimed(None, started + timedelta(seconds=seconds), "agent")
            manager._store.write_status("a", request.command_id, status, 0)

        claim(second, 2)
        eventually(lambda: len(list(manager.audit())) == 3)
        put_many(manager, 30, ["a"])
        eventually(lambda: len(list(manager.audit())) == 33)
        claim(first, 1)
        entries = eventually(lambda: found if len(found := list(manager.audit())) == 34 else None)
        assert [e.command_id for e in entries if e.kind == "status"] == [first.command_id, second.command_id]


def put_overdue(manager: CommandManager, count: int) -> list[RequestRecord]:
    """Store requests that nobody has taken in time."""
    return put_many(manager, count, ["a"], created_at=model.now() - timedelta(seconds=50), timeout=1.0)


# The sweep ------------------------------------------------------------------------------------------------------------


def test_a_sweep_ends_what_is_overdue_and_leaves_the_rest(world: World, manager: CommandManager, prefix: str) -> None:
    before = model.now() - timedelta(seconds=50)
    overdue = put_many(manager, 30, [prefix], created_at=before, timeout=10.0)
    fresh = put_many(manager, 3, [prefix])
    done = overdue[0]
    claim = model.claimed(None, before, "gone")
    end = model.ended(claim, "completed", before, result=1)
    manager._store.write_status(prefix, done.command_id, end, 0)
    running = overdue[1]
    manager._store.write_status(prefix, running.command_id, claim, 0)
    sweeper = Sweeper(manager._store, Expiry(manager._store, "sweeper"))
    assert sweeper.sweep() >= 30
    statuses = manager._store.read_statuses([(prefix, record.command_id) for record in overdue])
    details = [status.status_detail for status, _ in statuses if status is not None]
    assert details == ["", "execution_timeout", *["delivery_timeout"] * 28]
    assert manager._store.read_statuses([(prefix, record.command_id) for record in fresh]) == [(None, 0)] * 3
    assert statuses[2][0].completed_at == overdue[2].deadline  # type: ignore[union-attr]
    assert sweeper.sweep() == 0


def test_a_sweep_begins_where_the_one_before_left_off(fresh_server: StartServer) -> None:
    with World(fresh_server().url) as world:
        manager = world.manager(sweep_interval=None)
        store = manager._store
        old = put_overdue(manager, 50)
        put_many(manager, 1, ["a"])
        put_overdue(manager, 50)
        first = Sweeper(store, Expiry(store, "first"), SweepLease(store, 1.0))
        assert first.sweep() == 100
        first.stop()
        after = SweepLease(store, 1.0)
        # From the one that is still open on.
        assert Sweeper(store, Expiry(store, "second"), after).sweep() == 50
        assert after.reached == len(old) + 1


def test_one_manager_sweeps_at_a_time_and_then_another(fresh_server: StartServer) -> None:
    with World(fresh_server().url) as world:
        manager = world.manager(sweep_interval=None)
        store = manager._store
        put_overdue(manager, 50)
        ones = Sweeper(store, Expiry(store, "1"), SweepLease(store, 0.01))
        others = Sweeper(store, Expiry(store, "2"), SweepLease(store, 20.0))
        assert ones.sweep() == 50
        put_overdue(manager, 5)
        assert others.sweep() == 0
        # It falls silent, and its lease of a second runs out.
        assert eventually(others.sweep) >= 5
        put_overdue(manager, 5)
        assert ones.sweep() == 0
        others.stop()
        assert ones.sweep() == 5


def test_a_lease_of_a_machine_with_a_wrong_clock_counts_not(fresh_server: StartServer) -> None:
    with World(fresh_server().url) as world:
        store = world.manager(sweep_interval=None)._store
        record = {"reached": 7, "holder": "x", "until": store.clock.timestamp() + 3600}
        store.put(subjects.STATUS_STREAM, subjects.SWEPT, codec.encode_json(record), {}, "testing")
        lease = SweepLease(store, 5.0)
        assert lease.hold()
        assert lease.reached == 7


def test_an_unreadable_lease_is_reported_and_written_over(fresh_server: StartServer) -> None:
    with World(fresh_server().url) as world:
        store = world.manager(sweep_interval=None)._store
        store.put(subjects.STATUS_STREAM, subjects.SWEPT, b"{nonsense", {}, "testing")
        assert SweepLease(store, 5.0).hold()
        assert not SweepLease(store, 5.0).hold()


def test_a_sweeper_remembers_few_commands_and_ends_all(
    fresh_server: StartServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep, "_MOST", 20)
    monkeypatch.setattr(sweep, "_BLOCK", 30)
    with World(fresh_server().url) as world:
        manager = world.manager(sweep_interval=None)
        store = manager._store
        # Due at 300 instants within 50 minutes, in another order than they were sent.
        records = [put_many(manager, 1, ["a"], timeout=10.0 * (number * 7 % 300))[0] for number in range(300)]
        ids = [("a", record.command_id) for record in records]
        sweeper = Sweeper(store, Expiry(store, "sweeper"))
        begun = store.clock.now()
        for minutes in range(0, 60, 3):
            instant = begun + timedelta(minutes=minutes)
            monkeypatch.setattr(store.clock, "now", lambda instant=instant: instant)
            sweeper.sweep()
            assert len(sweeper._open) <= 2 * 20
            ended = [status is not None for status, _ in store.read_statuses(ids)]
            assert ended == [record.deadline < instant - model.GRACE for record in records]


def test_a_sweep_while_not_connected_is_put_off(fresh_server: StartServer) -> None:
    server = fresh_server()
    with World(server.url) as world:
        manager = world.manager(sweep_interval=None)
        sweeper = Sweeper(manager._store, Expiry(manager._store, "sweeper"))
        put_many(manager, 3, ["a"], created_at=model.now() - timedelta(seconds=50), timeout=1.0)
        server.kill()
        eventually(lambda: manager._connection.status.value != "connected")
        assert sweeper.sweep() == 0
        server.start()
        assert manager._connection.wait_connected(20)
        assert eventually(sweeper.sweep) == 3


# Many -----------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_pages_of_100000_stored_commands(fresh_server: StartServer) -> None:
    with World(fresh_server().url) as world:
        manager = world.manager(sweep_interval=None)
        clients = [f"c{number}" for number in range(1000)]
        records = put_many(manager, 100_000, clients, timeout=7200.0)
        newest = manager.list(limit=100)
        assert [command.command_id for command in newest] == [record.command_id for record in records[:-101:-1]]
        own = everything(manager, 30, client_id="c7")
        assert own == [record.command_id for record in reversed(records) if record.client_id == "c7"]
        assert manager.get(records[0].command_id).client_id == "c0"
        assert len(everything(manager, 1000, command_type="other")) == 0


def test_the_audit_reads_over_what_one_source_has_filled(fresh_server: StartServer) -> None:
    with World(fresh_server().url) as world:
        manager = world.manager(sweep_interval=None)
        records = put_many(manager, 3000, ["a", "b"])
        record = model.StatusRecord(status=model.COMPLETED, at=model.now(), by="test")
        for start in range(0, len(records), 1000):
            writes = [StatusWrite(each.client_id, each.command_id, record, 0) for each in records[start : start + 1000]]
            manager._store.write_statuses(writes)
        entries = eventually(lambda: found if len(found := [*manager.audit()]) == 6000 else None)
        assert [entry.kind for entry in entries[:3000]] == ["request"] * 3000
        assert {entry.command_id for entry in entries[3000:]} == {each.command_id for each in records}
