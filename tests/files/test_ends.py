"""What files are read from and written to, and who follows it."""

from __future__ import annotations

import gzip
import io
import os
import signal
import stat
import tempfile
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, BinaryIO

import pytest
from django.core.files.base import File
from django.core.files.uploadedfile import SimpleUploadedFile
from helpers.stored import CHUNK, fetched, messages_in
from werkzeug.datastructures import FileStorage

import lightlink
from lightlink.errors import FileCorrupt, InvalidOption, PayloadTooLarge, StoredFileNotFound

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from conftest import StartPython
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


class Refused(Exception):
    """What a test's own code raises."""


# Sources ------------------------------------------------------------------------------------------------------------


def test_a_file_object_is_read_from_where_it_stands(store: lightlink.FileStore, content: bytes) -> None:
    source = io.BytesIO(content)
    source.seek(10)
    told: list[tuple[int, int | None]] = []
    info = store.upload(source, progress=lambda *now: told.append(now))
    assert not source.closed
    assert fetched(store, info.id) == content[10:]
    assert info.name == info.id
    assert told[0] == (0, len(content) - 10)


def test_an_open_file_keeps_its_name(store: lightlink.FileStore, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "open.bin").write_bytes(content)
    with (tmp_path / "open.bin").open("rb") as source:
        source.read(7)
        info = store.upload(source)
    assert (info.name, info.size) == ("open.bin", len(content) - 7)


def test_what_a_web_framework_got_keeps_its_name(store: lightlink.FileStore) -> None:
    """Its ``name`` is that of the form's field, in Flask."""
    of_flask = FileStorage(io.BytesIO(b"flask"), filename="reports/monthly.csv", name="file")
    of_django = SimpleUploadedFile("monthly.csv", b"django")
    for source, content in ((of_flask, b"flask"), (of_django, b"django")):
        info, target = store.upload(source), io.BytesIO()
        store.download(info.id, target)
        assert (info.name, target.getvalue()) == ("monthly.csv", content)


def test_temporary_files_are_sources(store: lightlink.FileStore, content: bytes) -> None:
    told: list[int | None] = []
    with tempfile.TemporaryFile() as plain, tempfile.NamedTemporaryFile() as named:
        for source in (plain, named):
            source.write(content)
            source.seek(0)
            info = store.upload(source, progress=lambda _, total: told.append(total))
            assert fetched(store, info.id) == content
    assert set(told) == {len(content)}


class Dribbling(io.RawIOBase):
    """Gives a few bytes at a time."""

    def __init__(self, data: bytes) -> None:
        self._data = io.BytesIO(data)

    def read(self, size: int = -1) -> bytes:
        return self._data.read(min(size, 1000))


def test_short_reads_are_no_end(store: lightlink.FileStore, content: bytes) -> None:
    told: list[tuple[int, int | None]] = []
    info = store.upload(Dribbling(content), progress=lambda *now: told.append(now))
    assert info.chunks == 6
    assert fetched(store, info.id) == content
    assert told[0] == (0, None)
    assert told[-1] == (len(content), len(content))


def test_the_content_of_a_compressed_file_is_stored_whole(store: lightlink.FileStore, tmp_path: Path) -> None:
    with gzip.open(tmp_path / "zeros.gz", "wb") as packed:
        packed.write(bytes(3 * CHUNK))
    with gzip.open(tmp_path / "zeros.gz", "rb") as unpacked:
        assert store.upload(unpacked).size == 3 * CHUNK


