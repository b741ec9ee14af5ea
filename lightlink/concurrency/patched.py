"""Detect libraries that replace threads and sockets (gevent, eventlet): the loop thread cannot run under them."""

from __future__ import annotations

import sys
from typing import Any

from lightlink.errors import NotReady

_NEEDED = ("thread", "threading", "socket", "select")


def refuse_patched_threads() -> None:
    """Raise NotReady where gevent or eventlet has replaced threads, sockets or select."""
    for name, module in (("gevent", "gevent.monkey"), ("eventlet", "eventlet.patcher")):
        patcher: Any = sys.modules.get(module)
        if patcher is None:
            continue
        is_patched = patcher.is_module_patched if name == "gevent" else patcher.is_monkey_patched
        replaced = [each for each in _NEEDED if is_patched(each)]
        if replaced:
            raise NotReady(
                "connecting",
                f"is not possible in this process, where {name} has replaced {', '.join(replaced)}: LightLink runs an "
                "event loop in a thread, and both must be real. Run it in a process without monkey patching, such as "
                "one of gunicorn's gthread workers",
            )
