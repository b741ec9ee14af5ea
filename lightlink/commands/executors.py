"""Handlers that are ready to use. Each is off until it is put on an agent: ``executors.ping(agent)``.

`ping`, `echo` and `system_info` are harmless. `exec_shell` runs programs, and only those that it is told.
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightlink.commands.agent.context import Cancelled, CommandContext
from lightlink.commands.agent.handlers import Rejected
from lightlink.commands.subprocesses import Limits, run_program
from lightlink.errors import InvalidOption
from lightlink.version import __version__

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from lightlink.commands.agent.agent import Agent

# What a program needs to start at all; nothing else of the agent's environment reaches it unasked.
_INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "SYSTEMROOT")


def ping(agent: Agent, command_type: str = "ping") -> None:
    """Answer with the agent's clock: ``{"pong": true, "time": seconds since 1970}``."""

    def answer() -> dict[str, Any]:
        return {"pong": True, "time": time.time()}

    agent.register(command_type, answer, idempotent=True)


def echo(agent: Agent, command_type: str = "echo") -> None:
    """Answer with the payload, an object with anything in it."""

    def answer(**payload: Any) -> dict[str, Any]:
        return payload

    agent.register(command_type, answer, idempotent=True)


def system_info(agent: Agent, command_type: str = "system.info") -> None:
    """Tell about the machine and the agent's process: names, versions, CPUs, load, memory and disk in bytes."""

    def answer() -> dict[str, Any]:
        return {
            "hostname": platform.node(),
            "system": platform.system(),
            "release": platform.release(),
            "machine": platform.machine(),
            "python": platform.python_version(),
            "lightlink": __version__,
            "pid": os.getpid(),
            "cpus": os.cpu_count(),
            "load": list(os.getloadavg()) if hasattr(os, "getloadavg") else None,
            "memory": _memory(),
            "disk": shutil.disk_usage(os.sep)._asdict(),
            "uptime": _uptime(),
        }

    agent.register(command_type, answer, idempotent=True)


def exec_shell(
    agent: Agent,
    allow: Iterable[str],
    command_type: str = "exec_shell",
    *,
    timeout: float = 60.0,
    cwd: str | os.PathLike[str] | None = None,
    environment: Mapping[str, str] | None = None,
    max_output: int = 256 * 1024,
) -> None:
    """Run programs of the agent's machine, without a shell, and answer with exit code and output.

    ``allow`` names the programs, each by the name to call it by, found on PATH now, or by its absolute path; nothing
    else is run. The payload is ``{"argv": ["df", "-h"]}``, with ``timeout`` in seconds and ``stdin`` text if wanted; at
    most the ``timeout`` given here. A program runs in ``cwd`` with a clean environment: PATH and a few more of the
    agent's, and ``environment``. Of its stdout and stderr each at most ``max_output`` bytes are kept, less if the
    result would be too large, from the beginning and the end, with a mark where some were cut. It has a process group
    of its own, which is ended with it, and when the command is cancelled or overdue.

    The result is ``{"exit_code", "stdout", "stderr", "truncated", "timed_out", "duration"}``; a program ended by a
    signal has its number as a negative exit code. A payload that is not fit is rejected with the reason. Raises
    InvalidOption for a program that there is not, and for an environment that cannot be.
    """
    programs = dict(_find_program(name) for name in _names(allow))
    limits = Limits.checked(timeout, max_output)
    folder = _folder(cwd)
    inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    settings = {**inherited, **_environment(environment)}

    def run(context: CommandContext, argv: list[str], stdin: str = "", timeout: float | None = None) -> dict[str, Any]:
        command = _allowed(programs, argv)
        if timeout is not None and not 0 < timeout <= limits.timeout:
            raise Rejected(f"timeout must be above 0 and at most {limits.timeout:g} s")
        bounds = limits.within(timeout, context.max_payload)
        result = run_program(command, stdin, folder, settings, bounds, context.cancelled)
        if result.cancelled:
            raise Cancelled(context.command_id)
        return result.facts()

    agent.register(command_type, run)


def _allowed(programs: Mapping[str, str], argv: list[str]) -> list[str]:
    """Return a command with its program's path; raises Rejected."""
    if not argv:
        raise Rejected("argv is empty: it names the program and its arguments")
    program = programs.get(argv[0])
    if program is None:
        raise Rejected(f"{argv[0]!r} is not allowed; allowed are: {', '.join(sorted(programs))}")
    if any("\0" in argument for argument in argv):
        raise Rejected("an argument holds a null character")
    return [program, *argv[1:]]


def _names(allow: Iterable[str]) -> list[str]:
    names = [] if isinstance(allow, str) else list(allow)
    if not names or not all(isinstance(name, str) and name for name in names):
        raise InvalidOption("allow", "name the programs that may be run: ['df', '/usr/bin/uptime']", allow)
    return names


def _find_program(name: str) -> tuple[str, str]:
    """Return a program's name and its absolute path; raises InvalidOption."""
    if os.sep in name and not Path(name).is_absolute():
        raise InvalidOption("allow", "a path must be absolute", name)
    found = shutil.which(name)
    if found is None:
        raise InvalidOption("allow", "there is no such program", name)
    return name, str(Path(found).absolute())


def _folder(cwd: str | os.PathLike[str] | None) -> Path:
    folder = Path.cwd() if cwd is None else Path(cwd).expanduser().absolute()
    if not folder.is_dir():
        raise InvalidOption("cwd", "is not a folder", str(folder))
    return folder


def _environment(given: Mapping[str, str] | None) -> dict[str, str]:
    """Return what a program is to find in its environment; raises InvalidOption, which does not tell values."""
    found = dict(given or {})
    for name, value in found.items():
        if not isinstance(name, str) or not name or "=" in name or "\0" in name:
            raise InvalidOption("environment", "names must be text without '=' and null characters", name)
        if not isinstance(value, str) or "\0" in value:
            kind = "a null character" if isinstance(value, str) else type(value).__name__
            raise InvalidOption("environment", f"the value of {name!r} must be text, got {kind}")
    return found


def _memory() -> dict[str, int] | None:
    if not hasattr(os, "sysconf") or "SC_PHYS_PAGES" not in os.sysconf_names:
        return None
    page = os.sysconf("SC_PAGE_SIZE")
    memory = {"total": os.sysconf("SC_PHYS_PAGES") * page}
    if "SC_AVPHYS_PAGES" in os.sysconf_names:
        memory["free"] = os.sysconf("SC_AVPHYS_PAGES") * page
    return memory


def _uptime() -> float | None:
    if not sys.platform.startswith("linux"):
        return None
    return time.clock_gettime(time.CLOCK_BOOTTIME)
