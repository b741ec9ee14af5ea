"""P12 and P14: beside an upload, and over mutual TLS; and what those over QUIC (P18) need as well."""

from __future__ import annotations

import contextlib
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from lightlink.certs import CertificateAuthority
from lightlink.server import EmbeddedServer
from tests.benchmarks import measures, storage
from tests.benchmarks.actors.links import IDENTITY
from tests.benchmarks.actors.timing import PERCENTS
from tests.benchmarks.results import Row, compare
from tests.benchmarks.stage import ASYNCIO, MICRO, Rounds, alternate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.benchmarks.side import Side
    from tests.benchmarks.stage import Stage

_CONFIG = """
host: 127.0.0.1
port: -1
max_payload: 1048576
jetstream { store_dir: "{folder}/store" }
tls { cert_file: "{folder}/server.pem", key_file: "{folder}/server.key", ca_file: "{folder}/ca.pem", verify: true }
"""
_MEASURES = (measures.publish, measures.call, measures.calls, measures.serve, storage.files)
# Of calls over bad links there are fewer: each takes a round trip.
_SLOWER = 8
# Seconds.
ONE_WAY = 0.025
_IDLE, _BESIDE = "idle", "beside an upload"


@attrs.frozen
class Secured:
    """A stage, and the server of its own that wants mutual TLS."""

    stage: Stage
    server: EmbeddedServer


@contextlib.contextmanager
def secured(stage: Stage) -> Iterator[Secured]:
    """Yield a stage whose server wants mutual TLS."""
    with tempfile.TemporaryDirectory(prefix="lightlink-bench-tls-") as name:
        folder = Path(name)
        authority = CertificateAuthority.create(folder)
        authority.issue_server(["127.0.0.1"])
        authority.issue_gateway(["127.0.0.1"])
        authority.issue(IDENTITY, "admin")
        config = folder / "nats.conf"
        config.write_text(_CONFIG.replace("{folder}", name))
        with EmbeddedServer(config=config) as server:
            safe = stage.secured(server.url, name)
            try:
                yield Secured(safe, server)
            finally:
                safe.close()


def over_tls(stage: Stage) -> list[Row]:
    """P14: P1 to P5 over mutual TLS, against those who can over the same."""
    with secured(stage) as at:
        # nats-py takes ten seconds to fetch what it takes five for without TLS.
        at.stage.effort = attrs.evolve(stage.effort, file_mib=max(stage.effort.file_mib // 4, 1))
        rows = [row for measure in _MEASURES for row in measure(at.stage) if row.peer in (ASYNCIO, MICRO)]
    return [attrs.evolve(row, measure="P14", what=f"{row.measure} over TLS: {row.what}") for row in rows]


def beside_upload(stage: Stage) -> list[Row]:
    """P12: the time of a call while files are uploaded, on loopback and through a bad link."""
    stage.nats("raw:Echo").start()
    rounds = _beside(stage, stage.nats("mixed:Ours"), stage.effort.mixed_calls, few(stage))
    about: dict[str, Any] = {"measure": "P12", "unit": "us", "less": True, "peer": "the same, idle"}
    rows = [
        compare(rounds, _BESIDE, _IDLE, p50, what="call p50 beside an upload", wanted=(1.1, 1.0), **about),
        compare(rounds, _BESIDE, _IDLE, p99, what="call p99 beside an upload", wanted=(4, 2), **about),
    ]
    with secured(stage) as at:
        at.stage.nats("raw:Echo").start()
        way = link(at.stage, loss=0.01, seconds=ONE_WAY)
        side = at.stage.side("mixed:Ours", url=way.do("url"), tls=at.stage.tls, bulk=True)
        rounds = _beside(at.stage, side, max(stage.effort.mixed_calls // _SLOWER, 3), min(3, stage.effort.rounds))
    what = "call p50 beside an upload, 50 ms, 1 % loss"
    return [*rows, compare(rounds, _BESIDE, _IDLE, p50, what=what, wanted=(1.5, 1.1), **about)]


def _beside(stage: Stage, side: Side, count: int, rounds: int) -> Rounds:
    acts: dict[str, Callable[[], Any]] = {
        _IDLE: partial(side.do, "times", count=count),
        _BESIDE: partial(side.do, "times_beside_upload", count=count),
    }
    return alternate(stage, acts, rounds, warm_up={_IDLE: acts[_IDLE]})


def few(stage: Stage) -> int:
    """Return how many rounds are enough where each takes long."""
    return min(5, stage.effort.rounds)


def gateway(stage: Stage) -> int:
    """Return the port of the gateway before the stage's server."""
    return int(stage.nats("edge:Edge").do("port"))


def link(stage: Stage, loss: float, seconds: float) -> Side:
    """Return a bad link to that gateway."""
    return stage.side("edge:BadLink", alone=True, port=gateway(stage), loss=loss, seconds=seconds)


def p50(result: dict[str, Any]) -> float:
    """Return the median, in microseconds."""
    return float(result["p50"])


def p99(result: dict[str, Any]) -> float:
    """Return what 99 of 100 took no longer than, in microseconds."""
    return float(result["percentiles"][PERCENTS.index(99)])
