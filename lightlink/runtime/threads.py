"""Where every thread of the library is born, and what other modules need of threading."""

from __future__ import annotations

import threading
from threading import Condition, Event
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Condition", "Event", "is_own_thread", "join_thread", "start_thread"]


class _Thread(threading.Thread):
    """A thread of the library's: told from the user's by its class."""


def start_thread(target: Callable[..., object], name: str, *args: Any) -> threading.Thread:
    """Start a daemon thread: the interpreter's exit never waits for one."""
    thread = _Thread(target=target, name=name, args=args, daemon=True)
    thread.start()
    return thread


def is_own_thread() -> bool:
    """Tell whether the current thread is one of the library's."""
    return isinstance(threading.current_thread(), _Thread)


def join_thread(thread: threading.Thread, timeout: float) -> bool:
    """Wait at most ``timeout`` seconds for a thread, not the current one, to end; tell whether it has."""
    if thread is threading.current_thread():
        return False
    thread.join(max(timeout, 0))
    return not thread.is_alive()
