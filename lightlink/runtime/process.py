"""What becomes of connections when the process forks or ends."""

from __future__ import annotations

import atexit
import os
import time
from typing import TYPE_CHECKING, Any

from lightlink.runtime.registry import Registry

if TYPE_CHECKING:
    from lightlink.runtime.connection import Connection

# How long the interpreter's exit may take to deliver what was published: by all connections together, and by one.
_EXIT_SECONDS = 0.5
_EXIT_SECONDS_EACH = 0.05

_live: Registry[Connection] = Registry()
# A parent's sessions, kept in the child so that no destructor runs on what belongs to the parent.
_inherited: list[Any] = []


def watch(connection: Connection) -> None:
    """Have a connection told of forks and of the interpreter's exit."""
    _live.add(connection)


def unwatch(connection: Connection) -> None:
    """Leave a connection alone from now on."""
    _live.discard(connection)


def _after_fork_in_child() -> None:
    _inherited.extend(connection.forget_parent() for connection in _live)


def _at_exit() -> None:
    deadline = time.monotonic() + _EXIT_SECONDS
    for connection in _live:
        connection.flush_at_exit(max(deadline - time.monotonic(), _EXIT_SECONDS_EACH))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
atexit.register(_at_exit)
