"""Start every thread of the library, and offer what other modules need of threading."""

from __future__ import annotations

import sys
import threading
from threading import Condition, Event, Lock
from typing import TYPE_CHECKING, Any

from lightlink.errors import ClosedError, LightLinkError, ResourceExhausted

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "Condition",
    "Event",
    "Lock",
    "Promise",
    "is_own_thread",
    "join_thread",
    "not_started",
    "refuse_at_exit",
    "start_thread",
]

_FIRST_WAIT_SECONDS = 0.05


class _Thread(threading.Thread):
    """A thread of the library's: told from the user's by its class."""


class Promise:
    """Something that happens once, for one thread that waits for it.

    Ctrl-C in that thread never leaves a lock taken that `keep` needs, as it may with futures and events.
    """

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        self._lock = Lock()
        self._lock.acquire()

    def keep(self) -> None:
        """Let the waiting thread go on; called once."""
        self._lock.release()

    def wait(self, timeout: float) -> bool:
        """Wait at most ``timeout`` seconds; tell whether it has happened."""
        # In two parts: a signal that comes just before a wait begins is noticed when it is over.
        first = max(min(timeout, _FIRST_WAIT_SECONDS), 0)
        if self._lock.acquire(timeout=first):
            return True
        return self._lock.acquire(timeout=min(max(timeout - first, 0), threading.TIMEOUT_MAX))


def start_thread(target: Callable[..., object], name: str, *args: Any) -> threading.Thread:
    """Start a daemon thread: the interpreter's exit never waits for one.

    Raises ResourceExhausted when this process may have no more of them, ClosedError when the interpreter is ending.
    """
    refuse_at_exit()  # a thread started then never begins, and Python waits for its beginning
    thread = _Thread(target=target, name=name, args=args, daemon=True)
    try:
        thread.start()
    except (RuntimeError, MemoryError, OSError) as exc:
        raise not_started(f"starting thread {name!r}", exc) from exc
    return thread


def not_started(operation: str, exc: Exception) -> LightLinkError:
    """Return the error for a thread, or what runs on it, that could not be started."""
    if sys.is_finalizing() or "shutdown" in str(exc):  # that is what Python says from `atexit` on
        return ClosedError("the interpreter", "is ending: no thread can start any more")
    return ResourceExhausted(operation, str(exc) or type(exc).__name__)


def refuse_at_exit() -> None:
    """Raise ClosedError once the interpreter has ended, as in a destructor.

    By then no thread runs but the main one, and no import works.
    """
    if sys.is_finalizing():
        raise ClosedError("the client", "has ended with the interpreter")


def is_own_thread() -> bool:
    """Tell whether the current thread is one of the library's."""
    return isinstance(threading.current_thread(), _Thread)


def join_thread(thread: threading.Thread, timeout: float) -> bool:
    """Wait at most ``timeout`` seconds for a thread, not the current one, to end; tell whether it has."""
    if thread is threading.current_thread():
        return False
    thread.join(max(timeout, 0))
    return not thread.is_alive()
