"""Traces with the real OpenTelemetry SDK and its exporter in memory."""

from __future__ import annotations

import io
import queue
from typing import TYPE_CHECKING, Any

import pytest
from helpers.process import run_python
from helpers.tracing import Spans, tracing
from opentelemetry import baggage, context, trace
from opentelemetry.trace import SpanKind, StatusCode

import lightlink
from lightlink.contrib import opentelemetry

if TYPE_CHECKING:
    from collections.abc import Iterator

    from helpers.commands import World
    from opentelemetry.sdk.trace import ReadableSpan


@pytest.fixture
def spans() -> Iterator[Spans]:
    with tracing() as found:
        yield found


def one(spans: list[ReadableSpan], kind: SpanKind, name: str) -> ReadableSpan:
    [found] = [span for span in spans if (span.kind, span.name) == (kind, name)]
    return found


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def test_one_trace_goes_through_calls_events_and_commands(spans: Spans, world: World, url: str, prefix: str) -> None:
    handled: queue.SimpleQueue[str] = queue.SimpleQueue()
    outer, inner = lightlink.Service("outer" + prefix, url), lightlink.Service("inner" + prefix, url)
    manager = world.manager(sweep_interval=None)
    agent = world.agent(prefix)

    @outer.rpc
    def order() -> Any:
        return outer.client.call(inner.name, "reserve")

    @inner.rpc
    def reserve() -> str:
        inner.client.publish(f"{prefix}.reserved", 1)
        return "done"

    @inner.on(f"{prefix}.reserved")
    def on_reserved(_: int) -> None:
        manager.send(prefix, "restock").result(30)
        handled.put("event")

    @agent.command("restock")
    def restock() -> None: ...

    with outer, inner, agent, lightlink.connect(url) as client:
        with spans.provider.get_tracer("test").start_as_current_span("root"):
            assert client.call(outer.name, "order") == "done"
        assert handled.get(timeout=30) == "event"
        found = spans.wait(9)

    [root] = [span for span in found if span.name == "root"]
    steps = [
        one(found, SpanKind.CLIENT, f"{outer.name}/order"),
        one(found, SpanKind.SERVER, f"{outer.name}/order"),
        one(found, SpanKind.CLIENT, f"{inner.name}/reserve"),
        one(found, SpanKind.SERVER, f"{inner.name}/reserve"),
        one(found, SpanKind.PRODUCER, "publish *.reserved"),
        one(found, SpanKind.CONSUMER, "process *.reserved"),
        one(found, SpanKind.PRODUCER, "send restock"),
    ]
    for parent, child in zip([root, *steps], steps, strict=False):
        assert child.parent is not None
        assert (child.parent.trace_id, child.parent.span_id) == (parent.context.trace_id, parent.context.span_id)
    command = one(found, SpanKind.CONSUMER, "process restock")
    assert command.parent is None
    assert command.context.trace_id != root.context.trace_id
    [link] = command.links
    assert (link.context.trace_id, link.context.span_id) == (steps[-1].context.trace_id, steps[-1].context.span_id)


def test_attributes_are_conventional_with_few_destinations(spans: Spans, world: World, url: str, prefix: str) -> None:
    got: queue.SimpleQueue[Any] = queue.SimpleQueue()
    service = lightlink.Service(prefix, url)
    service.register("add", lambda a: a)
    service.on("device.*.temperature")(got.put)
    service.on_file(got.put)
    agent = world.agent(prefix)
    agent.register("restart", lambda: None)
    with service, agent, lightlink.connect(url) as client:
        client.call(prefix, "add", {"a": 1})
        client.publish("device.sensor01.temperature", 21)
        assert got.get(timeout=30) == 21
        client.send_file(io.BytesIO(b"x"), prefix)
        assert got.get(timeout=30).size == 1
        promise = lightlink.CommandManager(client, sweep_interval=None).send(prefix, "restart")
        promise.result(30)
        found = spans.wait(8)

    told = {(span.kind.name, span.name): attributes(span) for span in found}
    rpc = {"rpc.system": "lightlink", "rpc.service": prefix, "rpc.method": "add"}
    assert told["CLIENT", f"{prefix}/add"] == told["SERVER", f"{prefix}/add"] == rpc
    event = {
        "messaging.system": "nats",
        "messaging.destination.name": "device.sensor01.temperature",
        "messaging.destination.template": "device.*.temperature",
    }
    assert (
        told["PRODUCER", "publish device.*.temperature"].items()
        >= {
            **event,
            "messaging.operation.type": "publish",
            "messaging.operation.name": "publish",
        }.items()
    )
    assert (
        told["CONSUMER", "process device.*.temperature"].items()
        >= {
            **event,
            "messaging.operation.type": "process",
        }.items()
    )
    assert told["PRODUCER", "publish file.transfer"]["messaging.destination.name"] == "file.transfer"
    assert told["CONSUMER", "process file.transfer"]["messaging.destination.name"] == "file.transfer"
    assert told["PRODUCER", "send restart"]["messaging.batch.message_count"] == 1
    assert (
        told["CONSUMER", "process restart"].items()
        >= {
            "messaging.destination.name": "ll.commands",
            "messaging.message.id": promise.command_id,
            "lightlink.client.id": prefix,
            "lightlink.command.attempt": 1,
        }.items()
    )
    assert {span.instrumentation_scope.schema_url for span in found if span.instrumentation_scope} == {
        "https://opentelemetry.io/schemas/1.27.0"
    }


