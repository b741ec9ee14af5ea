"""What other programs write about commands is taken as they write it, and never stops anybody else."""

from __future__ import annotations

import contextlib
import json
import threading
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pytest
from helpers.commands import World
from helpers.hostile import HostilePeer
from helpers.waiting import eventually

from lightlink.commands import model
from lightlink.commands.manager.expiry import Expiry
from lightlink.commands.manager.sweep import Sweeper
from lightlink.commands.store.changes import Changes
from lightlink.commands.store.presence import list_presences, read_presence
from lightlink.commands.store.store import read_request, read_status
from lightlink.errors import AgentOffline, DecodeError
from lightlink.protocol import subjects

if TYPE_CHECKING:
    from conftest import StartServer

    from lightlink.commands import CommandManager

INSTANT = datetime(2026, 11, 22, 21, 0, 0, 123456, timezone.utc)
REQUEST = {
    "command_id": "c",
    "client_id": "a",
    "command_type": "work",
    "created_at": "2026-11-22T21:00:00Z",
    "timeout": 9,
}


def request(**changes: Any) -> model.RequestRecord:
    return read_request(json.dumps(REQUEST | changes).encode(), "ll.commands.a.c")


def put(manager: CommandManager, subject: str, body: dict[str, Any]) -> None:
    manager._connection.request(subject.encode(), json.dumps(body).encode(), 5.0)


# One record -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "2026-11-22T21:00:00.123456Z",
        "2026-11-22t21:00:00.123456z",
        "2026-11-22T21:00:00.123456+00:00",
        "2026-11-23T02:00:00.123456+05:00",
        "2026-11-22T21:00:00.123456",
        "2026-11-22T21:00:00.123456000Z",
    ],
)
def test_a_time_is_taken_as_other_languages_write_it(text: str) -> None:
    created_at = request(created_at=text).created_at
    assert created_at == INSTANT
    assert created_at.tzinfo is timezone.utc


@pytest.mark.parametrize("text", ["0001-01-01T00:00:00+05:00", "9999-12-31T23:59:59Z", "9999-12-31T23:59:59-05:00"])
def test_a_time_that_leaves_no_room_for_a_deadline_is_no_time(text: str) -> None:
    with pytest.raises(DecodeError, match="out of range"):
        request(created_at=text)


@pytest.mark.parametrize("timeout", [1e300, -1e300, -5, 9.2e11])
def test_every_request_has_a_deadline(timeout: float) -> None:
    record = request(timeout=timeout)
    assert record.created_at <= record.deadline
    assert not model.is_overdue(record, record.created_at)


def test_null_is_nothing_and_a_whole_number_may_have_a_fraction() -> None:
    nothing = dict.fromkeys(("payload", "batch_id", "issued_by", "idempotency_key"))
    assert request(**nothing, priority=5.0) == request(priority=5)
    assert bytes(request(priority=None, payload=7.0).payload) == b"7.0"
    status = {"status": "executing", "at": "2026-11-22T21:00:00", "attempt": 1.0, "error": None, "result": None}
    read = read_status(json.dumps(status).encode(), "a")
    assert (read.at, read.attempt, read.error) == (INSTANT.replace(microsecond=0), 1, "")


@pytest.mark.parametrize("changes", [{"priority": 1.5}, {"timeout": "9"}, {"command_type": None}])
def test_what_is_wrong_stays_wrong(changes: dict[str, Any]) -> None:
    with pytest.raises(DecodeError):
        request(**changes)


# Among others ---------------------------------------------------------------------------------------------------------


def test_a_strange_request_stops_nobody_and_is_run(world: World, manager: CommandManager, prefix: str) -> None:
    manager._store.ensure_consumers([prefix])
    now = datetime.now(timezone.utc)
    strange: dict[str, dict[str, Any]] = {
        "naive": {"created_at": now.replace(tzinfo=None).isoformat()},
        "endless": {"timeout": 1e300},
        "nulls": {"priority": None, "issued_by": None},
    }
    for name, changes in strange.items():
        body = REQUEST | {"command_id": name, "client_id": prefix, "created_at": now.isoformat()} | changes
        put(manager, subjects.command_request(prefix, name), body)
    assert [command.command_id for command in manager.list(prefix)] == [*reversed(strange)]
    assert {entry.command_id for name in strange for entry in eventually(lambda n=name: [*manager.audit(n)])} == {
        *strange
    }
    manager.send(prefix, "work", timeout=0.001)
    sweeper = Sweeper(manager._store, Expiry(manager._store, "sweeper"))
    eventually(lambda: sweeper.sweep() >= 0 and manager.list(prefix, "timeout"))
    agent = world.agent(prefix)
    agent.register("work", lambda: "done")
    agent.start()
    assert [manager.promise(name).result(30) for name in strange] == ["done"] * 3


