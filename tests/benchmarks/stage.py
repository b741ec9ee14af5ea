"""Who takes part: the server, and every side by the name it has in tables and plots."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any

from tests.benchmarks.side import PeerProblem, Side

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.benchmarks.effort import Effort

OURS = "LightLink"
OURS_WHOLE = "LightLink with its Service"
ASYNCIO = "nats-py asyncio"
WRAPPER = "run_coroutine_threadsafe"
SYNC = "nats-py-sync"
PYNATS2 = "pynats2"
GRPC = "grpcio sync"
PYRO = "Pyro5"
NATS_CORE = "nats-core"
NATS_CORE_UVLOOP = "nats-core on uvloop"
MICRO = "nats.micro"
EXECUTOR = "run_in_executor"

WORKERS = 8
_ACTORS = {
    OURS: "Ours",
    ASYNCIO: "Asyncio",
    WRAPPER: "Wrapper",
    SYNC: "Sync",
    PYNATS2: "Pynats2",
    NATS_CORE: "NatsCore",
    NATS_CORE_UVLOOP: "NatsCoreUvloop",
}
CALLERS = (OURS, OURS_WHOLE, ASYNCIO, WRAPPER, SYNC, PYNATS2, GRPC, PYRO)
PUBLISHERS = (OURS, ASYNCIO, WRAPPER, SYNC, PYNATS2)
SERVICES = (OURS, MICRO, EXECUTOR)
# Who can be given TLS files here.
OVER_TLS = frozenset({OURS, ASYNCIO, MICRO})
_SERVICE = "bench"
_IN_FLIGHT = 256


class Stage:
    """Makes each side when it is first asked for, and keeps it to the end.

    ``url`` is the server. ``without_uvloop`` lets LightLink run on asyncio's own loop, as the peers do. ``before`` is a
    folder with another version of it, and ``before_url`` the server for what that stores. ``tls`` is a folder of
    identities: everybody who can then speaks mutual TLS.
    """

    def __init__(
        self,
        effort: Effort,
        url: str,
        without_uvloop: bool = False,
        before: Path | None = None,
        tls: str | None = None,
        before_url: str = "",
    ) -> None:
        self.effort = effort
        self.url = url
        self.before = before
        self.before_url = before_url
        self.tls = tls
        self._without_uvloop = without_uvloop
        self._sides: dict[tuple[str, str], Side] = {}
        # The percentiles of a call's time, by side, for the plot.
        self.distributions: dict[str, list[float]] = {}
        self.seconds: dict[str, float] = {}
        self._end = time.monotonic() + effort.limit

    def secured(self, url: str, tls: str) -> Stage:
        """Return a stage of its own before a server with mutual TLS. It is to be closed, and late when this one is."""
        other = Stage(self.effort, url, self._without_uvloop, tls=tls)
        other._end = self._end
        return other

    def taking_part(self, labels: tuple[str, ...]) -> list[str]:
        """Return those of the sides that can speak as this stage wants it."""
        return [label for label in labels if self.tls is None or label in OVER_TLS]

    def close(self) -> None:
        """End all sides."""
        for side in self._sides.values():
            side.hang_up()
        for side in self._sides.values():
            side.close()

    @property
    def is_late(self) -> bool:
        """Whether the run has taken all the time it may."""
        return time.monotonic() > self._end

    @contextlib.contextmanager
    def clock(self, name: str) -> Iterator[None]:
        """Note how long a measure takes, in seconds."""
        began = time.monotonic()
        yield
        self.seconds[name] = time.monotonic() - began

    def side(self, target: str, alone: bool = False, **settings: Any) -> Side:
        """Return an actor, the same one for the same settings; one that is ``alone`` does nothing else."""
        key = (target, repr((alone, sorted(settings.items()))))
        if key not in self._sides:
            self._sides[key] = Side(target, **settings, without_uvloop=self._without_uvloop)
        return self._sides[key]

    def nats(self, target: str, **settings: Any) -> Side:
        """Return an actor that is given the server's address."""
        secured = {} if self.tls is None else {"tls": self.tls}
        return self.side(target, url=self.url, **secured, **settings)

    def caller(self, label: str) -> Side:
        """Return who calls an echo, with the echo started."""
        if label == GRPC:
            return self.side(
                "rivals:GrpcCaller", address=self.side("rivals:GrpcService", workers=WORKERS).do("address")
            )
        if label == PYRO:
            return self.side("rivals:PyroCaller", address=self.side("rivals:PyroService").do("address"))
        if label == OURS_WHOLE:
            self.nats("services:Ours", name=_SERVICE, workers=WORKERS).start()
            return self.nats("callers:Ours", service=_SERVICE)
        self.nats("raw:Echo").start()
        return self.nats("callers:Ours", service="plain") if label == OURS else self.nats(f"callers:{_ACTORS[label]}")

    def publisher(self, label: str) -> Side:
        """Return who publishes."""
        if label == PYNATS2:
            self.nats("raw:Echo").start()
        return self.nats(f"publishers:{_ACTORS[label]}")

    def service(self, label: str) -> tuple[Side, dict[str, str]]:
        """Return who answers, and where the load finds it."""
        if label == OURS:
            return self.nats("services:Ours", name=_SERVICE, workers=WORKERS), {"service": _SERVICE}
        if label == MICRO:
            return self.nats("services:Micro"), {"subject": "micro.echo"}
        return self.nats("services:Executor", workers=WORKERS), {"subject": "executor.echo"}

    def load(self, service: Side, where: dict[str, str], seconds: float) -> dict[str, float]:
        """Return how many requests a second a service answers, and how many microseconds of its process each takes."""
        began = service.cpu()
        how = "enveloped" if "service" in where else "plain"
        rate = float(self.nats("raw:Load").do(how, **where, seconds=seconds, in_flight=_IN_FLIGHT))
        return {"rate": rate, "cpu": (service.cpu() - began) / (rate * seconds) * 1e6}


