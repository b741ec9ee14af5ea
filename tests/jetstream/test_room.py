"""Streams and buckets of ours have a bound where nobody gives one: a full one takes no other along."""

from __future__ import annotations

import contextlib
import io
from typing import TYPE_CHECKING

import pytest
from helpers.raw import RawPeer

import lightlink
from lightlink.errors import LinkError, StateError

if TYPE_CHECKING:
    from conftest import StartServer

MEBIBYTE = 1024 * 1024
BOUNDS = {
    "KV_light_link_state": 1024 * MEBIBYTE,
    "KV_light_link_locks": 16 * MEBIBYTE,
    "KV_lightlink_fleet": 128 * MEBIBYTE,
    "OBJ_light_link_files": 4096 * MEBIBYTE,
    "LIGHTLINK_DEAD": 1024 * MEBIBYTE,
}


def use_all(client: lightlink.Client) -> None:
    """Have all of them made."""
    client.set_state("key", 1)
    with client.lock("nightly"), lightlink.CommandManager(client) as manager:
        manager.assign_labels("a1", {"site": "berlin"})
    client.upload(io.BytesIO(b"file"))
    client.stream("ORDERS", ["orders.>"])
    client.consume("orders.>", name="billing")(print)


def bounds(url: str) -> dict[str, int]:
    """Return the size that each may have, as the server tells a stranger; -1 for any."""
    with RawPeer(url) as peer:
        js = peer.nc.jetstream()
        return {name: peer.run(js.stream_info(name)).config.max_bytes or -1 for name in BOUNDS}


@pytest.mark.tcp("a stranger looks")
def test_what_is_made_by_default_has_a_bound(fresh_server: StartServer) -> None:
    url = fresh_server().url
    with lightlink.connect(url) as client:
        use_all(client)
        client.state("mine").set("key", 1)  # a user's own is the user's choice
        assert {each.name: each.max_bytes for each in client.buckets()}["mine"] is None
    assert bounds(url) == BOUNDS


@pytest.mark.tcp("a stranger looks")
def test_where_the_server_has_less_they_are_smaller(fresh_server: StartServer) -> None:
    url = fresh_server(config="jetstream { max_file_store: 100MB }").url
    with lightlink.connect(url) as client:
        use_all(client)
    assert all(0 < bound < 64 * MEBIBYTE for bound in bounds(url).values())


def test_a_server_without_room_for_a_bound_is_used_all_the_same(fresh_server: StartServer) -> None:
    with lightlink.connect(fresh_server(config="jetstream { max_file_store: 500KB }").url) as client:
        client.set_state("key", 1)
        assert client.get_state("key") == 1
        assert client.upload(io.BytesIO(b"file")).size == 4
        # What somebody asked for is not made otherwise.
        with pytest.raises(LinkError, match="insufficient"):
            client.file_store("mine", max_bytes=10 * MEBIBYTE).upload(io.BytesIO(b"file"))
        with pytest.raises(StateError, match="insufficient"):
            client.state("mine", max_bytes=10 * MEBIBYTE).set("key", 1)


@pytest.mark.tcp("a stranger makes them")
def test_buckets_that_are_there_stay_as_they_are(fresh_server: StartServer) -> None:
    url = fresh_server().url
    with RawPeer(url) as peer:
        js = peer.nc.jetstream()
        peer.run(js.create_key_value(bucket="light_link_state"))  # type: ignore[call-arg]
        peer.run(js.create_object_store("light_link_files"))
        with lightlink.connect(url) as client:
            client.set_state("key", 1)
            client.upload(io.BytesIO(b"file"))
        for name in ("KV_light_link_state", "OBJ_light_link_files"):
            assert peer.run(js.stream_info(name)).config.max_bytes == -1


def test_a_full_bucket_takes_no_other_along(fresh_server: StartServer) -> None:
    with lightlink.connect(fresh_server(config="jetstream { max_file_store: 100MB }").url) as client:
        use_all(client)
        filled = 0
        with contextlib.suppress(StateError):
            while filled < 100:
                client.set_state(f"key.{filled}", "x" * 900_000)
                filled += 1
        assert 1 < filled < 100
        with contextlib.suppress(LinkError):
            for _ in range(100):
                client.upload(io.BytesIO(bytes(5 * MEBIBYTE)))
        with pytest.raises(LinkError):
            client.upload(io.BytesIO(bytes(5 * MEBIBYTE)))
        with client.lock("nightly"), lightlink.CommandManager(client) as manager:
            assert manager.send("a1", "work").status == "pending"
        for info in client.files():
            client.delete_file(info.id)
        assert client.upload(io.BytesIO(b"room again")).size == 10
        for number in range(filled):
            client.delete_state(f"key.{number}")
        assert client.set_state("key", 1)