def test_a_durable_event_begins_a_trace_linked_to_its_sender(spans: Spans, world: World, prefix: str) -> None:
    client = world.client()
    client.stream(f"S_{prefix}", [f"{prefix}.>"])
    handled: queue.SimpleQueue[str] = queue.SimpleQueue()

    @client.consume(f"{prefix}.>", name="billing")
    def bill(_: int) -> None:
        handled.put("done")

    client.publish_stored(f"{prefix}.order", 1)
    assert handled.get(timeout=30) == "done"
    [sent, taken] = spans.wait(2)
    assert (sent.kind, sent.name, taken.kind, taken.name) == (
        SpanKind.PRODUCER,
        "publish *.order",
        SpanKind.CONSUMER,
        "process *.order",
    )
    assert taken.parent is None
    [link] = taken.links
    assert (link.context.trace_id, link.context.span_id) == (sent.context.trace_id, sent.context.span_id)


def test_a_batch_links_to_the_senders_of_all_its_events(spans: Spans, world: World, prefix: str) -> None:
    client = world.client()
    client.stream(f"S_{prefix}", [f"{prefix}.>"])
    handled: queue.SimpleQueue[int] = queue.SimpleQueue()
    for number in range(2):
        client.publish_stored(f"{prefix}.order", number)

    @client.consume(f"{prefix}.>", name="billing", batch=2, within=30.0)
    def bill(messages: list[lightlink.Message]) -> None:
        handled.put(len(messages))

    assert handled.get(timeout=30) == 2
    [first, second, taken] = spans.wait(3)
    assert (taken.name, attributes(taken)["messaging.batch.message_count"]) == ("process billing", 2)
    assert [link.context.span_id for link in taken.links] == [first.context.span_id, second.context.span_id]


def test_a_message_to_an_agent_is_of_its_senders_trace(spans: Spans, world: World, prefix: str) -> None:
    agent = world.agent(prefix)
    agent.on_message("notice")(lambda message: None)
    agent.start()
    world.manager().message(prefix, "notice", wait_ack=True, timeout=30)
    [sent, taken] = spans.wait(2)
    assert (sent.kind, sent.name) == (SpanKind.PRODUCER, "send notice")
    assert (taken.kind, taken.name) == (SpanKind.CONSUMER, "process notice")
    assert taken.parent is not None
    assert taken.parent.span_id == sent.context.span_id


def test_an_error_is_noted_on_both_sides(spans: Spans, url: str, prefix: str) -> None:
    service = lightlink.Service(prefix, url)

    @service.rpc
    def fail() -> None:
        raise RuntimeError("on purpose")

    with service, lightlink.connect(url) as client:
        with pytest.raises(lightlink.HandlerError):
            client.call(prefix, "fail")
        with pytest.raises(lightlink.HandlerError):
            client.submit(prefix, "fail").result(30)
        found = spans.wait(4)

    assert {span.status.status_code for span in found} == {StatusCode.ERROR}
    errors = sorted((span.kind.name, attributes(span)["error.type"]) for span in found)
    assert errors == [("CLIENT", "HandlerError")] * 2 + [("SERVER", "RuntimeError")] * 2
    assert all([event.name for event in span.events] == ["exception"] for span in found)


def test_baggage_goes_along_and_stays_in_its_handler(spans: Spans, world: World, url: str, prefix: str) -> None:
    service = lightlink.Service(prefix, url, workers=1)
    agent = world.agent(prefix)

    @service.rpc
    def tenant() -> Any:
        return [baggage.get_baggage("tenant"), trace.get_current_span().get_span_context().is_valid]

    agent.register("tenant", lambda: baggage.get_baggage("tenant"))
    with service, agent, lightlink.connect(url) as client:
        manager = lightlink.CommandManager(client, sweep_interval=None)
        token = context.attach(baggage.set_baggage("tenant", "acme"))
        try:
            assert client.call(prefix, "tenant") == ["acme", True]
            assert client.submit(prefix, "tenant").result(30) == ["acme", True]
            assert manager.send(prefix, "tenant").result(30) == "acme"
        finally:
            context.detach(token)
        assert client.call(prefix, "tenant") == [None, True]
        assert manager.send(prefix, "tenant").result(30) is None


