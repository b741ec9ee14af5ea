"""What is packaged is installed and used in new virtual environments, to the letter of the tutorial."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from documentation.test_pages import follow_the_tutorial
from helpers.pages import ROOT

import lightlink

if TYPE_CHECKING:
    from documentation.conftest import Read

pytestmark = pytest.mark.slow


def run(*command: object, folder: Path) -> str:
    """Run a program without this clone's packages in sight; returns what it printed."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "LIGHTLINK", "NATS"))
    }
    done = subprocess.run(
        [str(word) for word in command],
        cwd=folder,
        env=environment,
        check=False,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def new_environment(folder: Path) -> Path:
    """Make a virtual environment; returns where its programs are."""
    run(sys.executable, "-m", "venv", folder, folder=folder.parent)
    return folder / "bin"


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel and the source archive, made of a copy of this clone."""
    folder = tmp_path_factory.mktemp("dist")
    leave_out = shutil.ignore_patterns(".*", "build", "dist", "*.egg-info", "__pycache__", "node_modules")
    shutil.copytree(ROOT, folder / "clone", ignore=leave_out)
    tools = new_environment(folder / "tools")
    run(tools / "pip", "install", "--quiet", "build", "twine", folder=folder)
    run(tools / "python", "-m", "build", "--outdir", folder / "dist", folder / "clone", folder=folder)
    run(tools / "python", "-m", "twine", "check", "--strict", *(folder / "dist").iterdir(), folder=folder)
    return folder / "dist"


@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", ["whl", "tar.gz"])
def test_a_package_follows_the_tutorial_without_the_clone(
    kind: str, dist: Path, tmp_path: Path, read: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    (package,) = dist.glob(f"*.{kind}")
    programs = new_environment(tmp_path / "link")
    run(programs / "pip", "install", "--quiet", f"{package}[server,cli,http]", folder=tmp_path)
    assert run(programs / "lightlink", "--version", folder=tmp_path).startswith(f"lightlink {lightlink.__version__} ")
    assert "The service and the server are stopped" in run(programs / "lightlink", "demo", folder=tmp_path)
    # Files that are no Python came along.
    assert '"format": 1' in run(programs / "lightlink", "conformance", "vectors", folder=tmp_path)
    monkeypatch.setenv("PATH", os.pathsep.join([str(programs), os.environ["PATH"]]))
    # What the reader types finds the environment's packages, not this clone's.
    monkeypatch.delenv("PYTHONPATH", raising=False)
    follow_the_tutorial("docs/tutorial.md", read, monkeypatch, programs)
