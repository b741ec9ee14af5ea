"""Something done again and again, on a thread of its own."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

from lightlink.concurrency.threads import join_thread, start_thread

if TYPE_CHECKING:
    from collections.abc import Callable

_log = logging.getLogger("lightlink")


class Ticker:
    """Calls ``function`` every ``interval`` seconds, on a thread named ``name``, until stopped.

    The function may block and may fail; a failure is logged, and the next turn comes all the same.
    """

    def __init__(self, name: str, interval: float, function: Callable[[], object]) -> None:
        self._interval = interval
        self._function = function
        self._stopped = threading.Event()
        self._thread = start_thread(self._run, name)

    def stop(self, timeout: float) -> None:
        """End it, waiting at most ``timeout`` seconds for a turn that is under way."""
        self._stopped.set()
        join_thread(self._thread, timeout)

    def _run(self) -> None:
        while not self._stopped.wait(self._interval):
            try:
                self._function()
            except Exception:
                _log.exception("lightlink: %s failed; it goes on", threading.current_thread().name)
