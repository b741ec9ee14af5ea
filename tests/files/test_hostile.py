"""Descriptions of objects by whoever may write to a bucket: nothing in them becomes more than was meant (ADR-20)."""

from __future__ import annotations

import base64
import io
import json
from typing import TYPE_CHECKING, Any

import pytest
from helpers.stored import chunks_in, fetched
from helpers.waiting import eventually

import lightlink
from lightlink.errors import DecodeError, FileCorrupt

if TYPE_CHECKING:
    from collections.abc import Iterator

    from helpers.raw import RawPeer

NUIDS = [
    "a 0\r\n\r\nPUB evil.x 2\r\nhi\r\nPUB foo",
    "a b",
    "a\tb",
    "a\x7f",
    ">",
    "*",
    "a.>",
    "a.b",
    "a*",
    "\x00",
    "\u2028",
    "x" * 300,
]


@pytest.fixture
def errors() -> list[Exception]:
    return []


@pytest.fixture
def store(url: str, prefix: str, errors: list[Exception]) -> Iterator[lightlink.FileStore]:
    with lightlink.connect(url, on_error=errors.append) as client:
        yield client.file_store(prefix)


def describe(peer: RawPeer, bucket: str, name: str, key: str | None = None, **fields: Any) -> None:
    """Store the description of an object, as any client of the bucket may."""
    token = base64.urlsafe_b64encode((key or name).encode()).decode()
    body = {"name": name, "bucket": bucket, "nuid": "x", "size": 3, "chunks": 1} | fields
    peer.run(peer.nc.jetstream().publish(f"$O.{bucket}.M.{token}", json.dumps(body).encode()))


@pytest.mark.parametrize("nuid", NUIDS)
def test_an_id_of_chunks_is_one_token_or_refused(
    store: lightlink.FileStore, peer: RawPeer, prefix: str, errors: list[Exception], nuid: str
) -> None:
    kept = store.upload(io.BytesIO(b"kept"))
    evil = peer.run(peer.nc.subscribe("evil.>"))
    describe(peer, prefix, "bait", nuid=nuid)
    for use in (
        lambda: store.download("bait", io.BytesIO(), stall_timeout=30),
        lambda: store.info("bait"),
        lambda: store.delete("bait"),
        lambda: store.sweep(older_than=1),
    ):
        with pytest.raises(DecodeError, match="not one token"):
            use()
    assert [info.id for info in store.files()] == [kept.id]
    assert len(errors) == 1
    assert isinstance(errors[0], DecodeError)
    assert list(chunks_in(peer, prefix).values()) == [1]
    assert fetched(store, kept.id) == b"kept"
    peer.run(peer.nc.flush())
    assert evil.pending_msgs == 0
    assert store._connection.session.losses == 0  # nobody was cut off


@pytest.mark.parametrize("bucket", ["", ">", "a b", "a.b", "x\r\nPUB y 0\r\n\r\n"])
def test_a_link_to_what_is_no_bucket_is_refused(
    store: lightlink.FileStore, peer: RawPeer, prefix: str, bucket: str
) -> None:
    store.upload(io.BytesIO(b"kept"))
    describe(peer, prefix, "bait", options={"link": {"bucket": bucket, "name": "x"}})
    with pytest.raises(DecodeError, match="a link to the bucket"):
        store.download("bait", io.BytesIO())


@pytest.mark.parametrize("second", ["first", "second"])
def test_a_link_to_a_link_is_corrupt_and_no_empty_file(
    store: lightlink.FileStore, peer: RawPeer, prefix: str, second: str
) -> None:
    store.upload(io.BytesIO(b"kept"))
    for name, target in (("first", second), ("second", "first")):
        describe(peer, prefix, name, nuid="", size=0, chunks=0, options={"link": {"bucket": prefix, "name": target}})
    copy = io.BytesIO()
    with pytest.raises(FileCorrupt, match="which is a link too"):
        store.download("first", copy)
    assert copy.getvalue() == b""


def test_a_link_is_deleted_alone(store: lightlink.FileStore, peer: RawPeer, prefix: str) -> None:
    kept = store.upload(io.BytesIO(b"kept"))
    describe(peer, prefix, "link", nuid="", size=0, chunks=0, options={"link": {"bucket": prefix, "name": kept.id}})
    assert fetched(store, "link") == b"kept"
    store.delete("link")
    assert fetched(store, kept.id) == b"kept"


def test_a_description_without_chunks_for_its_size_is_corrupt(
    store: lightlink.FileStore, peer: RawPeer, prefix: str
) -> None:
    store.upload(io.BytesIO(b"kept"))
    describe(peer, prefix, "bait", nuid="")
    with pytest.raises(FileCorrupt, match="names no chunks"):
        store.download("bait", io.BytesIO())


def test_a_description_under_another_name_is_not_listed(
    store: lightlink.FileStore, peer: RawPeer, prefix: str, errors: list[Exception]
) -> None:
    kept = store.upload(io.BytesIO(b"kept"))
    describe(peer, prefix, kept.id, key="elsewhere")
    assert [info.id for info in store.files()] == [kept.id]
    assert ["another object" in str(error) for error in errors] == [True]


def test_a_subject_that_is_a_wildcard_is_not_swept(store: lightlink.FileStore, peer: RawPeer, prefix: str) -> None:
    kept = store.upload(io.BytesIO(b"kept"))
    peer.run(peer.nc.publish(f"$O.{prefix}.C.*", b"stray"))  # the server takes it for a name like any other
    peer.run(peer.nc.flush())
    assert eventually(lambda: store.sweep(older_than=1) == 0)
    assert fetched(store, kept.id) == b"kept"
