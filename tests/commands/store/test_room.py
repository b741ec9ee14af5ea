"""A store that is full, or was made by somebody else, takes nobody else along and says what is wrong."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import pytest
from helpers.commands import World
from helpers.http import HttpProcess
from helpers.raw import RawPeer
from helpers.waiting import eventually
from nats.js.errors import APIError

import lightlink
from lightlink.commands import StoreOptions
from lightlink.commands.manager import losses
from lightlink.commands.store import schema
from lightlink.errors import InvalidOption, StoreUnavailable
from lightlink.protocol import codec, subjects

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import StartServer

    from lightlink.server import EmbeddedServer

SMALL = "jetstream { max_file_store: 67108864 }"
OPTIONS = StoreOptions(heartbeat=0.3, ack_wait=1.0)


@pytest.fixture
def small(fresh_server: StartServer) -> EmbeddedServer:
    """A server with 64 MiB for all streams."""
    return fresh_server(config=SMALL)


@pytest.fixture
def world(small: EmbeddedServer) -> Iterator[World]:
    with World(small.url, OPTIONS) as world:
        yield world


def fill(world: World) -> int:
    """Write statuses as one agent may, until not even a small one has room; return how many there were."""
    number = 0
    with RawPeer(world.url) as peer:
        for size in (900_000, 50_000, 3_000, 100):
            body = b'{"status":"executing","result":"%b"}' % (b"x" * size)
            with contextlib.suppress(APIError):
                while number < 10_000:
                    peer.run(peer.nc.jetstream().publish(subjects.command_status("greedy", str(number)), body))
                    number += 1
    return number


def test_a_full_store_leaves_others_and_the_clean_up_working(world: World) -> None:
    manager = world.manager(sweep_interval=None)
    before = world.agent("before").start()
    pending = manager.send("later", "work", timeout=600)
    assert 2 < fill(world) < 10_000
    # Presences are renewed and claimed, requests are stored.
    seen = {presence.client_id: presence.last_heartbeat for presence in manager.clients()}
    eventually(lambda: {each.client_id: each.last_heartbeat for each in manager.clients()} != seen)
    assert before.stage.name == "RUNNING"
    agent = world.agent("another")
    agent.command("work")(lambda: "done")
    agent.start()
    promise = manager.send("another", "work", timeout=600)
    assert {presence.client_id for presence in manager.clients()} == {"before", "another"}
    # What it filled is in the way of statuses alone, and an administrator frees it.
    assert promise.wait(0.5) is None
    assert manager.prune(older_than=0.1) > 2
    assert manager.send("another", "work").result(30) == "done"
    assert pending.command().status == "pending"
    infos = [manager._store.stream_info(name, "looking") for name in (subjects.STATUS_STREAM, subjects.COMMANDS_STREAM)]
    assert [info.config.max_age for info in infos if info is not None] == [round(OPTIONS.retention * 1e9)] * 2


def test_every_stream_has_bounds_that_fit_the_server(world: World) -> None:
    manager = world.manager(sweep_interval=None)
    infos = [manager._store.stream_info(config["name"], "looking") for config in schema.streams(OPTIONS)]
    sizes = [info.config.max_bytes for info in infos if info is not None]
    assert len(sizes) == 5
    assert all(size >= 64 * 1024 for size in sizes)
    assert sum(sizes) <= 64 * 1024 * 1024


def test_a_consumer_that_nobody_uses_goes_away(world: World, small: EmbeddedServer) -> None:
    with World(small.url, StoreOptions(retention=2.0, heartbeat=0.3)) as short:
        manager = short.manager(sweep_interval=None)
        manager.send("never", "work", timeout=1)
        assert manager.never_seen(["never", "unknown"]) == ["unknown"]
        late = short.manager("late", sweep_interval=None)
        eventually(lambda: late.never_seen(["never"]) == ["never"])
        # And is made again, also by one that believes that it made it.
        agent = short.agent("never")
        agent.command("work")(lambda: "done")
        promise = manager.send("never", "work", timeout=2)
        agent.start()
        assert promise.result(30) == "done"


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        (subjects.COMMANDS_STREAM, {"max_msgs": 3}, "max_msgs is 3, not -1"),
        (subjects.COMMANDS_STREAM, {"discard": "old"}, "discard is 'old', not 'new'"),
        (subjects.STATUS_STREAM, {"subjects": ["$KV.lightlink_command_status.>"]}, "subjects is"),
        (subjects.STATUS_STREAM, {"deny_purge": False}, "deny_purge is None, not True"),
        (subjects.STATUS_STREAM, {"republish": None}, "it has no republish"),
        (subjects.AUDIT_STREAM, {"sources": None, "subjects": ["audit"]}, "it has no sources"),
    ],
)
def test_a_stream_whose_configuration_differs_is_refused(
    fresh_server: StartServer, name: str, change: dict[str, Any], said: str
) -> None:
    server = fresh_server()
    config = next(config for config in schema.streams(OPTIONS) if config["name"] == name) | change
    with lightlink.connect(server.url) as client:
        body = codec.encode_json({key: value for key, value in config.items() if value is not None})
        client._connection.request(f"$JS.API.STREAM.CREATE.{name}".encode(), body, 30)
        with pytest.raises(StoreUnavailable) as caught:
            lightlink.CommandManager(client)
    assert said in str(caught.value)
    assert name in str(caught.value)


def test_a_deleted_status_bucket_is_made_again(
    world: World, small: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(losses, "_ASK_SECONDS", 0.1)
    manager, agent = world.manager(sweep_interval=None), world.agent("a")
    agent.command("work")(lambda: "done")
    agent.start()
    assert manager.send("a", "work").result(30) == "done"
    with lightlink.connect(small.url) as admin:
        admin._connection.request(f"$JS.API.STREAM.DELETE.{subjects.STATUS_STREAM}".encode(), b"", 30)
    eventually(lambda: manager._store.stream_info(subjects.STATUS_STREAM, "looking") is not None)
    assert manager.send("a", "work").result(30) == "done"


def test_a_batch_does_not_use_up_the_store(small: EmbeddedServer) -> None:
    with HttpProcess(small.url) as running:
        large = {"command_type": "x", "payload": "x" * 900_000, "wait": False}
        refused = running.http.post("/api/command/multi", large | {"client_ids": [f"a{n}" for n in range(200)]})
        assert refused.status == 413
        assert "bytes to each of 200 clients" in refused.error
        many = {"command_type": "x", "client_ids": [f"invented{n}" for n in range(10_000)], "wait": False}
        refused = running.http.post("/api/command/multi", many)
        assert refused.status == 413
        assert "10000 of the clients were never heard of" in refused.error
        with lightlink.connect(small.url) as client, lightlink.CommandManager(client) as manager:
            assert manager.list() == []
            assert len(manager.never_seen(["invented1", "a1"])) == 2


@pytest.mark.parametrize("size", [0, -1, 1.5, True, "1", 2**63])
def test_a_size_that_cannot_be_is_refused(size: Any) -> None:
    with pytest.raises(InvalidOption, match="max_bytes"):
        StoreOptions(max_bytes=size)
