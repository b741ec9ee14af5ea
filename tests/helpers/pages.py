"""Pages of the documentation, read as their readers do: code is run, files are saved, lines are typed."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from unittest.mock import patch

import sqlalchemy

import lightlink
from helpers.process import PythonProcess
from helpers.waiting import eventually
from lightlink.cli import main

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

ROOT = Path(__file__).resolve().parents[2]
_connect = lightlink.connect
_BLOCK = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
# What the shell has to do itself.
_SHELL = re.compile(r"[|<>;&$`=]|^(?!lightlink )")
_EXEC = """
    import os, sys
    os.chdir(sys.argv[1])
    os.environ.pop("PYTHONPATH", None)
    os.execvp(sys.argv[2], sys.argv[2:])
"""


class Block(NamedTuple):
    """A fenced block: its language, its text and the line it begins at."""

    language: str
    text: str
    line: int


def pages() -> list[str]:
    """Return every page of the repository that is documentation, relative to its root."""
    found = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "certs" / "README.md"]
    return sorted(str(path.relative_to(ROOT)) for path in found)


def runnable(page: str) -> list[Block]:
    """Return the blocks of a page that say they are code: those in a language, without ``text`` and Sphinx's own."""
    text = (ROOT / page).read_text()
    return [
        Block(match[1], match[2], text.count("\n", 0, match.start()) + 1)
        for match in _BLOCK.finditer(text)
        if match[1] not in ("", "text") and not match[1].startswith("{")
    ]


class Reader:
    """Follows one page: each block must be consumed in order, and the page must be at its end when the reader is.

    Python blocks run in one namespace, as in one session. ``replace`` has what stands here for what is printed.
    ``programs`` is another environment's folder of programs: everything then runs there, not in this process.
    """

    def __init__(
        self, page: str, folder: Path, replace: dict[str, str] | None = None, programs: Path | None = None
    ) -> None:
        self.page = page
        self.folder = folder
        self.names: dict[str, Any] = {"__name__": "page"}
        self._left = runnable(page)
        self.replace = replace or {}
        self._programs = programs
        self._running: list[PythonProcess] = []
        # A page is a program, which keeps its clients until it ends.
        self._clients: list[lightlink.Client] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for value in list(self.names.values()):
            if isinstance(value, (lightlink.Service, lightlink.Agent)):
                value.stop()
        for process in self._running:
            process.kill()
        for value in list(self.names.values()):
            if isinstance(value, lightlink.CommandManager):
                value.close()
        for client in self._clients:
            client.close()
        for value in self.names.values():
            # A service's proxy has every name: its class tells. Python 3.13 complains of an engine's open connections.
            if isinstance(value, sqlalchemy.Engine):
                value.dispose()
        assert kind is not None or not self._left, f"{self.page}: nothing was done with {self._left}"

    @property
    def language(self) -> str:
        """The language of the next block, "" at the end of the page."""
        return self._left[0].language if self._left else ""

    def python(self, **names: Any) -> str:
        """Run the next block; ``names`` are known to it. Returns what it printed."""
        block = self._next("python")
        self.names.update(names)
        printed = io.StringIO()
        # With the place in the page, for tracebacks.
        code = compile("\n" * block.line + block.text, self.page, "exec", dont_inherit=True)
        with contextlib.redirect_stdout(printed), patch.object(lightlink, "connect", self._connect):
            exec(code, self.names)
        return printed.getvalue()

    def _connect(self, *args: Any, **options: Any) -> lightlink.Client:
        self._clients.append(_connect(*args, **options))
        return self._clients[-1]

    def session(self, count: int) -> str:
        """Run the next ``count`` blocks of Python, which belong together; returns what they printed."""
        if self._programs is None:
            return "".join(self.python() for _ in range(count))
        script = "\n".join(self._next("python").text for _ in range(count))
        return self._run([str(self._programs / "python"), "-c", script])

    def save(self, name: str) -> Path:
        """Save the next block under this name."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self._next().text)
        return path

    def shell(self, *, leave_out: dict[str, str] | None = None) -> str:
        """Type the lines of the next block; returns what they printed.

        ``leave_out`` has reasons by the beginnings of lines that are not typed, each of which must be there.
        """
        lines = self._lines(self._next("sh"))
        for start in leave_out or {}:
            assert any(line.startswith(start) for line in lines), f"{self.page}: there is no line {start!r}"
        typed = [line for line in lines if not line.startswith(tuple(leave_out or ()))]
        return "".join(map(self.type, typed))

    def start(self, *ready: str) -> list[PythonProcess]:
        """Start the lines of the next block, which stay; each is waited for until it says ``ready``."""
        lines = self._lines(self._next("sh"))
        assert len(lines) == len(ready), lines
        return [self.run_beside(line, words) for line, words in zip(lines, ready, strict=True)]

    def lines(self) -> list[str]:
        """Return the lines of the next block, for the test to type them one by one."""
        return self._lines(self._next("sh"))

    def run_beside(self, line: str, ready: str) -> PythonProcess:
        """Start a line that stays until the page is read, and wait until it says that it is ready."""
        process = PythonProcess(_EXEC, self.folder, *shlex.split(line, comments=True), options=())
        self._running.append(process)
        eventually(lambda: process.has_ended or ready in process.stdout + process.stderr)
        assert ready in process.stdout + process.stderr, f"{self.page}: {line}\n{process.stdout}{process.stderr}"
        return process

    def run_program(self, before: str = "") -> str:
        """Run the next block in a process of its own, after some lines; returns what it printed."""
        with PythonProcess(f"{before}\n{self._next('python').text}") as process:
            done = process.wait()
        assert done.returncode == 0, done.stderr
        return done.stdout

    def leave_out(self, reason: str) -> None:
        """Skip the next block, for a reason."""
        assert reason
        self._left.pop(0)

    def _next(self, language: str | None = None) -> Block:
        assert self._left, f"{self.page} has no more blocks"
        block = self._left.pop(0)
        assert language in (None, block.language), f"{self.page}:{block.line} is {block.language}"
        text = block.text
        for printed, here in self.replace.items():
            text = text.replace(printed, here)
        return block._replace(text=text)

    def _lines(self, block: Block) -> list[str]:
        lines = block.text.replace("\\\n", " ").splitlines()
        return [line for line in lines if line.strip() and not line.startswith("#")]

    def type(self, line: str) -> str:
        """Type a line; returns what it printed."""
        if self._programs is None and not _SHELL.search(re.sub(r"'[^']*'|#.*", "", line)):
            return self._lightlink(shlex.split(line, comments=True)[1:])
        return self._run(["/bin/sh", "-ec", line])

    def _run(self, command: list[str]) -> str:
        done = subprocess.run(command, cwd=self.folder, check=False, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, f"{self.page}: {command[-1]}\n{done.stdout}{done.stderr}"
        return done.stdout

    def _lightlink(self, arguments: list[str]) -> str:
        """Run a ``lightlink`` command in this process, which is faster."""
        printed, complained = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(complained):
            code = main(arguments)
        assert code == 0, f"{self.page}: lightlink {shlex.join(arguments)}\n{printed.getvalue()}{complained.getvalue()}"
        return printed.getvalue()
