"""Services in child processes, for ``run --reload`` and ``demo``."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from typing import IO, TYPE_CHECKING

from lightlink.cli.terminal.printing import say

if TYPE_CHECKING:
    from collections.abc import Sequence

_SET_PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of prctl(2)


def start(arguments: Sequence[str], stdout: int | None = None, stderr: IO[str] | None = None) -> subprocess.Popen[str]:
    """Start ``lightlink run`` with these arguments as a child that ends when this process does (on Linux)."""
    command = [sys.executable, "-m", "lightlink.cli", "run", f"--child-of={os.getpid()}", *arguments]
    # In a session of its own it does not get the terminal's Ctrl-C as well: one SIGTERM, from `stop`, drains it.
    return subprocess.Popen(command, stdout=stdout, stderr=stderr, text=True, start_new_session=True)


def stop(child: subprocess.Popen[str], timeout: float) -> int:
    """Ask a child to drain and stop, kill it after ``timeout`` seconds, and return its exit code."""
    # Leaving the block closes its pipes.
    with child:
        child.terminate()
        try:
            return child.wait(timeout)
        except subprocess.TimeoutExpired:
            say(f"process {child.pid} did not stop within {timeout:g} s and is killed", err=True)
            child.kill()
            return child.wait()


def die_with(parent: int) -> None:
    """Have this process get SIGTERM when its parent dies, however that happens. Linux only; elsewhere nothing."""
    if not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None).prctl(_SET_PARENT_DEATH_SIGNAL, int(signal.SIGTERM))
    if os.getppid() != parent:
        # It died before it could be watched.
        sys.exit(128 + signal.SIGTERM)
