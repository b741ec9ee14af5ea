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


class Alarm(Exception):
    """SIGALRM came."""


def press_when_waiting(number: int = signal.SIGINT, *, elsewhere: bool = False) -> threading.Thread:
    """Press it once the main thread has stayed at one place in LightLink for a tenth of a second.

    ``elsewhere`` another thread than the main one gets the signal.
    """
    thread = threading.Thread(target=_press, args=[number, elsewhere], daemon=True)
    thread.start()
    return thread


def interrupted(wait: Callable[[], object], number: int = signal.SIGINT, *, elsewhere: bool = False) -> bool:
    """Tell whether ``wait()`` ended with what the signal raises that came while it waited."""
    signal.signal(signal.SIGALRM, _on_alarm)
    thread = press_when_waiting(number, elsewhere=elsewhere)
    try:
        wait()
    except (KeyboardInterrupt, Alarm):
        return True
    finally:
        thread.join(10)
    return False


def _on_alarm(_number: int, _frame: object) -> None:
    raise Alarm


def _press(number: int, elsewhere: bool) -> None:
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
    if elsewhere:
        signal.pthread_kill(threading.get_ident(), number)
    else:
        os.kill(os.getpid(), number)
