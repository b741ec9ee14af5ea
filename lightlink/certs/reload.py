"""Have a running nats-server take a new configuration, with what was added to it."""

from __future__ import annotations

import os
import signal
import time

from lightlink.errors import InvalidOption

# Enough for the server to take the first signal; the second waits in it until the first reload is done.
_BETWEEN_SECONDS = 0.25


def reload_server(pid: int) -> None:
    """Have the nats-server with a process id read its configuration again; returns at once.

    It is told twice: what an account imports that a reload adds works only from the next reload on (nats-server 2.15:
    imports are subscribed for accounts that were there before), and so an agent that was added would hear nothing.
    Raises InvalidOption when there is no such process, or it is another user's.
    """
    if isinstance(pid, bool) or not isinstance(pid, int) or pid < 1:
        raise InvalidOption("pid", "must be the id of the nats-server's process", pid)
    for pause in (_BETWEEN_SECONDS, 0.0):
        try:
            os.kill(pid, signal.SIGHUP)
        except OSError as exc:
            raise InvalidOption("pid", f"cannot be told to reload: {exc.strerror}", pid) from exc
        time.sleep(pause)
