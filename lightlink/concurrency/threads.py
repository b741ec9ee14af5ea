"""Start every thread of the library, and offer what other modules need of threading."""

from __future__ import annotations

import sys
import threading
from collections import deque
from concurrent.futures import CancelledError, Future
from concurrent.futures import TimeoutError as FutureTimeout
from functools import partial
from threading import Lock, RLock
from typing import TYPE_CHECKING, Any

from lightlink.concurrency.deadline import Deadline
from lightlink.errors import ClosedError, LightLinkError, ResourceExhausted

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "LOOK_SECONDS",
    "Condition",
    "Event",
    "Lock",
    "Promise",
    "RLock",
    "has_ended",
    "is_own_thread",
    "join_thread",
    "not_started",
    "pause",
    "refuse_at_exit",
    "start_thread",
    "wait_in_parts",
    "wait_until",
]

# How long a wait in C is at first, and at most.
_FIRST_LOOK_SECONDS = 0.05
LOOK_SECONDS = 1.0


_RLock: Any = type(RLock())  # which is a function; the class has no public name


class _Thread(threading.Thread):
    """A thread of the library's: told from the user's by its class."""


class Condition(_RLock, threading.Condition):  # type: ignore[misc]  # whose kind mypy does not know
    """A condition over a lock of its own, which a thread may take more than once.

    It is entered and left by code in C, where Python's own goes through functions in Python: that takes two or three
    times as long, and Ctrl-C within them leaves the lock taken.
    """

    def __init__(self) -> None:
        if _RLock.__init__ is not object.__init__:  # one in Python, as where gevent has replaced it
            _RLock.__init__(self)
        self._waiters: deque[Any] = deque()

    @property
    def _lock(self) -> Condition:
        """What Python's condition holds its lock by; kept as an attribute it would be a cycle."""
        return self

    @property
    def is_owned(self) -> bool:
        """Whether the thread that asks has taken it."""
        return bool(self._is_owned())

    __repr__ = object.__repr__


class Event(threading.Event):
    """An event that Ctrl-C leaves no lock of taken, as one over Python's own condition may be."""

    def __init__(self) -> None:
        super().__init__()
        self._cond = Condition()


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

    def wait(self, timeout: float | None = None) -> bool:
        """Wait at most ``timeout`` seconds (None: for ever); tell whether it has happened."""
        return wait_in_parts(partial(self._lock.acquire, True), timeout)


def wait_in_parts(wait: Callable[[float], bool], timeout: float | None = None) -> bool:
    """Wait by calls of ``wait(seconds)`` until one returns True; False after ``timeout`` seconds (None: never).

    What came while a call timed out must be seen by the next, as with an event; a condition loses it: `wait_until`.

    Every wait of a user's thread that may last goes through here. A signal that another thread gets, or that comes
    just before a wait in C begins, does not end that wait, and Python runs no handler before it is over: Ctrl-C would
    do nothing.
    """
    part = _FIRST_LOOK_SECONDS
    if timeout is None:
        while not wait(part):
            part = min(2 * part, LOOK_SECONDS)
        return True
    deadline = Deadline(timeout)
    while True:
        remaining = deadline.remaining()
        if wait(min(part, remaining)):
            return True
        if remaining <= part:
            return False
        part = min(2 * part, LOOK_SECONDS)


def wait_until(condition: Condition, predicate: Callable[[], bool], timeout: float | None = None) -> bool:
    """Wait, with ``condition`` taken, until a predicate holds; False after ``timeout`` seconds."""
    return wait_in_parts(partial(condition.wait_for, predicate), timeout)


def pause(seconds: float) -> None:
    """Let some time pass."""
    wait_in_parts(Event().wait, seconds)


def has_ended(future: Future[Any], timeout: float | None = None) -> bool:
    """Wait at most ``timeout`` seconds for a future; tell whether it has ended, in whatever way."""

    def is_there(seconds: float) -> bool:
        try:
            Future.exception(future, seconds)  # of the class: our own futures wait by this function
        except (CancelledError, FutureTimeout):
            return future.done()
        return True

    return wait_in_parts(is_there, timeout)


def start_thread(target: Callable[..., object], name: str, *args: Any) -> threading.Thread:
    """Start a daemon thread: the interpreter's exit never waits for one.

    Raises ResourceExhausted when this process may have no more of them, ClosedError when the interpreter is ending.
    """
    refuse_at_exit()  # a thread started then never begins, and Python waits for its beginning
    thread = _Thread(target=target, name=name, args=args, daemon=True)
    try:
        thread.start()
    except (RuntimeError, MemoryError, OSError) as exc:
        if exc.__context__ is not None and "unlocked lock" in str(exc):
            raise exc.__context__ from None  # what Python's own condition has made of Ctrl-C
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

    def join(seconds: float) -> bool:
        thread.join(seconds)
        return not thread.is_alive()

    return wait_in_parts(join, timeout)