def costed(side: Side, method: str, **arguments: Any) -> dict[str, Any]:
    """Let a side make calls, and add to its result how many microseconds of its process each took."""
    began = side.cpu()
    result: dict[str, Any] = side.do(method, **arguments)
    return {**result, "cpu": (side.cpu() - began) / result["count"] * 1e6}


class Rounds:
    """What the sides did in each round, and why some did nothing."""

    def __init__(self) -> None:
        self.results: dict[str, list[Any]] = {}
        self.problems: dict[str, str] = {}

    def series(self, label: str, pick: Callable[[Any], float]) -> list[float]:
        """Return one figure of a side's results, a round each."""
        return [pick(result) for result in self.results.get(label, [])]


def alternate(
    stage: Stage,
    sides: dict[str, Callable[[], Any]],
    rounds: int | None = None,
    warm_up: dict[str, Callable[[], Any]] | None = None,
) -> Rounds:
    """Let the sides act in turn, round after round, after a warm-up that does not count.

    Every other round is in reverse, so that no side is always the one after another. A side with a problem is left
    out from then on; when the run is late, so is every round but the first.
    """
    got = Rounds()

    def attempt(label: str, act: Callable[[], Any]) -> None:
        if label in got.problems:
            return
        try:
            got.results.setdefault(label, []).append(act())
        except PeerProblem as exc:
            got.problems[label] = str(exc)

    if stage.is_late:
        got.problems = dict.fromkeys(sides, "no time was left")
        return got
    for label, act in (warm_up if warm_up is not None else sides).items():
        attempt(label, act)
    got.results.clear()
    for number in range(rounds or stage.effort.rounds):
        if number and stage.is_late:
            break
        order = list(sides.items())
        for label, act in reversed(order) if number % 2 else order:
            attempt(label, act)
    return got
