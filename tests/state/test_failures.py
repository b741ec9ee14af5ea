"""What is refused, and what is known when an answer is missing."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from helpers.waiting import eventually
from nats.js.api import StreamConfig, StreamSource

import lightlink
from lightlink.errors import (
    EncodeError,
    InvalidName,
    InvalidOption,
    PayloadTooLarge,
    PermissionDenied,
    StateError,
    StateNotFound,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import StartProxy, StartServer
    from helpers.raw import RawPeer


@pytest.fixture
def client(url: str) -> Iterator[lightlink.Client]:
    with lightlink.connect(url) as connected:
        yield connected


@pytest.fixture
def bucket(client: lightlink.Client, prefix: str) -> lightlink.StateBucket[Any]:
    """A bucket of the test's own, which is not made yet."""
    return client.state(prefix)


# What is refused ----------------------------------------------------------------------------------------------------

BAD_KEYS = ["", ".", "a.", ".a", "a..b", "a b", "a*", "*", ">", "a.>", "a\n", "a" * 5000, 5, None, b"key"]


@pytest.mark.parametrize("key", BAD_KEYS)
def test_a_key_nats_would_refuse_is_refused_before_sending(
    bucket: lightlink.StateBucket[Any], key: Any, peer: RawPeer
) -> None:
    uses = (
        lambda: bucket.set(key, 1),
        lambda: bucket.create(key, 1),
        lambda: bucket.update(key, 1, revision=1),
        lambda: bucket.get(key),
        lambda: bucket.entry(key),
        lambda: bucket.delete(key),
        lambda: bucket.purge(key),
        lambda: bucket.history(key),
    )
    for use in uses:
        with pytest.raises(InvalidName):
            use()
    streams = peer.run(peer.nc.jetstream().streams_info())
    assert f"KV_{bucket.name}" not in [stream.config.name for stream in streams]


@pytest.mark.parametrize("key", ["user:1", "a+b", "ä.ö", "a$b", "naïve", "@x"])
def test_a_key_of_another_client_is_used_and_none_such_is_made(
    client: lightlink.Client, prefix: str, peer: RawPeer, key: str
) -> None:
    bucket = client.state(prefix)
    bucket.set("plain", 0)
    peer.run(peer.nc.jetstream().publish(f"$KV.{prefix}.{key}", b"1"))
    assert sorted(bucket.keys()) == sorted(["plain", key])
    assert bucket.keys(key) == [key]
    entry = bucket.entry(key)
    assert bucket.get(key) == 1
    bucket.update(key, 2, revision=entry.revision)
    assert [each.value for each in bucket.history(key)] == [2]
    for make in (bucket.set, bucket.create):
        with pytest.raises(InvalidName, match="letters, digits"):
            make(f"{key}.new", 1)
    bucket.delete(key)
    assert bucket.keys() == ["plain"]


@pytest.mark.parametrize("pattern", ["", "a..b", "a.>.b", "a*", ">.a", "a b", None])
def test_a_pattern_nats_would_refuse_is_refused(bucket: lightlink.StateBucket[Any], pattern: Any) -> None:
    with pytest.raises(InvalidName):
        bucket.keys(pattern)
    with pytest.raises(InvalidName):
        bucket.watch(pattern)


@pytest.mark.parametrize("name", ["", "a.b", "a b", "ä", "*", None])
def test_a_bucket_name_nats_would_refuse_is_refused(client: lightlink.Client, name: Any) -> None:
    with pytest.raises(InvalidName):
        client.state(name)


@pytest.mark.parametrize("revision", [-1, 1.5, "1", True, None])
def test_a_revision_that_cannot_be_is_refused(bucket: lightlink.StateBucket[Any], revision: Any) -> None:
    with pytest.raises(InvalidOption, match="revision"):
        bucket.update("key", 1, revision=revision)


def test_a_value_that_json_cannot_carry_is_refused(bucket: lightlink.StateBucket[Any]) -> None:
    with pytest.raises(EncodeError, match="the value of 'key'"):
        bucket.set("key", object())


def test_a_value_over_the_limit_is_refused(client: lightlink.Client, bucket: lightlink.StateBucket[Any]) -> None:
    limit = 1024 * 1024
    with pytest.raises(PayloadTooLarge) as caught:
        bucket.set("key", bytes(limit + 1))
    assert (caught.value.size, caught.value.limit) == (limit + 1, limit)
    # With its headers it is over the limit; the server would hang up.
    revision = bucket.set("key", bytes(limit))
    with pytest.raises(PayloadTooLarge):
        bucket.update("key", bytes(limit), revision=revision)
    assert client.status is lightlink.Status.CONNECTED
    assert bucket.keys() == ["key"]


