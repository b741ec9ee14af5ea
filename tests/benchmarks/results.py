"""What is reported: a row a comparison, a curve a cost that grows."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any

import attrs

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.benchmarks.stage import Rounds

HOPED = "as hoped"
REACHED = "reached"
MISSED = "missed"
NOT_MEASURED = "not measured"
NONE_WANTED = ""


@attrs.frozen(kw_only=True)
class Row:
    """A comparison. ``ours`` and ``theirs`` are medians over the rounds, ``ratio`` the median of each round's ratio.

    ``at_least`` and ``hoped`` are for the ratio, or for ``ours`` when there is none; ``less`` says that less is better.
    """

    measure: str
    what: str
    peer: str
    unit: str
    less: bool = False
    ours: float | None = None
    theirs: float | None = None
    ratio: float | None = None
    at_least: float | None = None
    hoped: float | None = None
    samples: dict[str, list[float]] = attrs.field(factory=dict)
    problem: str = ""
    absolute: bool = False

    @property
    def verdict(self) -> str:
        """Whether it is as good as wanted."""
        value = self.ours if self.absolute else self.ratio
        if value is None:
            return NOT_MEASURED
        if self.at_least is None or self.hoped is None:
            return NONE_WANTED
        if self._is_within(value, self.hoped):
            return HOPED
        return REACHED if self._is_within(value, self.at_least) else MISSED

    def _is_within(self, value: float, limit: float) -> bool:
        return value <= limit if self.less else value >= limit

    def as_dict(self) -> dict[str, Any]:
        """Return everything, for JSON."""
        return {**attrs.asdict(self), "verdict": self.verdict}


@attrs.frozen(kw_only=True)
class Curve:
    """How a figure changes with another: a ``y`` for each ``x``, by series; None where it could not be measured."""

    name: str
    x_label: str
    y_label: str
    x: list[float]
    series: dict[str, list[float | None]]
    problems: dict[str, str] = attrs.field(factory=dict)


def compare(
    rounds: Rounds,
    ours: str,
    theirs: str,
    pick: Callable[[Any], float] = float,
    *,
    wanted: tuple[float, float] | None = None,
    peer: str = "",
    **about: Any,
) -> Row:
    """Return the row that compares two sides. ``wanted``: the ratio wanted at least, and hoped for."""
    mine, yours = rounds.series(ours, pick), rounds.series(theirs, pick)
    ratios = [one / other for one, other in zip(mine, yours, strict=False)]
    at_least, hoped = wanted or (None, None)
    return Row(
        peer=peer or theirs,
        ours=statistics.median(mine) if mine else None,
        theirs=statistics.median(yours) if yours else None,
        ratio=statistics.median(ratios) if ratios else None,
        at_least=at_least,
        hoped=hoped,
        samples={ours: mine, theirs: yours},
        problem=rounds.problems.get(ours, "") or rounds.problems.get(theirs, ""),
        **about,
    )
