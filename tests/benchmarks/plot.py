"""The plot: peers side by side, and how the cost grows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.benchmarks.actors.timing import PERCENTS
from tests.benchmarks.stage import OURS, OURS_WHOLE

if TYPE_CHECKING:
    from pathlib import Path

    from tests.benchmarks.report import Report
    from tests.benchmarks.results import Curve

_ONES = ("0", "50", "90", "99", "99.9")


def draw(report: Report, path: Path) -> None:
    """Write the plot as PNG; raises ImportError without matplotlib."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    curves = {curve.name: curve for curve in report.curves}
    panels: list[Any] = [
        curves[name] for name in ("calls", "publish", "workers", "subscriptions", "memory") if name in curves
    ]
    if report.distributions:
        panels.insert(1, report.distributions)
    if not panels:
        return
    height = (len(panels) + 1) // 2
    figure, axes = pyplot.subplots(height, 2, figsize=(13, 4.5 * height), squeeze=False)
    for panel, ax in zip(panels, axes.flat, strict=False):
        if isinstance(panel, dict):
            _draw_distributions(ax, panel)
        else:
            _draw_curve(ax, panel)
    for ax in axes.flat[len(panels) :]:
        ax.set_visible(False)
    figure.suptitle(f"LightLink {report.machine['lightlink']} against others, {report.machine['processor']}")
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=90)
    pyplot.close(figure)


def _draw_curve(ax: Any, curve: Curve) -> None:
    for label, values in curve.series.items():
        points = [(x, y) for x, y in zip(curve.x, values, strict=False) if y is not None]
        if points:
            ax.plot(*zip(*points, strict=True), marker="o", markersize=4, label=label, **_emphasis(label))
    memory = curve.name == "memory"
    if not memory:
        ax.set_xscale("log", base=2)
        ax.set_xticks(curve.x, [f"{x:,.0f}" for x in curve.x])
    if curve.name == "publish":
        ax.set_yscale("log")
    else:
        ax.set_ylim(0, ax.get_ylim()[1] * 1.15)
    ax.set_title(f"{curve.y_label} by {curve.x_label}")
    ax.set_xlabel(curve.x_label)
    ax.set_ylabel(curve.y_label)
    ax.grid(alpha=0.3)
    ax.legend(fontsize=8)


def _draw_distributions(ax: Any, distributions: dict[str, list[float]]) -> None:
    """Draw each side's percentiles, stretched towards the slow end, where it matters."""
    import math

    def stretched(percent: float) -> float:
        return -math.log10(1 - percent / 100)

    for label, values in distributions.items():
        ax.plot([stretched(percent) for percent in PERCENTS], values, label=label, **_emphasis(label))
    ax.set_xticks([stretched(float(percent)) for percent in _ONES], [f"p{percent}" for percent in _ONES])
    ax.set_yscale("log")
    ax.set_title("time of a call, one caller")
    ax.set_ylabel("microseconds")
    ax.grid(alpha=0.3, which="both")
    ax.legend(fontsize=8)


def _emphasis(label: str) -> dict[str, Any]:
    if label == OURS:
        return {"linewidth": 2.5, "color": "black"}
    return {"linewidth": 2.5, "color": "black", "linestyle": "--"} if label == OURS_WHOLE else {"linewidth": 1.2}
