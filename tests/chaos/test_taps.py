"""Somebody subscribes to all there is (``>``): the server says to nobody that no one listens, and nobody answers.

What waits for a first stream, bucket or consumer must not wait for that word.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import pytest
from helpers.runs import RunWorld
from helpers.waiting import eventually

import lightlink
from lightlink.errors import MessageTimeout, NotStored, StoredFileNotFound, StreamError, StreamNotFound
from lightlink.files import writer
from lightlink.runs import Plan
from lightlink.streams import publish

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import StartServer


@pytest.fixture
def tapped(fresh_server: StartServer) -> Iterator[str]:
    """The address of a server on which somebody hears all, and nothing is stored yet."""
    url = fresh_server().url
    with lightlink.connect(url) as client, client.subscribe(">", lambda _: None, raw=True):
        client.flush()
        yield url


@pytest.fixture
def client(tapped: str) -> Iterator[lightlink.Client]:
    with lightlink.connect(tapped, timeout=10.0) as client:
        yield client


@pytest.fixture
def world(tapped: str) -> Iterator[RunWorld]:
    with RunWorld(tapped) as world:
        yield world


def test_a_first_read_of_state_is_no_wait_under_a_tap(client: lightlink.Client) -> None:
    assert client.get_state("device.a", "nothing") == "nothing"
    assert client.state().keys() == client.state().history("device.a") == []
    with client.watch_state() as watch:  # makes the bucket
        assert client.get_state("device.a", "nothing") == "nothing"
        client.set_state("device.a", 1)
        assert (watch.get(timeout=30).value, client.get_state("device.a")) == (1, 1)


@pytest.mark.parametrize("body", [b"", bytes(300_000)])
def test_a_first_upload_makes_its_bucket_under_a_tap(body: bytes, client: lightlink.Client) -> None:
    assert client.files() == []
    with pytest.raises(StoredFileNotFound):
        client.delete_file("nothing")
    with pytest.raises(StoredFileNotFound):
        client.download("nothing", io.BytesIO())
    info, target = client.upload(io.BytesIO(body), stall_timeout=30), io.BytesIO()
    client.download(info.id, target)
    assert target.getvalue() == body
    assert client.file_store().sweep() == 0


@pytest.mark.parametrize("body", [b"", bytes(300_000)])
def test_an_upload_makes_its_bucket_again_under_a_tap(
    body: bytes, client: lightlink.Client, tapped: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "_ANSWER_SECONDS", 0.5)
    client.upload(io.BytesIO(body))
    with lightlink.connect(tapped) as other:
        other._connection.request(b"$JS.API.STREAM.DELETE.OBJ_light_link_files", b"", 30)
    info, target = client.upload(io.BytesIO(body), stall_timeout=30), io.BytesIO()
    client.download(info.id, target)
    assert target.getvalue() == body


def test_what_no_stream_captures_is_told_under_a_tap(client: lightlink.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publish, "_ASKING_SECONDS", 30.0)  # the server may be slow to say so
    with pytest.raises(NotStored, match="no stream captures this subject") as caught:
        client.publish_stored("nowhere.new", 1, timeout=0.5)
    assert not caught.value.unknown
    with pytest.raises(NotStored, match="no stream captures this subject") as caught:
        client.submit_stored("nowhere.new", 1, timeout=0.5).result(30)
    assert not caught.value.unknown
    with pytest.raises(NotStored, match="no stream captures") as caught, client.storing(timeout=0.5) as block:
        block.publish("nowhere.new", 1)
    assert not caught.value.unknown
    with pytest.raises(StreamNotFound):
        client.dead_letters("NOTHING", "nobody").get(1)
    with pytest.raises(StreamError, match="no stream captures"):
        client.consume("nowhere.>", name="nobody")(print)


def test_events_are_stored_handled_and_buried_under_a_tap(client: lightlink.Client) -> None:
    client.stream("ORDERS", ["orders.>"])
    seen: list[int] = []

    @client.consume("orders.>", name="billing", retries=[])
    def handle(data: int) -> None:
        seen.append(data)
        if data == 1:
            raise ValueError("broken")

    client.publish_stored("orders.new", 1)
    eventually(lambda: len(client.dead_letters("ORDERS", "billing").list()) == 1)
    client.consumer("ORDERS", "billing").delete()
    client.publish_stored("orders.new", 2)
    eventually(lambda: 2 in seen)


def test_a_first_lock_is_taken_under_a_tap(client: lightlink.Client) -> None:
    with client.lock("nightly") as lock:
        assert lock.is_held
    assert client.lock("nightly").holder() is None


def test_first_commands_and_messages_pass_under_a_tap(world: RunWorld) -> None:
    manager = world.manager(timeout=10.0)
    early = manager.send("a0", "info", timeout=60)
    assert manager.list()[0].command_id == early.command_id
    world.agents("a0")
    assert early.result(30)["ok"]
    assert manager.send_many(["a0"], "info").wait(30)
    manager.assign_labels("a0", {"site": "berlin"})
    assert manager.agents()[0].labels["site"] == "berlin"
    with pytest.raises(MessageTimeout):  # somebody has got it
        manager.message("nobody", "notice", timeout=1)


def test_an_agent_may_come_first_under_a_tap(world: RunWorld) -> None:
    world.agents("a0")
    assert world.manager(timeout=10.0).send("a0", "info").result(30)["ok"]


def test_first_runs_plans_and_schedules_pass_under_a_tap(world: RunWorld) -> None:
    world.agents("a0")
    ops = world.orchestrator()
    assert (ops.list(), ops.plans(), ops.schedules()) == ([], [], [])
    plan = Plan("firmware", targets=["a0"])
    plan.step("info", "info")
    assert ops.start(plan).wait(30) == "completed"
    ops.store_plan(plan)
    ops.schedule("nightly", "firmware", cron="0 0 * * *")
    assert [each.name for each in ops.schedules()] == ["nightly"]