def test_a_value_over_the_buckets_limit_is_refused(client: lightlink.Client, prefix: str) -> None:
    bucket = client.state(prefix, max_value_size=1000)
    bucket.set("key", "x" * 900)
    with pytest.raises(PayloadTooLarge) as caught:
        bucket.set("key", "x" * 1500)
    assert (caught.value.size, caught.value.limit) == (1502, 1000)


def test_a_full_bucket_says_so(client: lightlink.Client, prefix: str) -> None:
    bucket = client.state(prefix, max_bytes=5000)
    for n in range(4):
        bucket.set(f"key.{n}", "x" * 1000)
    with pytest.raises(StateError, match="maximum bytes") as caught:
        bucket.set("key.4", "x" * 1000)
    assert not caught.value.unknown


def test_a_server_without_jetstream_is_named_as_the_reason(fresh_server: StartServer) -> None:
    server = fresh_server(jetstream=False)
    with lightlink.connect(server.url) as client:
        uses = (
            lambda: client.set_state("key", 1),
            lambda: client.create_state("key", 1),
            lambda: client.get_state("key"),
            lambda: client.delete_state("key"),
            lambda: client.state().keys(),
            lambda: client.state().history("key"),
            client.watch_state,
        )
        for use in uses:
            with pytest.raises(StateError, match="JetStream"):
                use()


def test_a_denied_bucket_raises_permission_denied(fresh_server: StartServer) -> None:
    server = fresh_server(
        config="""
            accounts { A { jetstream: enabled, users: [
                { user: admin, password: pw }
                { user: reader, password: pw, permissions: {
                    publish: ["$JS.API.DIRECT.GET.KV_b.>", "$JS.API.STREAM.INFO.KV_b"], subscribe: ["_INBOX.>"] } }
            ] } }
        """
    )
    with (
        lightlink.connect(server.url, user="admin", password="pw") as admin,
        lightlink.connect(server.url, user="reader", password="pw") as reader,
    ):
        admin.state("b").set("key", 1)
        assert reader.state("b").get("key") == 1
        with pytest.raises(PermissionDenied, match=r"\$KV\.b\.key"):
            reader.state("b").set("key", 2)
        with pytest.raises(PermissionDenied, match="CONSUMER"):
            reader.state("b").keys()
        assert reader.state("b").get("key") == 1


# Lost replies -------------------------------------------------------------------------------------------------------


def test_a_write_without_an_answer_is_unknown(url: str, prefix: str, proxy: StartProxy) -> None:
    link = proxy()
    with lightlink.connect(link.url) as client:
        bucket = client.state(prefix)
        bucket.set("key", 1)
        link.pause()
        for write in (
            lambda: bucket.set("key", 2, timeout=0.3),
            lambda: bucket.update("key", 2, revision=1, timeout=0.3),
            lambda: bucket.delete("key", timeout=0.3),
        ):
            with pytest.raises(StateError, match="the outcome is unknown") as caught:
                write()
            assert caught.value.unknown
        with pytest.raises(StateError) as caught:
            bucket.get("key", timeout=0.3)
        assert not caught.value.unknown
        link.resume()


def test_a_write_that_never_left_is_not_unknown(url: str, prefix: str, proxy: StartProxy) -> None:
    link = proxy()
    with lightlink.connect(link.url) as client, lightlink.connect(url) as witness:
        bucket = client.state(prefix)
        bucket.set("key", 1)
        link.refuse()
        link.cut()
        assert eventually(lambda: client.status is lightlink.Status.RECONNECTING)
        with pytest.raises(StateError, match="not sent") as caught:
            bucket.set("key", 2, timeout=0.3)
        assert not caught.value.unknown
        link.accept()
        assert client.wait_connected(30)
        assert bucket.set("other", 1) == 2
        assert witness.state(prefix).get("key") == 1


def test_a_write_during_a_short_outage_is_carried_out_after_it(url: str, prefix: str, proxy: StartProxy) -> None:
    link = proxy()
    with lightlink.connect(link.url) as client:
        bucket = client.state(prefix)
        bucket.set("key", 1)
        link.refuse()
        link.cut()
        # What is written to a connection that is lost already, and not known to be, is lost with it.
        eventually(lambda: client.status is lightlink.Status.RECONNECTING)
        link.accept()
        assert bucket.set("other", 2, timeout=30) == 2


def test_state_works_again_after_a_kill_of_the_server(fresh_server: StartServer) -> None:
    server = fresh_server()
    with lightlink.connect(server.url) as client:
        revision = client.set_state("key", "kept")
        server.kill()
        server.start()
        assert client.wait_connected(30)
        # The server takes clients a moment before it has recovered its streams.
        assert eventually(lambda: client.get_state("key", default=None) == "kept", timeout=30)
        assert client.set_state("key", "new") > revision


def test_a_bucket_lost_with_a_memory_server_is_made_again(fresh_server: StartServer) -> None:
    server = fresh_server()
    with lightlink.connect(server.url) as client:
        bucket = client.state("cache", storage="memory")
        bucket.set("key", 1)
        server.kill()
        server.start()
        assert client.wait_connected(30)
        assert bucket.set("key", 2, timeout=30) == 1
        assert bucket.get("key") == 2