def test_the_audit_bears_statuses_without_an_offset(manager: CommandManager, prefix: str) -> None:
    promises = [manager.send(prefix, "work") for _ in range(2)]
    ended = datetime.now(timezone.utc) + timedelta(seconds=1)
    for promise, text in zip(promises, (ended.isoformat(), ended.replace(tzinfo=None).isoformat()), strict=True):
        status = {"status": "completed", "at": text, "completed_at": text, "result": text}
        put(manager, subjects.command_status(prefix, promise.command_id), status)
        assert promise.result(30) == text
        assert promise.command().completed_at == ended
    since = ended - timedelta(milliseconds=1)
    kept = eventually(
        lambda: found if len(found := [e for e in manager.audit(since=since) if e.client_id == prefix]) == 2 else None
    )
    assert {entry.command_id for entry in kept} == {promise.command_id for promise in promises}


def test_a_subject_that_is_no_text_stops_nobody(fresh_server: StartServer, caplog: pytest.LogCaptureFixture) -> None:
    url = fresh_server().url
    with World(url) as world, HostilePeer(url) as peer:
        manager = world.manager(sweep_interval=None)
        promise = manager.send("pump", "work", timeout=60)
        heard = threading.Event()
        manager._connection.subscribe("ll.>", "", lambda subject, *_: subject.endswith(b"end") and heard.set())
        with contextlib.closing(Changes(manager.store, after=0)) as changes:
            for subject in (
                b"ll.commands.pump.\xff",
                b"$KV.lightlink_command_status.pump.\xff",
                b"ll.progress.pump.\xff",
            ):
                peer._say(b"PUB %b 2\r\n{}\r\n" % subject)
            peer._say(b"HPUB ll.status.pump.%b 34 36\r\n" % promise.command_id.encode())
            peer._say(b"NATS/1.0\r\nNats-Sequence: seven\r\n\r\n{}\r\n")
            peer.publish("ll.status.end", b"{}")
            peer.flush()
            assert heard.wait(30)
            assert [command.command_id for command in manager.list("pump")] == [promise.command_id]
            eventually(lambda: len([*manager.audit()]) == 3)
            assert Sweeper(manager._store, Expiry(manager._store, "sweeper")).sweep() == 0
            agent = world.agent("pump")
            agent.register("work", lambda: "done")
            agent.start()
            assert promise.result(30) == "done"
            eventually(lambda: (change := changes.get(1)) and change.command.status == "completed")
    assert "could not be delivered" not in caplog.text


def test_an_agent_need_not_say_when(manager: CommandManager, prefix: str) -> None:
    promise = manager.send(prefix, "work")
    subject = subjects.command_status(prefix, promise.command_id)
    put(manager, subject, {"status": "executing", "instance": "i", "attempt": 1})
    put(manager, subject, {"status": "completed", "instance": "i", "attempt": 1, "result": {"x": 1}})
    assert promise.result(30) == {"x": 1}
    audit = eventually(lambda: kept if len(kept := [*manager.audit(promise.command_id)]) == 3 else None)
    assert [entry.status for entry in audit] == ["pending", "executing", "completed"]
    assert audit[0].at - timedelta(seconds=2) < audit[1].at <= audit[2].at < audit[0].at + timedelta(seconds=30)


@pytest.mark.parametrize(
    "garbage", [{"connected_at": "yesterday"}, {"last_heartbeat": "9999-12-31T23:59:59Z"}, {"labels": 5}]
)
def test_an_agent_whose_presence_cannot_be_read_is_not_online(
    manager: CommandManager, prefix: str, garbage: dict[str, Any]
) -> None:
    now = INSTANT.isoformat()
    good = {"client_id": prefix, "instance": "i", "connected_at": now, "last_heartbeat": now}
    put(manager, subjects.agent_presence(prefix), good | {"labels": None, "queued": 1.0, "connected_at": now[:19]})
    presence, _ = read_presence(manager._store, prefix)
    assert presence is not None
    assert (presence.connected_at, presence.queued, presence.labels) == ("2026-11-22T21:00:00+00:00", 1, {})
    put(manager, subjects.agent_presence(prefix), good | garbage)
    assert read_presence(manager._store, prefix)[0] is None
    assert prefix not in [each.client_id for each in list_presences(manager._store)]
    with pytest.raises(AgentOffline):
        manager.send(prefix, "work", queue=False)


def test_an_agent_takes_an_id_whose_presence_cannot_be_read(world: World, manager: CommandManager, prefix: str) -> None:
    put(manager, subjects.agent_presence(prefix), {"client_id": prefix})
    agent = world.agent(prefix)
    agent.start()
    presence, _ = read_presence(manager._store, prefix)
    assert presence is not None
    assert presence.instance == agent.instance