class Tripled:
    """Gives three bytes for each of the file that it holds."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = self.raw = self.stream = file

    def read(self, size: int) -> bytes:
        return b"".join(byte * 3 for byte in map(bytes, zip(self.file.read(size // 3))))


class Doubled(io.BytesIO):
    """Gives two bytes for each that it holds."""

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(-1 if size is None else size // 2) * 2


def test_what_makes_its_content_as_it_is_read_is_stored_whole(store: lightlink.FileStore, tmp_path: Path) -> None:
    path = tmp_path / "held"
    path.write_bytes(b"abc")
    with path.open("rb") as held:
        assert fetched(store, store.upload(Tripled(held), name="tripled").id) == b"aaabbbccc"
    assert fetched(store, store.upload(Doubled(b"abc")).id) == b"abcabc"


def test_the_size_is_told_of_what_a_file_object_reads_from(store: lightlink.FileStore) -> None:
    told: list[int | None] = []
    with tempfile.NamedTemporaryFile() as named:
        named.write(b"abc")
        named.seek(0)
        for source in (File(named), FileStorage(io.BytesIO(b"abc"))):
            store.upload(source, progress=lambda _, total: told.append(total))
    assert set(told) == {3}


def test_a_pipe_is_read_to_its_end(store: lightlink.FileStore, content: bytes) -> None:
    reading, writing = os.pipe()
    with ThreadPoolExecutor(1) as pool, os.fdopen(reading, "rb") as source:
        uploading = pool.submit(store.upload, source)
        with os.fdopen(writing, "wb") as pipe:
            pipe.write(content)
        assert fetched(store, uploading.result(60).id) == content


def test_a_file_that_says_it_is_empty_is_read_all_the_same(store: lightlink.FileStore) -> None:
    assert b"\n" in fetched(store, store.upload("/proc/self/status").id)


def test_of_a_file_that_grows_what_was_there_is_stored(store: lightlink.FileStore, tmp_path: Path) -> None:
    path = tmp_path / "growing.log"
    path.write_bytes(b"a" * 3 * CHUNK)

    def grow(done: int, total: int | None) -> None:
        with path.open("ab") as file:
            file.write(b"b" * CHUNK)

    info = store.upload(path, progress=grow)
    assert fetched(store, info.id) == b"a" * 3 * CHUNK


def test_a_file_that_shrinks_is_refused(store: lightlink.FileStore, peer: RawPeer, tmp_path: Path, prefix: str) -> None:
    path = tmp_path / "shrinking.bin"
    path.write_bytes(b"a" * 3 * CHUNK)

    def shrink(done: int, total: int | None) -> None:
        os.truncate(path, CHUNK + 1)

    with pytest.raises(FileCorrupt, match=f"shrank while it was read, from {3 * CHUNK} to {CHUNK + 1} bytes"):
        store.upload(path, progress=shrink)
    assert messages_in(peer, prefix) == 0


class Failing(io.RawIOBase):
    """Gives some chunks, then what a disk gives that is broken."""

    name = "broken.bin"

    def __init__(self, chunks: int) -> None:
        self._chunks = chunks

    def read(self, size: int = -1) -> bytes:
        self._chunks -= 1
        if self._chunks < 0:
            raise OSError(5, "Input/output error")
        return b"x" * size


def test_a_source_that_fails_leaves_no_chunks(store: lightlink.FileStore, peer: RawPeer, prefix: str) -> None:
    with pytest.raises(OSError, match="Input/output error"):
        store.upload(Failing(200))
    assert messages_in(peer, prefix) == 0
    assert store.files() == []


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (io.StringIO("text"), "text mode"),
        (b"the content", "io.BytesIO"),
        (42, "path or a binary file object"),
    ],
)
def test_what_is_no_source_is_refused(store: lightlink.FileStore, source: Any, reason: str) -> None:
    with pytest.raises(InvalidOption, match=reason):
        store.upload(source)


def test_a_file_open_in_text_mode_is_refused(store: lightlink.FileStore, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("text")
    with (tmp_path / "text.txt").open() as source, pytest.raises(InvalidOption, match=r"text\.txt.*'rb'"):
        store.upload(source)  # type: ignore[arg-type]


def test_an_object_that_reads_text_is_refused(store: lightlink.FileStore, peer: RawPeer, prefix: str) -> None:
    class Texts:
        def read(self, size: int) -> str:
            return "text"

    with pytest.raises(InvalidOption, match="'rb'"):
        store.upload(Texts())  # type: ignore[arg-type]
    assert messages_in(peer, prefix) == 0


def test_a_path_that_is_not_there_is_told_by_its_name(store: lightlink.FileStore, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"absent\.bin"):
        store.upload(tmp_path / "absent.bin")
    with pytest.raises(IsADirectoryError):
        store.upload(tmp_path)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("chunk_size", 0),
        ("chunk_size", 2**20),
        ("chunk_size", 1.5),
        ("stall_timeout", 0),
        ("metadata", {"a": 1}),
        ("metadata", {"file_name": "mine"}),
        ("name", 7),
        ("name", "\udcff"),
        ("content_type", 7),
    ],
)
def test_an_upload_that_cannot_be_is_refused(store: lightlink.FileStore, option: str, value: Any) -> None:
    with pytest.raises(InvalidOption, match=option):
        store.upload(io.BytesIO(b"content"), **{option: value})


def test_a_description_that_would_not_fit_is_refused_at_once(store: lightlink.FileStore) -> None:
    with pytest.raises(PayloadTooLarge):
        store.upload(Failing(0), metadata={"novel": "x" * 2**20})


# Targets ------------------------------------------------------------------------------------------------------------


def test_a_download_replaces_what_was_there_and_keeps_its_mode(store: lightlink.FileStore, tmp_path: Path) -> None:
    target = tmp_path / "config.json"
    target.write_bytes(b"old and longer than the new")
    target.chmod(0o640)
    store.download(store.upload(io.BytesIO(b"new")).id, target)
    assert target.read_bytes() == b"new"
    assert stat.S_IMODE(target.stat().st_mode) == 0o640
    assert list(tmp_path.iterdir()) == [target]


def test_a_file_is_whole_on_disk_before_it_replaces_another(
    store: lightlink.FileStore, tmp_path: Path, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = store.upload(io.BytesIO(content))
    target = tmp_path / "target"
    target.write_bytes(b"before")
    synced: list[tuple[int, bytes]] = []
    fsync = os.fsync

    def note(number: int) -> None:
        synced.append((os.fstat(number).st_size, target.read_bytes()))
        fsync(number)

    monkeypatch.setattr(os, "fsync", note)
    store.download(info.id, target)
    assert synced == [(len(content), b"before")]
    assert target.read_bytes() == content


def test_a_new_file_has_the_mode_of_any_new_file(store: lightlink.FileStore, tmp_path: Path) -> None:
    (tmp_path / "ordinary").write_bytes(b"")
    store.download(store.upload(io.BytesIO(b"new")).id, tmp_path / "target")
    assert (tmp_path / "target").stat().st_mode == (tmp_path / "ordinary").stat().st_mode


def test_a_link_in_the_file_system_stays_a_link(store: lightlink.FileStore, tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(b"old")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    store.download(store.upload(io.BytesIO(b"new")).id, tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == b"new"


def test_a_target_may_have_the_longest_name(store: lightlink.FileStore, tmp_path: Path) -> None:
    target = tmp_path / ("x" * 255)
    store.download(store.upload(io.BytesIO(b"new")).id, target)
    assert target.read_bytes() == b"new"


def test_a_folder_that_is_not_there_is_told_by_its_name(store: lightlink.FileStore, tmp_path: Path) -> None:
    info = store.upload(io.BytesIO(b"content"))
    with pytest.raises(FileNotFoundError, match=r"absent'$") as caught:
        store.download(info.id, tmp_path / "absent" / "file")
    assert not isinstance(caught.value, StoredFileNotFound)


@pytest.mark.parametrize("target", [io.StringIO(), 42, "/dev/null", "/tmp"])
def test_what_is_no_target_is_refused(store: lightlink.FileStore, target: Any) -> None:
    info = store.upload(io.BytesIO(b"content"))
    with pytest.raises(InvalidOption, match="target"):
        store.download(info.id, target)


def test_a_target_that_takes_little_at_a_time_gets_it_all(store: lightlink.FileStore, content: bytes) -> None:
    class Narrow(io.RawIOBase):
        data = b""

        def write(self, data: Any) -> int:
            self.data += bytes(data[:1000])
            return min(len(data), 1000)

    target = Narrow()
    store.download(store.upload(io.BytesIO(content)).id, target)
    assert target.data == content


class Full(io.RawIOBase):
    """A disk that is full after a while."""

    def __init__(self) -> None:
        self.room = 3 * CHUNK

    def write(self, data: Any) -> int:
        if len(data) > self.room:
            raise OSError(28, "No space left on device")
        self.room -= len(data)
        return len(data)


def test_a_full_disk_is_told_as_such(store: lightlink.FileStore, content: bytes) -> None:
    info = store.upload(io.BytesIO(content))
    with pytest.raises(OSError, match="No space left on device"):
        store.download(info.id, Full())


def test_a_disk_that_fills_up_leaves_nothing_of_the_file(
    store: lightlink.FileStore, python: StartPython, url: str, tmp_path: Path, content: bytes, prefix: str
) -> None:
    info = store.upload(io.BytesIO(content))
    process = python(
        """
        import resource, signal, sys
        import lightlink

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
        with lightlink.connect(sys.argv[1]) as client:
            try:
                client.file_store(sys.argv[2]).download(sys.argv[3], sys.argv[4])
            except OSError as exc:
                print(type(exc).__name__, exc.strerror)
        """,
        url,
        prefix,
        info.id,
        tmp_path / "target",
    )
    assert process.wait().stdout == "OSError File too large\n"
    assert list(tmp_path.iterdir()) == []


# Progress -----------------------------------------------------------------------------------------------------------


def test_progress_is_told_from_nothing_to_all(store: lightlink.FileStore, tmp_path: Path, content: bytes) -> None:
    up: list[tuple[int, int | None]] = []
    down: list[tuple[int, int | None]] = []
    info = store.upload(io.BytesIO(content), progress=lambda *now: up.append(now))
    store.download(info.id, tmp_path / "target", progress=lambda *now: down.append(now))
    for told in (up, down):
        assert told[0] == (0, len(content))
        assert told[-1] == (len(content), len(content))
        assert [done for done, _ in told] == sorted({done for done, _ in told})
        assert len(told) == 7


def test_progress_of_an_empty_file_is_told_once(store: lightlink.FileStore) -> None:
    told: list[tuple[int, int | None]] = []
    info = store.upload(io.BytesIO(), progress=lambda *now: told.append(now))
    store.download(info.id, io.BytesIO(), progress=lambda *now: told.append(now))
    assert told == [(0, 0), (0, 0)]


def test_a_callback_that_raises_cancels_the_upload(store: lightlink.FileStore, peer: RawPeer, prefix: str) -> None:
    def refuse(done: int, total: int | None) -> None:
        if done > 20 * CHUNK:
            raise Refused

    with pytest.raises(Refused):
        store.upload(io.BytesIO(bytes(200 * CHUNK)), progress=refuse)
    assert messages_in(peer, prefix) == 0
    assert store.files() == []


def test_a_callback_that_times_out_is_told_as_such(store: lightlink.FileStore) -> None:
    def refuse(done: int, total: int | None) -> None:
        raise TimeoutError("mine")

    with pytest.raises(TimeoutError, match="mine"):
        store.upload(io.BytesIO(b"content"), progress=refuse)


def test_a_callback_that_raises_cancels_the_download(
    store: lightlink.FileStore, tmp_path: Path, content: bytes
) -> None:
    def refuse(done: int, total: int | None) -> None:
        if done:
            raise Refused

    target = tmp_path / "target"
    target.write_bytes(b"old")
    info = store.upload(io.BytesIO(content))
    with pytest.raises(Refused):
        store.download(info.id, target, progress=refuse)
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


INTERRUPTED = """
import io, sys
import lightlink

