"""What SIGINT, SIGTERM and SIGHUP do: the one place that installs signal handlers.

`StopSignal` is for what waits and then stops in order: services, agents, relays, gateways, HTTP servers, responders.
`handling` is for what an exception ends: the command line around all of them. Either way the first signal asks
for an orderly stop, and a second one during that ends the program at once: in the CLI with 128 and its number,
elsewhere as the program's own handlers would have it. What stops in which order then: `lifecycle`; process 1 of a
container, which hands signals on: `lightlink.cli.processes.init`.
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

from lightlink.concurrency.threads import LOOK_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from types import FrameType

_log = logging.getLogger("lightlink")

_STOPPING = (signal.SIGINT, signal.SIGTERM)
# The handlers that ours have taken the place of, those replaced first at the front.
_replaced: list[dict[int, Any]] = []


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
        self._is_catching = False

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
        if threading.current_thread() is not threading.main_thread() or self._is_catching:
            yield
            return
        self._is_catching = True
        try:
            with _installed(self._caught, self._on_signal):
                yield
        finally:
            self._is_catching = False

    def wait(self, on_hangup: Callable[[], object] | None = None) -> None:
        """Wait for `set`, or for a signal that is `caught`; call ``on_hangup`` here for each SIGHUP meanwhile."""
        with self.caught():
            # Looked at now and then: a signal that comes between Python's last look and the wait in C, or on another
            # thread, does not wake this one.
            while not self.is_set:
                try:
                    is_end = self._words.get(timeout=LOOK_SECONDS)
                except Empty:
                    continue
                if not is_end and on_hangup is not None:
                    on_hangup()

    def _on_signal(self, number: int, _frame: Any) -> None:
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

    with _installed(_STOPPING, on_signal):
        yield


def end_on_sigterm() -> None:
    """Have SIGTERM raise SystemExit, so that what is open is closed: by itself it ends Python on the spot."""
    signal.signal(signal.SIGTERM, lambda number, _: end(number))


def wait_for_signal() -> NoReturn:
    """Wait until a signal's handler raises, as those for SIGINT and SIGTERM do."""
    while True:
        # A signal that another thread gets does not end the main thread's wait; its handler runs when that looks up.
        time.sleep(LOOK_SECONDS)


def end(number: int) -> NoReturn:
    """End the program as a shell tells of a signal's end: with 128 and its number."""
    sys.exit(128 + number)


@contextmanager
def _installed(numbers: Sequence[int], handler: Callable[[int, FrameType | None], object]) -> Iterator[None]:
    """Have ``handler`` get some signals, in this process, until this ends."""
    # Known before the first is replaced: another thread may fork at any time, and its child puts them back.
    _replaced.append({number: signal.getsignal(number) for number in numbers})
    try:
        for number in numbers:
            signal.signal(number, handler)
        yield
    finally:
        if _replaced:  # not in a child
            _put_back(_replaced.pop())


def _put_back(handlers: Mapping[int, Any]) -> None:
    for number, handler in handlers.items():
        signal.signal(number, handler if handler is not None else signal.SIG_DFL)


def _after_fork_in_child() -> None:
    """Let signals mean again what they meant: in a child that a handler has forked, nobody waits here for them.

    At once and not as one comes: of a child that was forked by another thread than the main one, Python 3.13.0 runs no
    handler for a signal, unless it interrupts a system call.
    """
    while _replaced:
        _put_back(_replaced.pop())


def _tell(number: int) -> None:
    _log.info("lightlink: %s received; stopping", signal.Signals(number).name)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
