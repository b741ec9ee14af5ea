"""What an upload reads from: a path or any binary file object."""

from __future__ import annotations

import contextlib
import io
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Union

from lightlink.errors import FileCorrupt, InvalidOption

if TYPE_CHECKING:
    from collections.abc import Iterator


class Readable(Protocol):
    """A binary file object, as far as an upload needs one: also what is unpacked, or made, as it is read."""

    def read(self, size: int, /) -> bytes | None:
        """Return up to so many bytes: none at the end, None when there are none yet."""


FileSource = Union[str, "os.PathLike[str]", Readable]


class Source:
    """Reads a file in chunks, in the caller's thread.

    ``size`` is how many bytes there are when the upload begins, None when nobody can tell. Of a file that grows
    meanwhile only these are read; one that shrinks is refused.
    """

    def __init__(self, file: Readable, name: str, size: int | None) -> None:
        self.name = name
        self.size = size
        self._file = file

    def chunks(self, chunk_size: int) -> Iterator[bytes]:
        """Yield the content in pieces of ``chunk_size`` bytes, the last one shorter; raises FileCorrupt, OSError."""
        # A file that says it is empty may still have content, as those in /proc do.
        left = self.size or None
        while left != 0:
            wanted = chunk_size if left is None else min(chunk_size, left)
            chunk = self._fill(wanted)
            if left is not None:
                left -= len(chunk)
            if chunk:
                yield chunk
            if len(chunk) < wanted:
                break
        if left:
            assert self.size is not None
            raise FileCorrupt(self.name, f"it shrank while it was read, from {self.size} to {self.size - left} bytes")

    def _fill(self, wanted: int) -> bytes:
        """Return so many bytes, fewer at the end of the file."""
        data = self._read(wanted)
        if not data or len(data) == wanted:
            return data
        pieces = [data]
        got = len(data)
        while got < wanted:
            piece = self._read(wanted - got)
            if not piece:
                break
            pieces.append(piece)
            got += len(piece)
        return b"".join(pieces)

    def _read(self, wanted: int) -> bytes:
        data: Any = self._file.read(wanted)
        if isinstance(data, str):
            raise InvalidOption("source", "is open in text mode; open it with 'rb'", self.name)
        if data is None:
            raise InvalidOption("source", "is non-blocking and has nothing to read at the moment", self.name)
        if len(data) > wanted:
            raise InvalidOption("source", f"gave {len(data)} bytes when asked for {wanted}", self.name)
        return bytes(data)


@contextlib.contextmanager
def open_source(source: FileSource) -> Iterator[Source]:
    """Open a path, or take a file object, which is read from where it stands and left open.

    Raises OSError for a path that cannot be read, InvalidOption for what is no binary file.
    """
    if isinstance(source, (str, os.PathLike)):
        path = Path(os.fsdecode(source))
        with path.open("rb", buffering=0) as file:
            yield Source(file, _text(path.name), _size(file))
        return
    if isinstance(source, (bytes, bytearray, memoryview)):
        raise InvalidOption("source", "is the content itself; give a path, or io.BytesIO(content)")
    if isinstance(source, io.TextIOBase):
        raise InvalidOption("source", "is open in text mode; open it with 'rb'", getattr(source, "name", None))
    if not callable(getattr(source, "read", None)):
        raise InvalidOption("source", "must be a path or a binary file object", type(source).__name__)
    name = getattr(source, "name", None)  # a number, where the file was opened by one
    if not isinstance(source, io.IOBase):
        # What web frameworks hand over has the name of the form's field there, and the file's own elsewhere.
        name = getattr(source, "filename", None) or name
    title = _text(Path(os.fsdecode(name)).name) if isinstance(name, (str, bytes)) else ""
    if title.startswith("<"):  # <stdin>
        title = ""
    yield Source(source, title, _size(source))


def _size(file: Any) -> int | None:
    """Return how many bytes a file object still has, None when it cannot be told without reading."""
    file = _inmost(file)
    plain = file.raw if _reads_as(file, io.BufferedReader, io.BufferedRandom) else file
    if _reads_as(plain, io.FileIO):
        if not stat.S_ISREG(os.fstat(plain.fileno()).st_mode):
            return None
        return max(0, os.fstat(plain.fileno()).st_size - int(file.tell()))
    if _reads_as(file, io.BytesIO):
        return max(0, int(file.getbuffer().nbytes - file.tell()))
    return None


def _inmost(file: Any) -> Any:
    """Return what is read by way of a file object, as those of tempfile, Django and Flask hold it.

    What has a `read` of its own may unpack, or make, what it gives: how long its file is says nothing then.
    """
    for name in ("file", "stream"):
        inner = getattr(file, name, None)
        read = getattr(inner, "read", None)
        # tempfile wraps the method, too.
        if read is not None and read in (file.read, getattr(file.read, "__wrapped__", None)):
            return _inmost(inner)
    return file


def _reads_as(file: Any, *kinds: type) -> bool:
    """Tell whether a file object is of a class, and gives what that class gives."""
    own = type(file)
    return any(
        issubclass(own, kind) and all(getattr(own, name) is getattr(kind, name) for name in ("read", "readinto"))
        for kind in kinds
    )


def _text(name: str) -> str:
    """Return a file's name as valid Unicode; bytes that are none become U+FFFD."""
    return os.fsencode(name).decode("utf-8", "replace")
