"""This LightLink against another version of it, say that of the last commit: does the change pay?

    git worktree add /tmp/before HEAD
    python -m tests.benchmarks P3 P4 --before /tmp/before

Processor time differs less from run to run than the time on the clock does.
"""

from __future__ import annotations

import statistics
import tempfile
from functools import partial
from typing import TYPE_CHECKING, Any

from tests.benchmarks.measures import FIRST_USE, time_of
from tests.benchmarks.results import Row, compare
from tests.benchmarks.side import ROOT
from tests.benchmarks.stage import OURS, WORKERS, alternate, costed
from tests.benchmarks.storage import FILE_ROUNDS, file_of, move

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.benchmarks.side import Side
    from tests.benchmarks.stage import Rounds, Stage

_BEFORE = "LightLink before"
_CALLERS = 32


def publish(stage: Stage) -> list[Row]:
    """P1: publish encoded bytes from one thread."""

    def act(side: Side, _name: str) -> dict[str, float]:
        began = side.cpu()
        rate = side.do("rate", seconds=stage.effort.slice)
        return {"rate": rate, "cpu": (side.cpu() - began) / (rate * stage.effort.slice) * 1e6}

    return _rows(stage, "P1", "publish, 1 thread", "publishers:Ours", {}, act)


def call(stage: Stage) -> list[Row]:
    """P2: the time of a call, one caller."""

    def act(side: Side, _name: str) -> dict[str, float]:
        stage.nats("raw:Echo").start()
        return costed(side, "times", count=stage.effort.calls)

    return _rows(stage, "P2", "call p50, 1 caller", "callers:Ours", {"service": "plain"}, act)


def calls(stage: Stage) -> list[Row]:
    """P3: calls per second of 32 callers."""

    def act(side: Side, _name: str) -> dict[str, float]:
        stage.nats("raw:Echo").start()
        return costed(side, "rate", callers=_CALLERS, seconds=stage.effort.slice)

    return _rows(stage, "P3", f"calls, {_CALLERS} callers", "callers:Ours", {"service": "plain"}, act)


def serve(stage: Stage) -> list[Row]:
    """P4: requests per second that a service with 8 workers answers."""

    def act(side: Side, name: str) -> dict[str, float]:
        side.start()
        return stage.load(side, {"service": name}, stage.effort.slice)

    return _rows(stage, "P4", f"requests served, {WORKERS} workers", "services:Ours", {"workers": WORKERS}, act, True)


def files(stage: Stage) -> list[Row]:
    """P5: the time of an upload and a download."""
    size = stage.effort.file_mib
    with file_of(size) as path:
        acts = {label: partial(move, side, path) for label, side in _apart(stage, "transfers:Ours").items()}
        rounds = alternate(stage, acts, min(FILE_ROUNDS, stage.effort.rounds))
    return [
        _compare(rounds, "P5", f"{what} of {size} MiB", "s", lambda got, place=place: got[place])
        for place, what in enumerate(("upload", "download"))
    ]


def state(stage: Stage) -> list[Row]:
    """P7: the time of a write and a read of retained state."""

    def act(side: Side) -> list[float]:
        return [side.do(what, count=stage.effort.stored_calls)["p50"] for what in ("put_times", "get_times")]

    rounds = alternate(stage, {label: partial(act, side) for label, side in _apart(stage, "stores:Ours").items()})
    return [
        _compare(rounds, "P7", f"{what} p50", "us", lambda got, place=place: got[place])
        for place, what in enumerate(("set_state", "get_state"))
    ]


def command(stage: Stage) -> list[Row]:
    """P8: the time of a command, from send to result."""
    agents = _apart(stage, "orders:Agent")

    def act(label: str, manager: Side) -> float:
        agents[label].start()
        return float(manager.do("command_times", count=stage.effort.stored_calls)["p50"])

    rounds = alternate(stage, {label: partial(act, label, side) for label, side in _managers(stage).items()})
    return [_compare(rounds, "P8", "command, send to result, p50", "us", float)]


def batch(stage: Stage) -> list[Row]:
    """P9: the time in which a batch of commands is stored, for each of them."""
    count = stage.effort.batch

    def act(manager: Side) -> float:
        return 1e6 / float(manager.do("accept", count=count))

    acts = {label: partial(act, side) for label, side in _managers(stage).items()}
    rounds = alternate(stage, acts, min(FILE_ROUNDS, stage.effort.rounds))
    return [_compare(rounds, "P9", f"a command stored, batch of {count:,}", "us", float)]


def imports(stage: Stage) -> list[Row]:
    """P10: the time of the import and the first use in a new interpreter."""
    assert stage.before is not None
    with tempfile.TemporaryDirectory() as cache:

        def act(root: Path) -> float:
            return statistics.median(time_of(FIRST_USE, root, cache) for _ in range(stage.effort.imports))

        rounds = alternate(stage, {OURS: partial(act, ROOT), _BEFORE: partial(act, stage.before)})
    return [_compare(rounds, "P10", "import and first use", "ms", float)]


def _managers(stage: Stage) -> dict[str, Side]:
    return _apart(stage, "orders:Manager")


def _apart(stage: Stage, actor: str) -> dict[str, Side]:
    """Return both versions of an actor, each with a server of its own: what they store may not agree."""
    assert stage.before is not None
    return {OURS: stage.nats(actor), _BEFORE: stage.side(actor, root=stage.before, url=stage.before_url)}


def _compare(rounds: Rounds, measure: str, what: str, unit: str, pick: Callable[[Any], float]) -> Row:
    return compare(rounds, OURS, _BEFORE, pick, measure=measure, what=what, unit=unit, less=True, peer="before")


def _rows(
    stage: Stage,
    measure: str,
    what: str,
    actor: str,
    settings: dict[str, Any],
    act: Callable[[Side, str], dict[str, float]],
    named: bool = False,
) -> list[Row]:
    """Compare both versions of an actor: the time or rate that ``act`` returns, and the processor time."""
    sides: dict[str, Callable[[], Any]] = {}
    for label, name, where in ((OURS, "now", {}), (_BEFORE, "before", {"root": stage.before})):
        side = stage.nats(actor, **settings, **where, **({"name": name} if named else {}))
        sides[label] = partial(act, side, name)
    rounds = alternate(stage, sides)
    figure = "p50" if measure == "P2" else "rate"
    unit = "us" if measure == "P2" else "/s"
    about: dict[str, Any] = {"measure": measure, "peer": "before"}
    return [
        compare(
            rounds, OURS, _BEFORE, lambda got: float(got[figure]), what=what, unit=unit, less=unit == "us", **about
        ),
        compare(
            rounds, OURS, _BEFORE, lambda got: float(got["cpu"]), what="processor time", unit="us", less=True, **about
        ),
    ]
