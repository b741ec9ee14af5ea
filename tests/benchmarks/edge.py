"""P12, P14 and P18: beside an upload, over mutual TLS, and through a QUIC gateway, over good links and bad."""

from __future__ import annotations

import contextlib
import tempfile
import time
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
_ONE_WAY = 0.025
_CALLERS = 32
_QUIC, _TCP = "over QUIC", "over TCP"
_IDLE, _BESIDE = "idle", "beside an upload"


@contextlib.contextmanager
def _secured(stage: Stage) -> Iterator[Stage]:
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
            secured = stage.secured(server.url, name)
            try:
                yield secured
            finally:
                secured.close()


def over_tls(stage: Stage) -> list[Row]:
    """P14: P1 to P5 over mutual TLS, against those who can over the same."""
    with _secured(stage) as secured:
        # nats-py takes ten seconds to fetch what it takes five for without TLS.
        secured.effort = attrs.evolve(stage.effort, file_mib=max(stage.effort.file_mib // 4, 1))
        rows = [row for measure in _MEASURES for row in measure(secured) if row.peer in (ASYNCIO, MICRO)]
    return [attrs.evolve(row, measure="P14", what=f"{row.measure} over TLS: {row.what}") for row in rows]


def beside_upload(stage: Stage) -> list[Row]:
    """P12: the time of a call while files are uploaded, on loopback and through a bad link."""
    stage.nats("raw:Echo").start()
    rounds = _beside(stage, stage.nats("mixed:Ours"), stage.effort.mixed_calls, _few(stage))
    about: dict[str, Any] = {"measure": "P12", "unit": "us", "less": True, "peer": "the same, idle"}
    rows = [
        compare(rounds, _BESIDE, _IDLE, _p50, what="call p50 beside an upload", wanted=(1.1, 1.0), **about),
        compare(rounds, _BESIDE, _IDLE, _p99, what="call p99 beside an upload", wanted=(4, 2), **about),
    ]
    with _secured(stage) as secured:
        secured.nats("raw:Echo").start()
        link = _link(secured, loss=0.01, seconds=_ONE_WAY)
        side = secured.side("mixed:Ours", url=link.do("url"), tls=secured.tls, bulk=True)
        rounds = _beside(secured, side, max(stage.effort.mixed_calls // _SLOWER, 3), min(3, stage.effort.rounds))
    what = "call p50 beside an upload, 50 ms, 1 % loss"
    return [*rows, compare(rounds, _BESIDE, _IDLE, _p50, what=what, wanted=(1.5, 1.1), **about)]


def over_quic(stage: Stage) -> list[Row]:
    """P18: through a QUIC gateway against TCP, mutual TLS with the server in both; and over bad links."""
    with _secured(stage) as secured:
        secured.nats("raw:Echo").start()
        urls = {_QUIC: f"quic://127.0.0.1:{_gateway(secured)}", _TCP: secured.url}
        return [*_loopback(secured, urls), *_losses(secured), _moves(secured)]


def _loopback(stage: Stage, urls: dict[str, str]) -> list[Row]:
    effort = stage.effort

    def act(url: str, path: str) -> dict[str, float]:
        caller = stage.side("mixed:Ours", url=url, tls=stage.tls)
        mover = stage.side("transfers:Ours", url=url, tls=stage.tls)
        found = {
            "p50": caller.do("times", count=effort.calls)["p50"],
            "rate": caller.do("rate", callers=_CALLERS, seconds=effort.slice)["rate"],
            "upload": mover.do("upload", path=path),
        }
        mover.do("discard")
        return found

    size = max(effort.file_mib // 4, 1)
    with storage.file_of(size) as path:
        rounds = alternate(stage, {label: partial(act, url, path) for label, url in urls.items()}, _few(stage))
    about: dict[str, Any] = {"measure": "P18", "peer": "the same over TCP"}
    return [
        compare(rounds, _QUIC, _TCP, _p50, what="call p50 over QUIC", unit="us", less=True, wanted=(1.5, 1.2), **about),
        compare(
            rounds,
            _QUIC,
            _TCP,
            lambda got: float(got["rate"]),
            what=f"calls over QUIC, {_CALLERS} callers",
            unit="/s",
            wanted=(0.85, 1.0),
            **about,
        ),
        compare(
            rounds,
            _QUIC,
            _TCP,
            lambda got: size / got["upload"],
            what=f"upload of {size} MiB over QUIC",
            unit="MiB/s",
            wanted=(0.6, 0.8),
            **about,
        ),
    ]


def _losses(stage: Stage) -> list[Row]:
    rows = []
    count = max(stage.effort.mixed_calls // 4, 3)
    for loss in (0.01, 0.03):
        link = _link(stage, loss=loss, seconds=_ONE_WAY)
        side = stage.side("mixed:Ours", url=link.do("url"), tls=stage.tls)
        rounds = alternate(stage, {_QUIC: partial(side.do, "times", count=count)}, min(3, stage.effort.rounds))
        rows.append(
            _absolute(
                rounds,
                lambda got: _p99(got) / 1e3,
                what=f"call p99 over QUIC, 50 ms, {loss:.0%} loss",
                unit="ms",
                wanted=(140, 110),
            )
        )
    return rows


def _moves(stage: Stage) -> Row:
    """The address of the client changes: how long its next call takes."""
    link = _link(stage, loss=0.0, seconds=0.0)
    side = stage.side("mixed:Ours", url=link.do("url"), tls=stage.tls, bulk=False)

    def act() -> float:
        side.do("times", count=5)
        link.do("move")
        began = time.perf_counter()
        side.do("times", count=1)
        return time.perf_counter() - began

    rounds = alternate(stage, {_QUIC: act}, _few(stage))
    return _absolute(rounds, float, what="the first call from another address, over QUIC", unit="s", wanted=(0.5, 0.3))


def _absolute(rounds: Rounds, pick: Callable[[Any], float], **about: Any) -> Row:
    """Return a row that is held against a figure, not against a peer."""
    row = compare(rounds, _QUIC, _QUIC, pick, measure="P18", peer="-", less=True, absolute=True, **about)
    return attrs.evolve(row, theirs=None, ratio=None)


def _beside(stage: Stage, side: Side, count: int, rounds: int) -> Rounds:
    acts: dict[str, Callable[[], Any]] = {
        _IDLE: partial(side.do, "times", count=count),
        _BESIDE: partial(side.do, "times_beside_upload", count=count),
    }
    return alternate(stage, acts, rounds, warm_up={_IDLE: acts[_IDLE]})


def _few(stage: Stage) -> int:
    return min(5, stage.effort.rounds)


def _gateway(stage: Stage) -> int:
    return int(stage.nats("edge:Edge").do("port"))


def _link(stage: Stage, loss: float, seconds: float) -> Side:
    return stage.side("edge:BadLink", alone=True, port=_gateway(stage), loss=loss, seconds=seconds)


def _p50(result: dict[str, Any]) -> float:
    return float(result["p50"])


def _p99(result: dict[str, Any]) -> float:
    return float(result["percentiles"][PERCENTS.index(99)])
