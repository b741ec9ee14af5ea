"""The sample's own tests."""

from __future__ import annotations

from helpers.docs import ROOT, run_pytest


def test_the_sample_passes_its_own_tests() -> None:
    assert "4 passed" in run_pytest(ROOT / "samples" / "flask_shop")
