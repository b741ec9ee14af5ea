"""What goes wrong with state, locks and files."""

from __future__ import annotations

from typing import Any

from lightlink.errors.base import LightLinkError


class StateNotFound(LightLinkError, KeyError):
    """The bucket holds no value for the key."""

    bucket: str
    key: str

    def __str__(self) -> str:
        return f"no value for key {self.key!r} in bucket {self.bucket!r}"


class RevisionConflict(LightLinkError):
    """Somebody else wrote the key first; ``expected`` is the revision the write was based on (0: none)."""

    bucket: str
    key: str
    expected: int

    def __str__(self) -> str:
        basis = f"revision {self.expected} is not its last" if self.expected else "it exists already"
        return f"key {self.key!r} in bucket {self.bucket!r} was not written: {basis}"


class LockHeld(LightLinkError):
    """Somebody else has the lock; ``holder`` says who: ``owner``, ``host``, ``pid``."""

    name: str
    holder: dict[str, Any]

    def __str__(self) -> str:
        who = ", ".join(f"{name} {value}" for name, value in self.holder.items())
        return f"lock {self.name!r} is held" + (f" ({who})" if who else "")


class StateError(LightLinkError):
    """A state operation failed; ``unknown`` says that a write may or may not have been stored."""

    bucket: str
    operation: str
    reason: str
    unknown: bool = False

    def __str__(self) -> str:
        outcome = "; the outcome is unknown" if self.unknown else ""
        return f"{self.operation} in bucket {self.bucket!r} failed: {self.reason}{outcome}"


class StoredFileNotFound(LightLinkError, FileNotFoundError):
    """The file store holds no such file."""

    bucket: str
    file_id: str

    def __str__(self) -> str:
        return f"no file {self.file_id!r} in file store {self.bucket!r}"


class FileCorrupt(LightLinkError):
    """What was read is not what was stored."""

    file_id: str
    reason: str

    def __str__(self) -> str:
        return f"file {self.file_id!r} is corrupt: {self.reason}"


class TransferStalled(LightLinkError, TimeoutError):
    """A transfer made no progress for ``stall_timeout`` seconds."""

    file_id: str
    done: int
    total: int | None
    stall_timeout: float

    def __str__(self) -> str:
        total = "" if self.total is None else f" of {self.total}"
        return f"transfer of {self.file_id!r} stalled for {self.stall_timeout:g} s after {self.done}{total} bytes"
