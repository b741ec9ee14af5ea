"""Metrics of clients and services, as Prometheus reads them."""

from __future__ import annotations

import gc
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from helpers.process import run_python
from helpers.waiting import eventually
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

import lightlink
from lightlink import metrics
from lightlink.events.subscription import DropCount
from lightlink.metrics.counts import Drops

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import StartProxy


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def service(url: str, prefix: str) -> Iterator[lightlink.Service]:
    made = lightlink.Service(prefix, url, workers=1, max_pending=1)

    @made.rpc
    def add(a: int, b: int) -> int:
        return a + b

    @made.rpc
    def fail() -> None:
        raise ValueError("no")

    with made:
        yield made


@pytest.fixture
def client(url: str, prefix: str) -> Iterator[lightlink.Client]:
    with lightlink.connect(url, name=prefix) as connected:
        yield connected


def read(registry: CollectorRegistry, name: str, **labels: str) -> float | None:
    """Return the value of a sample in what Prometheus would read, None if there is none."""
    found = [
        sample.value
        for family in text_string_to_metric_families(generate_latest(registry).decode())
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    ]
    assert len(found) <= 1, found
    return found[0] if found else None


def test_calls_are_counted_and_timed(
    registry: CollectorRegistry, service: lightlink.Service, client: lightlink.Client, prefix: str
) -> None:
    metrics.register(client, registry)
    for number in range(3):
        client.call(prefix, "add", {"a": number, "b": 1})
    assert client.service(prefix).add(a=1, b=1) == 2
    client.submit(prefix, "add", {"a": 1, "b": 1}).result(30)

    labels = {"client": prefix, "service": prefix, "method": "add"}
    assert eventually(lambda: read(registry, "lightlink_client_calls_total", **labels) == 5)
    assert read(registry, "lightlink_client_call_duration_seconds_count", **labels) == 5
    seconds = read(registry, "lightlink_client_call_duration_seconds_sum", **labels)
    assert seconds is not None
    assert 0 < seconds < 60
    assert read(registry, "lightlink_client_call_duration_seconds_bucket", **labels, le="+Inf") == 5
    assert read(registry, "lightlink_client_call_errors_total", **labels) is None


def test_calls_that_fail_are_counted_by_their_error(
    registry: CollectorRegistry, service: lightlink.Service, client: lightlink.Client, prefix: str
) -> None:
    metrics.register(client, registry)
    for method, args, error in (
        ("fail", {}, lightlink.HandlerError),
        ("fail", {}, lightlink.HandlerError),
        ("add", {"a": "x", "b": 1}, lightlink.InvalidArguments),
        ("nothing", {}, lightlink.MethodNotFound),
    ):
        with pytest.raises(error):
            client.call(prefix, method, args)
    failed: Future[Any] = client.submit(prefix, "fail")
    with pytest.raises(lightlink.HandlerError):
        failed.result(30)

    def errors(method: str, error: str) -> float | None:
        labels = {"service": prefix, "method": method, "error": error}
        return read(registry, "lightlink_client_call_errors_total", **labels)

    assert eventually(lambda: errors("fail", "HandlerError") == 3)
    assert errors("add", "InvalidArguments") == 1
    assert errors("nothing", "MethodNotFound") == 1


def test_a_service_s_requests_are_counted_and_timed(
    registry: CollectorRegistry, service: lightlink.Service, client: lightlink.Client, prefix: str
) -> None:
    metrics.register(service, registry)
    client.call(prefix, "add", {"a": 1, "b": 1})
    for method in ("fail", "nothing"):
        with pytest.raises(lightlink.RemoteError):
            client.call(prefix, method)

    assert read(registry, "lightlink_service_requests_total", service=prefix, method="add") == 1
    assert read(registry, "lightlink_service_errors_total", service=prefix, method="add") == 0
    assert read(registry, "lightlink_service_errors_total", service=prefix, method="fail") == 1
    assert read(registry, "lightlink_service_unknown_methods_total", service=prefix) == 1
    assert read(registry, "lightlink_service_request_duration_seconds_count", service=prefix, method="add") == 1
    assert eventually(lambda: read(registry, "lightlink_service_held", service=prefix) == 0)


