"""The benchmark's harness: it runs, it tells everything, and it leaves no peer out silently."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import pytest
from helpers.process import ROOT, run_python

if TYPE_CHECKING:
    from pathlib import Path

_RUN = """
import runpy, sys
sys.argv[0] = "bench"
runpy.run_module("tests.benchmarks", run_name="__main__")
"""


def test_a_measure_compares_both_sides_and_writes_json(tmp_path: Path) -> None:
    finished = run_python(_RUN, "P1", "P1b", "cost", "--tiny", "--json", tmp_path / "all.json")
    assert finished.returncode == 0, finished.stderr
    report: dict[str, Any] = json.loads((tmp_path / "all.json").read_text())
    rows = {row["peer"]: row for row in report["rows"]}
    for peer in ("nats-py asyncio", "run_coroutine_threadsafe"):
        row = rows[peer]
        assert row["ratio"] == row["ours"] / row["theirs"]
        assert row["samples"] == {"LightLink": [row["ours"]], peer: [row["theirs"]]}
        assert row["verdict"] in ("as hoped", "reached", "missed")
    assert rows["pynats2"]["ratio"] or rows["pynats2"]["problem"]
    if sys.version_info < (3, 13):
        assert "nats-core needs Python 3.13" in rows["nats-core"]["problem"]
    assert report["machine"]["nats-py"] != "not installed"
    costs = {row["what"]: row["ours"] for row in report["rows"] if row["measure"] == "cost"}
    assert costs["resident memory of an idle client"] > 1
    assert costs["threads of an idle client"] >= 1


def test_the_growth_of_a_fleet_is_measured_when_asked_for(tmp_path: Path) -> None:
    finished = run_python(_RUN, "scale", "--tiny", "--json", tmp_path / "all.json")
    assert finished.returncode == 0, finished.stderr
    report: dict[str, Any] = json.loads((tmp_path / "all.json").read_text())
    curves = {curve["name"]: curve for curve in report["curves"]}
    assert set(curves) == {"directory", "fleet", "commands"}
    for curve in curves.values():
        assert curve["x"] == [10.0]
        assert all(values[0] >= 0 for values in curve["series"].values())


@pytest.mark.slow
def test_each_row_of_quic_is_measured(tmp_path: Path) -> None:
    finished = run_python(_RUN, "quic", "--tiny", "--json", tmp_path / "all.json", timeout=400)
    assert finished.returncode == 0, finished.stderr
    rows = json.loads((tmp_path / "all.json").read_text())["rows"]
    assert len(rows) == 12
    assert all(row["ours"] > 0 for row in rows)


def test_a_row_of_quic_is_measured_by_itself(tmp_path: Path) -> None:
    finished = run_python(_RUN, "P18-memory", "--tiny", "--json", tmp_path / "all.json", timeout=120)
    assert finished.returncode == 0, finished.stderr
    (row,) = json.loads((tmp_path / "all.json").read_text())["rows"]
    assert (row["measure"], row["unit"]) == ("P18", "KiB")
    assert row["ours"] > 0


def test_another_version_is_compared_with_this_one(tmp_path: Path) -> None:
    finished = run_python(_RUN, "P7", "P10", "--tiny", "--before", ROOT, "--json", tmp_path / "all.json")
    assert finished.returncode == 0, finished.stderr
    rows = json.loads((tmp_path / "all.json").read_text())["rows"]
    assert [(row["measure"], row["peer"]) for row in rows] == [("P7", "before")] * 2 + [("P10", "before")]
    assert all(row["ratio"] > 0 for row in rows)


def test_each_python_has_a_column_and_the_page_keeps_the_rest(tmp_path: Path) -> None:
    """Without making an environment: what is installed here stands for two of them, and a third cannot be made."""
    page = tmp_path / "README.md"
    page.write_text("before\n<!-- pythons -->\nold\n<!-- end of pythons -->\nafter\n")
    finished = run_python(
        """
        import pathlib, sys
        from tests.benchmarks import pythons
        from tests.benchmarks.side import PeerProblem

        def make(version, python):
            if version == "3.99":
                raise PeerProblem("there is none")
            return python

        here = pathlib.Path(sys.executable)
        assert here in pythons.find().values()
        found = pythons.measure({"3.98": here, "3.99": here}, ["--tiny"], make=make, measures=["P4"])
        assert found.table().row_count > 1
        found.publish(pathlib.Path(sys.argv[1]))
        """,
        page,
    )
    assert finished.returncode == 0, finished.stderr
    before, _, _, _, heading, _, first, *_, problem, _, after = page.read_text().splitlines()
    assert (before, after) == ("before", "after")
    assert heading == "|  | measure | against | 3.98 |"
    assert first.startswith("| P4 | requests served, 8 workers | nats.micro | ")
    assert first.endswith("x |")
    assert problem == "3.99: there is none"


def test_a_peer_that_is_not_installed_is_reported() -> None:
    finished = run_python(
        """
        import sys
        from tests.benchmarks.effort import TINY
        from tests.benchmarks.results import NOT_MEASURED, compare
        from tests.benchmarks.side import Side
        from tests.benchmarks.stage import Stage, alternate

        stage = Stage(TINY, "nats://127.0.0.1:1")
        absent = Side("no_such_peer:Caller")
        rounds = alternate(stage, {"here": lambda: 2.0, "absent": lambda: absent.do("rate")})
        row = compare(rounds, "here", "absent", measure="P0", what="nothing", unit="/s")
        assert (row.ours, row.theirs, row.verdict) == (2.0, None, NOT_MEASURED), row
        print(row.problem)
        """
    )
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.strip().endswith("No module named 'tests.benchmarks.actors.no_such_peer'")


def test_what_comes_too_late_for_the_run_is_not_measured() -> None:
    finished = run_python(
        """
        import attrs
        from tests.benchmarks.effort import TINY
        from tests.benchmarks.stage import Stage, alternate

        stage = Stage(attrs.evolve(TINY, limit=-1.0), "nats://127.0.0.1:1")
        rounds = alternate(stage, {"one": lambda: 1.0})
        assert rounds.results == {}
        print(rounds.problems)
        """
    )
    assert finished.stdout.strip() == "{'one': 'no time was left'}", finished.stderr
