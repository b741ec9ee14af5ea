"""P2 to P4 on each Python that is found here, a column each: ``python -m tests.benchmarks pythons``.

Each has a virtual environment of its own in build/pythons, which is kept; they are measured in turn, each against
nats-py on the same Python.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
from rich.table import Table

from tests.benchmarks.report import markdown_table, publish
from tests.benchmarks.side import ROOT, PeerProblem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

_MINORS = range(10, 15)
_MEASURES = ("P2", "P3", "P4")
_FOLDER = ROOT / "build" / "pythons"
# nats-py, which comes with the library, is whom it is measured against.
_INSTALLED = ("--editable", ".[server,uvloop,quic,nkeys]", "rich")
_HEADINGS = ("", "measure", "against")
_BEGIN = "<!-- pythons -->"
_END = "<!-- end of pythons -->"


@attrs.frozen
class Pythons:
    """The rows that each version of Python brought, as the report's JSON has them, and why some brought none.

    ``about`` says when and how they were measured.
    """

    rows: dict[str, list[dict[str, Any]]]
    about: str = ""
    problems: dict[str, str] = attrs.field(factory=dict)

    def table(self) -> Table:
        """Return the table, a column for each Python."""
        table = Table(title="LightLink against nats-py on the same Python")
        for heading in self._headings():
            table.add_column(heading, overflow="fold")
        for cells in self._cells():
            table.add_row(*cells)
        for version, problem in self.problems.items():
            table.add_row(version, problem, style="dim")
        return table

    def markdown(self) -> str:
        """Return the table for the README."""
        lines = [self.about, "", *markdown_table(self._headings(), self._cells())]
        return "\n".join([*lines, *(f"\n{version}: {problem}" for version, problem in self.problems.items())]) + "\n"

    def publish(self, readme: Path) -> None:
        """Put the table into the README, in place of the one before."""
        publish(readme, _BEGIN, self.markdown(), _END)

    def write_json(self, path: Path) -> None:
        """Write everything, each round's figures too."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(attrs.asdict(self), indent=1) + "\n")

    def _headings(self) -> tuple[str, ...]:
        return (*_HEADINGS, *self.rows)

    def _cells(self) -> list[tuple[str, ...]]:
        ratios: dict[tuple[str, ...], dict[str, str]] = {}
        for version, rows in self.rows.items():
            for row in rows:
                if row["ratio"] is not None:  # a peer that is not installed here
                    place = ratios.setdefault((row["measure"], row["what"], row["peer"]), {})
                    place[version] = f"{row['ratio']:.2f}x"
        return [(*what, *(found.get(version, "-") for version in self.rows)) for what, found in ratios.items()]


def find() -> dict[str, Path]:
    """Return the Pythons that are there, by version: this one, those on the PATH and those of pyenv."""
    found: dict[str, Path] = {}
    for minor in _MINORS:
        version = f"3.{minor}"
        for candidate in _candidates(version):
            if _version_of(candidate) == version:
                found[version] = candidate
                break
    return found


def environment(version: str, python: Path) -> Path:
    """Return the Python of the virtual environment for a version; raises PeerProblem where it cannot be made."""
    folder = _FOLDER / version
    own, stamp = folder / "bin" / "python", folder / "installed"
    if not stamp.exists() or stamp.stat().st_mtime < (ROOT / "setup.cfg").stat().st_mtime:
        uv = shutil.which("uv")
        make = [uv, "venv", "--quiet", "--clear", "--python", python] if uv else [python, "-m", "venv", "--clear"]
        install = [uv, "pip", "install", "--quiet", "--python", own] if uv else [own, "-m", "pip", "install", "--quiet"]
        _run([*make, folder])
        _run([*install, *_INSTALLED])
        stamp.touch()
    return own


def measure(
    pythons: dict[str, Path],
    options: Sequence[str],
    about: str = "",
    tell: Callable[[str], object] = lambda _: None,
    make: Callable[[str, Path], Path] = environment,
    measures: Sequence[str] = _MEASURES,
) -> Pythons:
    """Measure on each Python in turn, with the benchmark's own ``options``; ``make`` makes its environment."""
    found = Pythons({}, about)
    for version, python in pythons.items():
        tell(f"Python {version}")
        report = _FOLDER / f"{version}.json"
        try:
            _run([make(version, python), "-m", "tests.benchmarks", *measures, "--json", report, *options])
            found.rows[version] = json.loads(report.read_text())["rows"]
        except PeerProblem as exc:
            found.problems[version] = str(exc)
    return found


def _candidates(version: str) -> Iterable[Path]:
    if sys.version_info[:2] == tuple(map(int, version.split("."))):
        yield Path(sys.executable)
    on_path = shutil.which(f"python{version}")
    if on_path is not None:
        yield Path(on_path)
    pyenv = Path(os.environ.get("PYENV_ROOT", "~/.pyenv")).expanduser()
    yield from sorted(pyenv.glob(f"versions/{version}.*/bin/python"), reverse=True)


def _version_of(python: Path) -> str:
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    try:
        return subprocess.run(
            [python, "-c", code], check=False, capture_output=True, text=True, timeout=30
        ).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return ""


def _run(command: Sequence[str | Path]) -> None:
    """Run a command in the project's folder; raises PeerProblem with its last words."""
    done = subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise PeerProblem((done.stderr.strip().splitlines() or ["it failed without a word"])[-1])
