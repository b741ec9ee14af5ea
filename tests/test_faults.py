"""docs/faults.md tells no more than there are tests for."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_every_test_that_is_named_exists() -> None:
    named = set(re.findall(r"`(test_\w+)`", (ROOT / "docs/faults.md").read_text()))
    there = {
        name for file in (ROOT / "tests").rglob("test_*.py") for name in re.findall(r"def (test_\w+)", file.read_text())
    }
    assert len(named) > 50
    assert named - there == set()


def test_every_file_that_the_guarantees_name_exists() -> None:
    guarantees = (ROOT / "docs/guarantees.md").read_text()
    table = guarantees[guarantees.index("| Fault |") :].partition("\n\n")[0]
    named = set(re.findall(r"`(tests/[\w/.]+)`", table))
    assert named
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []
