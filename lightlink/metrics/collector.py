"""The clients and services shown in one registry, as Prometheus reads them."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    SummaryMetricFamily,
)
from prometheus_client.registry import Collector

from lightlink.concurrency.threads import Condition
from lightlink.connection.session import Status
from lightlink.metrics.counts import Calls, ClientCounts, Drops

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from prometheus_client import CollectorRegistry
    from prometheus_client.metrics_core import Metric

    from lightlink.client import Client
    from lightlink.service.service import Service


class LinkCollector(Collector):
    """Everything that was registered with one registry."""

    def __init__(self) -> None:
        self._clients: weakref.WeakKeyDictionary[Client, ClientCounts] = weakref.WeakKeyDictionary()
        self._services: weakref.WeakKeyDictionary[Service, Drops] = weakref.WeakKeyDictionary()
        self._entered = False
        self._lock = Condition()

    def enter(self, registry: CollectorRegistry) -> None:
        """Have the registry ask this collector; once."""
        with self._lock:
            entered, self._entered = self._entered, True
        if not entered:
            registry.register(self)

    def add_client(self, client: Client) -> None:
        """Show a client."""
        with self._lock:
            if client not in self._clients:
                self._clients[client] = ClientCounts(client)

    def add_service(self, service: Service) -> None:
        """Show a service."""
        with self._lock:
            self._services.setdefault(service, Drops())

    def describe(self) -> list[Metric]:
        """Return nothing: what there is to show is known only when it is asked for."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield all metrics as they stand."""
        clients = list(self._clients.items())
        if clients:
            yield from _client_metrics(clients)
            yield from _call_metrics([counts for _, counts in clients])
        services = list(self._services.items())
        if services:
            yield from _service_metrics(services)
            yield from _method_metrics([service for service, _ in services])
        consumptions = [each for client, _ in clients for each in client.subscriptions if _is_consumption(each)]
        consumptions += [each for service, _ in services for each in service.subscriptions if _is_consumption(each)]
        if consumptions:
            yield from _consumer_metrics(consumptions)


def _client_metrics(clients: list[tuple[Client, ClientCounts]]) -> Iterator[Metric]:
    gauges: dict[str, tuple[str, Callable[[Client, ClientCounts], float]]] = {
        "connected": ("Clients that are connected.", lambda c, _: c.status is Status.CONNECTED),
        "outbox_messages": ("Messages that wait for the server.", lambda c, _: c.unsent.messages),
        "outbox_bytes": ("Bytes that wait for the server.", lambda c, _: c.unsent.bytes),
    }
    counters: dict[str, tuple[str, Callable[[Client, ClientCounts], float]]] = {
        "reconnects": ("How often a lost connection was made again.", lambda _, counts: counts.reconnects),
        "dropped": ("Messages that subscriptions were too slow for.", lambda c, counts: counts.dropped(c)),
    }
    for kind, metrics in ((GaugeMetricFamily, gauges), (CounterMetricFamily, counters)):
        for name, (text, read) in metrics.items():
            family = kind(f"lightlink_client_{name}", text, labels=["client"])
            for label, value in _summed((counts.name, read(client, counts)) for client, counts in clients).items():
                family.add_metric([label], value)
            yield family


def _call_metrics(clients: list[ClientCounts]) -> Iterator[Metric]:
    labels = ["client", "service", "method"]
    calls = CounterMetricFamily("lightlink_client_calls", "Calls that have ended.", labels=labels)
    errors = CounterMetricFamily("lightlink_client_call_errors", "Calls that failed.", labels=[*labels, "error"])
    text = "From a call to its result or error."
    durations = HistogramMetricFamily("lightlink_client_call_duration_seconds", text, labels=labels)
    merged: dict[tuple[str, str, str], Calls] = {}
    for counts in clients:
        for key, made in list(counts.calls.items()):
            merged.setdefault((counts.name, *key), Calls()).add(made)
    for labelled, made in merged.items():
        calls.add_metric(labelled, made.count)
        durations.add_metric(labelled, made.cumulative(), made.seconds)
        for error, count in made.errors.items():
            errors.add_metric([*labelled, error], count)
    yield from (calls, errors, durations)


def _service_metrics(services: list[tuple[Service, Drops]]) -> Iterator[Metric]:
    metrics: tuple[tuple[Any, str, str, Callable[[Service, Drops], float]], ...] = (
        (CounterMetricFamily, "busy", "Requests refused because too many waited.", lambda s, _: s.stats.busy),
        (CounterMetricFamily, "unknown_methods", "Requests for no method.", lambda s, _: s.stats.unknown),
        (CounterMetricFamily, "dropped", "Events it was too slow for.", lambda s, d: d.total(s.subscriptions)),
        (GaugeMetricFamily, "held", "Requests that wait or run.", lambda s, _: s.stats.held),
    )
    for kind, name, text, read in metrics:
        family = kind(f"lightlink_service_{name}", text, labels=["service"])
        for label, value in _summed((service.name, read(service, drops)) for service, drops in services).items():
            family.add_metric([label], value)
        yield family


def _method_metrics(services: list[Service]) -> Iterator[Metric]:
    labels = ["service", "method"]
    requests = CounterMetricFamily("lightlink_service_requests", "Requests for a method.", labels=labels)
    errors = CounterMetricFamily("lightlink_service_errors", "Requests answered with an error.", labels=labels)
    text = "Time in a method's handler."
    durations = SummaryMetricFamily("lightlink_service_request_duration_seconds", text, labels=labels)
    stats = [((service.name, name), method) for service in services for name, method in service.stats.methods.items()]
    counts = _summed((key, each.requests) for key, each in stats)
    failed = _summed((key, each.errors) for key, each in stats)
    spent = _summed((key, each.processing_time) for key, each in stats)
    for key, count in counts.items():
        requests.add_metric(key, count)
        errors.add_metric(key, failed[key])
        durations.add_metric(key, count_value=int(count), sum_value=spent[key])
    yield from (requests, errors, durations)


def _is_consumption(received: object) -> bool:
    # Not by its class, which few programs need to import.
    return hasattr(received, "counts")


def _consumer_metrics(consumptions: list[Any]) -> Iterator[Metric]:
    labels = ["stream", "consumer"]
    events = CounterMetricFamily("lightlink_consumer_events", "Durable events by outcome.", labels=[*labels, "outcome"])
    held = GaugeMetricFamily("lightlink_consumer_held", "Durable events that wait or are handled here.", labels=labels)
    lag = GaugeMetricFamily("lightlink_consumer_lag", "Durable events not handled yet, by anybody.", labels=labels)
    seconds = CounterMetricFamily("lightlink_consumer_seconds", "Time in handlers of durable events.", labels=labels)
    keyed = [((each.stream, each.name), each) for each in consumptions]
    for key, count in _summed(
        ((*key, name), count) for key, each in keyed for name, count in each.counts.items()
    ).items():
        events.add_metric(key, count)
    for key, count in _summed((key, each.held) for key, each in keyed).items():
        held.add_metric(key, count)
    # All processes are told the same.
    for key in {key for key, _ in keyed}:
        lag.add_metric(key, max(each.lag for other, each in keyed if other == key))
    for key, spent in _summed((key, each.seconds) for key, each in keyed).items():
        seconds.add_metric(key, spent)
    yield from (events, held, lag, seconds)


def _summed(pairs: Iterable[tuple[Any, float]]) -> dict[Any, float]:
    """Add up the values of each key."""
    found: dict[Any, float] = {}
    for key, value in pairs:
        found[key] = found.get(key, 0) + value
    return found
