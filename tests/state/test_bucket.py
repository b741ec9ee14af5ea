"""Values in a bucket: set, get, compare and set, keys and history, across threads and forks."""

from __future__ import annotations

import itertools
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import attrs
import pytest
from helpers.waiting import eventually

import lightlink
from lightlink.errors import (
    ClosedError,
    DecodeError,
    InvalidOption,
    RevisionConflict,
    StateNotFound,
)
from lightlink.jetstream import api

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from conftest import StartPython
    from helpers.raw import RawPeer

    from lightlink.jetstream.answers import StreamInfo


@attrs.define
class Settings:
    host: str
    ports: list[int] = attrs.Factory(list)


@pytest.fixture
def client(url: str) -> Iterator[lightlink.Client]:
    with lightlink.connect(url) as connected:
        yield connected


@pytest.fixture
def bucket(client: lightlink.Client, prefix: str) -> lightlink.StateBucket[Any]:
    """A bucket of the test's own, which is not made yet."""
    return client.state(prefix)


# Values -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [None, True, 0, -1.5, "", "grüße", [], {"t": [1, {"u": None}]}])
def test_a_value_is_read_back_as_it_was_set(bucket: lightlink.StateBucket[Any], value: Any) -> None:
    bucket.set("a.b", value)
    assert bucket.get("a.b", default="absent") == value


def test_each_write_has_a_higher_revision(bucket: lightlink.StateBucket[Any]) -> None:
    revisions = [bucket.set("key", n) for n in range(3)] + [bucket.set("other", 1)]
    assert revisions == [1, 2, 3, 4]


def test_a_missing_key_is_not_found(bucket: lightlink.StateBucket[Any]) -> None:
    bucket.set("there", 1)
    with pytest.raises(StateNotFound, match="no value for key 'gone'") as caught:
        bucket.get("gone")
    assert (caught.value.bucket, caught.value.key) == (bucket.name, "gone")
    assert isinstance(caught.value, KeyError)
    assert bucket.get("gone", default=7) == 7
    assert bucket.get("gone", None) is None


def test_a_deleted_key_is_not_found(bucket: lightlink.StateBucket[Any]) -> None:
    bucket.set("key", 1)
    bucket.delete("key")
    with pytest.raises(StateNotFound):
        bucket.get("key")
    with pytest.raises(StateNotFound):
        bucket.entry("key")
    assert bucket.keys() == []


def test_reading_makes_no_bucket(bucket: lightlink.StateBucket[Any], peer: RawPeer) -> None:
    assert bucket.get("key", default=None) is None
    assert bucket.keys() == []
    assert bucket.history("key") == []
    bucket.delete("key")
    streams = peer.run(peer.nc.jetstream().streams_info())
    assert f"KV_{bucket.name}" not in [stream.config.name for stream in streams]


def test_an_entry_tells_revision_and_time(bucket: lightlink.StateBucket[Any], peer: RawPeer) -> None:
    revision = bucket.set("key", {"a": 1})
    entry = bucket.entry("key")
    assert (entry.key, entry.value, entry.revision) == ("key", {"a": 1}, revision)
    stored = peer.run(peer.nc.jetstream().get_msg(f"KV_{bucket.name}", seq=revision))
    assert stored.time is not None
    assert abs((entry.created - stored.time).total_seconds()) < 1e-5


def test_the_default_bucket_is_the_one_of_the_design(client: lightlink.Client, prefix: str, peer: RawPeer) -> None:
    key = f"device.{prefix}"
    assert client.create_state(key, 1) == client.state().entry(key).revision
    revision = client.set_state(key, {"t": 21.5})
    assert client.get_state(key) == {"t": 21.5}
    client.update_state(key, {"t": 22}, revision=revision)
    kv = peer.run(peer.nc.jetstream().key_value("light_link_state"))
    assert peer.run(kv.get(key)).value == b'{"t":22}'
    client.delete_state(key)
    assert client.get_state(key, default="gone") == "gone"


