"""Wait for the signal, or the word, that ends a long-running program."""

from __future__ import annotations

import logging
import signal
import threading
from typing import Any

_log = logging.getLogger("lightlink")


class StopSignal:
    """Set by SIGINT or SIGTERM, or by `set`, while its `wait` runs."""

    def __init__(self) -> None:
        self._event = threading.Event()

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
        before = {number: signal.signal(number, self._on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            self._event.wait()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler if handler is not None else signal.SIG_DFL)

    def _on_signal(self, number: int, _frame: Any) -> None:
        _log.info("lightlink: %s received; stopping", signal.Signals(number).name)
        self._event.set()
