"""What SIGINT, SIGTERM and SIGHUP do: the one place that installs signal handlers.

`StopSignal` is for what waits and then stops in order: services, agents, relays, gateways, responders. `handling` is
for what has a loop of its own that an exception ends: the HTTP server, and the command line around all of them. Either
way the first signal asks for an orderly stop, and a second one during that ends the program at once: in the CLI
with 128 and its number, elsewhere as the program's own handlers would have it.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from contextlib import contextmanager
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

_log = logging.getLogger("lightlink")

_LOOK_SECONDS = 1.0
_STOPPING = (signal.SIGINT, signal.SIGTERM)


class StopSignal:
    """Set by SIGINT or SIGTERM while they are `caught`, which `wait` does, or by `set`.

    With ``hangup`` SIGHUP is caught too, for `wait` to tell of.
    """

    def __init__(self, *, hangup: bool = False) -> None:
        # A queue and not an event, because a signal handler may interrupt its own thread anywhere in here, and only
        # the queue's `put` is made for that.
        self._words: SimpleQueue[bool] = SimpleQueue()
        self._is_set = False
        self._caught = (*_STOPPING, *([signal.SIGHUP] if hangup else []))
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
        if number in _STOPPING:
            self.set()
            _tell(number)
        else:
            self._words.put(False)


@contextmanager
def handling(stop: Callable[[int], object]) -> Iterator[None]:
    """Have SIGINT and SIGTERM call ``stop(number)``, which may raise, in the main thread, until this ends.

    A second signal ends the program at once.
    """
    asked = False

    def on_signal(number: int, _: FrameType | None) -> None:
        nonlocal asked
        if asked:
            end(number)
        asked = True
        _tell(number)
        stop(number)

    before = {number: signal.signal(number, on_signal) for number in _STOPPING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def end_on_sigterm() -> None:
    """Have SIGTERM raise SystemExit, so that what is open is closed: by itself it ends Python on the spot."""
    signal.signal(signal.SIGTERM, lambda number, _: end(number))


def wait_for_signal() -> NoReturn:
    """Wait until a signal's handler raises, as those for SIGINT and SIGTERM do."""
    while True:
        # A signal that another thread gets does not end the main thread's wait; its handler runs when that looks up.
        time.sleep(_LOOK_SECONDS)


def end(number: int) -> NoReturn:
    """End the program as a shell tells of a signal's end: with 128 and its number."""
    sys.exit(128 + number)


def _tell(number: int) -> None:
    _log.info("lightlink: %s received; stopping", signal.Signals(number).name)
