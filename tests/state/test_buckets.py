"""Buckets as a whole: how they are made, listed and removed; and watches from a point in time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from helpers.waiting import eventually

import lightlink
from lightlink.errors import InvalidName, InvalidOption

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import StartServer
    from helpers.raw import RawPeer


@pytest.fixture
def client(url: str) -> Iterator[lightlink.Client]:
    with lightlink.connect(url) as connected:
        yield connected


@pytest.fixture
def bucket(client: lightlink.Client, prefix: str) -> Iterator[lightlink.StateBucket[Any]]:
    made = client.state(prefix, history=5)
    yield made
    made.destroy()


def test_a_bucket_is_made_as_its_options_say(client: lightlink.Client, peer: RawPeer, prefix: str) -> None:
    made = client.state(
        prefix,
        compression=True,
        metadata={"owner": "ops"},
        placement={"tags": ["ssd"]},
        republish=f"{prefix}.changed",
        description="readings",
        history=3,
        ttl=600,
        max_value_size=1024,
    )
    assert made.info() is None
    with client.subscribe(f"{prefix}.changed.>") as heard:
        client.flush()
        made.set("device.a", {"t": 21})
        told = heard.get(timeout=30)
        assert (told.subject, told.data) == (f"{prefix}.changed.device.a", {"t": 21})
    info = made.info()
    assert info is not None
    assert (info.name, info.messages, info.history, info.ttl) == (prefix, 1, 3, 600.0)
    assert (info.storage, info.replicas, info.max_bytes, info.max_value_size) == ("file", 1, None, 1024)
    assert (info.compression, info.description, info.metadata["owner"]) == (True, "readings", "ops")
    theirs = peer.run(peer.nc.jetstream().stream_info(f"KV_{prefix}")).config
    assert theirs.metadata is not None
    assert theirs.metadata["owner"] == "ops"
    assert theirs.placement is not None
    assert theirs.placement.tags == ["ssd"]
    assert made.destroy()


def test_all_buckets_are_listed_and_one_is_removed(client: lightlink.Client, prefix: str) -> None:
    for name in ("one", "two"):
        client.state(f"{prefix}-{name}").set("a", 1)
    found = {each.name: each.messages for each in client.buckets()}
    assert found[f"{prefix}-one"] == found[f"{prefix}-two"] == 1
    assert client.state(f"{prefix}-one").destroy()
    assert not client.state(f"{prefix}-one").destroy()
    assert f"{prefix}-one" not in {each.name for each in client.buckets()}
    again = client.state(f"{prefix}-one")
    assert again.keys() == []
    again.set("b", 2)
    assert again.get("b") == 2
    for name in ("one", "two"):
        client.state(f"{prefix}-{name}").destroy()


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("compression", "s2"),
        ("metadata", {"a": 1}),
        ("placement", {}),
        ("placement", {"where": "here"}),
        ("placement", {"tags": "ssd"}),
        ("republish", "$KV.x"),
    ],
)
def test_an_option_that_cannot_be_is_refused(option: str, value: Any, client: lightlink.Client) -> None:
    with pytest.raises(InvalidOption, match=option):
        client.state("x", **{option: value})


def test_a_destination_is_a_subject(client: lightlink.Client) -> None:
    with pytest.raises(InvalidName):
        client.state("x", republish="a.*")


def test_a_watch_from_now_on_brings_no_values_that_were_there(bucket: lightlink.StateBucket[Any]) -> None:
    bucket.set("a", 1)
    with bucket.watch(since="now") as watch:
        assert list(watch.current(30)) == []
        bucket.set("a", 2)
        bucket.delete("a")
        changes = [watch.get(timeout=30) for _ in range(2)]
    assert [(each.key, each.value, each.operation) for each in changes] == [("a", 2, "put"), ("a", None, "delete")]


def test_a_watch_from_a_revision_brings_what_came_since(bucket: lightlink.StateBucket[Any]) -> None:
    first = bucket.set("a", 1)
    bucket.set("b", 1)
    bucket.delete("a")
    bucket.set("b", 2)
    got: list[tuple[str, Any]] = []
    with bucket.watch(handler=lambda change: got.append((change.key, change.value)), since=first + 1):
        eventually(lambda: len(got) == 3)
        bucket.set("c", 1)
        eventually(lambda: len(got) == 4)
    assert got == [("b", 1), ("a", None), ("b", 2), ("c", 1)]


def test_a_watch_from_now_on_waits_for_its_bucket(client: lightlink.Client, prefix: str) -> None:
    bucket = client.state(prefix)
    with bucket.watch(since="now") as watch:
        bucket.set("a", 1)
        assert watch.get(timeout=30).value == 1
    bucket.destroy()


@pytest.mark.parametrize("since", [0, -1, "then", 1.5, True])
def test_what_is_no_revision_is_refused(since: Any, bucket: lightlink.StateBucket[Any]) -> None:
    with pytest.raises(InvalidOption, match="since"):
        bucket.watch(since=since)


def test_what_keys_returns_can_be_used(bucket: lightlink.StateBucket[Any], peer: RawPeer) -> None:
    """Another client writes keys that ADR-8 does not allow: they are listed, read, written over and removed."""
    names = ["user:1", "a+b", "ü", "a%20b"]
    bucket.set("plain", 0)
    for name in names:
        peer.run(peer.nc.jetstream().publish(f"$KV.{bucket.name}.{name}", b"1"))
    assert set(bucket.keys()) == {"plain", *names}
    for name in names:
        assert bucket.get(name) == 1
        bucket.update(name, 2, revision=bucket.entry(name).revision)
        assert bucket.get(name) == 2
        bucket.delete(name)
    assert bucket.keys() == ["plain"]


def test_a_first_write_makes_its_bucket_under_a_tap(fresh_server: StartServer) -> None:
    """Nobody says then that no stream listens: the write would get no answer."""
    server = fresh_server()
    with lightlink.connect(server.url) as client, client.subscribe(">"):
        client.flush()
        made = client.state("tapped")
        made.delete("a", timeout=30)
        assert made.info() is None
        revision = made.set("a", 1, timeout=30)
        assert (made.get("a"), revision) == (1, 1)
        assert made.destroy()
        assert made.set("a", 2, timeout=30) == 1
