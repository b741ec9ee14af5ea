"""This LightLink against another version of it, say that of the last commit: does the change pay?

    git worktree add /tmp/before HEAD
    python -m tests.benchmarks P3 P4 --before /tmp/before

Processor time differs less from run to run than the time on the clock does.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from tests.benchmarks.results import Row, compare
from tests.benchmarks.stage import OURS, WORKERS, alternate, costed

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.benchmarks.side import Side
    from tests.benchmarks.stage import Stage

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