# What another stream has to do with it -----------------------------------------------------------------------------


def test_a_write_that_another_stream_takes_is_an_error(client: lightlink.Client, peer: RawPeer, prefix: str) -> None:
    peer.run(peer.nc.jetstream().add_stream(name=f"{prefix}_other", subjects=[f"$KV.{prefix}.>"]))
    bucket = client.state(prefix)
    for write in (lambda: bucket.set("a", 1), lambda: bucket.create("b", 1), lambda: bucket.update("c", 1, revision=0)):
        with pytest.raises(StateError, match=f"{prefix}_other' captures this subject"):
            write()
    peer.run(peer.nc.jetstream().delete_stream(f"{prefix}_other"))


def test_a_stream_under_the_name_of_a_bucket_is_named(client: lightlink.Client, peer: RawPeer, prefix: str) -> None:
    peer.run(peer.nc.jetstream().add_stream(name=f"KV_{prefix}", subjects=[f"{prefix}.>"], allow_direct=True))
    bucket = client.state(prefix)
    for use in (lambda: bucket.set("a", 1, timeout=30), bucket.keys, bucket.watch, lambda: bucket.get("a")):
        with pytest.raises(StateError, match="is no bucket of this name"):
            use()


def make_mirror(peer: RawPeer, prefix: str, history: int = 1) -> None:
    """Make the bucket ``prefix``, which mirrors ``prefix_origin``."""
    config = StreamConfig(
        name=f"KV_{prefix}",
        mirror=StreamSource(name=f"KV_{prefix}_origin"),
        max_msgs_per_subject=history,
        allow_direct=True,
    )
    peer.run(peer.nc.jetstream().add_stream(config))


def test_a_bucket_that_mirrors_another_is_the_other(client: lightlink.Client, peer: RawPeer, prefix: str) -> None:
    origin = client.state(f"{prefix}_origin", history=5)
    revision = origin.set("a.b", 1)
    make_mirror(peer, prefix, history=5)
    mirror = client.state(prefix)
    assert eventually(lambda: mirror.get("a.b", None)) == 1
    assert mirror.keys() == ["a.b"]
    with mirror.watch("a.*") as watch:
        assert watch.get(30).key == "a.b"
        assert mirror.update("a.b", 2, revision=revision) == revision + 1
        assert eventually(lambda: origin.get("a.b") == 2)
        assert watch.get(30).value == 2
    assert [change.value for change in mirror.history("a.b")] == [1, 2]
    mirror.delete("a.b")
    with pytest.raises(StateNotFound):
        origin.get("a.b")


def test_a_mirror_that_lags_shows_no_older_value(client: lightlink.Client, peer: RawPeer, prefix: str) -> None:
    origin = client.state(f"{prefix}_origin", history=5)
    origin.set("a", 1)
    make_mirror(peer, prefix, history=5)
    mirror = client.state(prefix)
    assert eventually(lambda: mirror.get("a", None)) == 1
    revision = mirror.set("a", 2)
    # The server may ask the mirror for what is read of the origin.
    assert origin._stream.revisions.known("a") == revision
    assert mirror.get("a") == 2
    mirror._stream.revisions.note("a", revision + 1)  # as if it lagged
    with pytest.raises(StateError, match=f"it mirrors 'KV_{prefix}_origin', and has not got yet what this client"):
        mirror.get("a", timeout=0.3)
    with ThreadPoolExecutor(1) as pool:
        read = pool.submit(mirror.get, "a", timeout=30)
        origin.set("b", 3)
        assert read.result(30) == 2
    assert mirror.get("a") == 2


def test_a_new_client_writes_through_a_mirror_first(client: lightlink.Client, peer: RawPeer, prefix: str) -> None:
    client.state(f"{prefix}_origin").set("a", 1)
    make_mirror(peer, prefix)
    client.state(prefix).set("a", 2)
    assert client.state(f"{prefix}_origin").get("a") == 2


# Headers of another client ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("headers", [{"Status": "404"}, {"Status": "503", "Description": "x"}, {"Nats-Sequence": "1"}])
def test_a_value_with_headers_of_its_writer_is_read(
    client: lightlink.Client, peer: RawPeer, prefix: str, headers: dict[str, str]
) -> None:
    bucket = client.state(prefix)
    bucket.set("other", 0)
    bucket.set("other", 0)
    ack = peer.run(peer.nc.jetstream().publish(f"$KV.{prefix}.a", b"1", headers=headers))
    assert bucket.get("a") == 1
    assert bucket.entry("a").revision == ack.seq
    assert [change.value for change in bucket.history("a")] == [1]
    assert bucket.keys() == ["a", "other"]