def test_the_trace_is_the_correlation_id_of_what_begins_with_one(spans: Spans, url: str, prefix: str) -> None:
    service = lightlink.Service(prefix, url)
    service.register("look", lambda: lightlink.log_context()["correlation_id"])
    with service, lightlink.connect(url) as client:
        seen = client.call(prefix, "look")
        found = spans.wait(2)
    assert {f"{span.context.trace_id:032x}" for span in found} == {seen}


def test_instrumenting_twice_makes_no_second_span(spans: Spans, url: str, prefix: str) -> None:
    opentelemetry.instrument(spans.provider)
    with lightlink.connect(url) as client:
        client.publish(prefix, 1)
    assert [span.name for span in spans.wait(1)] == ["publish *"]


def test_tracing_may_be_given_to_one_client_alone(url: str, prefix: str) -> None:
    spans = Spans()
    with (
        lightlink.connect(url, middleware=[opentelemetry.Tracing(spans.provider)]) as traced,
        lightlink.connect(url) as plain,
    ):
        plain.publish(prefix, 1)
        traced.publish(prefix, 1)
    assert len(spans.wait(1)) == 1


TRACE = {
    "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    "tracestate": "a=b",
    "baggage": "c=d",
}


def test_without_it_trace_headers_pass_through_untouched(url: str, prefix: str) -> None:
    service, behind = lightlink.Service(prefix, url), lightlink.Service(f"{prefix}-behind", url)

    def look(request: lightlink.Request) -> dict[str, str]:
        return {name: value for name, value in request.headers.items() if name in TRACE}

    @service.rpc
    def ask(request: lightlink.Request, own: dict[str, str]) -> list[Any]:
        return [look(request), service.client.call(behind.name, "look", headers=own)]

    behind.register("look", look)
    other = {"traceparent": TRACE["traceparent"].replace("4b", "00")}
    with service, behind, lightlink.connect(url) as client:
        assert client.call(prefix, "ask", {"own": {}}, headers=TRACE) == [TRACE, TRACE]
        # One of the handler's own is not mixed with the state of the trace that came.
        assert client.call(prefix, "ask", {"own": other}, headers=TRACE)[1] == {**other, "baggage": "c=d"}
        assert client.call(prefix, "ask", {"own": {}}) == [{}, {}]


def test_where_no_span_is_current_the_headers_name_the_parent(spans: Spans, url: str, prefix: str) -> None:
    service = lightlink.Service(prefix, url)
    service.register("look", lambda: baggage.get_baggage("c"))
    with service, lightlink.connect(url) as client:
        assert client.call(prefix, "look", headers=TRACE) == "d"
        found = spans.wait(2)
    assert [f"{span.context.trace_id:x}" for span in found] == ["4bf92f3577b34da6a3ce929d0e0e4736"] * 2
    sent = one(found, SpanKind.CLIENT, f"{prefix}/look")
    assert sent.parent is not None
    assert (f"{sent.parent.span_id:016x}", sent.context.trace_state.get("a")) == ("00f067aa0ba902b7", "b")


def test_a_command_s_own_trace_takes_no_state_of_the_sender_s(spans: Spans, world: World, prefix: str) -> None:
    agent, manager = world.agent(prefix), world.manager(sweep_interval=None)
    got: list[dict[str, str]] = []
    service = lightlink.Service(prefix, world.url)

    @service.rpc
    def look(request: lightlink.Request) -> None:
        got.append(request.headers)

    agent.register("ask", lambda: agent.client.call(prefix, "look"))

    with service, agent:
        manager.send(prefix, "ask", headers={**TRACE, "own": "1"}).result(30)
    assert "tracestate" not in got[0]
    assert got[0]["baggage"] == "c=d"
    assert TRACE["traceparent"][:35] not in got[0]["traceparent"]


def test_without_the_package_the_extra_is_named() -> None:
    code = """
        import sys
        sys.modules["opentelemetry"] = None
        try:
            import lightlink.contrib.opentelemetry
        except ModuleNotFoundError as exc:
            print(exc)
    """
    assert "pip install 'lightlink[otel]'" in run_python(code).stdout
