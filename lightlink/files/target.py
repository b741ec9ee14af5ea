"""What a download writes to: a path, which appears whole or not at all, or any binary file object."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Union

from lightlink.errors import InvalidOption
from lightlink.protocol.ids import new_id

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Write = Callable[[bytes], None]


class Writable(Protocol):
    """A binary file object, as far as a download needs one."""

    def write(self, data: bytes, /) -> int | None:
        """Take the bytes, or the first of them, and return how many; None for all that are left for later."""


FileTarget = Union[str, "os.PathLike[str]", Writable]


@contextlib.contextmanager
def open_target(target: FileTarget) -> Iterator[Write]:
    """Give a function that writes.

    A path gets a temporary file beside it, which takes the path's place when the block ends well and is removed when it
    does not. A file object is written from where it stands and left open. Raises OSError for a path that cannot be
    written, InvalidOption for what is no binary file.
    """
    if isinstance(target, (str, os.PathLike)):
        with _replacing(Path(os.path.realpath(os.fsdecode(target)))) as write:
            yield write
        return
    if isinstance(target, io.TextIOBase):
        raise InvalidOption("target", "is open in text mode; open it with 'wb'", getattr(target, "name", None))
    if not callable(getattr(target, "write", None)):
        raise InvalidOption("target", "must be a path or a binary file object", type(target).__name__)
    yield _writer(target)


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[Write]:
    mode = _mode(path)
    temporary = path.with_name(f".lightlink-{new_id()}.part")
    with contextlib.ExitStack() as stack:
        # Made by hand and not by tempfile, so that the umask counts as for any other new file.
        number = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
        stack.callback(temporary.unlink)
        with os.fdopen(number, "wb", buffering=0) as file:
            if mode is not None:
                temporary.chmod(mode)
            yield _writer(file)
            # Otherwise, after a power cut, there may be an empty file where there was a good one.
            os.fsync(file.fileno())
        temporary.replace(path)
        stack.pop_all()


def _mode(path: Path) -> int | None:
    """Return the permissions of a file to replace, None if there is none; raises InvalidOption for anything else."""
    try:
        found = path.stat()
    except FileNotFoundError:
        if path.parent.is_dir():
            return None
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path.parent)) from None
    if stat.S_ISDIR(found.st_mode):
        raise InvalidOption("target", "is a directory; name the file", str(path))
    if not stat.S_ISREG(found.st_mode):
        raise InvalidOption("target", "is not a regular file; open it and give the file object", str(path))
    return stat.S_IMODE(found.st_mode)


def _writer(file: Any) -> Write:
    def write(data: bytes) -> None:
        written = file.write(data)
        # A raw file may take less than it is given.
        while written is not None and written < len(data):
            data = data[written:]
            written = file.write(data)
            if written == 0:
                raise OSError(errno.EIO, "the file object takes no more bytes")

    return write
