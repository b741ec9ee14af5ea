"""P1 to P4, P10, P11 and P13: publishing, calling, serving, importing."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
from functools import partial
from typing import TYPE_CHECKING, Any

from tests.benchmarks.results import Row, compare
from tests.benchmarks.side import ROOT, PeerProblem
from tests.benchmarks.stage import (
    ASYNCIO,
    CALLERS,
    EXECUTOR,
    GRPC,
    MICRO,
    NATS_CORE,
    NATS_CORE_UVLOOP,
    OURS,
    OURS_WHOLE,
    PUBLISHERS,
    PYNATS2,
    PYRO,
    SERVICES,
    SYNC,
    WRAPPER,
    alternate,
    costed,
)

if TYPE_CHECKING:
    from pathlib import Path

    from tests.benchmarks.stage import Stage

# The number of callers in P3.
_CALLERS = 32
_IN_FLIGHT = 256
# Bytes of the messages in P13.
_LARGE = (4 * 1024, 32 * 1024, 128 * 1024)
_IMPORT = "import lightlink"
FIRST_USE = "import lightlink; lightlink.connect"
_NATS = "import nats"


def _rate(result: dict[str, Any]) -> float:
    return float(result["rate"])


def _cpu(result: dict[str, Any]) -> float:
    return float(result["cpu"])


def _p50(result: dict[str, Any]) -> float:
    return float(result["p50"])


def publish(stage: Stage) -> list[Row]:
    """P1: publish encoded bytes from one thread."""
    seconds = stage.effort.slice

    def act(label: str) -> Any:
        return stage.publisher(label).do("rate", seconds=seconds)

    rounds = alternate(stage, {label: partial(act, label) for label in stage.taking_part(PUBLISHERS)})
    about: dict[str, Any] = {"measure": "P1", "what": "publish, 1 thread, 64 bytes", "unit": "/s"}
    return [
        compare(rounds, OURS, ASYNCIO, wanted=(0.9, 1.2), **about),
        compare(rounds, OURS, WRAPPER, wanted=(30, 80), **about),
        compare(rounds, OURS, SYNC, **about),
        compare(rounds, OURS, PYNATS2, **about),
    ]


def publish_core(stage: Stage) -> list[Row]:
    """P1b: publish encoded bytes from one thread, against the official new client."""

    def act(label: str) -> Any:
        return stage.publisher(label).do("rate", seconds=stage.effort.slice)

    rounds = alternate(stage, {label: partial(act, label) for label in (OURS, NATS_CORE, NATS_CORE_UVLOOP)})
    about: dict[str, Any] = {"measure": "P1b", "what": "publish, 1 thread, 64 bytes", "unit": "/s"}
    return [
        compare(rounds, OURS, NATS_CORE, wanted=(1.0, 1.3), **about),
        compare(rounds, OURS, NATS_CORE_UVLOOP, wanted=(1.0, 1.3), **about),
    ]


def publish_large(stage: Stage) -> list[Row]:
    """P13: publish larger messages from one thread."""
    rows = []
    for size in _LARGE:

        def act(label: str, size: int = size) -> Any:
            return stage.publisher(label).do("rate", seconds=stage.effort.slice, size=size)

        rounds = alternate(stage, {label: partial(act, label) for label in (OURS, ASYNCIO)})
        what = f"publish, 1 thread, {size // 1024} KiB"
        rows.append(compare(rounds, OURS, ASYNCIO, wanted=(1.0, 1.2), measure="P13", what=what, unit="/s"))
    return rows


def calls_from_one(stage: Stage) -> list[Row]:
    """P11: calls per second from one thread, 256 of them under way."""

    def act(label: str) -> Any:
        method = "map_rate" if label == OURS else "rate"
        return costed(stage.caller(label), method, callers=_IN_FLIGHT, seconds=stage.effort.slice)

    rounds = alternate(stage, {label: partial(act, label) for label in (OURS, ASYNCIO)})
    about: dict[str, Any] = {"measure": "P11", "peer": f"nats-py asyncio, {_IN_FLIGHT} tasks"}
    return [
        compare(rounds, OURS, ASYNCIO, _rate, wanted=(1.3, 2.0), what="client.map, 256 under way", unit="/s", **about),
        compare(rounds, OURS, ASYNCIO, _cpu, what="processor time of a call", unit="us", less=True, **about),
    ]


def call(stage: Stage) -> list[Row]:
    """P2: the time of a call, one caller."""

    def act(label: str) -> Any:
        return costed(stage.caller(label), "times", count=stage.effort.calls)

    rounds = alternate(stage, {label: partial(act, label) for label in stage.taking_part(CALLERS)})
    for label, results in rounds.results.items():
        stage.distributions[label] = [
            statistics.median(each) for each in zip(*(r["percentiles"] for r in results), strict=True)
        ]
    about: dict[str, Any] = {"measure": "P2", "what": "call p50, 1 caller", "unit": "us", "less": True}
    return [
        compare(rounds, OURS, ASYNCIO, _p50, wanted=(0.8, 0.65), **about),
        compare(rounds, OURS, WRAPPER, _p50, **about),
        compare(rounds, OURS, SYNC, _p50, **about),
        compare(rounds, OURS, PYNATS2, _p50, **about),
        compare(rounds, OURS_WHOLE, GRPC, _p50, **about),
        compare(rounds, OURS_WHOLE, PYRO, _p50, **about),
        compare(rounds, OURS, ASYNCIO, _cpu, **{**about, "what": "processor time of the caller"}),
    ]


def calls(stage: Stage) -> list[Row]:
    """P3: calls per second of 32 callers."""

    def act(label: str) -> Any:
        return costed(stage.caller(label), "rate", callers=_CALLERS, seconds=stage.effort.slice)

    rounds = alternate(stage, {label: partial(act, label) for label in stage.taking_part(CALLERS)})
    about: dict[str, Any] = {"measure": "P3", "what": f"calls, {_CALLERS} callers", "unit": "/s"}
    return [
        compare(rounds, OURS, ASYNCIO, _rate, wanted=(0.9, 1.1), **about),
        compare(rounds, OURS, WRAPPER, _rate, wanted=(2, 3), **about),
        compare(rounds, OURS_WHOLE, GRPC, _rate, wanted=(2, 4), **about),
        compare(rounds, OURS_WHOLE, PYRO, _rate, **about),
        compare(rounds, OURS, SYNC, _rate, **about),
        compare(rounds, OURS, PYNATS2, _rate, **about),
        compare(rounds, OURS, ASYNCIO, _cpu, measure="P3", what="processor time of a call", unit="us", less=True),
    ]


def serve(stage: Stage) -> list[Row]:
    """P4: requests per second that a service with 8 workers answers."""

    def act(label: str) -> dict[str, float]:
        return stage.load(*stage.service(label), stage.effort.slice)

    rounds = alternate(stage, {label: partial(act, label) for label in stage.taking_part(SERVICES)})
    about: dict[str, Any] = {"measure": "P4", "what": "requests served, 8 workers", "unit": "/s"}
    return [
        compare(rounds, OURS, MICRO, _rate, wanted=(0.9, 1.2), **about),
        compare(rounds, OURS, EXECUTOR, _rate, wanted=(3, 4), **about),
        compare(rounds, OURS, MICRO, _cpu, measure="P4", what="processor time of a request", unit="us", less=True),
    ]


def imports(stage: Stage) -> list[Row]:
    """P10: the time of an import in a new interpreter, byte code cached."""
    with tempfile.TemporaryDirectory() as cache:

        def act(statement: str) -> float:
            return statistics.median(time_of(statement, ROOT, cache) for _ in range(stage.effort.imports))

        rounds = alternate(stage, {statement: partial(act, statement) for statement in (_IMPORT, FIRST_USE, _NATS)})
    about: dict[str, Any] = {"measure": "P10", "unit": "ms", "less": True, "wanted": (1.3, 1.0)}
    return [
        compare(rounds, _IMPORT, _NATS, what=_IMPORT, **about),
        # LightLink imports its parts when they are first used: this is what a program that connects waits for in all.
        compare(rounds, FIRST_USE, _NATS, what="and the first use of lightlink.connect", **about),
    ]


def time_of(statement: str, root: Path, cache: str) -> float:
    """Return how long a statement takes in a new interpreter, in milliseconds, with byte code in ``cache``.

    As where `pip install lightlink` was all: from 3.11 on nobody then needs typing_extensions, which msgspec imports
    where it is, as beside these tools.
    """
    alone = "sys.modules['typing_extensions'] = None; " if sys.version_info >= (3, 11) else ""
    code = f"began = time.perf_counter(); {statement}; print((time.perf_counter() - began) * 1e3)"
    env = {**os.environ, "PYTHONPATH": str(root), "PYTHONPYCACHEPREFIX": cache}
    env.pop("PYTHONDONTWRITEBYTECODE", None)
    command = [sys.executable, "-c", f"import sys, time; {alone}{code}"]
    done = subprocess.run(command, check=False, cwd=root, env=env, capture_output=True, text=True, timeout=60)
    if done.returncode:
        raise PeerProblem(done.stderr.strip().splitlines()[-1])
    return float(done.stdout)
