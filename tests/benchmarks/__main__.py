"""Measure LightLink against what users would pick instead: ``python -m tests.benchmarks [P1 P2 ...] [--quick]``."""

from __future__ import annotations

import argparse
import datetime
import importlib.util
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
from rich.console import Console

from lightlink.server import EmbeddedServer
from tests.benchmarks import against, cost, curves, edge, machine, measures, pythons, quic, scale, storage
from tests.benchmarks.effort import FULL, QUICK, TINY
from tests.benchmarks.plot import draw
from tests.benchmarks.report import Report
from tests.benchmarks.stage import Stage

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.benchmarks.effort import Effort
    from tests.benchmarks.results import Curve, Row

_HERE = Path(__file__).parent
_MEASURES: dict[str, Callable[[Stage], list[Row]]] = {
    "P1": measures.publish,
    "P1b": measures.publish_core,
    "P2": measures.call,
    "P3": measures.calls,
    "P4": measures.serve,
    "P5": storage.files,
    "P6": storage.memory,
    "P7": storage.state,
    "P8": storage.command,
    "P9": storage.batch,
    "P10": measures.imports,
    "P11": measures.calls_from_one,
    "P12": edge.beside_upload,
    "P13": measures.publish_large,
    "P14": edge.over_tls,
    "P15": storage.durable,
    "P16": storage.runs,
    **quic.ROWS,
    "cost": cost.idle,
}
_AGAINST: dict[str, Callable[[Stage], list[Row]]] = {
    "P1": against.publish,
    "P2": against.call,
    "P3": against.calls,
    "P4": against.serve,
    "P5": against.files,
    "P7": against.state,
    "P8": against.command,
    "P9": against.batch,
    "P10": against.imports,
}
_CURVES: dict[str, Callable[[Stage], Curve]] = {
    "callers": curves.callers,
    "sizes": curves.sizes,
    "workers": curves.workers,
    "subscriptions": curves.subscriptions,
    "memory": curves.long_run,
}
# Minutes of certificates and commands: only when asked for.
_SCALE: dict[str, Callable[[Stage], Curve]] = {
    "directory": scale.directory,
    "fleet": scale.fleet,
    "commands": scale.commands,
}

# What the pages of the design call them.
_ALIASES = {"P17": ["scale"], "P18": list(quic.ROWS), "quic": list(quic.ROWS)}
# P2 to P4 on each Python that is here.
_PYTHONS = "pythons"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    names = [*_MEASURES, *_CURVES, *_ALIASES, "scale", _PYTHONS]
    parser.add_argument(
        "what",
        nargs="*",
        metavar="MEASURE",
        help=f"of {' '.join(names)}; without, all but scale (P17) and {_PYTHONS}",
        default=[],
    )
    parser.add_argument("--quick", action="store_true", help="end within two minutes")
    parser.add_argument("--tiny", action="store_true", help="only see that it works")
    parser.add_argument("--rounds", type=int, help="rounds of each comparison")
    parser.add_argument("--slice", type=float, help="seconds that a side is measured in a round, for rates")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="write the plot, as PNG")
    parser.add_argument("--publish", action="store_true", help="put tables and plot into tests/benchmarks/README.md")
    parser.add_argument("--without-uvloop", action="store_true", help="let LightLink run on asyncio's own loop")
    parser.add_argument(
        "--before", type=Path, metavar="DIR", help="P1 to P10 against the lightlink in DIR, not the peers"
    )
    arguments = parser.parse_args()
    unknown = set(arguments.what) - set(names)
    if unknown:
        parser.error(f"there is no {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    if _PYTHONS in arguments.what and arguments.what != [_PYTHONS]:
        parser.error(f"{_PYTHONS} goes by itself")
    arguments.what = [each for name in arguments.what for each in _ALIASES.get(name, [name])]
    return arguments


def main() -> None:
    """Measure, print the tables, write what was asked for. Exit with 1 when LightLink itself could not be measured."""
    arguments = _arguments()
    effort = TINY if arguments.tiny else QUICK if arguments.quick else FULL
    given = {name: value for name in ("rounds", "slice") if (value := getattr(arguments, name)) is not None}
    effort = attrs.evolve(effort, **given)
    console = Console(width=None if sys.stdout.isatty() else 140)
    if arguments.what == [_PYTHONS]:
        _compare_pythons(effort, arguments, console)
        return
    load = machine.load()
    started = time.monotonic()
    with EmbeddedServer() as server, EmbeddedServer() if arguments.before else nullcontext() as other:
        before_url = other.url if other else ""
        stage = Stage(effort, server.url, arguments.without_uvloop, arguments.before, before_url=before_url)
        try:
            rows, found = _measure(stage, arguments.what, console)
        finally:
            stage.close()
    uvloop = not arguments.without_uvloop and importlib.util.find_spec("uvloop") is not None
    run = {
        "started": _now(),
        "effort": effort.name,
        "rounds": effort.rounds,
        "seconds": time.monotonic() - started,
        "loop": "uvloop" if uvloop else "asyncio's own loop",
        "load": load,
        "seconds_by_measure": stage.seconds,
    }
    report = Report(machine.describe(), run, rows, found, stage.distributions)
    if rows:
        console.print(report.table())
    for table in report.curve_tables():
        console.print(table)
    _write(report, arguments, console)
    if any(row.ours is None for row in rows):
        sys.exit(1)


def _measure(stage: Stage, what: list[str], console: Console) -> tuple[list[Row], list[Curve]]:
    rows: list[Row] = []
    found: list[Curve] = []
    with console.status("") as status:
        for name, measure in (_AGAINST if stage.before else _MEASURES).items():
            if not what or name in what:
                status.update(f"{name}: {measure.__doc__}")
                with stage.clock(name):
                    rows += measure(stage)
        for name, curve in ({} if stage.before else _CURVES).items():
            if not what or name in what:
                status.update(f"{name}: {curve.__doc__}")
                with stage.clock(name):
                    found.append(curve(stage))
        for name, curve in (_SCALE if "scale" in what else {}).items():
            status.update(f"{name}: {curve.__doc__}")
            with stage.clock(f"scale {name}"):
                found.append(curve(stage))
    return rows, found


def _compare_pythons(effort: Effort, arguments: argparse.Namespace, console: Console) -> None:
    options = ["--rounds", str(effort.rounds), "--slice", str(effort.slice)]
    options += [f"--{name}" for name in ("quick", "tiny", "without-uvloop") if vars(arguments)[name.replace("-", "_")]]
    about = f"{_now()}, {effort.rounds} rounds of {effort.slice:g} s; load of the machine before: {machine.load()}."
    with console.status("") as status:
        found = pythons.measure(pythons.find(), options, about, status.update)
    console.print(found.table())
    if arguments.json:
        found.write_json(arguments.json)
    if arguments.publish:
        found.publish(_HERE / "README.md")
    if not found.rows:
        sys.exit(1)


def _now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="minutes")


def _write(report: Report, arguments: argparse.Namespace, console: Console) -> None:
    if arguments.json:
        report.write_json(arguments.json)
        console.print(f"everything: {arguments.json}")
    plot = _HERE / "results.png" if arguments.publish else arguments.plot
    if plot:
        try:
            draw(report, plot)
            console.print(f"the plot: {plot}")
        except ImportError as exc:
            console.print(f"no plot: {exc}")
    if arguments.publish:
        report.publish(_HERE / "README.md")


if __name__ == "__main__":
    main()