def test_requests_that_a_busy_service_refuses_are_counted(
    registry: CollectorRegistry, url: str, client: lightlink.Client, prefix: str
) -> None:
    release = threading.Event()
    service = lightlink.Service(prefix, url, workers=1, max_pending=1)

    @service.rpc
    def hold() -> None:
        release.wait(20)

    metrics.register(service, registry)
    with service:
        held = [client.submit(prefix, "hold", timeout=30) for _ in range(2)]
        eventually(lambda: read(registry, "lightlink_service_held", service=prefix) == 2)
        with pytest.raises(lightlink.ServiceBusy):
            client.call(prefix, "hold")
        assert read(registry, "lightlink_service_busy_total", service=prefix) == 1
        release.set()
        for each in held:
            each.result(20)


def test_reconnects_are_counted(registry: CollectorRegistry, proxy: StartProxy, prefix: str) -> None:
    between = proxy()
    with lightlink.connect(between.url, name=prefix) as client:
        metrics.register(client, registry)
        assert read(registry, "lightlink_client_connected", client=prefix) == 1
        assert read(registry, "lightlink_client_reconnects_total", client=prefix) == 0
        between.cut()
        eventually(lambda: read(registry, "lightlink_client_reconnects_total", client=prefix) == 1)


def test_what_waits_for_a_server_that_is_gone_is_shown(
    registry: CollectorRegistry, proxy: StartProxy, prefix: str
) -> None:
    between = proxy()
    with lightlink.connect(between.url, name=prefix) as client:
        metrics.register(client, registry)
        between.refuse()
        between.cut()
        eventually(lambda: read(registry, "lightlink_client_connected", client=prefix) == 0)
        for _ in range(3):
            client.publish(f"{prefix}.event", b"x" * 100)
        assert read(registry, "lightlink_client_outbox_messages", client=prefix) == 3
        waiting = read(registry, "lightlink_client_outbox_bytes", client=prefix)
        assert waiting is not None
        assert waiting >= 300
        between.accept()
        eventually(lambda: read(registry, "lightlink_client_outbox_messages", client=prefix) == 0)


def test_dropped_messages_count_when_the_subscription_is_gone(
    registry: CollectorRegistry, client: lightlink.Client, prefix: str
) -> None:
    metrics.register(client, registry)
    with client.subscribe(prefix, max_pending=1):
        for _ in range(5):
            client.publish(prefix, 1)
        eventually(lambda: read(registry, "lightlink_client_dropped_total", client=prefix) == 4)
        for _ in range(3):
            client.publish(prefix, 1)
        eventually(
            lambda: [getattr(each, "dropped", 0) for each in client.subscriptions] == [7]
        )  # and nobody reads the metrics
    with client.subscribe(f"{prefix}.next") as following:  # what reads the socket knows the last that heard something
        client.publish(f"{prefix}.next", 1)
        following.get(timeout=30)
    eventually(lambda: gc.collect() >= 0 and f"'{prefix}'" not in str(client.subscriptions))

    assert read(registry, "lightlink_client_dropped_total", client=prefix) == 7
    assert read(registry, "lightlink_client_dropped_total", client=prefix) == 7


def test_dropped_messages_count_once_however_many_ask() -> None:
    class Subscribed:
        dropped = 1

        def __init__(self) -> None:
            self.drops = DropCount()
            self.drops.count = self.dropped

    drops, subscriptions, start = Drops(), [Subscribed() for _ in range(20_000)], threading.Barrier(4)

    def ask(_: int) -> int:
        start.wait(30)
        return drops.total(subscriptions)

    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(ask, range(4))) == {20_000}
    assert drops.total(subscriptions) == 20_000


