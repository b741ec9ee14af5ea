"""What the first process of a container owes it: orphans are reaped, and signals reach the command."""

from __future__ import annotations

import os
import signal

_FORWARDED = {signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2}
# From <asm-generic/siginfo.h>: the signal comes from the kernel, as Ctrl-C does.
_SI_KERNEL = 0x80


def leave_init() -> None:
    """As process 1 stay to reap and to pass signals on, and return in a child; in any other process just return.

    Process 1 inherits every orphan of its container, and each stays a zombie until it is waited for. The command
    cannot do that itself: to wait for any child would take the exit codes of its own subprocesses away from it.
    """
    if os.getpid() != 1:
        return
    heard = {*_FORWARDED, signal.SIGCHLD}
    # Blocked before the fork, so that what comes meanwhile waits: process 1 ignores what it has no handler for.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, heard)
    child = os.fork()
    if child == 0:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return
    os._exit(_attend(child, heard))


def _attend(child: int, heard: set[signal.Signals]) -> int:
    """Reap and pass signals on until the command has ended; return the exit code for it."""
    while True:
        info = signal.sigwaitinfo(heard)
        if info.si_signo == signal.SIGCHLD:
            status = _reap(child)
            if status is not None:
                code = os.waitstatus_to_exitcode(status)
                return code if code >= 0 else 128 - code
        elif info.si_code != _SI_KERNEL:  # a terminal tells its whole process group
            os.kill(child, info.si_signo)


def _reap(child: int) -> int | None:
    """Wait for all that have ended; return the status of ``child`` if it is among them."""
    found = None
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return found
        if pid == 0:
            return found
        if pid == child:
            found = status
