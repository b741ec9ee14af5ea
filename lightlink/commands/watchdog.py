"""End the programs that commands have started when this process ends, in whatever way.

A shell sleeps on a pipe whose write end only this process keeps, as the one beside an embedded server does
(`lightlink.server.process`). It is told of each program; when the pipe ends, it ends those it knows of.
"""

from __future__ import annotations

import os
import subprocess

from lightlink.concurrency.threads import Lock

MARK = "LIGHTLINK_PROGRAM"
"""What stands, with a value of its own, in the environment of a program and of all that it starts."""

# The groups first, politely. Then what has left its group, and what was started as this process died: they carry the
# mark, where the system shows environments.
_WATCH = """
marks= groups=
without() { kept=; for each in $1; do [ "$each" = "$2" ] || kept="$kept $each"; done; }
while read -r word mark group; do
    case $word in
        begin) marks="$marks $mark" ;;
        group) groups="$groups $group" ;;
        end) without "$marks" "$mark"; marks=$kept; without "$groups" "$group"; groups=$kept ;;
    esac
done
for group in $groups; do kill -TERM -- "-$group"; done
[ -n "$groups" ] && sleep 2
for group in $groups; do kill -KILL -- "-$group"; done
for mark in $marks; do
    for file in /proc/[0-9]*/environ; do
        if tr '\\000' '\\n' <"$file" | grep -qx "$1=$mark"; then
            pid=${file#/proc/}
            kill -KILL "${pid%/environ}"
        fi
    done
done
"""


class Watchdog:
    """The one of this process; started with the first program."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._lifeline: int | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def begin(self, mark: str) -> None:
        """Tell that a program with a mark in its environment is about to be started."""
        self._tell(f"begin {mark} -")

    def note_group(self, mark: str, group: int) -> None:
        """Tell which process group that program leads."""
        self._tell(f"group {mark} {group}")

    def end(self, mark: str, group: int = 0) -> None:
        """Tell that it has ended, before its id may become another's."""
        self._tell(f"end {mark} {group}")

    def forget(self) -> None:
        """Let go of it in a forked child: it watches the parent, and must see the parent's end."""
        self._lock = Lock()
        lifeline, self._lifeline = self._lifeline, None
        if lifeline is not None:
            os.close(lifeline)
        if self._process is not None:
            self._process.returncode = 0  # Popen would complain that nobody waited; nobody here may
            self._process = None

    def _tell(self, line: str) -> None:
        with self._lock:
            if self._lifeline is None:
                self._start()
            assert self._lifeline is not None
            try:
                os.write(self._lifeline, f"{line}\n".encode())
            except BrokenPipeError:  # somebody killed it: the next program has another
                os.close(self._lifeline)
                self._lifeline = None

    def _start(self) -> None:
        watched, self._lifeline = os.pipe()
        try:
            self._process = subprocess.Popen(
                ["/bin/sh", "-c", _WATCH, "lightlink", MARK],
                stdin=watched,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd="/",
                start_new_session=True,
            )
        except BaseException:
            os.close(self._lifeline)
            self._lifeline = None
            raise
        finally:
            os.close(watched)


watchdog = Watchdog()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=watchdog.forget)
