"""What is packaged is installed and used in new virtual environments, to the letter of the tutorial."""

from __future__ import annotations

import configparser
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from documentation.test_all_pages import ELSEWHERE
from documentation.test_pages import follow_the_tutorial
from helpers.pages import ROOT

import lightlink

if TYPE_CHECKING:
    from documentation.conftest import Read

pytestmark = pytest.mark.slow


# Extras for the library's own development, not for its users.
OF_THE_CLONE = {"dev", "docs", "bench"}
# What pages name that is no extra of ours, and what their tests are run with.
BESIDE = ("celery", "gunicorn", "pyuwsgi", "opentelemetry-sdk", "ipykernel", "nbconvert", "ipython", "jupyter_client")
TOOLS = ("pytest", "pytest-timeout", "hypothesis")


def run(*command: object, folder: Path, limit: float = 300) -> str:
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
        timeout=limit,
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


@pytest.mark.timeout(3000)
def test_the_wheel_follows_every_page_without_the_clone(dist: Path, tmp_path: Path) -> None:
    """The tests that follow the pages, with the wheel's library: the clone's is out of sight."""
    (wheel,) = dist.glob("*.whl")
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    extras = ",".join(sorted(set(setup["options.extras_require"]) - OF_THE_CLONE))
    programs = new_environment(tmp_path / "link")
    run(programs / "pip", "install", "--quiet", f"{wheel}[{extras}]", *BESIDE, *TOOLS, folder=tmp_path, limit=900)
    folder = tmp_path / "pages"
    for name in ("docs", "certs", "samples", "tests"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "node_modules"))
    for path in [*ROOT.glob("*.md"), ROOT / "setup.cfg", ROOT / "Makefile"]:
        shutil.copy(path, folder)
    where = run(programs / "python", "-c", "import lightlink; print(lightlink.__file__)", folder=folder)
    assert Path(where).is_relative_to(tmp_path / "link")
    followed = sorted({"tests/documentation/test_pages.py", *ELSEWHERE.values()})
    pytest_ = [programs / "python", "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "slow or not slow"]
    assert " passed" in run(*pytest_, *followed, folder=folder, limit=1500)
