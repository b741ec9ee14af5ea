"""What an app counts of the commands it sends, and what the agents say of themselves, for Prometheus."""

from __future__ import annotations

import contextlib
import os
import struct
import sys
import time
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import GaugeMetricFamily
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from lightlink.commands import model
from lightlink.concurrency.threads import Condition
from lightlink.connection.session import Status
from lightlink.errors import LightLinkError
from lightlink.runs import Orchestrator
from lightlink.runs.model.records import STATES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime

    from prometheus_client.metrics_core import Metric

    from lightlink.commands.manager.manager import CommandManager
    from lightlink.commands.manager.promise import CommandPromise
    from lightlink.http.limits import WaitingRoom

# From a few milliseconds to a day: commands may wait for an agent that is offline.
_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 3600, 86_400)
# Senders choose the types of commands freely: beyond this many, the rest are counted as one, to bound memory.
_MAX_TYPES = 200
_OTHERS = "(others)"
# How often, and how far apart, the workers' files are read while one is being made.
_READ_TRIES, _MAKING_SECONDS = 20, 0.05


class Metrics:
    """Metrics in a registry of their own, so that several apps live in one process.

    Counted is what was sent through this app in this process. gunicorn's workers are summed up when
    PROMETHEUS_MULTIPROC_DIR is set, as prometheus-client's documentation says.
    """

    def __init__(self, manager: Callable[[], CommandManager], room: WaitingRoom) -> None:
        self.registry = CollectorRegistry()
        label = ["command_type"]
        registry = self.registry
        self._sent = Counter("command_sent", "Commands sent.", label, registry=registry)
        self._ends = {
            model.COMPLETED: Counter("command_completed", "Commands that completed.", label, registry=registry),
            model.FAILED: Counter("command_failed", "Commands that failed.", label, registry=registry),
            model.TIMEOUT: Counter("command_timeout", "Commands that timed out.", label, registry=registry),
        }
        self._duration = Histogram(
            "command_duration_seconds",
            "From sending a command to its end, however it ended.",
            label,
            buckets=_BUCKETS,
            registry=registry,
        )
        self._gauges = _Gauges(manager, room)
        registry.register(self._gauges)
        self._types: set[str] = set()
        self._lock = Condition()

    def follow(self, promise: CommandPromise, asked_at: datetime) -> None:
        """Count a command that was sent, and its end when it comes.

        One older than the moment it was ``asked_at`` was sent before, with the same key, and is counted already.
        """
        if promise.request.created_at < asked_at:
            return
        self._sent.labels(self._type(promise.request.command_type)).inc()
        promise.add_done_callback(self._ended)

    def render(self, accept: str) -> tuple[bytes, str]:
        """Return the metrics and their content type."""
        encode, content_type = choose_encoder(accept)
        if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
            return encode(self.registry), content_type
        registry = CollectorRegistry()
        _Files(registry)  # type: ignore[no-untyped-call]
        registry.register(self._gauges)
        return encode(registry), content_type

    def _ended(self, promise: CommandPromise) -> None:
        command = promise.command()
        if promise.error is not None or command.completed_at is None:
            return  # the store was lost, and with it the command's end
        label = self._type(command.command_type)
        self._ends[command.status].labels(label).inc()
        # By the clocks of two machines: a sum that falls would look like a restart.
        seconds = max((command.completed_at - command.created_at).total_seconds(), 0.0)
        self._duration.labels(label).observe(seconds)

    def _type(self, command_type: str) -> str:
        with self._lock:
            if command_type in self._types:
                return command_type
            if len(self._types) >= _MAX_TYPES:
                return _OTHERS
            self._types.add(command_type)
            return command_type


class _Files(MultiProcessCollector):
    """The files of all workers, read again while one of them makes its own: for a moment that is empty."""

    def collect(self) -> Iterator[Metric]:
        """Return the sums; raises struct.error for a file that stays empty."""
        for _ in range(_READ_TRIES):
            with contextlib.suppress(struct.error):
                return super().collect()  # type: ignore[no-untyped-call, no-any-return]
            time.sleep(_MAKING_SECONDS)
        return super().collect()  # type: ignore[no-untyped-call, no-any-return]


def _runs(manager: Orchestrator) -> Metric:
    gauge = GaugeMetricFamily("command_runs", "Runs of plans that are kept, by state.", labels=["state"])
    counts = dict.fromkeys(STATES, 0)
    for run in manager.runs(limit=sys.maxsize):
        counts[run.state] += 1
    for state, count in counts.items():
        gauge.add_metric([state], count)
    return gauge


class _Gauges(Collector):
    """How things stand when somebody asks: of the agents, what they said with their last heartbeats."""

    def __init__(self, manager: Callable[[], CommandManager], room: WaitingRoom) -> None:
        self._manager = manager
        self._room = room

    def collect(self) -> Iterator[Metric]:
        """Yield the gauges; while NATS is unreachable those of the agents are missing."""
        text = "HTTP requests that wait for a command's end, or stream."
        yield GaugeMetricFamily("command_waiting_requests", text, value=self._room.taken)
        reachable = GaugeMetricFamily("command_store_reachable", "Whether NATS and its JetStream can be reached.")
        try:
            manager = self._manager()
            presences = manager.clients() if manager.connection.status is Status.CONNECTED else None
        except LightLinkError:
            presences = None
        reachable.add_metric([], 0 if presences is None else 1)
        yield reachable
        if presences is None:
            return
        if isinstance(manager, Orchestrator):
            yield _runs(manager)
        in_flight = sum(presence.in_flight for presence in presences)
        queued = sum(presence.queued for presence in presences)
        yield GaugeMetricFamily("command_agents_online", "Agents that are online.", value=len(presences))
        yield GaugeMetricFamily("command_in_flight", "Commands that agents run.", value=in_flight)
        yield GaugeMetricFamily("command_queue_depth", "Commands that wait in agents for a worker.", value=queued)

    def describe(self) -> list[Metric]:
        """Return nothing: registering must not ask NATS."""
        return []
