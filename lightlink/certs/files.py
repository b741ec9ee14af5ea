"""Read and write certificate and key files so that no error, crash or curious eye does harm."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from pathlib import Path

from lightlink.errors import InvalidOption

PRIVATE = 0o600
PUBLIC = 0o644

_MAX_BYTES = 1024 * 1024
# What may lie in a directory that is made private: it was made for this.
_HARMLESS = frozenset({"README.md", ".gitignore", ".gitkeep"})


def read_file(option: str, path: Path, *, secret: bool = False) -> bytes:
    """Return the content of a file; ``secret``: only if nobody but its owner and group has access.

    Raises InvalidOption with the reason. It never blocks, whatever the path leads to.
    """
    try:
        # A FIFO would wait for a writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise InvalidOption(option, "there is no such file", str(path)) from None
    except (OSError, ValueError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else str(exc)
        raise InvalidOption(option, f"cannot be read: {reason}", str(path)) from exc
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise InvalidOption(option, "is not a regular file", str(path))
        # Containers mount secrets readable for a group; access for everybody is never meant.
        if secret and status.st_mode & stat.S_IRWXO:
            mode = stat.S_IMODE(status.st_mode)
            raise InvalidOption(option, f"other users may access it (mode {mode:04o}); run chmod 600", str(path))
        content = b""
        while len(content) <= _MAX_BYTES and (more := os.read(descriptor, _MAX_BYTES + 1 - len(content))):
            content += more
    except OSError as exc:
        raise InvalidOption(option, f"cannot be read: {exc.strerror}", str(path)) from exc
    finally:
        os.close(descriptor)
    if len(content) > _MAX_BYTES:
        raise InvalidOption(option, f"is larger than {_MAX_BYTES} bytes", str(path))
    return content


def write_file(path: Path, content: bytes, *, mode: int, replace: bool) -> None:
    """Write a file so that it is whole or absent at any moment, and never readable for more than ``mode`` allows.

    Without ``replace`` a file that exists is left alone, also when two processes write at once. Raises InvalidOption.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, PRIVATE)
        try:
            with os.fdopen(descriptor, "wb") as file:
                os.fchmod(descriptor, mode)
                file.write(content)
                file.flush()
                os.fsync(descriptor)
            if replace:
                temporary.replace(path)
            else:
                # Unlike a rename, a link fails when the name is taken.
                os.link(temporary, path)
        finally:
            with contextlib.suppress(FileNotFoundError):
                temporary.unlink()
        _sync_directory(path.parent)
    except FileExistsError:
        raise already_there(path) from None
    except OSError as exc:
        raise InvalidOption("file", f"cannot be written: {exc.strerror}", str(path)) from exc


def already_there(path: Path) -> InvalidOption:
    """Return the error for a file that would be lost."""
    return InvalidOption("file", "is there already, and is replaced only with force (--force)", str(path))


def private_directory(directory: Path) -> None:
    """Make a directory that only its owner may enter, or make sure that it is one; raises InvalidOption.

    One that is open to others is closed if nothing but a README lies in it, and refused if there is more.
    """
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if stat.S_IMODE(directory.stat().st_mode) & (stat.S_IRWXG | stat.S_IRWXO):
            if any(entry.name not in _HARMLESS for entry in directory.iterdir()):
                raise InvalidOption(
                    "directory", "is open to other users and holds other files; name one of its own", str(directory)
                )
            directory.chmod(0o700)
    except FileExistsError:
        raise InvalidOption("directory", "is a file", str(directory)) from None
    except OSError as exc:
        raise InvalidOption("directory", f"cannot be used: {exc.strerror}", str(directory)) from exc


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
