"""How a bucket is made, and values that live for a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from helpers.waiting import eventually
from nats.js.api import KeyValueConfig

import lightlink
from lightlink.errors import (
    InvalidOption,
    StateError,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import StartPython
    from helpers.raw import RawPeer


@pytest.fixture
def client(url: str) -> Iterator[lightlink.Client]:
    with lightlink.connect(url) as connected:
        yield connected


@pytest.fixture
def bucket(client: lightlink.Client, prefix: str) -> lightlink.StateBucket[Any]:
    """A bucket of the test's own, which is not made yet."""
    return client.state(prefix)


# Time to live -------------------------------------------------------------------------------------------------------


def test_a_value_with_a_ttl_is_gone_after_it(bucket: lightlink.StateBucket[Any]) -> None:
    bucket.set("key", "stays")
    bucket.set("key", "goes", ttl=1)
    bucket.set("other", "stays")
    assert bucket.get("key") == "goes"
    assert eventually(lambda: bucket.get("key", default="gone") == "gone")
    assert bucket.keys() == ["other"]
    bucket.create("key", "new", ttl=1000.5)
    assert bucket.get("key") == "new"


def test_a_ttl_is_refused_where_an_older_value_would_come_back(client: lightlink.Client, prefix: str) -> None:
    bucket = client.state(prefix, history=2)
    with pytest.raises(StateError, match="history=1") as caught:
        bucket.set("key", 1, ttl=1)
    assert not caught.value.unknown
    assert bucket.keys() == []


def test_a_ttl_is_refused_once_the_bucket_was_made_anew(client: lightlink.Client, prefix: str) -> None:
    bucket = client.state(prefix)
    bucket.set("key", 1, ttl=60)
    bucket.destroy()
    client.state(prefix, history=5).set("key", 1)
    with pytest.raises(StateError, match="history=1"):
        bucket.set("key", 2, ttl=60)


def test_a_ttl_is_refused_by_a_bucket_made_without(client: lightlink.Client, prefix: str, peer: RawPeer) -> None:
    config: dict[str, Any] = {"name": f"KV_{prefix}", "subjects": [f"$KV.{prefix}.>"], "max_msgs_per_subject": 1}
    peer.run(peer.nc.jetstream().add_stream(**config))
    with pytest.raises(StateError, match=r"2\.11"):
        client.state(prefix).set("key", 1, ttl=1)


@pytest.mark.parametrize("ttl", [0, -1, 0.5, True, "1s", float("inf"), float("nan"), 1e300, 10**400])
def test_a_ttl_that_cannot_be_is_refused(bucket: lightlink.StateBucket[Any], ttl: Any) -> None:
    with pytest.raises(InvalidOption, match="ttl"):
        bucket.set("key", 1, ttl=ttl)


def test_a_bucket_with_markers_tells_watches_when_a_ttl_ran_out(client: lightlink.Client, prefix: str) -> None:
    bucket = client.state(prefix, marker_ttl=1)
    with bucket.watch() as watch:
        bucket.set("key", 1, ttl=1)
        assert watch.get(30).operation == "put"
        change = watch.get(30)
        assert (change.key, change.operation, change.value) == ("key", "purge", None)
    assert bucket.get("key", default=None) is None
    assert bucket.keys() == []


# Buckets ------------------------------------------------------------------------------------------------------------


def test_a_bucket_is_made_with_its_options(client: lightlink.Client, prefix: str, peer: RawPeer) -> None:
    bucket = client.state(
        prefix,
        history=3,
        ttl=60,
        storage="memory",
        max_value_size=1000,
        max_bytes=100_000,
        marker_ttl=5,
        description="what it is for",
        purgeable=True,
    )
    bucket.set("key", 1)
    config = peer.run(peer.nc.jetstream().stream_info(f"KV_{prefix}")).config
    assert (config.max_msgs_per_subject, config.max_age, config.storage) == (3, 60, "memory")
    assert (config.max_msg_size, config.max_bytes, config.description) == (1000, 100_000, "what it is for")
    assert (config.duplicate_window, config.subject_delete_marker_ttl) == (60, 5)