def test_a_bucket_reads_its_values_as_their_type(client: lightlink.Client, prefix: str) -> None:
    settings = client.state(prefix, value_type=Settings)
    settings.set("web", Settings("example.org", [80, 443]))
    assert settings.get("web") == Settings("example.org", [80, 443])
    assert settings.entry("web").value.host == "example.org"
    assert settings.history("web")[0].value == Settings("example.org", [80, 443])
    with settings.watch() as watch:
        assert watch.get(30).value == Settings("example.org", [80, 443])


def test_a_bucket_of_bytes_keeps_them_as_they_are(client: lightlink.Client, prefix: str) -> None:
    with pytest.raises(InvalidOption, match="value_type"):
        client.state(prefix, value_type=list[int] | set[int])
    raw = client.state(prefix, value_type=bytes)
    raw.set("key", b"\x00\xff not JSON")
    raw.set("empty", b"")
    assert raw.get("key") == b"\x00\xff not JSON"
    assert raw.get("empty") == b""


def test_a_value_of_the_wrong_kind_raises_decode_error(
    client: lightlink.Client, bucket: lightlink.StateBucket[Any]
) -> None:
    bucket.set("key", b"{not json")
    with pytest.raises(DecodeError) as caught:
        bucket.get("key", default=None)
    assert caught.value.subject == f"$KV.{bucket.name}.key"
    bucket.set("key", {"host": 5})
    with pytest.raises(DecodeError, match="host"):
        client.state(bucket.name, value_type=Settings).get("key")


# Compare and set ----------------------------------------------------------------------------------------------------


def test_an_update_needs_the_last_revision(bucket: lightlink.StateBucket[Any]) -> None:
    first = bucket.set("key", "first")
    bucket.set("other", 1)
    second = bucket.update("key", "second", revision=first)
    with pytest.raises(RevisionConflict) as caught:
        bucket.update("key", "third", revision=first)
    assert (caught.value.bucket, caught.value.key, caught.value.expected) == (bucket.name, "key", first)
    assert bucket.entry("key").revision == second
    with pytest.raises(RevisionConflict):
        bucket.delete("key", revision=first)
    with pytest.raises(RevisionConflict):
        bucket.purge("key", revision=first)
    bucket.delete("key", revision=second)
    assert bucket.get("key", default=None) is None


def test_a_revision_the_server_would_mistake_is_refused(bucket: lightlink.StateBucket[Any]) -> None:
    last = bucket.set("key", 1)
    writes: list[Callable[[int], object]] = [
        lambda revision: bucket.update("key", 2, revision=revision),
        lambda revision: bucket.delete("key", revision=revision),
        lambda revision: bucket.purge("key", revision=revision),
    ]
    for write in writes:
        with pytest.raises(InvalidOption, match="revision"):
            write(2**64 + last)
    assert bucket.entry("key").revision == last


def test_an_update_of_revision_zero_is_the_first_write(bucket: lightlink.StateBucket[Any]) -> None:
    bucket.update("key", 1, revision=0)
    with pytest.raises(RevisionConflict, match="exists already"):
        bucket.update("key", 2, revision=0)


@pytest.mark.parametrize("remove", ["delete", "purge"])
def test_create_works_once_and_again_after_a_removal(bucket: lightlink.StateBucket[Any], remove: str) -> None:
    bucket.create("key", 1)
    with pytest.raises(RevisionConflict, match="exists already"):
        bucket.create("key", 2)
    getattr(bucket, remove)("key")
    revision = bucket.create("key", 3)
    assert (bucket.get("key"), bucket.entry("key").revision) == (3, revision)


def test_of_many_who_create_a_deleted_key_one_succeeds(url: str, prefix: str) -> None:
    with lightlink.connect(url) as one, lightlink.connect(url) as two:
        buckets = [one.state(prefix), two.state(prefix)]

        def create(n: int) -> int:
            try:
                buckets[n % 2].create("key", n)
            except RevisionConflict:
                return 0
            return 1

        with ThreadPoolExecutor(8) as pool:
            for _ in range(10):
                assert sum(pool.map(create, range(8))) == 1
                buckets[0].delete("key")


