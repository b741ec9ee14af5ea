"""P18: the rows of design/quic.md. Each can be measured by itself, say ``make bench ARGS=P18-memory``."""

from __future__ import annotations

import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import attrs

from tests.benchmarks import storage
from tests.benchmarks.edge import ONE_WAY, Secured, few, gateway, link, p50, p99, secured
from tests.benchmarks.results import Row, compare
from tests.benchmarks.stage import Rounds, alternate

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.benchmarks.side import Side
    from tests.benchmarks.stage import Stage

_CALLERS = 32
_QUIC, _TCP = "over QUIC", "over TCP"
_AWAY = 1.0
_KIB = 1024


def calls(stage: Stage) -> list[Row]:
    """P18: calls through a gateway, one after the other and by 32 callers, against TCP."""

    def act(at: Secured, url: str) -> dict[str, float]:
        caller = at.stage.side("mixed:Ours", url=url, tls=at.stage.tls)
        return {
            "p50": caller.do("times", count=at.stage.effort.calls)["p50"],
            "rate": caller.do("rate", callers=_CALLERS, seconds=at.stage.effort.slice)["rate"],
        }

    with secured(stage) as at:
        at.stage.nats("raw:Echo").start()
        rounds = _against_tcp(at, act)
    return [
        _ratio(rounds, p50, what="call p50 over QUIC", unit="us", less=True, wanted=(1.5, 1.2)),
        _ratio(rounds, lambda got: float(got["rate"]), what=f"calls over QUIC, {_CALLERS} callers", wanted=(0.85, 1.0)),
    ]


