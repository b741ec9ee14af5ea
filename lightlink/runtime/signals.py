"""Wait for the signal, or the word, that ends a long-running program."""

from __future__ import annotations

import logging
import os
import signal
import threading
from typing import Any

_log = logging.getLogger("lightlink")


class StopSignal:
    """Set by SIGINT or SIGTERM, or by `set`, while its `wait` runs."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._before: dict[int, Any] = {}
        self._pid = 0

    def set(self) -> None:
        """End the wait."""
        self._event.set()

    def wait(self) -> None:
        """Wait for a signal, or for `set`; outside the main thread, where Python knows no signals, for `set` only.

        The handlers installed before are back in place afterwards, so a second signal ends the program as usual.
        """
        if threading.current_thread() is not threading.main_thread():
            self._event.wait()
            return
        self._pid = os.getpid()
        self._before = {number: signal.signal(number, self._on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            self._event.wait()
        finally:
            self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)

    def _on_signal(self, number: int, _frame: Any) -> None:
        if os.getpid() != self._pid:
            # A child forked by a handler: nobody waits here for the signal, which means what it meant before.
            self._restore()
            os.kill(os.getpid(), number)
            return
        _log.info("lightlink: %s received; stopping", signal.Signals(number).name)
        self._event.set()
