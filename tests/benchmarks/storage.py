"""P5 to P9: files, state and commands, which JetStream keeps on disk."""

from __future__ import annotations

import contextlib
import os
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.benchmarks.results import Row, compare
from tests.benchmarks.stage import ASYNCIO, OURS, alternate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.benchmarks.side import Side
    from tests.benchmarks.stage import Stage

_ACTORS = {OURS: "transfers:Ours", ASYNCIO: "transfers:Asyncio"}
_STORES = {OURS: "stores:Ours", ASYNCIO: "stores:Asyncio"}
# Rounds that move files take seconds each, and differ little.
FILE_ROUNDS = 5
_COMMAND = "a command"
_CALL = "a call"


def files(stage: Stage) -> list[Row]:
    """P5: upload and download a file."""
    size = stage.effort.file_mib
    with file_of(size) as path, file_of(size // 8) as small:
        whole = {label: partial(move, stage.nats(actor), path) for label, actor in _ACTORS.items()}
        warm = {label: partial(move, stage.nats(actor), small) for label, actor in _ACTORS.items()}
        rounds = alternate(stage, whole, min(FILE_ROUNDS, stage.effort.rounds), warm)
    about: dict[str, Any] = {"measure": "P5", "unit": "MiB/s"}
    return [
        compare(
            rounds, OURS, ASYNCIO, lambda got: size / got[0], wanted=(1.0, 1.5), what=f"upload of {size} MiB", **about
        ),
        compare(
            rounds, OURS, ASYNCIO, lambda got: size / got[1], wanted=(1.2, 2), what=f"download of {size} MiB", **about
        ),
    ]


def memory(stage: Stage) -> list[Row]:
    """P6: the memory that moving a big file takes, in a process that has done nothing else."""
    size = stage.effort.big_file_mib
    with file_of(size) as path, file_of(1) as small:
        sides = {label: stage.nats(actor, alone=True) for label, actor in _ACTORS.items()}
        rounds = alternate(
            stage,
            {label: partial(_peaks, side, path) for label, side in sides.items()},
            rounds=1,
            warm_up={label: partial(move, side, small) for label, side in sides.items()},
        )
    about: dict[str, Any] = {"measure": "P6", "unit": "MiB", "less": True, "absolute": True, "wanted": (48, 24)}
    return [
        compare(rounds, OURS, ASYNCIO, lambda got: max(got[0], 1), what=f"memory, upload of {size} MiB", **about),
        compare(rounds, OURS, ASYNCIO, lambda got: max(got[1], 1), what=f"memory, download of {size} MiB", **about),
    ]


def state(stage: Stage) -> list[Row]:
    """P7: the time of a write and a read of retained state."""

    def act(actor: str) -> list[float]:
        side = stage.nats(actor)
        return [side.do(what, count=stage.effort.stored_calls)["p50"] for what in ("put_times", "get_times")]

    rounds = alternate(stage, {label: partial(act, actor) for label, actor in _STORES.items()})
    about: dict[str, Any] = {"measure": "P7", "unit": "us", "less": True, "wanted": (1.5, 1.15)}
    return [
        compare(rounds, OURS, ASYNCIO, lambda got: got[0], what="set_state p50 / kv.put", **about),
        compare(rounds, OURS, ASYNCIO, lambda got: got[1], what="get_state p50 / kv.get", **about),
    ]


def command(stage: Stage) -> list[Row]:
    """P8: the time of a durable command, from send to result, against that of a call of the same process."""

    def act(method: str) -> float:
        stage.nats("orders:Agent").start()
        return float(stage.nats("orders:Manager").do(method, count=stage.effort.stored_calls)["p50"])

    rounds = alternate(stage, {_COMMAND: partial(act, "command_times"), _CALL: partial(act, "call_times")})
    about: dict[str, Any] = {"measure": "P8", "unit": "us", "less": True, "wanted": (5, 3)}
    return [compare(rounds, _COMMAND, _CALL, what="command, send to result, p50", peer="a plain call", **about)]


def batch(stage: Stage) -> list[Row]:
    """P9: commands stored per second in one batch. The warm-up makes the agents' consumers, which is done once."""
    count = stage.effort.batch
    puts = "nats-py publish_async"
    sides: dict[str, Callable[[], Any]] = {
        OURS: lambda: stage.nats("orders:Manager").do("accept", count=count),
        puts: lambda: stage.nats("orders:Puts").do("accept", count=count),
    }
    rounds = alternate(stage, sides, min(FILE_ROUNDS, stage.effort.rounds))
    what = f"commands stored, batch of {count:,}"
    return [
        compare(rounds, OURS, puts, wanted=(0.85, 1.0), measure="P9", what=what, unit="/s", peer="pipelined KV puts")
    ]


def durable(stage: Stage) -> list[Row]:
    """P15: durable events stored and consumed a second, against nats-py."""
    count = stage.effort.batch

    def act(side: str) -> list[float]:
        ours = stage.nats("durable:Ours")  # it makes the stream
        actor = ours if side == OURS else stage.nats("durable:Asyncio")
        return [actor.do("store", count=count), actor.do("consume", count=count)]

    rounds = alternate(
        stage, {side: partial(act, side) for side in (OURS, ASYNCIO)}, min(FILE_ROUNDS, stage.effort.rounds)
    )
    about: dict[str, Any] = {"measure": "P15", "unit": "/s"}
    return [
        compare(
            rounds, OURS, ASYNCIO, lambda got: got[0], wanted=(1.0, 1.3), what=f"durable: {count:,} stored", **about
        ),
        compare(
            rounds, OURS, ASYNCIO, lambda got: got[1], wanted=(2.0, 4.0), what="durable: consumed, 8 workers", **about
        ),
    ]


def runs(stage: Stage) -> list[Row]:
    """P16: the time of a run of three steps for each of 1,000 agents, against a batch for each step."""
    by_run, by_batches = "lightlink, a run", "lightlink, a batch for each step"

    def act(how: str) -> float:
        names = stage.nats("orders:Fleet").do("names")
        return float(stage.nats("orders:Orchestrator").do(how, names=names))

    sides = {by_run: partial(act, "run"), by_batches: partial(act, "batches")}
    rounds = alternate(stage, sides, min(FILE_ROUNDS, stage.effort.rounds))
    about: dict[str, Any] = {"measure": "P16", "unit": "s", "less": True, "wanted": (1.3, 1.1)}
    return [compare(rounds, by_run, by_batches, what="run of 1,000 targets x 3 steps", peer="bare batches", **about)]


@contextlib.contextmanager
def file_of(mib: int) -> Iterator[str]:
    """Make a file of so many MiB that do not repeat within a chunk."""
    with tempfile.TemporaryDirectory(prefix="lightlink-bench-") as folder:
        path = Path(folder) / "file"
        block = os.urandom(1024 * 1024)
        with path.open("wb") as file:
            for _ in range(max(mib, 1)):
                file.write(block)
        yield str(path)


def move(side: Side, path: str) -> tuple[float, float]:
    """Return the seconds of an upload and a download."""
    took = side.do("upload", path=path), side.do("download", target=path + ".copy")
    side.do("discard")
    return took


def _peaks(side: Side, path: str) -> tuple[float, float]:
    """Return the memory of an upload and a download, in MiB."""
    took = side.do("upload_peak", path=path), side.do("download_peak", target=path + ".copy")
    side.do("discard")
    return took
