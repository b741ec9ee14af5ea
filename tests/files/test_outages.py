"""Transfers across outages, and files that are not what was stored."""

from __future__ import annotations

import io
import os
import time
from typing import TYPE_CHECKING, Any

import pytest
from helpers.pki import tls_of
from helpers.raw import RawPeer
from helpers.stored import CHUNK, chunks_in, fetched
from helpers.waiting import eventually

import lightlink
from lightlink.errors import FileCorrupt, StoredFileNotFound, TransferStalled

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from conftest import StartProxy, StartServer
    from helpers.pki import LinkAs

    from lightlink.server import EmbeddedServer

CONTENT = os.urandom(300 * CHUNK + 1)


@pytest.fixture
def client(url: str) -> Iterator[lightlink.Client]:
    with lightlink.connect(url) as connected:
        yield connected


@pytest.fixture
def store(client: lightlink.Client, prefix: str) -> lightlink.FileStore:
    return client.file_store(prefix)


def at(shares: list[float], action: Callable[[], object]) -> Callable[[int, int | None], None]:
    """Return a progress function that acts each time such a share of the file is done."""
    left = sorted(shares)

    def tell(done: int, total: int | None) -> None:
        if left and done >= left[0] * len(CONTENT):
            del left[0]
            action()

    return tell


def crash(server: EmbeddedServer) -> None:
    server.kill()
    server.start()


# Outages ------------------------------------------------------------------------------------------------------------


