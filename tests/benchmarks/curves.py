"""How the cost grows: with callers, with the size of a message, with workers, with subscriptions, with time."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any

from tests.benchmarks.results import Curve
from tests.benchmarks.side import PeerProblem
from tests.benchmarks.stage import ASYNCIO, CALLERS, OURS, OURS_WHOLE, alternate

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.benchmarks.stage import Stage

_SIZES = (16, 256, 4 * 1024, 32 * 1024, 128 * 1024, 512 * 1024)
_WORKERS = (1, 2, 4, 8, 32)
_SUBSCRIPTIONS = (1, 10, 100, 1000)
_CALLER_COUNTS = (1, 4, 16, 64, 256)
# Of those that need a connection, or a thread at the other end, for each caller.
_MOST_CALLERS = 64
_BUSY_SECONDS = 0.001
_MEMORY_SAMPLES = 10


def callers(stage: Stage) -> Curve:
    """Calls per second over the number of callers."""

    def act(label: str, count: int, seconds: float) -> Callable[[], Any]:
        return lambda: stage.caller(label).do("rate", callers=count, seconds=seconds)["rate"]

    def wanted(label: str, count: int) -> bool:
        return count <= _MOST_CALLERS or label in (OURS, OURS_WHOLE, ASYNCIO)

    return _curve(stage, "calls", ("callers", "calls/s"), _CALLER_COUNTS, list(CALLERS), act, wanted)


def sizes(stage: Stage) -> Curve:
    """Messages published per second over their size."""

    def act(label: str, size: int, seconds: float) -> Callable[[], Any]:
        return lambda: stage.publisher(label).do("rate", seconds=seconds, size=size)

    return _curve(stage, "publish", ("bytes", "messages/s"), _SIZES, [OURS, ASYNCIO], act)


def workers(stage: Stage) -> Curve:
    """Requests served per second over the number of workers, with handlers that wait or compute for a millisecond."""
    kinds = {"handler sleeps 1 ms": False, "handler computes for 1 ms": True}

    def act(label: str, count: int, seconds: float) -> Callable[[], Any]:
        name = f"w{count}{'c' if kinds[label] else 's'}"
        settings = {"name": name, "workers": count, "busy": _BUSY_SECONDS, "burn": kinds[label]}

        def served() -> Any:
            stage.nats("services:Ours", **settings).start()
            return stage.nats("raw:Load").do("enveloped", service=name, seconds=seconds, in_flight=2 * count)

        return served

    return _curve(stage, "workers", ("workers", "requests/s"), _WORKERS, list(kinds), act)


def subscriptions(stage: Stage) -> Curve:
    """Messages handled per second over the number of subscriptions they are spread over."""
    actors = {OURS: "Ours", ASYNCIO: "Asyncio"}

    def act(label: str, count: int, seconds: float) -> Callable[[], Any]:
        def receive() -> Any:
            messages = max(1000, int(50_000 * seconds))
            side = stage.nats(f"subscribers:{actors[label]}", subscriptions=count)
            side.do("expect", messages=messages)
            prefix = f"bench.{count}.{actors[label].lower()}"
            stage.nats("raw:Load").do("spray", prefix=prefix, subjects=count, messages=messages)
            return side.do("rate")

        return receive

    return _curve(stage, "subscriptions", ("subscriptions", "messages/s"), _SUBSCRIPTIONS, list(actors), act)


def long_run(stage: Stage) -> Curve:
    """The publisher's memory over the messages it has published, in a process that does nothing else."""
    messages = stage.effort.long_run
    at = [messages * number / _MEMORY_SAMPLES for number in range(_MEMORY_SAMPLES + 1)]
    series: dict[str, list[float | None]] = {}
    problems = {}
    if stage.is_late:
        problems[OURS] = "no time was left"
    else:
        try:
            side = stage.nats("publishers:Ours", alone=True)
            side.do("rate", seconds=stage.effort.curve_slice)
            series[OURS] = side.do("run", messages=messages, samples=_MEMORY_SAMPLES)[: len(at)]
        except PeerProblem as exc:
            problems[OURS] = str(exc)
    return Curve(
        name="memory", x_label="messages published", y_label="resident MiB", x=at, series=series, problems=problems
    )


def _curve(
    stage: Stage,
    name: str,
    axes: tuple[str, str],
    points: tuple[int, ...],
    labels: list[str],
    act: Callable[[str, int, float], Callable[[], Any]],
    wanted: Callable[[str, int], bool] = lambda label, point: True,
) -> Curve:
    """Measure each label at each point, the labels in turn; ``act`` makes what is done for (label, point, seconds)."""
    series: dict[str, list[float | None]] = {label: [] for label in labels}
    problems: dict[str, str] = {}
    seconds = stage.effort.curve_slice
    for point in points:
        taking_part = [label for label in labels if label not in problems and wanted(label, point)]
        rounds = alternate(
            stage,
            {label: act(label, point, seconds) for label in taking_part},
            rounds=stage.effort.curve_rounds,
            warm_up={label: act(label, point, seconds / 3) for label in taking_part},
        )
        problems.update(rounds.problems)
        for label in labels:
            results = rounds.results.get(label)
            series[label].append(statistics.median(results) if results else None)
    return Curve(
        name=name, x_label=axes[0], y_label=axes[1], x=[float(p) for p in points], series=series, problems=problems
    )