def test_two_writers_lose_nothing_over_a_thousand_increments(url: str, prefix: str, python: StartPython) -> None:
    code = """
        import sys, lightlink
        from lightlink.errors import RevisionConflict
        url, bucket = sys.argv[1:]
        with lightlink.connect(url) as client:
            state = client.state(bucket)
            print("ready")
            input()
            for _ in range(500):
                while True:
                    entry = state.entry("count")
                    try:
                        state.update("count", entry.value + 1, revision=entry.revision)
                        break
                    except RevisionConflict:
                        pass
        print("done")
    """
    with lightlink.connect(url) as client:
        state = client.state(prefix)
        state.set("count", 0)
        writers = [python(code, url, prefix) for _ in range(2)]
        for writer in writers:
            writer.wait_line("ready")
        for writer in writers:
            writer.send_line()
        for writer in writers:
            assert writer.wait(50).returncode == 0
        assert state.entry("count").value == 1000
        assert state.entry("count").revision == 1001


# Keys and history ---------------------------------------------------------------------------------------------------


def test_keys_match_a_pattern_by_tokens(bucket: lightlink.StateBucket[Any]) -> None:
    for key in ("device.a.t", "device.b.t", "device.a", "adevice.a", "other", "deep.er.and.deeper"):
        bucket.set(key, 1)
    bucket.set("device.gone", 1)
    bucket.delete("device.gone")
    bucket.set("device.purged", 1)
    bucket.purge("device.purged")
    assert bucket.keys("device.*") == ["device.a"]
    assert bucket.keys("device.>") == ["device.a", "device.a.t", "device.b.t"]
    assert bucket.keys("*.a") == ["adevice.a", "device.a"]
    assert bucket.keys("device.*.t") == ["device.a.t", "device.b.t"]
    assert bucket.keys("other") == ["other"]
    assert bucket.keys("dev") == []
    assert len(bucket.keys()) == 6


def test_a_key_by_a_peer_that_is_no_text_hides_no_other(
    client: lightlink.Client, bucket: lightlink.StateBucket[Any], prefix: str
) -> None:
    bucket.set("a", 1)
    client._connection.request(f"$KV.{prefix}.b".encode() + b"\xff", b"2", 5.0)
    assert bucket.keys() == ["a", "b\ufffd"]
    with bucket.watch() as watch:
        assert [watch.get(timeout=30).key for _ in range(2)] == ["a", "b\ufffd"]


def test_keys_of_a_large_bucket_all_come(bucket: lightlink.StateBucket[Any]) -> None:
    expected = sorted(f"key.{n}" for n in range(1500))
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda key: bucket.set(key, key), expected))
    assert bucket.keys() == expected


def test_keys_that_are_written_while_they_are_listed_come_once(bucket: lightlink.StateBucket[Any]) -> None:
    expected = sorted(f"key.{n}" for n in range(300))
    for key in expected:
        bucket.set(key, 0)
    stop = threading.Event()

    def write() -> None:
        for key in itertools.cycle(expected):
            bucket.set(key, 1)
            if stop.is_set():
                return

    with ThreadPoolExecutor(2) as pool:
        writers = [pool.submit(write) for _ in range(2)]
        lists = [bucket.keys() for _ in range(30)]
        stop.set()
    assert all(listed == expected for listed in lists)
    assert [writer.result() for writer in writers] == [None, None]


def test_history_tells_every_change_that_is_kept(client: lightlink.Client, prefix: str) -> None:
    bucket = client.state(prefix, history=4)
    for n in range(4):
        bucket.set("key", n)
    bucket.delete("key")
    bucket.set("other", "not this one")
    changes = bucket.history("key")
    assert [(change.value, change.operation) for change in changes] == [
        (1, "put"),
        (2, "put"),
        (3, "put"),
        (None, "delete"),
    ]
    assert [change.revision for change in changes] == [2, 3, 4, 5]
    assert [change.created for change in changes] == sorted(change.created for change in changes)
    bucket.purge("key")
    assert [(change.value, change.operation) for change in bucket.history("key")] == [(None, "purge")]


# Lifetime -----------------------------------------------------------------------------------------------------------


def test_a_bucket_of_a_closed_client_says_so(url: str) -> None:
    client = lightlink.connect(url)
    bucket = client.state("bucket")
    client.close()
    for use in (lambda: bucket.set("key", 1), lambda: bucket.get("key"), bucket.watch):
        with pytest.raises(ClosedError):
            use()


