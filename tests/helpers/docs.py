"""The code blocks of the documentation and the samples' own tests, run as their readers run them."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def blocks(page: str, language: str) -> list[str]:
    """Return the blocks of a page (``how-to/flask.md``) in a language (``python``, ``sh``), in order."""
    found = [text for kind, text in _BLOCK.findall((ROOT / "docs" / page).read_text()) if kind == language]
    assert found, f"{page} has no {language} blocks"
    return found


def shell_lines(page: str, start: str) -> list[str]:
    """Return the lines of a page's shell blocks that start with a command."""
    lines = [line for block in blocks(page, "sh") for line in block.splitlines() if line.startswith(start)]
    assert lines, f"{page} has no line {start!r}"
    return lines


def run(command: list[str], folder: Path, **env: str) -> str:
    """Run a command in a folder, which Python imports from, to its good end; returns what it printed."""
    inherited = {name: value for name, value in os.environ.items() if name not in ("LIGHTLINK_URL", "NATS_URL")}
    paths = {"PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)])}
    done = subprocess.run(
        command, cwd=folder, env={**inherited, **paths, **env}, check=False, capture_output=True, text=True, timeout=90
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def run_pytest(folder: Path) -> str:
    """Run the tests in a folder with warnings as errors and without this suite's plugins; returns what was printed."""
    plain = ["-q", "-c", os.devnull, "--rootdir=.", "-p", "no:cacheprovider", "-p", "lightlink.contrib.pytest_plugin"]
    return run([sys.executable, "-W", "error", "-m", "pytest", *plain], folder, PYTEST_DISABLE_PLUGIN_AUTOLOAD="1")


def sample(name: str) -> Any:
    """Import a sample."""
    spec = importlib.util.spec_from_file_location(f"samples.{name}", ROOT / "samples" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patched:
        patched.syspath_prepend(ROOT / "samples")
        spec.loader.exec_module(module)
    return module
