"""A child process that cannot outlive the Python process that started it.

Each one has a watchdog, a shell that sleeps on a pipe (the lifeline) whose write end only this Python process keeps.
However Python ends, the kernel closes the lifeline, and the watchdog ends the process. That needs no thread, works on
every POSIX system, and unlike Linux's parent-death signal does not depend on the thread that started the process.
"""

from __future__ import annotations

import os
import signal
import subprocess
import weakref
from pathlib import Path
from typing import TYPE_CHECKING

from lightlink.errors import ServerError

if TYPE_CHECKING:
    from collections.abc import Sequence

_REAP_TIMEOUT = 10.0
_RELEASED = b"released\n"

# The process tells the watchdog its own id before it becomes the command, so there is no moment at which Python can
# die and leave it unguarded. The lifeline comes as standard input because a plain shell names only the fds 0 to 9.
_LAUNCH = 'echo "$$" >&0 && exec "$@" </dev/null'

# A line other than "released" is the process id; the end of the file means that Python is gone.
_WATCH = """
pid=
while read -r line; do
    [ "$line" = released ] && exit 0
    pid=$line
done
if [ -n "$pid" ]; then
    kill -TERM "$pid"
    n=0
    while kill -0 "$pid" && [ "$n" -lt 50 ]; do
        sleep 0.1
        n=$((n + 1))
    done
    kill -KILL "$pid"
fi
rm -rf -- "$1"
"""


class WatchedProcess:
    """Run a command, out of reach of the terminal's Ctrl-C, until ``end`` or until this Python process is gone.

    Arguments: ``command``, whose first word is a path; ``output``, the file to which its output is appended;
    ``folder``, a temporary folder that the watchdog removes if Python dies first. A command that cannot be run says so
    in ``output`` and ends with status 126 or 127. Only the owner, the process that made it, may use it.
    """

    def __init__(self, command: Sequence[str | os.PathLike[str]], output: Path, folder: Path) -> None:
        self._owner = os.getpid()
        self._process: subprocess.Popen[bytes] | None = None
        self._watchdog: subprocess.Popen[bytes] | None = None
        watched, lifeline = os.pipe()
        self._lifelines = [lifeline]
        _living.add(self)
        try:
            self._watchdog = _spawn(_WATCH, [folder], watched, Path(os.devnull), cwd="/")
            self._process = _spawn(_LAUNCH, command, lifeline, output)
            self.pid = self._process.pid
        except BaseException:
            self._dismiss(b"")  # the watchdog alone may know what was started
            raise
        finally:
            os.close(watched)

    @property
    def owned(self) -> bool:
        """Whether this Python process started it, and is not one forked from that."""
        return os.getpid() == self._owner

    def exit_status(self) -> int | None:
        """Return how the process ended (negative: by that signal), or None while it runs."""
        status = None if self._process is None else self._process.poll()
        if status is not None:
            self._dismiss(_RELEASED)
        return status

    def end(self, sign: signal.Signals, timeout: float) -> None:
        """Signal the process and wait; kill it after ``timeout`` seconds. Does nothing if it ended."""
        if self._process is None:
            return
        self._process.send_signal(sign)
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self._process.kill()
            _reap(self._process)
        self._dismiss(_RELEASED)

    def disown(self) -> None:
        """Let go of everything inherited over a fork: it belongs to the parent."""
        while self._lifelines:
            os.close(self._lifelines.pop())
        for process in (self._process, self._watchdog):
            if process is not None:
                process.returncode = 0  # Popen would complain that nobody waited; nobody here may
        self._process = self._watchdog = None

    def _dismiss(self, last_words: bytes) -> None:
        # A reaped process's id may become another's, so the watchdog is released at once. Two threads may come here
        # when they find the process dead, and pop() lets one of them through.
        try:
            lifeline = self._lifelines.pop()
        except IndexError:
            return
        try:
            os.write(lifeline, last_words)
        except BrokenPipeError:
            pass  # somebody killed the watchdog, which is as good as releasing it
        finally:
            os.close(lifeline)
        if self._watchdog is not None:
            _reap(self._watchdog)


def _spawn(
    script: str,
    arguments: Sequence[str | os.PathLike[str]],
    stdin: int,
    output: Path,
    cwd: str | None = None,
) -> subprocess.Popen[bytes]:
    with output.open("ab") as sink:
        return subprocess.Popen(
            ["/bin/sh", "-c", script, "lightlink", *arguments],
            stdin=stdin,
            stdout=sink,
            stderr=sink,
            cwd=cwd,
            start_new_session=True,
        )


def _reap(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(_REAP_TIMEOUT)
    except subprocess.TimeoutExpired as exc:
        raise ServerError(f"process {process.pid} did not end within {_REAP_TIMEOUT:g} s") from exc


_living: weakref.WeakSet[WatchedProcess] = weakref.WeakSet()


def _disown_all() -> None:
    for process in list(_living):
        process.disown()


# A forked child that kept a lifeline's write end would keep the process alive after its owner's death.
os.register_at_fork(after_in_child=_disown_all)