def test_a_bucket_is_shared_by_many_threads(bucket: lightlink.StateBucket[Any]) -> None:
    def work(n: int) -> bool:
        return all(bucket.set(f"key.{n}", i) and bucket.get(f"key.{n}") == i for i in range(20))

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(work, range(16)))
    assert len(bucket.keys()) == 16


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_uses_the_bucket_over_its_own_connection(url: str, prefix: str, python: StartPython) -> None:
    code = """
        import os, sys, lightlink
        url, bucket = sys.argv[1:]
        client = lightlink.connect(url)
        state = client.state(bucket)
        state.set("key", "parent")
        watch = state.watch()
        assert watch.get(30).value == "parent"
        child = os.fork()
        if not child:
            assert state.get("key") == "parent"
            state.set("key", "child")
            try:
                watch.get(1)
            except lightlink.ClosedError as error:
                assert "parent process" in str(error), error
            else:
                os._exit(3)
            watch.stop()
            client.close()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        assert watch.get(30).value == "child"
        client.close()
        print("done")
    """
    process = python(code, url, prefix, options=())
    assert process.wait().stdout == "done\n", process.stderr


def test_what_deleted_keys_have_left_is_purged(client: lightlink.Client, prefix: str, peer: RawPeer) -> None:
    bucket = client.state(prefix, history=3)
    bucket.set("kept", 1)
    for key in ("a", "b"):
        bucket.set(key, 1)
        bucket.delete(key)
    assert bucket.purge_deletes() == 0  # they are young
    assert bucket.purge_deletes(older_than=0) == 2
    assert bucket.purge_deletes(older_than=0) == 0
    assert peer.run(lambda nc: nc.jetstream().stream_info(f"KV_{prefix}")).state.messages == 1
    assert bucket.get("kept") == 1
    assert client.state(f"{prefix}_none").purge_deletes() == 0


def test_markers_of_deleted_keys_go_by_themselves(client: lightlink.Client, prefix: str) -> None:
    bounded = client.state(prefix, max_bytes=1_000_000, marker_ttl=1)
    for number in range(3):
        bounded.set(f"k{number}", number)
    bounded.delete("k0")
    bounded.purge("k1")
    info = eventually(lambda: _with_messages(client, prefix, 1))
    assert info.config.max_bytes == 1_000_000
    assert bounded.keys() == ["k2"]


def test_watches_hear_of_markers_that_will_go(client: lightlink.Client, prefix: str) -> None:
    bucket = client.state(prefix, max_bytes=1_000_000, marker_ttl=60)
    with bucket.watch(">") as watch:
        for number in range(2):
            bucket.set(f"k{number}", number)
        assert [watch.get(30).operation for _ in range(2)] == ["put", "put"]
        bucket.delete("k0")
        bucket.purge("k1")
        assert [watch.get(30).operation for _ in range(2)] == ["delete", "purge"]


def test_no_value_comes_back_behind_a_marker_that_went(client: lightlink.Client, prefix: str) -> None:
    bucket = client.state(prefix, history=3, marker_ttl=1)
    for key in ("deleted", "purged"):
        for number in range(2):
            bucket.set(key, number)
    bucket.delete("deleted")
    bucket.purge("purged")
    eventually(lambda: _with_messages(client, prefix, 3))
    assert [each.operation for each in bucket.history("deleted")] == ["put", "put", "delete"]
    assert bucket.keys() == []


def test_markers_stay_where_nothing_is_said(client: lightlink.Client, bucket: lightlink.StateBucket[Any]) -> None:
    bucket.set("a", 1)
    bucket.delete("a")
    marker = api.get_last(client._connection, f"KV_{bucket.name}", f"$KV.{bucket.name}.a", 5)
    assert marker is not None
    assert api.TTL not in marker.headers


def _with_messages(client: lightlink.Client, bucket: str, count: int) -> StreamInfo | None:
    info = api.stream_info(client._connection, f"KV_{bucket}", 5)
    assert info is not None
    return info if info.state.messages == count else None
