"""Run the whole suite many times and print what failed how often: ``python -m repeat --times 20``.

A test that fails once in twenty runs is broken. ``--busy`` keeps each core at work beside the suite, as a shared
machine would.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[1]
_FAILED = re.compile(r"^(?:FAILED|ERROR) (\S+)", re.MULTILINE)


def main() -> int:
    """Run, report each run as it ends, and return how many runs failed (at most 100, for the exit code)."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=20, help="how many runs")
    parser.add_argument("--busy", action="store_true", help="a busy loop on each core beside the suite")
    options, arguments = parser.parse_known_args()
    folder = Path(tempfile.mkdtemp(prefix="lightlink-repeat-"))
    failed: collections.Counter[str] = collections.Counter()
    bad = 0
    with _busy_cores() if options.busy else contextlib.nullcontext():
        for number in range(1, options.times + 1):
            log = folder / f"run-{number:02d}.log"
            code, seconds = _run(log, arguments)
            names = _FAILED.findall(log.read_text(errors="replace")) or ([f"(exit code {code})"] if code else [])
            failed.update(names)
            bad += bool(code)
            print(f"run {number:2d} of {options.times}: {seconds:4.0f} s, {', '.join(names) or 'passed'}", flush=True)
    print(f"{options.times - bad} of {options.times} runs passed; the logs are in {folder}")
    for name, count in failed.most_common():
        print(f"{count:4d} x {name}")
    return min(bad, 100)


def _run(log: Path, arguments: list[str]) -> tuple[int, float]:
    began = time.monotonic()
    with log.open("w") as output:
        command = [sys.executable, "-m", "pytest", "-q", *arguments]
        code = subprocess.run(command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT, check=False).returncode
    return code, time.monotonic() - began


@contextlib.contextmanager
def _busy_cores() -> Iterator[None]:
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(os.cpu_count() or 1)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


if __name__ == "__main__":
    sys.exit(main())
