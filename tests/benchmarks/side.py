"""One side of a comparison: an actor in a process of its own, as the benchmark sees it."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NoReturn

ROOT = Path(__file__).resolve().parents[2]
_START_SECONDS = 30.0


class PeerProblem(Exception):
    """A side that cannot be measured, and why."""


class Side:
    """An actor's process. It starts with the first `do`, and its failure to start is raised there.

    ``root`` is the folder with the lightlink and the benchmark that it runs.
    """

    def __init__(self, target: str, root: Path = ROOT, **settings: Any) -> None:
        self.target = target
        self._root = root
        self._settings = settings
        self._cpu = 0.0
        self._process: subprocess.Popen[str] | None = None
        self._problem: PeerProblem | None = None
        self._complaints = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed with the process

    def do(self, method: str, limit: float = 120.0, **arguments: Any) -> Any:
        """Call a method of the actor, and return what it returns; PeerProblem if it fails or takes too long."""
        if self._problem is not None:
            raise self._problem
        if self._process is None:
            self._start()
        return self._ask({"do": method, "with": arguments}, limit)

    def start(self) -> None:
        """Start the actor now; PeerProblem if it cannot."""
        self.do("")

    def cpu(self) -> float:
        """Return the processor time that the actor's process has used so far, in seconds."""
        self.do("")
        return self._cpu

    def hang_up(self) -> None:
        """Let the process end."""
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()

    def close(self) -> None:
        """End the process."""
        self.hang_up()
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdout is not None
        try:
            process.wait(0.5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()
        self._complaints.close()

    def _start(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.benchmarks.actor", self.target, json.dumps(self._settings)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._complaints,
            text=True,
            cwd=self._root,
            env={**os.environ, "PYTHONPATH": str(self._root), "PYTHONUNBUFFERED": "1"},
        )
        self._ask(None, _START_SECONDS)

    def _ask(self, request: dict[str, Any] | None, limit: float) -> Any:
        """Send a request and return the value in the answer."""
        process = self._process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            if request is not None:
                process.stdin.write(json.dumps(request) + "\n")
                process.stdin.flush()
        except BrokenPipeError:
            self._fail("its process ended")
        ready, _, _ = select.select([process.stdout], [], [], limit)
        if not ready:
            self._fail(f"no answer within {limit:g} s")
        line = process.stdout.readline()
        if not line:
            self._fail(f"its process ended: {self._last_words()}")
        answer = json.loads(line)
        if "error" in answer:
            if request is None:
                self._fail(answer["error"])
            raise PeerProblem(answer["error"])
        self._cpu = answer.get("cpu", 0.0)
        return answer["value"]

    def _fail(self, reason: str) -> NoReturn:
        """Give the side up: whatever it is asked from now on fails for the same reason."""
        self._problem = PeerProblem(reason)
        self.close()
        raise self._problem

    def _last_words(self) -> str:
        time.sleep(0.05)
        self._complaints.seek(0)
        lines = self._complaints.read().strip().splitlines()
        return lines[-1] if lines else "without a word"
