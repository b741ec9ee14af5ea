"""Our files as other NATS clients see them, and theirs as we do (ADR-20)."""

from __future__ import annotations

import io
import os
from typing import TYPE_CHECKING, Any

import pytest
from nats.js.api import ObjectLink, ObjectMeta, ObjectMetaOptions

import lightlink
from lightlink.errors import LinkError, StoredFileNotFound

if TYPE_CHECKING:
    from collections.abc import Iterator

    from helpers.raw import RawPeer
    from nats.js.object_store import ObjectStore

pytestmark = pytest.mark.interop

CHUNK = 128 * 1024


@pytest.fixture
def store(url: str, prefix: str) -> Iterator[lightlink.FileStore]:
    with lightlink.connect(url) as client:
        yield client.file_store(prefix)


@pytest.fixture
def content() -> bytes:
    return os.urandom(5 * CHUNK + 17)


def theirs(peer: RawPeer, bucket: str) -> ObjectStore:
    return peer.run(peer.nc.jetstream().object_store(bucket))


def made_by_them(peer: RawPeer, bucket: str) -> ObjectStore:
    return peer.run(peer.nc.jetstream().create_object_store(bucket))


def test_they_fetch_our_file(store: lightlink.FileStore, peer: RawPeer, prefix: str, content: bytes) -> None:
    info = store.upload(io.BytesIO(content), name="grüße.csv")
    result = peer.run(theirs(peer, prefix).get(info.id))
    assert result.data == content
    assert (result.info.name, result.info.description, result.info.bucket) == (info.id, "grüße.csv", prefix)
    assert (result.info.size, result.info.chunks, result.info.digest) == (info.size, info.chunks, info.digest)
    assert result.info.options
    assert result.info.mtime
    assert result.info.options.max_chunk_size == CHUNK
    assert result.info.mtime[:10] == info.created.isoformat()[:10]


def test_they_fetch_our_empty_file(store: lightlink.FileStore, peer: RawPeer, prefix: str) -> None:
    info = store.upload(io.BytesIO())
    assert peer.run(theirs(peer, prefix).get(info.id)).data == b""


def test_they_list_our_files_and_delete_one(store: lightlink.FileStore, peer: RawPeer, prefix: str) -> None:
    infos = [store.upload(io.BytesIO(b"content"), name=f"{n}.txt") for n in range(3)]
    bucket = theirs(peer, prefix)
    assert {entry.name for entry in peer.run(bucket.list())} == {info.id for info in infos}
    peer.run(bucket.delete(infos[0].id))
    assert [info.id for info in store.files()] == [infos[2].id, infos[1].id]
    with pytest.raises(StoredFileNotFound):
        store.download(infos[0].id, io.BytesIO())


def test_they_see_what_we_deleted_as_deleted(store: lightlink.FileStore, peer: RawPeer, prefix: str) -> None:
    info = store.upload(io.BytesIO(b"content"))
    store.delete(info.id)
    seen = peer.run(theirs(peer, prefix).get_info(info.id, show_deleted=True))
    assert (seen.deleted, seen.size, seen.chunks) == (True, 0, 0)


@pytest.mark.parametrize("name", ["report.csv", "a/b c/grüße", "x" * 900])
def test_we_fetch_their_file_by_its_name(
    store: lightlink.FileStore, peer: RawPeer, prefix: str, content: bytes, name: str
) -> None:
    meta = ObjectMeta(description="of last week", options=ObjectMetaOptions(max_chunk_size=1000))
    peer.run(made_by_them(peer, prefix).put(name, content, meta))
    target = io.BytesIO()
    info = store.download(name, target)
    assert target.getvalue() == content
    assert (info.id, info.name, info.size, info.chunks) == (name, name, len(content), -(-len(content) // 1000))
    assert store.files() == [info]


def test_we_fetch_their_empty_file(store: lightlink.FileStore, peer: RawPeer, prefix: str) -> None:
    peer.run(made_by_them(peer, prefix).put("empty", b""))
    target = io.BytesIO()
    assert store.download("empty", target).size == 0
    assert target.getvalue() == b""


def test_we_put_into_their_bucket_and_delete_there(
    store: lightlink.FileStore, peer: RawPeer, prefix: str, content: bytes
) -> None:
    bucket = made_by_them(peer, prefix)
    peer.run(bucket.put("theirs", b"theirs"))
    ours = store.upload(io.BytesIO(content))
    store.delete("theirs")
    assert peer.run(bucket.get(ours.id)).data == content
    assert [info.id for info in store.files()] == [ours.id]


def test_a_file_they_put_again_is_the_new_one(store: lightlink.FileStore, peer: RawPeer, prefix: str) -> None:
    bucket = made_by_them(peer, prefix)
    peer.run(bucket.put("again", b"first"))
    peer.run(bucket.put("again", b"second"))
    target = io.BytesIO()
    store.download("again", target)
    assert target.getvalue() == b"second"
    assert len(store.files()) == 1


def test_a_foreign_name_like_our_ids_is_in_the_description(
    store: lightlink.FileStore, peer: RawPeer, prefix: str
) -> None:
    file_id = "1b4e28ba-2fa1-4d2e-883f-0016d3cca427"
    peer.run(made_by_them(peer, prefix).put(file_id, b"content", ObjectMeta(description="theirs.csv")))
    assert store.info(file_id).name == "theirs.csv"


def put_link(peer: RawPeer, prefix: str, link: ObjectLink) -> None:
    """nats-py reads links but has no way to make one."""

    async def put(nc: Any) -> None:
        bucket = await nc.jetstream().object_store(prefix)
        await bucket.put("link", b"", ObjectMeta(options=ObjectMetaOptions(link=link, max_chunk_size=1)))

    peer.run(put)


def test_their_link_leads_to_the_file(store: lightlink.FileStore, peer: RawPeer, prefix: str, content: bytes) -> None:
    peer.run(made_by_them(peer, f"{prefix}_2").put("real", content))
    made_by_them(peer, prefix)
    put_link(peer, prefix, ObjectLink(bucket=f"{prefix}_2", name="real"))
    target = io.BytesIO()
    assert store.download("link", target).id == "real"
    assert target.getvalue() == content


def test_their_link_to_a_whole_bucket_is_no_file(store: lightlink.FileStore, peer: RawPeer, prefix: str) -> None:
    made_by_them(peer, prefix)
    put_link(peer, prefix, ObjectLink(bucket="other"))
    with pytest.raises(LinkError, match="whole bucket 'other'"):
        store.download("link", io.BytesIO())