def upload(stage: Stage) -> list[Row]:
    """P18: an upload through a gateway, against TCP."""
    size = max(stage.effort.file_mib // 4, 1)

    def act(at: Secured, url: str, path: str) -> float:
        mover = at.stage.side("transfers:Ours", url=url, tls=at.stage.tls)
        seconds = float(mover.do("upload", path=path))
        mover.do("discard")
        return seconds

    with secured(stage) as at, storage.file_of(size) as path:
        rounds = _against_tcp(at, partial(act, path=path))
    what = f"upload of {size} MiB over QUIC"
    return [_ratio(rounds, lambda seconds: size / seconds, what=what, unit="MiB/s", wanted=(0.6, 0.8))]


def burst(stage: Stage) -> list[Row]:
    """P18: a burst of events through a gateway, against TCP."""

    def act(at: Secured, url: str) -> float:
        return float(at.stage.side("publishers:Ours", url=url, tls=at.stage.tls).do("rate", seconds=stage.effort.slice))

    with secured(stage) as at:
        rounds = _against_tcp(at, act)
    return [_ratio(rounds, float, what="a burst of events over QUIC")]


def losses(stage: Stage) -> list[Row]:
    """P18: calls over links that lose packets."""
    rows = []
    count = max(stage.effort.mixed_calls // 4, 3)
    with secured(stage) as at:
        at.stage.nats("raw:Echo").start()
        for loss in (0.01, 0.03):
            side = at.stage.side("mixed:Ours", url=link(at.stage, loss, ONE_WAY).do("url"), tls=at.stage.tls)
            rounds = _alone(at.stage, partial(side.do, "times", count=count), min(3, stage.effort.rounds))
            what = f"call p99 over QUIC, 50 ms, {loss:.0%} loss"
            rows.append(_absolute(rounds, lambda got: p99(got) / 1e3, what=what, unit="ms", wanted=(140, 110)))
    return rows


def during_upload(stage: Stage) -> list[Row]:
    """P18: calls during an upload over a link that loses packets."""
    with secured(stage) as at:
        at.stage.nats("raw:Echo").start()
        side = at.stage.side("mixed:Ours", url=link(at.stage, 0.01, ONE_WAY).do("url"), tls=at.stage.tls)
        count = max(stage.effort.mixed_calls // 8, 3)
        rounds = _alone(at.stage, partial(side.do, "times_beside_upload", count=count), min(3, stage.effort.rounds))
    what = "call p50 during an upload, 50 ms, 1 % loss"
    return [_absolute(rounds, lambda got: p50(got) / 1e3, what=what, unit="ms", wanted=(100, 60))]


def lossy_upload(stage: Stage) -> list[Row]:
    """P18: an upload over a link that loses packets; congestion control is loss-based, so nothing is wanted."""
    size = max(stage.effort.file_mib // 128, 1)
    with secured(stage) as at, storage.file_of(size) as path:
        mover = at.stage.side("transfers:Ours", url=link(at.stage, 0.01, ONE_WAY).do("url"), tls=at.stage.tls)

        def act() -> float:
            seconds = float(mover.do("upload", path=path))
            mover.do("discard")
            return size / seconds

        rounds = _alone(at.stage, act, min(3, stage.effort.rounds))
    return [_absolute(rounds, float, what=f"upload of {size} MiB over QUIC, 50 ms, 1 % loss", unit="MiB/s", less=False)]


def moves(stage: Stage) -> list[Row]:
    """P18: the address of the client changes; a call that failed would end the measure."""
    with secured(stage) as at:
        at.stage.nats("raw:Echo").start()
        way = link(at.stage, 0.0, 0.0)
        side = at.stage.side("mixed:Ours", url=way.do("url"), tls=at.stage.tls, bulk=False)

        def act() -> float:
            side.do("times", count=5)
            way.do("move")
            began = time.perf_counter()
            side.do("times", count=1)
            return time.perf_counter() - began

        rounds = _alone(at.stage, act, few(stage))
    what = "the first call from another address, over QUIC"
    return [_absolute(rounds, float, what=what, unit="s", wanted=(0.5, 0.3))]


def gateway_kill(stage: Stage) -> list[Row]:
    """P18: the gateway is killed, and back a second later: until the server is reached again."""
    with secured(stage) as at:
        edge = at.stage.nats("edge:KillableEdge")
        side = at.stage.side("mixed:Ours", url=f"quic://127.0.0.1:{edge.do('port')}", tls=at.stage.tls)

        def act() -> float:
            return _outage(side, partial(edge.do, "kill"), partial(edge.do, "start"))

        rounds = _alone(at.stage, act, min(3, stage.effort.rounds))
    what = "the gateway killed, back after 1 s, until it is reached"
    return [_absolute(rounds, float, what=what, unit="s", wanted=(3, 2.2))]


def server_kill(stage: Stage) -> list[Row]:
    """P18: nats-server is killed, and back a second later: until it is reached again, against TCP."""

    def act(at: Secured, url: str) -> float:
        side = at.stage.side("mixed:Ours", url=url, tls=at.stage.tls)
        return _outage(side, at.server.kill, at.server.start)

    with secured(stage) as at:
        rounds = _against_tcp(at, act, min(5, stage.effort.rounds))
    what = "nats-server killed, back after 1 s, until it is reached"
    return [_ratio(rounds, float, what=what, unit="s", less=True, wanted=(1.2, 1.0))]


def memory(stage: Stage) -> list[Row]:
    """P18: what a gateway holds for each of many connections."""
    count = min(stage.effort.calls, 800) * 5 // 4
    with secured(stage) as at:
        edge = at.stage.nats("edge:Edge")
        crowd = at.stage.side("edge:Crowd", port=edge.do("port"), tls=at.stage.tls)
        crowd.do("grow", count=20)  # what the first ones take is the gateway's own

        def act() -> float:
            before = edge.do("memory")
            crowd.do("grow", count=count)
            return (float(edge.do("memory")) - float(before)) * _KIB / count

        rounds = alternate(at.stage, {_QUIC: act}, 1, warm_up={})
    what = f"the gateway's memory for each of {count:,} connections"
    return [_absolute(rounds, float, what=what, unit="KiB", wanted=(64, 45))]


ROWS: dict[str, Callable[[Stage], list[Row]]] = {
    "P18-calls": calls,
    "P18-upload": upload,
    "P18-burst": burst,
    "P18-losses": losses,
    "P18-during-upload": during_upload,
    "P18-lossy-upload": lossy_upload,
    "P18-moves": moves,
    "P18-gateway-kill": gateway_kill,
    "P18-server-kill": server_kill,
    "P18-memory": memory,
}


def _outage(side: Side, kill: Callable[[], object], back: Callable[[], object]) -> float:
    """Return how many seconds after the end of something a side reaches the server again; it is back after one."""
    side.do("reach")
    kill()
    began = time.perf_counter()
    timer = threading.Timer(_AWAY, back)
    timer.start()
    side.do("reach")
    seconds = time.perf_counter() - began
    timer.join()
    return seconds


def _against_tcp(at: Secured, act: Callable[[Secured, str], Any], rounds: int | None = None) -> Rounds:
    urls = {_QUIC: f"quic://127.0.0.1:{gateway(at.stage)}", _TCP: at.stage.url}
    return alternate(at.stage, {label: partial(act, at, url) for label, url in urls.items()}, rounds or few(at.stage))


def _alone(stage: Stage, act: Callable[[], Any], rounds: int) -> Rounds:
    return alternate(stage, {_QUIC: act}, rounds)


def _ratio(rounds: Rounds, pick: Callable[[Any], float], unit: str = "/s", **about: Any) -> Row:
    return compare(rounds, _QUIC, _TCP, pick, measure="P18", peer="the same over TCP", unit=unit, **about)


def _absolute(rounds: Rounds, pick: Callable[[Any], float], less: bool = True, **about: Any) -> Row:
    """Return a row that is held against a figure, not against a peer."""
    row = compare(rounds, _QUIC, _QUIC, pick, measure="P18", peer="-", less=less, absolute=True, **about)
    return attrs.evolve(row, theirs=None, ratio=None)
