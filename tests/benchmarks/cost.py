"""What those cost that are there and do nothing: memory, threads, processor time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.benchmarks.results import Row, compare
from tests.benchmarks.stage import alternate

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.benchmarks.side import Side
    from tests.benchmarks.stage import Stage

_BARE = "nats-py, bare"
_ACTORS = {"client": "Client", "service": "Service", "agent": "Agent", "manager": "Manager", _BARE: "Bare"}


def idle(stage: Stage) -> list[Row]:
    """cost: memory, threads and processor time of those who do nothing."""
    sides = {label: stage.nats(f"idle:{actor}", alone=True) for label, actor in _ACTORS.items()}

    def watch() -> dict[str, list[float]]:
        """All at once, so that a minute is a minute."""
        before = {label: side.cpu() for label, side in sides.items()}
        next(iter(sides.values())).do("wait", seconds=stage.effort.idle)
        return {label: _of(side, before[label], stage.effort.idle) for label, side in sides.items()}

    found: dict[str, list[float]] = {}

    def act(label: str) -> list[float]:
        if not found:
            found.update(watch())
        return found[label]

    acts: dict[str, Callable[[], Any]] = {label: (lambda label=label: act(label)) for label in sides}
    rounds = alternate(stage, acts, rounds=1, warm_up={})
    figures = (("resident memory of an idle {}", "MiB"), ("threads of an idle {}", ""), ("CPU a minute, idle {}", "ms"))
    return [
        compare(
            rounds,
            label,
            _BARE,
            lambda got, at=at: float(got[at]),
            measure="cost",
            what=what.format(label),
            unit=unit,
            less=True,
        )
        for at, (what, unit) in enumerate(figures)
        for label in sides
        if label != _BARE
    ]


def _of(side: Side, before: float, seconds: float) -> list[float]:
    """Return memory (MiB), threads, and processor time (ms a minute)."""
    used = (side.cpu() - before) * 1e3 * 60 / seconds
    return [side.do("memory"), side.do("threads"), max(used, 0.001)]
