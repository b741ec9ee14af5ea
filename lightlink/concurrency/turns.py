"""How long threads wait for a turn, in a process with many loops.

Python runs one thread at a time. Each other that could run wakes up every 5 ms to ask for its turn
(`sys.setswitchinterval`), which for hundreds of them at once takes more processor time than there is: 300 agents in one
process, each on a connection of its own, then do not get through a burst of commands (measured: 5 s of work, none of it
done after 60 s). So from 32 loops on the interval grows with their number.
"""

from __future__ import annotations

import os
import sys
import threading

_FEW = 32
_MOST_SECONDS = 0.1

_lock = threading.Lock()
_loops = 0
# What the program had chosen, and what we have made of it.
_chosen = _ours = sys.getswitchinterval()


def loop_began() -> None:
    """Count one more loop that runs in this process."""
    _count(1)


def loop_ended() -> None:
    """Count one less."""
    _count(-1)


def _count(change: int) -> None:
    global _loops, _chosen, _ours  # noqa: PLW0603 - they are facts about the process
    with _lock:
        _loops += change
        now = sys.getswitchinterval()
        if abs(now - _ours) > _ours / 100:  # the program has chosen anew
            _chosen = now
        wanted = max(_chosen, min(_chosen * _loops / _FEW, _MOST_SECONDS))
        if abs(wanted - now) > now / 10 or wanted == _chosen:
            sys.setswitchinterval(wanted)
            _ours = wanted


def _after_fork_in_child() -> None:
    global _lock, _loops
    _lock, _loops = threading.Lock(), 0


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
