"""What a client knows of the last messages of a stream's subjects, so that it reads none that is older.

In a cluster any replica may answer a read, one too that is a little behind what was acknowledged (ADR-31).
"""

from __future__ import annotations

import os
import sys
import weakref
from collections import OrderedDict
from typing import TYPE_CHECKING

from lightlink.concurrency.threads import RLock

if TYPE_CHECKING:
    from lightlink.connection.connection import Connection

# So many keys are remembered, the last ones written or read: no replica is behind for longer than that takes.
_KEPT = 10_000
_UNKNOWN = sys.maxsize


class Revisions:
    """The least sequence that the last message of each key has, as far as is known. Safe to share between threads."""

    def __init__(self) -> None:
        self._least: OrderedDict[str, int] = OrderedDict()
        # Whether the stream was found, or made, by this client; a hint only, as it may be gone since.
        self.stream_was_seen = False

    def is_old(self, key: str, seq: int) -> bool:
        """Tell whether a message of a key, or with 0 that there is none, is older than what is known of it."""
        return seq < self._least.get(key, 0)

    def known(self, key: str) -> int:
        """Return the sequence that a key's last message has at least, 0 where nothing is known, or it is in doubt."""
        seq = self._least.get(key, 0)
        return 0 if seq == _UNKNOWN else seq

    def note(self, key: str, seq: int) -> None:
        """Note that a message of a key was stored or read."""
        with _lock:
            self._keep(key, max(seq, self._least.get(key, 0)))

    def doubt(self, key: str) -> None:
        """Note that a key's last message may be another than was known: whatever is read now may be older."""
        with _lock:
            self._keep(key, _UNKNOWN)

    def learn(self, key: str, seq: int) -> None:
        """Note what the stream's leader says is a key's last message, 0 for none."""
        with _lock:
            self._keep(key, seq)

    def __len__(self) -> int:
        return len(self._least)

    def _keep(self, key: str, seq: int) -> None:
        self._least[key] = seq
        self._least.move_to_end(key)
        if len(self._least) > _KEPT:
            self._least.popitem(last=False)


# Reentrant, because a signal handler may set a state while its own thread is in here.
_lock = RLock()
_of_connection: weakref.WeakKeyDictionary[Connection, dict[str, Revisions]] = weakref.WeakKeyDictionary()


def revisions_of(connection: Connection, stream: str) -> Revisions:
    """Return what the client of a connection knows of a stream."""
    with _lock:
        return _of_connection.setdefault(connection, {}).setdefault(stream, Revisions())


def _after_fork_in_child() -> None:
    global _lock  # noqa: PLW0603 - another thread of the parent may hold the one that was inherited
    _lock = RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