def test_a_bucket_is_made_as_nats_py_makes_one(client: lightlink.Client, prefix: str, peer: RawPeer) -> None:
    js = peer.nc.jetstream()
    peer.run(js.create_key_value(KeyValueConfig(bucket=f"{prefix}_theirs", direct=True)))
    client.state(f"{prefix}_ours").set("key", 1)
    theirs, ours = (
        attrs_of(peer.run(js.stream_info(f"KV_{prefix}_{whose}")).config.as_dict()) for whose in ("theirs", "ours")
    )
    assert ours == theirs


def attrs_of(config: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in config.items() if name not in ("name", "subjects", "description")}


def test_a_bucket_that_is_there_is_used_as_it_is(client: lightlink.Client, prefix: str, peer: RawPeer) -> None:
    peer.run(peer.nc.jetstream().create_key_value(KeyValueConfig(bucket=prefix, history=5)))
    bucket = client.state(prefix, history=1, storage="memory")
    for n in range(3):
        bucket.set("key", n)
    with bucket.watch() as watch:
        assert watch.get(30).value == 2
    assert [change.value for change in bucket.history("key")] == [0, 1, 2]


def test_a_bucket_without_direct_gets_is_read_all_the_same(
    client: lightlink.Client, prefix: str, peer: RawPeer
) -> None:
    peer.run(peer.nc.jetstream().create_key_value(KeyValueConfig(bucket=prefix, direct=False)))
    bucket = client.state(prefix)
    assert bucket.get("key", default="absent") == "absent"
    bucket.set("key", [1])
    assert bucket.get("key") == [1]
    bucket.delete("key")
    assert bucket.get("key", default="absent") == "absent"


def test_two_processes_can_make_a_bucket_at_the_same_instant(url: str, prefix: str, python: StartPython) -> None:
    code = """
        import sys, threading, lightlink
        url, prefix, history = sys.argv[1:]
        with lightlink.connect(url) as client:
            print("ready")
            for name in iter(input, ""):
                print("revision", client.state(f"{prefix}_{name}", history=int(history)).set("key", 1))
    """
    makers = [python(code, url, prefix, history) for history in (1, 1, 3)]
    for maker in makers:
        maker.wait_line("ready")
    for name in range(10):
        for maker in makers:
            maker.send_line(str(name))
        assert sorted(maker.wait_line("revision") for maker in makers) == ["1", "2", "3"]
    for maker in makers:
        maker.send_line()
        assert maker.wait().returncode == 0


@pytest.mark.parametrize(
    "options",
    [
        {"history": 0},
        {"history": 65},
        {"history": True},
        {"ttl": 0},
        {"ttl": "1m"},
        {"ttl": 1e300},
        {"marker_ttl": 10**400},
        {"replicas": 6},
        {"storage": "tape"},
        {"max_value_size": 0},
        {"max_bytes": 1.5},
        {"marker_ttl": 0.5},
        {"purgeable": 1},
        {"description": None},
        {"colour": "red"},
    ],
)
def test_bucket_options_that_cannot_be_are_refused(client: lightlink.Client, options: dict[str, Any]) -> None:
    (name,) = options
    with pytest.raises(InvalidOption, match=name):
        client.state("bucket", **options)


def test_an_unpurgeable_bucket_cannot_be_erased_by_one_writer(
    client: lightlink.Client, prefix: str, peer: RawPeer
) -> None:
    bucket = client.state(prefix, purgeable=False)
    bucket.set("mine", 1)
    bucket.set("theirs", 1)
    with pytest.raises(StateError, match="rollup"):
        bucket.purge("mine")
    reply = peer.run(peer.nc.request(f"$KV.{prefix}.mine", b"", headers={"Nats-Rollup": "all"}))
    assert b"error" in reply.data
    assert bucket.keys() == ["mine", "theirs"]
