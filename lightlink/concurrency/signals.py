"""Wait for the signal, or the word, that ends a long-running program."""

from __future__ import annotations

import logging
import os
import signal
import threading
from contextlib import contextmanager
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_log = logging.getLogger("lightlink")

_LOOK_SECONDS = 1.0


class StopSignal:
    """Set by SIGINT or SIGTERM while they are `caught`, which `wait` does, or by `set`.

    With ``hangup`` SIGHUP is caught too, for `wait` to tell of.
    """

    def __init__(self, *, hangup: bool = False) -> None:
        # A queue and not an event, because a signal handler may interrupt its own thread anywhere in here, and only
        # the queue's `put` is made for that.
        self._words: SimpleQueue[bool] = SimpleQueue()
        self._is_set = False
        self._caught = (signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hangup else []))
        self._before: dict[int, Any] = {}
        self._pid = 0

    def set(self) -> None:
        """End the wait, and every later one."""
        self._is_set = True
        self._words.put(True)

    @property
    def is_set(self) -> bool:
        """Whether `set` was called, or a signal has come while they were `caught`."""
        return self._is_set

    @contextmanager
    def caught(self) -> Iterator[None]:
        """Have a signal end the wait, from now on, and not the program.

        Outside the main thread, where Python knows no signals, without effect. The handlers installed before are back
        in place afterwards, so a second signal ends the program as usual.
        """
        if threading.current_thread() is not threading.main_thread() or self._before:
            yield
            return
        self._pid = os.getpid()
        # Known before the first is replaced: another thread may fork at any time, and its child restores them.
        self._before = {number: signal.getsignal(number) for number in self._caught}
        for number in self._before:
            signal.signal(number, self._on_signal)
        try:
            yield
        finally:
            self._restore()

    def wait(self, on_hangup: Callable[[], object] | None = None) -> None:
        """Wait for `set`, or for a signal that is `caught`; call ``on_hangup`` here for each SIGHUP meanwhile."""
        with self.caught():
            # Looked at now and then: a signal that comes between Python's last look and the wait in C, or on another
            # thread, does not wake this one.
            while not self.is_set:
                try:
                    is_end = self._words.get(timeout=_LOOK_SECONDS)
                except Empty:
                    continue
                if not is_end and on_hangup is not None:
                    on_hangup()

    def _restore(self) -> None:
        before, self._before = self._before, {}
        for number, handler in before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)

    def _on_signal(self, number: int, _frame: Any) -> None:
        if os.getpid() != self._pid:
            # A child forked by a handler: nobody waits here for the signal, which means what it meant before.
            self._restore()
            os.kill(os.getpid(), number)
            return
        if number in (signal.SIGINT, signal.SIGTERM):
            self.set()
            _log.info("lightlink: %s received; stopping", signal.Signals(number).name)
        else:
            self._words.put(False)
