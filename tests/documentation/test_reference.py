"""The reference has every public name, and the site is built without a warning."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from helpers.pages import ROOT, pages

import lightlink

# Modules that people import, and whose names are all in `__all__`.
MODULES = (
    "",
    ".certs",
    ".commands",
    ".conformance",
    ".contrib.flask",
    ".contrib.opentelemetry",
    ".fleet",
    ".gateway",
    ".http",
    ".metrics",
    ".runs",
    ".server",
    ".streams",
)
REFERENCE = "".join(path.read_text() for path in (ROOT / "docs" / "reference").glob("*.md"))
WHOLE = re.findall(r"automodule:: ([\w.]+)", REFERENCE)


def is_told(module: str, name: str, value: Any) -> bool:
    """Tell whether a name is in the reference, or is no class or function of ours."""
    if not callable(value) or not getattr(value, "__module__", "").startswith("lightlink"):
        return True
    in_whole = module in WHOLE or value.__module__ in WHOLE
    return in_whole or re.search(rf"auto\w+:: [\w.]+\.{name}\n", REFERENCE) is not None


@pytest.mark.parametrize("module", [f"lightlink{each}" for each in MODULES])
def test_every_public_name_is_in_the_reference(module: str) -> None:
    loaded = importlib.import_module(module)
    names = loaded.__all__
    assert names
    assert [name for name in names if not is_told(module, name, getattr(loaded, name))] == []


def test_what_the_reference_names_is_there() -> None:
    for path in re.findall(r"auto(?:class|function):: ([\w.]+)", REFERENCE):
        module, _, name = path.rpartition(".")
        assert hasattr(importlib.import_module(module), name), path
    assert lightlink.__version__ in (ROOT / "lightlink" / "version.py").read_text()


def test_words_are_spelled_as_in_a_dictionary() -> None:
    prose = re.search(r"^PROSE := \$\(wildcard \*\.md\) (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert prose is not None
    names = [*(path.name for path in ROOT.glob("*.md")), *prose[1].split()]
    assert [page for page in pages() if not any(page == name or page.startswith(f"{name}/") for name in names)] == []
    command = [sys.executable, "-m", "codespell_lib", *names]
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True, timeout=60)
    assert done.stdout == ""
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("sphinx", reason="the site's tools are in the extra docs")
    options = ["-W", "--keep-going", "-q", "-b", "dirhtml"]
    command = [sys.executable, "-m", "sphinx", *options, str(ROOT / "docs"), str(tmp_path)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "tutorial" / "index.html").exists()
    assert [link for page in tmp_path.rglob("*.html") for link in broken_links(page)] == []


def broken_links(page: Path) -> list[str]:
    """Return the links of a page of the site that lead nowhere, and those that have been left as they were."""
    text = page.read_text()
    local = [unquote(link) for link in re.findall(r'(?:href|src)="(?![a-z]+:|#|//)([^"?#]+)', text)]
    unresolved = re.findall(r'<span class="xref myst">([^<]*)', text)
    return [f"{page.parent.name}: {link}" for link in local if not (page.parent / link).exists()] + unresolved
