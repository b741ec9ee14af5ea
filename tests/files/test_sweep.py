"""What uploads leave whose process was killed, and nothing else, is swept away."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import pytest
from helpers.stored import CHUNK, chunks_in, fetched
from helpers.waiting import eventually

import lightlink
from lightlink.errors import DecodeError, FileCorrupt, InvalidOption

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from conftest import StartPython
    from helpers.raw import RawPeer

# Uploads what never ends, and is killed in the midst of it.
UPLOAD = """
import lightlink

class Endless:
    def __init__(self):
        self.reads = 0
    def read(self, size):
        self.reads += 1
        if self.reads == 5:
            print("under way", flush=True)
            input()
        return bytes(size)

client = lightlink.connect({url!r})
client.file_store({bucket!r}).upload(Endless())
"""


class Slow(io.BytesIO):
    """A source that does something in the middle."""

    def __init__(self, content: bytes, action: Callable[[], object]) -> None:
        super().__init__(content)
        self._action = action

    def read(self, size: int | None = -1, /) -> bytes:
        if self.tell() >= 2 * CHUNK:
            self._action()
            self._action = bool
        return super().read(size)


@pytest.fixture
def store(url: str, prefix: str) -> Iterator[lightlink.FileStore]:
    with lightlink.connect(url) as client:
        yield client.file_store(prefix)


def test_what_a_killed_upload_left_is_swept_and_files_stay(
    store: lightlink.FileStore, peer: RawPeer, python: StartPython, url: str, prefix: str
) -> None:
    kept = store.upload(io.BytesIO(bytes(3 * CHUNK)))
    store.delete(store.upload(io.BytesIO(bytes(CHUNK))).id)
    other = python(UPLOAD.format(url=url, bucket=prefix))
    other.wait_line("under way")
    eventually(lambda: len(chunks_in(peer, prefix)) == 2)  # before the kill: chunks that have not left never come
    other.kill()
    assert store.sweep() == 0  # it may still go on
    assert eventually(lambda: store.sweep(older_than=1), timeout=30) in range(1, 5)  # of 4, some may not have left
    assert list(chunks_in(peer, prefix).values()) == [3]
    assert fetched(store, kept.id) == bytes(3 * CHUNK)
    assert store.sweep(older_than=1) == 0


def test_an_upload_that_was_taken_for_dead_fails(store: lightlink.FileStore, peer: RawPeer, prefix: str) -> None:
    source = Slow(bytes(4 * CHUNK), lambda: eventually(lambda: store.sweep(older_than=1), timeout=30))
    with pytest.raises(FileCorrupt, match="2 chunks are stored where 4 were sent"):
        store.upload(source)
    assert store.files() == []
    eventually(lambda: not chunks_in(peer, prefix))


def test_nothing_is_swept_where_a_file_cannot_be_read(store: lightlink.FileStore, peer: RawPeer, prefix: str) -> None:
    store.upload(io.BytesIO(b"content"))
    peer.run(peer.nc.jetstream().publish(f"$O.{prefix}.M.YQ==", b"not JSON"))
    peer.run(peer.nc.jetstream().publish(f"$O.{prefix}.C.unknown", b"whose?"))
    with pytest.raises(DecodeError):
        store.sweep(older_than=1)
    assert len(chunks_in(peer, prefix)) == 2


def test_a_store_that_is_not_there_has_nothing_to_sweep(store: lightlink.FileStore) -> None:
    assert store.sweep() == 0
    with pytest.raises(InvalidOption, match="at least one second"):
        store.sweep(older_than=0.5)