class Endless(io.RawIOBase):
    def read(self, size=-1):
        return bytes(size)

def tell(done, total):
    if done > 1_000_000:
        print("under way", flush=True)

with lightlink.connect(sys.argv[1]) as client:
    store = client.file_store(sys.argv[2])
    try:
        if sys.argv[3] == "upload":
            store.upload(Endless(), progress=tell)
        else:
            store.download(sys.argv[4], sys.argv[5], progress=lambda *now: (tell(*now), input()))
    except KeyboardInterrupt:
        print("interrupted", flush=True)
"""


def test_ctrl_c_ends_an_upload_and_leaves_nothing(python: StartPython, url: str, peer: RawPeer, prefix: str) -> None:
    process = python(INTERRUPTED, url, prefix, "upload")
    process.wait_line("under way")
    process.signal(signal.SIGINT)
    finished = process.wait()
    assert "interrupted" in finished.stdout, finished.stderr
    assert messages_in(peer, prefix) == 0


def test_ctrl_c_ends_a_download_and_leaves_nothing(
    store: lightlink.FileStore, python: StartPython, url: str, prefix: str, tmp_path: Path
) -> None:
    info = store.upload(io.BytesIO(bytes(40 * CHUNK)))
    process = python(INTERRUPTED, url, prefix, "download", info.id, tmp_path / "target")
    for _ in range(9):
        process.send_line()
    process.wait_line("under way")
    process.signal(signal.SIGINT)
    finished = process.wait()
    assert "interrupted" in finished.stdout, finished.stderr
    assert list(tmp_path.iterdir()) == []
