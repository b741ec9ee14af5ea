"""What happens to connections and serving threads when the process forks or exits."""

from __future__ import annotations

import atexit
import importlib
import logging
import os
import sys
import threading
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from lightlink.concurrency.deadline import Deadline
from lightlink.concurrency.registry import Registry
from lightlink.concurrency.threads import is_own_thread

if TYPE_CHECKING:
    from collections.abc import Callable


T = TypeVar("T")
_log = logging.getLogger("lightlink")

# How long the interpreter's exit may take to deliver what was published: by all connections together, and by one.
_EXIT_SECONDS = 0.5
_EXIT_SECONDS_EACH = 0.05
# After everything else that a child of multiprocessing does in the end.
_LAST = -1000


class Leaver(Protocol):
    """Who has something to give back before the interpreter ends."""

    def leave_at_exit(self, timeout: float) -> None:
        """Give it back, within ``timeout`` seconds."""


_live: Registry[Watched] = Registry()
_leavers: Registry[Leaver] = Registry()
# A parent's sessions, kept in the child so that no destructor runs on what belongs to the parent.
_inherited: list[Any] = []
_lock = threading.RLock()
# The thread that goes on in this process as the copy of one that serves in the parent; 0: none does.
_copied_thread = 0


class Watched(Protocol):
    """What has a part in forks and in the interpreter's exit: a connection."""

    def forget_parent(self) -> object:
        """Drop, in a child, what belongs to the parent, and return what no destructor may run on."""
        ...

    def follow_fork(self) -> None:
        """Go on in a child."""
        ...

    def flush_at_exit(self, timeout: float) -> None:
        """Deliver what was published, within ``timeout`` seconds."""
        ...


def watch(connection: Watched) -> None:
    """Have a connection told of forks and of the interpreter's exit."""
    _live.add(connection)
    if "uwsgi" in sys.modules:
        _listen_to_uwsgi()


def leave_at_exit(who: Leaver) -> None:
    """Have somebody told of the interpreter's exit, by a call of ``leave_at_exit(seconds)``, if it is there still."""
    _leavers.add(who)


def unwatch(connection: Watched) -> None:
    """Leave a connection alone from now on."""
    _live.discard(connection)


def flush_at_end_of_child() -> None:
    """Deliver what was published when a child of multiprocessing ends: it skips what `atexit` knows of."""
    multiprocessing: Any = sys.modules.get("multiprocessing.process")
    if multiprocessing is not None and multiprocessing.parent_process() is not None:
        from multiprocessing.util import Finalize  # noqa: PLC0415 - only where it is used already

        Finalize(None, _at_exit, exitpriority=_LAST)


def lock() -> threading.RLock:
    """Return a lock for what is done once in a process, free in each forked child."""
    return _lock


def run_handler(handler: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    """Call a function of the user's and return its result; in a child that it forked, end the process instead.

    What would go on there is a copy of a thread that serves in the parent. It must neither answer in the parent's name
    nor take what waits in the parent's queues, and the locks around them may be held for ever.
    """
    try:
        result = handler(*args, **kwargs)
    except BaseException as exc:
        if _copied_thread == threading.get_ident():
            _end_copy(exc)
        raise
    if _copied_thread == threading.get_ident():
        _end_copy(None)
    return result


def _end_copy(error: BaseException | None) -> None:
    """End this process as Python would end it if its main thread had returned, or had raised ``error``."""
    status = 0
    if isinstance(error, SystemExit) and not isinstance(error.code, str):
        status = int(error.code or 0)
    elif error is not None:
        status = 1
        sys.excepthook(type(error), error, error.__traceback__)
    _at_exit()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _listen_to_uwsgi() -> None:
    """Have uWSGI say when it has forked: it does so without a word to Python, unless it is told otherwise."""
    chain: list[Callable[[], object]]
    try:
        chain = importlib.import_module("uwsgidecorators").postfork_chain
    except Exception as exc:
        # Without uWSGI's master process, which that module insists on, there are no workers to fork.
        _log.debug("lightlink: uWSGI will not tell of forks: %r", exc)
        return
    if _after_fork_in_child not in chain:
        chain.append(_after_fork_in_child)


def _after_fork_in_child() -> None:
    global _copied_thread, _lock  # noqa: PLW0603 - they are facts about the process
    _lock = threading.RLock()
    _copied_thread = threading.get_ident() if is_own_thread() else 0
    connections = list(_live)
    _inherited.extend(connection.forget_parent() for connection in connections)
    for connection in connections:
        connection.follow_fork()


def _at_exit() -> None:
    deadline = Deadline(_EXIT_SECONDS)
    for leaver in _leavers:
        try:
            leaver.leave_at_exit(deadline.remaining(_EXIT_SECONDS_EACH))
        except Exception:
            _log.exception("lightlink: leaving at the exit failed")
    for connection in _live:
        connection.flush_at_exit(deadline.remaining(_EXIT_SECONDS_EACH))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
atexit.register(_at_exit)
