"""The table, as rich shows it and as Markdown; JSON with everything."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import attrs
from rich.table import Table

from tests.benchmarks import results

if TYPE_CHECKING:
    from pathlib import Path

    from tests.benchmarks.results import Curve, Row

_HEADINGS = ("", "measure", "against", "ours", "theirs", "ratio", "at least", "hoped for", "verdict")
_STYLES = {results.HOPED: "bold green", results.REACHED: "green", results.MISSED: "bold red"}
_BEGIN = "<!-- results -->"
_END = "<!-- end of results -->"


@attrs.frozen
class Report:
    """A run: when, on what, for how long, and what it found. ``distributions`` are percentiles in microseconds."""

    machine: dict[str, str]
    run: dict[str, Any]
    rows: list[Row]
    curves: list[Curve]
    distributions: dict[str, list[float]]

    def write_json(self, path: Path) -> None:
        """Write everything, each round's figures too."""
        everything = {
            "machine": self.machine,
            "run": self.run,
            "rows": [row.as_dict() for row in self.rows],
            "curves": [attrs.asdict(curve) for curve in self.curves],
            "distributions": self.distributions,
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(everything, indent=1) + "\n")

    def table(self) -> Table:
        """Return the table of the measures."""
        table = Table(title=f"LightLink against others, {self.run['effort']} run of {self.run['seconds']:.0f} s")
        for heading in _HEADINGS:
            numeric = heading in ("ours", "theirs", "ratio", "at least", "hoped for")
            table.add_column(heading, justify="right" if numeric else "left", overflow="fold")
        before = ""
        for row in self.rows:
            if row.measure != before and before:
                table.add_section()
            before = row.measure
            table.add_row(*_cells(row), style=_STYLES.get(row.verdict, "dim" if row.ratio is None else ""))
        return table

    def curve_tables(self) -> list[Table]:
        """Return a table for each curve."""
        tables = []
        for curve in self.curves:
            table = Table(title=f"{curve.y_label} by {curve.x_label}")
            table.add_column("")
            for x in curve.x:
                table.add_column(_axis(x), justify="right")
            for label, values in curve.series.items():
                table.add_row(label, *[_figure(value) for value in values])
            for label, problem in curve.problems.items():
                table.add_row(f"{label}: {problem}", style="dim")
            tables.append(table)
        return tables

    def markdown(self) -> str:
        """Return the tables, the plot and the machine for the README."""
        when = f"{self.run['started']}, {self.run['effort']} run of {self.run['seconds']:.0f} s"
        lines = [f"{when}; LightLink on {self.run['loop']}; load of the machine before: {self.run['load']}.", ""]
        lines += [", ".join(f"{name} {what}" for name, what in self.machine.items()) + ".", ""]
        lines += markdown_table(_HEADINGS, [_cells(row) for row in self.rows])
        lines += ["", "![throughput, latency and growth, peers side by side](results.png)", ""]
        for curve in self.curves:
            lines += [f"{curve.y_label} by {curve.x_label}:", ""]
            body = [(label, *[_figure(value) for value in values]) for label, values in curve.series.items()]
            lines += markdown_table(("", *[_axis(x) for x in curve.x]), body)
            lines += ["", *[f"{label}: {problem}." for label, problem in curve.problems.items()], ""]
        return "\n".join(lines).rstrip() + "\n"

    def publish(self, readme: Path) -> None:
        """Put the tables into the README, in place of those of the run before."""
        publish(readme, _BEGIN, self.markdown(), _END)


def publish(page: Path, begin: str, text: str, end: str) -> None:
    """Put text into a page, in place of what stands between two marks."""
    before, _, rest = page.read_text().partition(begin)
    _, _, after = rest.partition(end)
    page.write_text(f"{before}{begin}\n{text}{end}{after}")


def markdown_table(headings: tuple[str, ...], body: list[tuple[str, ...]]) -> list[str]:
    """Return the lines of a table."""
    rows = [headings, tuple("---" for _ in headings), *body]
    return ["| " + " | ".join(cells) + " |" for cells in rows]


def _cells(row: Row) -> tuple[str, ...]:
    ratio = row.problem if row.ratio is None else f"{row.ratio:.2f}x"
    unit = "" if row.absolute else "x"
    sign = "<= " if row.less else ">= "
    at_least, hoped = ("" if want is None else f"{sign}{want:g}{unit}" for want in (row.at_least, row.hoped))
    ours, theirs = (f"{_figure(value)} {row.unit}" if value is not None else "-" for value in (row.ours, row.theirs))
    return (row.measure, row.what, row.peer, ours, theirs, ratio, at_least, hoped, row.verdict)


def _axis(x: float) -> str:
    return f"{x / 1e6:g} M" if x >= 1e6 else f"{x:,.0f}"


def _figure(value: float | None) -> str:
    """Return a number with three digits that mean something."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
