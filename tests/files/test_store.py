"""Files in a store: put, fetched, listed and removed."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import pytest
from helpers.stored import CHUNK, fetched, messages_in

import lightlink
from lightlink.errors import InvalidName, InvalidOption, LinkError, StoredFileNotFound

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import StartServer
    from helpers.raw import RawPeer


@pytest.fixture
def client(url: str) -> Iterator[lightlink.Client]:
    with lightlink.connect(url) as connected:
        yield connected


@pytest.fixture
def store(client: lightlink.Client, prefix: str) -> lightlink.FileStore:
    """A store of the test's own, whose bucket is not made yet."""
    return client.file_store(prefix)


@pytest.fixture
def content() -> bytes:
    """Some chunks and a bit."""
    return os.urandom(5 * CHUNK + 17)


# There and back -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK])
def test_a_file_comes_back_as_it_was(store: lightlink.FileStore, tmp_path: Path, size: int) -> None:
    source, target = tmp_path / "source.bin", tmp_path / "target.bin"
    source.write_bytes(os.urandom(size))
    info = store.upload(source)
    assert (info.name, info.size, info.chunks) == ("source.bin", size, -(-size // CHUNK))
    assert store.download(info.id, target) == store.info(info.id)
    assert target.read_bytes() == source.read_bytes()


def test_an_upload_tells_what_the_store_knows(store: lightlink.FileStore, tmp_path: Path, content: bytes) -> None:
    source = tmp_path / "report.csv"
    source.write_bytes(content)
    info = store.upload(source, metadata={"site": "berlin"})
    known = store.info(info.id)
    assert abs(info.created - known.created) < timedelta(seconds=10)
    assert known.created.tzinfo is timezone.utc
    assert (known.content_type, known.metadata, known.sender) == ("text/csv", {"site": "berlin"}, "")
    assert attrs.evolve(info, created=known.created) == known
    assert len({info, info, known}) == 2


def test_a_digest_is_the_sha_256_of_the_content(store: lightlink.FileStore) -> None:
    info = store.upload(io.BytesIO(b"hello"))
    assert info.digest == "SHA-256=LPJNul-wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ="
    assert hashlib.sha256(b"hello").hexdigest().startswith("2cf24dba")


def test_a_path_may_be_text(store: lightlink.FileStore, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"text")
    for path in (tmp_path / "a.txt", str(tmp_path / "a.txt")):
        assert fetched(store, store.upload(path).id) == b"text"


@pytest.mark.parametrize(
    "name",
    ["grüße ☃.txt", "a/b/../c", "..", " leading and trailing ", "quote\"s'and`s", "new\nline", "x" * 3000, "*.>"],
)
def test_a_name_may_be_any_text(store: lightlink.FileStore, name: str) -> None:
    info = store.upload(io.BytesIO(b"content"), name=name)
    assert info.name == name
    assert store.info(info.id).name == name
    assert [listed.name for listed in store.files()] == [name]


def test_a_file_name_that_is_no_unicode_is_told_with_marks(store: lightlink.FileStore, tmp_path: Path) -> None:
    path = os.fsencode(tmp_path) + b"/a\xff.bin"
    Path(os.fsdecode(path)).write_bytes(b"content")
    assert store.upload(os.fsdecode(path)).name == "a�.bin"


def test_the_client_has_a_store_of_its_own(client: lightlink.Client, tmp_path: Path) -> None:
    info = client.upload(io.BytesIO(b"content"), name="own.txt")
    client.download(info.id, tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == b"content"
    assert client.file_info(info.id) in client.files()
    client.delete_file(info.id)
    with pytest.raises(StoredFileNotFound):
        client.file_info(info.id)


def test_twenty_transfers_at_once_go_through_one_client(store: lightlink.FileStore, client: lightlink.Client) -> None:
    contents = [os.urandom(3 * CHUNK + n) for n in range(20)]

    def there_and_back(content: bytes) -> bytes:
        return fetched(store, store.upload(io.BytesIO(content)).id)

    with ThreadPoolExecutor(20) as pool:
        assert list(pool.map(there_and_back, contents)) == contents
    assert len(store.files()) == 20


def test_calls_go_on_while_files_are_transferred(url: str, store: lightlink.FileStore, prefix: str) -> None:
    service = lightlink.Service(prefix[-20:], url)
    service.register("echo", lambda n: n)
    content = os.urandom(48 * 1024 * 1024)
    answers: list[int] = []

    def call(done: int, total: int | None) -> None:
        if done > len(content) // 2 and not answers:
            answers.extend(caller.call(prefix[-20:], "echo", {"n": n}, timeout=30) for n in range(20))

    with service, lightlink.connect(url) as caller, ThreadPoolExecutor(2) as pool:
        files = caller.file_store(prefix)
        uploads = [pool.submit(files.upload, io.BytesIO(content)) for _ in range(2)]
        files.upload(io.BytesIO(content), progress=call)
        assert answers == list(range(20))
        assert all(upload.result().size == len(content) for upload in uploads)


def test_a_store_is_made_by_two_at_the_same_instant(url: str, prefix: str) -> None:
    with lightlink.connect(url) as one, lightlink.connect(url) as two, ThreadPoolExecutor(2) as pool:
        stores = [client.file_store(prefix, ttl=3600) for client in (one, two)]
        infos = list(pool.map(lambda store: store.upload(io.BytesIO(b"content")), stores))
        assert {info.id for info in one.file_store(prefix).files()} == {info.id for info in infos}


def test_a_bucket_is_made_as_it_was_asked_for(client: lightlink.Client, peer: RawPeer, prefix: str) -> None:
    store = client.file_store(prefix, ttl=60, max_bytes=1024 * 1024, storage="memory")
    store.upload(io.BytesIO(b"content"))
    config = peer.run(lambda nc: nc.jetstream().stream_info(f"OBJ_{prefix}")).config
    assert (config.max_age, config.max_bytes, config.storage) == (60, 1024 * 1024, "memory")
    assert config.subjects == [f"$O.{prefix}.C.>", f"$O.{prefix}.M.>"]
    assert config.allow_rollup_hdrs
    assert config.allow_direct
    assert config.discard == "new"


@pytest.mark.parametrize(
    ("option", "value"),
    [("ttl", 0), ("ttl", "1"), ("max_bytes", 0), ("replicas", 0), ("replicas", True), ("storage", "tape")],
)
def test_a_bucket_that_cannot_be_is_refused(client: lightlink.Client, option: str, value: Any) -> None:
    with pytest.raises(InvalidOption, match=option):
        client.file_store("bucket", **{option: value})


@pytest.mark.parametrize(("option", "value"), [("progress", 5), ("metadata", "site=berlin"), ("metadata", 5)])
def test_an_upload_that_cannot_be_is_refused(store: lightlink.FileStore, option: str, value: Any) -> None:
    with pytest.raises(InvalidOption, match=option):
        store.upload(io.BytesIO(b"x"), **{option: value})
    assert store.files() == []


def test_a_download_whose_progress_cannot_be_told_is_refused(store: lightlink.FileStore) -> None:
    info, target = store.upload(io.BytesIO(b"x")), io.BytesIO()
    with pytest.raises(InvalidOption, match="progress"):
        store.download(info.id, target, progress="bar")  # type: ignore[arg-type]
    assert target.getvalue() == b""


def test_a_bucket_that_somebody_removed_is_made_again(
    store: lightlink.FileStore, peer: RawPeer, prefix: str, content: bytes
) -> None:
    for body in (content, b"", content):
        assert fetched(store, store.upload(io.BytesIO(body)).id) == body
        peer.run(peer.nc.jetstream().delete_stream(f"OBJ_{prefix}"))


def test_a_file_can_be_deleted_although_the_bucket_is_full(
    client: lightlink.Client, peer: RawPeer, prefix: str
) -> None:
    store = client.file_store(prefix, max_bytes=4 * CHUNK)
    size = 3 * CHUNK
    described = store.upload(io.BytesIO(bytes(size)), metadata={"novel": "x" * 4000})
    while size:
        try:
            store.upload(io.BytesIO(bytes(size)))
        except LinkError:
            size //= 2
    store.delete(described.id)
    with pytest.raises(StoredFileNotFound):
        store.info(described.id)
    assert store.upload(io.BytesIO(bytes(2 * CHUNK))).size == 2 * CHUNK


def test_a_full_bucket_refuses_and_keeps_what_it_has(client: lightlink.Client, peer: RawPeer, prefix: str) -> None:
    store = client.file_store(prefix, max_bytes=10 * CHUNK)
    first = store.upload(io.BytesIO(b"a" * CHUNK))
    with pytest.raises(LinkError, match="maximum bytes exceeded"):
        store.upload(io.BytesIO(b"b" * 40 * CHUNK))
    assert [info.id for info in store.files()] == [first.id]
    assert messages_in(peer, prefix) == 2
    assert store.upload(io.BytesIO(b"c" * CHUNK)).size == CHUNK


def test_chunks_fit_a_server_that_takes_only_small_messages(fresh_server: StartServer) -> None:
    server = fresh_server(config="max_payload: 4096")
    content = os.urandom(50_000)
    with lightlink.connect(server.url) as client:
        info = client.upload(io.BytesIO(content))
        assert info.chunks > 12
        assert fetched(client.file_store(), info.id) == content


def test_a_server_without_jetstream_says_so(fresh_server: StartServer, tmp_path: Path) -> None:
    server = fresh_server(jetstream=False)
    with lightlink.connect(server.url) as client:
        with pytest.raises(LinkError, match="JetStream"):
            client.upload(io.BytesIO(b"content"))
        with pytest.raises(LinkError, match="JetStream"):
            client.download("some-id", tmp_path / "copy")
        with pytest.raises(LinkError, match="JetStream"):
            client.files()
    assert list(tmp_path.iterdir()) == []


# Finding, listing, removing -----------------------------------------------------------------------------------------


def test_files_are_listed_newest_first(store: lightlink.FileStore) -> None:
    ids = [store.upload(io.BytesIO(b"content"), name=f"{n}.txt").id for n in range(5)]
    listed = store.files()
    assert [info.id for info in listed] == ids[::-1]
    assert listed[0] == store.info(ids[-1])
    assert listed[0].created <= datetime.now(timezone.utc)


def test_a_store_that_nobody_made_is_empty(store: lightlink.FileStore, tmp_path: Path) -> None:
    assert store.files() == []
    for use in (store.info, store.delete, lambda file_id: store.download(file_id, tmp_path / "target")):
        with pytest.raises(StoredFileNotFound, match="no file 'some-id' in file store"):
            use("some-id")
    assert list(tmp_path.iterdir()) == []


def test_a_deleted_file_is_gone_with_its_chunks(store: lightlink.FileStore, peer: RawPeer, prefix: str) -> None:
    kept, gone = store.upload(io.BytesIO(b"kept")), store.upload(io.BytesIO(bytes(10 * CHUNK)))
    store.delete(gone.id)
    assert [info.id for info in store.files()] == [kept.id]
    for use in (store.info, store.delete, lambda file_id: store.download(file_id, io.BytesIO())):
        with pytest.raises(StoredFileNotFound):
            use(gone.id)
    assert messages_in(peer, prefix) == 3  # the other's two, and the mark of the deleted one
    assert fetched(store, kept.id) == b"kept"


@pytest.mark.parametrize("file_id", ["", "\udcff", "x" * 4000, 7, None])
def test_an_id_that_cannot_be_is_refused(store: lightlink.FileStore, file_id: Any) -> None:
    with pytest.raises(InvalidName, match="file id"):
        store.info(file_id)


def test_a_file_is_fetched_in_a_forked_child(store: lightlink.FileStore, tmp_path: Path, content: bytes) -> None:
    info = store.upload(io.BytesIO(content))
    child = os.fork()
    if child == 0:
        try:
            store.download(info.id, tmp_path / "target")
        finally:
            os._exit(0)
    assert os.waitpid(child, 0) == (child, 0)
    assert (tmp_path / "target").read_bytes() == content


def test_a_closed_client_transfers_nothing(url: str, tmp_path: Path) -> None:
    client = lightlink.connect(url)
    client.close()
    with pytest.raises(lightlink.ClosedError):
        client.upload(io.BytesIO(b"content"))
    with pytest.raises(lightlink.ClosedError):
        client.download("some-id", tmp_path / "target")


def test_closing_the_client_ends_a_transfer(url: str, prefix: str) -> None:
    client = lightlink.connect(url)

    def close(done: int, total: int | None) -> None:
        if done:
            client.close()

    with pytest.raises(lightlink.ClosedError):
        client.file_store(prefix).upload(io.BytesIO(bytes(200 * CHUNK)), progress=close)


def test_a_limited_bucket_is_not_filled_by_deleting(client: lightlink.Client, peer: RawPeer, prefix: str) -> None:
    store = client.file_store(prefix, max_bytes=20_000)
    for _ in range(100):
        store.delete(store.upload(io.BytesIO(bytes(100))).id)
    assert store.files() == []
    assert messages_in(peer, prefix) == 0


def test_a_file_is_deleted_from_a_full_bucket(client: lightlink.Client, peer: RawPeer, prefix: str) -> None:
    store = client.file_store(prefix, max_bytes=20_000)
    kept: list[str] = []
    with contextlib.suppress(LinkError):  # full
        while len(kept) < 100:
            kept.append(store.upload(io.BytesIO(bytes(10))).id)
    assert len(kept) < 100
    for file_id in kept:
        store.delete(file_id)
    assert store.files() == []
    assert messages_in(peer, prefix) == 0
    assert fetched(store, store.upload(io.BytesIO(b"room again")).id) == b"room again"