def test_clients_of_one_name_are_added_up(
    registry: CollectorRegistry, service: lightlink.Service, url: str, prefix: str
) -> None:
    name = f"{prefix}-caller"
    with lightlink.connect(url, name=name) as first, lightlink.connect(url, name=name) as second:
        for each in (first, second):
            metrics.register(each, registry)
            each.call(prefix, "add", {"a": 1, "b": 1})

        assert read(registry, "lightlink_client_calls_total", client=name, method="add") == 2
        assert read(registry, "lightlink_client_connected", client=name) == 2


def test_registering_twice_counts_once(
    registry: CollectorRegistry, service: lightlink.Service, client: lightlink.Client, prefix: str
) -> None:
    for _ in range(2):
        assert metrics.register(client, registry) is client
        assert metrics.register(service, registry) is service
    client.call(prefix, "add", {"a": 1, "b": 1})

    assert read(registry, "lightlink_client_calls_total", client=prefix) == 1
    assert read(registry, "lightlink_service_requests_total", service=prefix, method="add") == 1


def test_one_client_may_be_shown_in_two_registries(
    registry: CollectorRegistry, service: lightlink.Service, client: lightlink.Client, prefix: str
) -> None:
    other = CollectorRegistry()
    for each in (registry, other):
        metrics.register(client, each)
    client.call(prefix, "add", {"a": 1, "b": 1})

    assert [read(each, "lightlink_client_calls_total", client=prefix) for each in (registry, other)] == [1, 1]


def test_a_client_that_nobody_holds_is_shown_no_more(registry: CollectorRegistry, url: str, prefix: str) -> None:
    client = lightlink.connect(url, name=prefix)
    metrics.register(client, registry)
    client.close()
    del client

    def shown() -> float | None:
        gc.collect()
        return read(registry, "lightlink_client_connected", client=prefix)

    eventually(lambda: shown() is None)


def test_something_else_is_refused(registry: CollectorRegistry) -> None:
    with pytest.raises(lightlink.InvalidOption, match="source"):
        metrics.register("client", registry)  # type: ignore[type-var]


def test_without_prometheus_the_error_says_what_to_install() -> None:
    finished = run_python("""
        import sys
        sys.modules["prometheus_client"] = None
        try:
            import lightlink.metrics
        except ModuleNotFoundError as exc:
            print(exc)
    """)

    assert finished.stdout == "lightlink.metrics needs prometheus_client: pip install prometheus-client\n"


def test_submitted_calls_and_those_of_map_are_counted(
    registry: CollectorRegistry, service: lightlink.Service, client: lightlink.Client, prefix: str
) -> None:
    metrics.register(client, registry)
    assert client.submit(prefix, "add", {"a": 1, "b": 2}).result(30) == 3
    assert list(client.map(prefix, "add", [{"a": 1, "b": 1}, {"a": 2, "b": 2}], concurrency=1)) == [2, 4]
    labels = {"client": prefix, "service": prefix, "method": "add"}
    eventually(lambda: read(registry, "lightlink_client_calls_total", **labels) == 3)


def test_an_observer_is_told_of_all_that_a_client_does(client: lightlink.Client, prefix: str) -> None:
    told: list[tuple[str, str, str]] = []

    def broken(*facts: object) -> None:
        raise ValueError("an observer's own fault")

    client.add_observer(broken)
    client.add_observer(lambda kind, name, seconds, error: told.append((kind, name, type(error).__name__)))
    client.publish(prefix, 1)
    with pytest.raises(lightlink.ServiceUnavailable):
        client.call(prefix, "nothing")
    assert told == [("publish", prefix, "NoneType"), ("call", f"{prefix}.nothing", "ServiceUnavailable")]
    with pytest.raises(lightlink.InvalidOption):
        client.add_observer("no function")  # type: ignore[arg-type]
