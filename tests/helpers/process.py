"""Python code in a process of its own."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from signal import SIGCONT, SIGKILL, SIGSTOP, Signals
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from types import TracebackType
    from typing import IO

    from typing_extensions import Self

ROOT = Path(__file__).resolve().parents[2]


class Finished(NamedTuple):
    """How a process ended; ``duration`` in seconds from its start to its end."""

    returncode: int
    stdout: str
    stderr: str
    duration: float


@contextlib.contextmanager
def stopped(pid: int) -> Iterator[None]:
    """Let a process stand still."""
    os.kill(pid, SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, SIGCONT)


class PythonProcess:
    """A new interpreter, leader of a process group of its own, that runs a snippet with warnings as errors.

    ``args`` are its ``sys.argv[1:]``, ``env`` is added to this process's environment, ``options`` go to the
    interpreter. lightlink and the test helpers can be imported. It starts when it is made.
    """

    def __init__(
        self,
        code: str,
        *args: object,
        env: Mapping[str, str] | None = None,
        options: tuple[str, ...] = ("-W", "error"),
    ) -> None:
        paths = [str(ROOT), str(ROOT / "tests"), *filter(None, [os.environ.get("PYTHONPATH")])]
        self._started = time.monotonic()
        self._process = subprocess.Popen(
            [sys.executable, *options, "-c", textwrap.dedent(code), *map(str, args)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1", **(env or {})},
            start_new_session=True,
        )
        self.pid = self._process.pid
        self._changed = threading.Condition()
        self._lines: dict[str, list[str]] = {"stdout": [], "stderr": []}
        self._seen = 0
        self._open = {"stdout", "stderr"}
        self._readers = [
            threading.Thread(target=self._read, args=(name, stream), daemon=True)
            for name, stream in (("stdout", self._process.stdout), ("stderr", self._process.stderr))
        ]
        for reader in self._readers:
            reader.start()

    @property
    def stdout(self) -> str:
        """What it printed so far."""
        return "".join(self._lines["stdout"])

    @property
    def stderr(self) -> str:
        """What it complained of so far."""
        return "".join(self._lines["stderr"])

    @property
    def has_ended(self) -> bool:
        """Whether it has, by itself or by a signal."""
        return self._process.poll() is not None

    def wait_line(self, start: str, timeout: float = 60.0) -> str:
        """Return the rest of the next line of its output that starts so; AssertionError if none comes."""
        deadline = time.monotonic() + timeout
        with self._changed:
            while True:
                while self._seen < len(self._lines["stdout"]):
                    line = self._lines["stdout"][self._seen]
                    self._seen += 1
                    if line.startswith(start):
                        return line[len(start) :].strip()
                remaining = deadline - time.monotonic()
                # Its complaints may arrive after the end of its output: they belong to what is said here.
                if not self._open or remaining <= 0:
                    raise AssertionError(f"no line {start!r} in {timeout:g} s:\n{self.stdout}\n{self.stderr}")
                self._changed.wait(remaining)

    def send_line(self, text: str = "") -> None:
        """Write a line to its standard input, where the snippet may wait for it with ``input()``."""
        assert self._process.stdin is not None
        self._process.stdin.write(text + "\n")
        self._process.stdin.flush()

    def signal(self, sign: Signals) -> None:
        """Send a signal to the process alone."""
        self._process.send_signal(sign)

    def signal_group(self, sign: Signals) -> None:
        """Send a signal to its process group, as a terminal does for Ctrl-C."""
        os.killpg(self.pid, sign)

    def wait(self, timeout: float = 60.0) -> Finished:
        """Wait for its end; AssertionError with its output, after killing it, if that takes longer than ``timeout``."""
        try:
            returncode = self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"still running after {timeout:g} s:\n{self.stdout}\n{self.stderr}") from None
        duration = time.monotonic() - self._started
        for reader in self._readers:
            # A process that it left behind may hold its output open for ever.
            reader.join(5.0)
        return Finished(returncode, self.stdout, self.stderr, duration)

    def kill(self) -> None:
        """Kill it and its process group, and release everything. Idempotent."""
        if self._process.stdin is None or self._process.stdin.closed:
            return
        with contextlib.suppress(ProcessLookupError):  # they all ended
            os.killpg(self.pid, SIGKILL)
        self._process.wait(30)
        for reader in self._readers:
            reader.join(5)
        with contextlib.suppress(BrokenPipeError):  # it ended before it read everything
            self._process.stdin.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def _read(self, name: str, stream: IO[str]) -> None:
        with stream:
            for line in stream:
                with self._changed:
                    self._lines[name].append(line)
                    self._changed.notify_all()
        with self._changed:
            self._open.discard(name)
            self._changed.notify_all()


def run_python(
    code: str,
    *args: object,
    timeout: float = 60.0,
    env: Mapping[str, str] | None = None,
    options: tuple[str, ...] = ("-W", "error"),
) -> Finished:
    """Run a snippet in a new interpreter to its end; AssertionError with its output after ``timeout`` seconds."""
    with PythonProcess(code, *args, env=env, options=options) as process:
        return process.wait(timeout)


def alive(pid: int) -> bool:
    """Whether a process with this id runs: one that ended but was not reaped yet does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):  # the latter when it ends between opening and reading
        return not Path("/proc/self").exists()  # it ended meanwhile, or this system has no /proc
    return status.rpartition(")")[2].split()[0] not in "ZX"


def descendants(pid: int) -> list[int]:
    """Return the ids of the processes that a process's threads have started and that are still there."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # a thread that has ended meanwhile
            found += map(int, task.read_text().split())
    return found


def command_line(pid: int) -> bytes:
    """Return a process's arguments, each ended by a zero byte; nothing when it has ended."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


def script(path: Path, *lines: str) -> Path:
    """Write an executable shell script, and return its path."""
    path.write_text("\n".join(["#!/bin/sh", *lines, ""]))
    path.chmod(0o755)
    return path
