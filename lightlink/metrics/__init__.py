"""Metrics of clients and services for Prometheus (extra ``http``, or prometheus-client by itself).

::

    lightlink.metrics.register(client)
    lightlink.metrics.register(service, registry=my_registry)

Clients of one name are shown as one, and so are a service's instances in one process. What has been garbage-collected
is no longer shown. The HTTP API has metrics of the commands: see `lightlink.http`.
"""

from __future__ import annotations

from typing import TypeVar
from weakref import WeakKeyDictionary

from lightlink.client import Client
from lightlink.errors import InvalidOption
from lightlink.service.service import Service

try:
    from prometheus_client import REGISTRY, CollectorRegistry

    from lightlink.metrics.collector import LinkCollector
except ModuleNotFoundError as exc:
    if exc.name != "prometheus_client":
        raise
    raise ModuleNotFoundError(
        f"lightlink.metrics needs {exc.name}: pip install prometheus-client", name=exc.name
    ) from exc

__all__ = ["register"]

Source = TypeVar("Source", Client, Service)

# One collector a registry, so that each metric is shown once however many are registered.
_collectors: WeakKeyDictionary[CollectorRegistry, LinkCollector] = WeakKeyDictionary()


def register(source: Source, registry: CollectorRegistry = REGISTRY) -> Source:
    """Show a client's or a service's metrics in a registry, and return it. Registering again changes nothing."""
    collector = _collectors.get(registry)
    if collector is None:
        # Of two threads that come at the same time one makes the collector.
        collector = _collectors.setdefault(registry, LinkCollector())
        collector.enter(registry)
    if isinstance(source, Client):
        collector.add_client(source)
    elif isinstance(source, Service):
        collector.add_service(source)
    else:
        raise InvalidOption("source", "must be a Client or a Service", type(source).__name__)
    return source
