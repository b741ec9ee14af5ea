"""Press Ctrl-C, from within the process, as soon as its main thread waits inside LightLink."""

from __future__ import annotations

import concurrent.futures
import os
import signal
import sys
import threading
import time
import traceback
from typing import TYPE_CHECKING

import lightlink

if TYPE_CHECKING:
    from collections.abc import Callable

# Futures are the standard library's.
_PLACES = tuple(os.path.dirname(str(module.__file__)) for module in (lightlink, concurrent.futures))  # noqa: PTH120
_LOOKS = 5
_BETWEEN_LOOKS = 0.02


def press_when_waiting() -> threading.Thread:
    """Press it once the main thread has stayed at one place in LightLink for a tenth of a second."""
    thread = threading.Thread(target=_press, daemon=True)
    thread.start()
    return thread


def interrupted(wait: Callable[[], object]) -> bool:
    """Tell whether ``wait()`` ended with the KeyboardInterrupt that came while it waited."""
    thread = press_when_waiting()
    try:
        wait()
    except KeyboardInterrupt:
        return True
    finally:
        thread.join(10)
    return False


def _press() -> None:
    main = threading.main_thread().ident
    assert main is not None
    place: object = None
    seen = 0
    while seen < _LOOKS:
        time.sleep(_BETWEEN_LOOKS)
        frame = sys._current_frames()[main]
        inside = any(each.f_code.co_filename.startswith(_PLACES) for each, _ in traceback.walk_stack(frame))
        now = (id(frame), frame.f_lasti) if inside else None
        seen = seen + 1 if now is not None and now == place else 0
        place = now
    os.kill(os.getpid(), signal.SIGINT)