def test_an_upload_goes_on_after_the_server_was_killed(
    fresh_server: StartServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG", "lightlink")
    server = fresh_server()
    with lightlink.connect(server.url) as client:
        info = client.upload(io.BytesIO(CONTENT), progress=at([0.2, 0.5, 0.8], lambda: crash(server)))
        assert fetched(client.file_store(), info.id) == CONTENT
        with RawPeer(server.url) as peer:
            assert list(chunks_in(peer, "light_link_files").values()) == [info.chunks] == [301]
    # A kill may come before the transfer has gone on from the one before.
    assert "goes on from chunk" in caplog.text


def test_a_download_goes_on_after_the_server_was_killed(fresh_server: StartServer, tmp_path: Path) -> None:
    server = fresh_server()
    told: list[int] = []
    acting = at([0.2, 0.5, 0.8], lambda: crash(server))
    with lightlink.connect(server.url) as client:
        info = client.upload(io.BytesIO(CONTENT))
        client.download(
            info.id, tmp_path / "target", progress=lambda done, total: (told.append(done), acting(done, total))
        )
    assert (tmp_path / "target").read_bytes() == CONTENT
    assert told == sorted(set(told))


def test_an_upload_in_the_largest_chunks_goes_on_too(
    proxy: StartProxy, peer: RawPeer, store: lightlink.FileStore, prefix: str
) -> None:
    link = proxy()
    with lightlink.connect(link.url) as client:
        chunk_size = client._connection.max_payload - 256
        progress = at([0.3, 0.6], link.cut)
        info = client.file_store(prefix).upload(io.BytesIO(CONTENT), progress=progress, chunk_size=chunk_size)
    assert list(chunks_in(peer, prefix).values()) == [info.chunks] == [38]
    assert fetched(store, info.id) == CONTENT


def test_an_upload_goes_on_when_its_connection_is_cut(
    proxy: StartProxy, peer: RawPeer, store: lightlink.FileStore, prefix: str
) -> None:
    link = proxy()
    with lightlink.connect(link.url) as client:
        info = client.file_store(prefix).upload(io.BytesIO(CONTENT), progress=at([n / 10 for n in range(10)], link.cut))
    assert list(chunks_in(peer, prefix).values()) == [301]
    assert fetched(store, info.id) == CONTENT


def test_a_download_goes_on_when_its_connection_is_cut(
    proxy: StartProxy, store: lightlink.FileStore, prefix: str
) -> None:
    info = store.upload(io.BytesIO(CONTENT))
    link = proxy()
    target = io.BytesIO()
    with lightlink.connect(link.url) as client:
        client.file_store(prefix).download(info.id, target, progress=at([n / 10 for n in range(10)], link.cut))
    assert target.getvalue() == CONTENT


def test_chunks_that_come_late_are_not_stored_twice(
    proxy: StartProxy, peer: RawPeer, store: lightlink.FileStore, prefix: str
) -> None:
    link = proxy()

    def interfere() -> None:
        """Cut the connection, and store what a chunk sent before might have become."""
        link.cut()
        [subject] = chunks_in(peer, prefix)
        for stray in (b"stray", CONTENT[:CHUNK]):
            peer.run(peer.nc.jetstream().publish(subject, stray))

    with lightlink.connect(link.url) as client:
        info = client.file_store(prefix).upload(io.BytesIO(CONTENT), progress=at([0.3, 0.6], interfere))
    assert list(chunks_in(peer, prefix).values()) == [301]
    assert fetched(store, info.id) == CONTENT


@pytest.mark.parametrize("name", ["keeper", "store"])
def test_an_identity_with_files_may_do_all_that_takes(
    secured: EmbeddedServer, identities: Path, link_as: LinkAs, proxy: StartProxy, name: str
) -> None:
    denied: list[Exception] = []
    link = proxy(secured.url)
    options: dict[str, Any] = {"name": name, "tls": tls_of(identities, name), "on_error": denied.append}
    with lightlink.connect(link.url, **options) as client, link_as("ops") as admin:

        def interfere() -> None:
            link.cut()
            admin.publish(chunks.get(timeout=30).subject, b"stray")
            admin.flush()

        with admin.subscribe("$O.light_link_files.C.>", raw=True) as chunks:
            info = client.upload(io.BytesIO(CONTENT), progress=at([0.5], interfere))
        assert fetched(client, info.id) == CONTENT
        assert info.id in [known.id for known in client.files()]
        client.delete_file(info.id)
    assert denied == []


def test_an_upload_somebody_else_adds_to_is_refused(proxy: StartProxy, peer: RawPeer, prefix: str) -> None:
    link = proxy()
    add_later = at([0.6], lambda: peer.run(peer.nc.jetstream().publish(next(iter(chunks_in(peer, prefix))), b"stray")))
    cut_first = at([0.3], link.cut)
    with lightlink.connect(link.url) as client, pytest.raises(FileCorrupt, match="302 chunks are stored where 301"):
        client.file_store(prefix).upload(io.BytesIO(CONTENT), progress=lambda *now: (cut_first(*now), add_later(*now)))
    assert chunks_in(peer, prefix) == {}


def test_a_stalled_upload_is_given_up_and_removed_later(
    proxy: StartProxy, peer: RawPeer, store: lightlink.FileStore, prefix: str
) -> None:
    link = proxy()
    with lightlink.connect(link.url) as client:

        def lose() -> None:
            link.refuse()
            link.cut()

        started = time.monotonic()
        with pytest.raises(TransferStalled) as caught:
            client.file_store(prefix).upload(io.BytesIO(CONTENT), progress=at([0.5], lose), stall_timeout=3.0)
        assert time.monotonic() - started < 25
        assert caught.value.total == len(CONTENT)
        assert len(CONTENT) / 2 <= caught.value.done < len(CONTENT)
        assert chunks_in(peer, prefix) != {}
        link.accept()
        eventually(lambda: chunks_in(peer, prefix) == {}, timeout=30)
    assert store.files() == []


def test_a_stalled_download_is_given_up_and_leaves_nothing(
    proxy: StartProxy, store: lightlink.FileStore, prefix: str, tmp_path: Path
) -> None:
    link = proxy()
    info = store.upload(io.BytesIO(CONTENT))
    target = tmp_path / "target"
    target.write_bytes(b"old")
    with lightlink.connect(link.url) as client:
        with pytest.raises(TransferStalled) as caught:
            client.file_store(prefix).download(info.id, target, progress=at([0.5], link.pause), stall_timeout=0.5)
        link.resume()
    assert caught.value.file_id == info.id
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_stalled_connection_that_comes_back_is_waited_for(
    proxy: StartProxy, store: lightlink.FileStore, prefix: str
) -> None:
    link = proxy()
    with lightlink.connect(link.url) as client:

        def hold() -> None:
            link.delay(0.3)

        info = client.file_store(prefix).upload(io.BytesIO(CONTENT[: 100 * CHUNK]), progress=at([0.1], hold))
    assert fetched(store, info.id) == CONTENT[: 100 * CHUNK]


# Files that are not what was stored ---------------------------------------------------------------------------------


def sequences(peer: RawPeer, bucket: str, subject: str) -> list[int]:
    """Return the sequences of a file's chunks."""

    async def read(nc: Any) -> list[int]:
        sub = await nc.jetstream().subscribe(subject, ordered_consumer=True, config=None)
        found = []
        pending = 1
        while pending:
            message = await sub.next_msg(timeout=30)
            found.append(message.metadata.sequence.stream)
            pending = message.metadata.num_pending
        await sub.unsubscribe()
        return found

    return peer.run(read)


def remove(peer: RawPeer, bucket: str, seq: int) -> None:
    peer.run(peer.nc.jetstream().delete_msg(f"OBJ_{bucket}", seq))


@pytest.mark.parametrize("which", [0, 5, -1])
def test_a_chunk_that_is_missing_is_noticed_at_once(
    store: lightlink.FileStore, peer: RawPeer, prefix: str, tmp_path: Path, which: int
) -> None:
    info = store.upload(io.BytesIO(CONTENT[: 10 * CHUNK]))
    [subject] = chunks_in(peer, prefix)
    remove(peer, prefix, sequences(peer, prefix, subject)[which])
    started = time.monotonic()
    with pytest.raises(FileCorrupt, match=f"{9 * CHUNK} bytes in 9 chunks of {10 * CHUNK} bytes in 10 chunks"):
        store.download(info.id, tmp_path / "target")
    assert time.monotonic() - started < 25
    assert list(tmp_path.iterdir()) == []


def test_chunks_that_go_missing_on_the_way_are_noticed_soon(
    store: lightlink.FileStore, peer: RawPeer, prefix: str, tmp_path: Path
) -> None:
    info = store.upload(io.BytesIO(CONTENT))
    [subject] = chunks_in(peer, prefix)
    last = sequences(peer, prefix, subject)[-1]

    def take_away() -> None:
        for seq in range(last - 20, last + 1):
            remove(peer, prefix, seq)

    started = time.monotonic()
    with pytest.raises(FileCorrupt, match="280 chunks"):
        store.download(info.id, tmp_path / "target", progress=at([0.1], take_away))
    assert time.monotonic() - started < 25
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_deleted_on_the_way_is_gone(store: lightlink.FileStore, tmp_path: Path) -> None:
    info = store.upload(io.BytesIO(CONTENT))
    with pytest.raises(StoredFileNotFound):
        store.download(info.id, tmp_path / "target", progress=at([0.1], lambda: store.delete(info.id)))
    assert list(tmp_path.iterdir()) == []


def store_instead(peer: RawPeer, bucket: str, chunks: list[bytes]) -> None:
    """Put other chunks in the place of a file's."""
    [subject] = chunks_in(peer, bucket)
    jetstream = peer.nc.jetstream()
    peer.run(jetstream.purge_stream(f"OBJ_{bucket}", subject=subject))
    for chunk in chunks:
        peer.run(jetstream.publish(subject, chunk))


@pytest.mark.parametrize("which", [0, 1, 2])
def test_a_chunk_that_was_altered_is_noticed(
    store: lightlink.FileStore, peer: RawPeer, prefix: str, tmp_path: Path, which: int
) -> None:
    chunks = [CONTENT[:CHUNK]] * 3
    info = store.upload(io.BytesIO(b"".join(chunks)))
    chunks[which] = b"x" * CHUNK
    store_instead(peer, prefix, chunks)
    target = tmp_path / "target"
    target.write_bytes(b"old")
    with pytest.raises(FileCorrupt, match="SHA-256"):
        store.download(info.id, target)
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_byte_too_many_is_noticed(store: lightlink.FileStore, peer: RawPeer, prefix: str) -> None:
    info = store.upload(io.BytesIO(bytes(2 * CHUNK)))
    store_instead(peer, prefix, [bytes(CHUNK), bytes(CHUNK + 1)])
    with pytest.raises(FileCorrupt, match=f"{2 * CHUNK + 1} bytes"):
        store.download(info.id, io.BytesIO())


def meta_of(peer: RawPeer, bucket: str) -> Any:
    return peer.run(lambda nc: nc.jetstream().get_last_msg(f"OBJ_{bucket}", f"$O.{bucket}.M.>"))


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (b'"SHA-256=', b'"SHA-256=AAAA', "SHA-256"),
        (b'"SHA-256=', b'"MD5=', "cannot be read"),
        (b'"size":262144', b'"size":262145', "262144 bytes"),
        (b'"size":262144', b'"size":1', "131072 bytes"),
        (b'"chunks":2', b'"chunks":3', "2 chunks"),
    ],
)
def test_a_description_that_does_not_fit_is_noticed(
    store: lightlink.FileStore, peer: RawPeer, prefix: str, old: bytes, new: bytes, reason: str
) -> None:
    info = store.upload(io.BytesIO(CONTENT[: 2 * CHUNK]))
    meta = meta_of(peer, prefix)
    assert old in meta.data
    peer.run(peer.nc.jetstream().publish(meta.subject, meta.data.replace(old, new), headers={"Nats-Rollup": "sub"}))
    with pytest.raises(FileCorrupt, match=reason):
        store.download(info.id, io.BytesIO())


def test_an_unreadable_description_spoils_no_list(url: str, peer: RawPeer, prefix: str) -> None:
    reported: list[Exception] = []
    with lightlink.connect(url, on_error=reported.append) as client:
        store = client.file_store(prefix)
        spoilt, good = store.upload(io.BytesIO(b"a")), store.upload(io.BytesIO(b"b"))
        first = peer.run(lambda nc: nc.jetstream().get_msg(f"OBJ_{prefix}", 2))
        assert first.subject
        peer.run(peer.nc.jetstream().publish(first.subject, b"{not json", headers={"Nats-Rollup": "sub"}))
        assert [info.id for info in store.files()] == [good.id]
        assert [type(error) for error in reported] == [lightlink.DecodeError]
        with pytest.raises(lightlink.DecodeError):
            store.info(spoilt.id)
