"""What a handler's log lines know, that nothing of it reaches the next one, and the id that goes from call to call."""

from __future__ import annotations

import contextvars
import io
import logging
import queue
import re
from typing import TYPE_CHECKING, Any

import pytest
from helpers.process import run_python

import lightlink

if TYPE_CHECKING:
    from collections.abc import Iterator

    from helpers.commands import World

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
HEADER = "LightLink-Correlation-Id"


@pytest.fixture
def client(url: str) -> Iterator[lightlink.Client]:
    with lightlink.connect(url) as connected:
        yield connected


@pytest.fixture
def service(url: str, prefix: str) -> Iterator[lightlink.Service]:
    """One worker: each handler runs where the one before has run."""
    running = lightlink.Service(prefix, url, workers=1)

    @running.rpc
    def look() -> dict[str, Any]:
        return lightlink.log_context()

    @running.rpc
    def nested() -> Any:
        return [lightlink.log_context(), running.client.call(prefix + "-inner", "look")]

    @running.rpc
    def fail() -> None:
        raise RuntimeError("on purpose")

    with running:
        yield running


def test_outside_of_a_handler_nothing_is_known() -> None:
    assert lightlink.log_context() == {}


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({HEADER: "mine"}, "mine"),
        ({HEADER: "mine", "traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}, "mine"),
        ({"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}, TRACE),
        ({"traceparent": "00-nonsense-01"}, None),
        ({HEADER: "not one word"}, None),
        ({}, None),
    ],
)
def test_the_correlation_id_is_the_callers_the_traces_or_random(
    client: lightlink.Client, service: lightlink.Service, prefix: str, headers: dict[str, str], expected: str | None
) -> None:
    found = client.call(prefix, "look", headers=headers)
    assert {name: found[name] for name in ("service", "method")} == {"service": prefix, "method": "look"}
    if expected is None:
        assert re.fullmatch(r"[0-9a-f-]{36}", found["correlation_id"])
    else:
        assert found["correlation_id"] == expected


def test_what_a_handler_calls_carries_its_correlation_id(
    client: lightlink.Client, service: lightlink.Service, url: str, prefix: str
) -> None:
    inner = lightlink.Service(f"{prefix}-inner", url)
    heard: queue.SimpleQueue[Any] = queue.SimpleQueue()

    @inner.rpc
    def look(request: lightlink.Request) -> str:
        request.client.publish(f"{prefix}.event", 1)
        return request.headers[HEADER]

    @inner.on(f"{prefix}.event")
    def on_event(message: lightlink.Message) -> None:
        heard.put((message.headers[HEADER], lightlink.log_context()))

    with inner:
        [known, carried] = client.call(prefix, "nested")

    assert known["correlation_id"] == carried
    carried_on, context = heard.get(timeout=30)
    assert carried_on == carried
    assert context == {"correlation_id": carried, "service": f"{prefix}-inner", "subject": f"{prefix}.event"}


def test_a_handlers_context_is_its_own(client: lightlink.Client, url: str, prefix: str) -> None:
    tenant: contextvars.ContextVar[str] = contextvars.ContextVar("tenant", default="nobody")
    service = lightlink.Service(prefix, url, workers=1)

    @service.rpc
    def take(name: str) -> str:
        before = tenant.get()
        tenant.set(name)
        return before

    @service.on(prefix)
    def on_event(name: str) -> None:
        before.put(tenant.get())
        tenant.set(name)

    before: queue.SimpleQueue[str] = queue.SimpleQueue()
    with service:
        assert [client.call(prefix, "take", {"name": "a"}) for _ in range(3)] == ["nobody"] * 3
        for _ in range(3):
            client.publish(prefix, "b")
        assert [before.get(timeout=30) for _ in range(3)] == ["nobody"] * 3


def test_a_command_knows_its_ids_and_sends_its_correlation_id_on(
    world: World, manager: lightlink.CommandManager, prefix: str
) -> None:
    agent = world.agent(prefix)

    @agent.command("look")
    def look() -> dict[str, Any]:
        return lightlink.log_context()

    with agent:
        promise = manager.send(prefix, "look", headers={HEADER: "mine", "LightLink-Run-Id": "run-7"})
        assert promise.result(30) == {
            "correlation_id": "mine",
            "client_id": prefix,
            "command_id": promise.command_id,
            "attempt": 1,
            "run_id": "run-7",
        }


def test_a_filter_puts_what_is_known_on_each_record(client: lightlink.Client, url: str, prefix: str) -> None:
    lines = io.StringIO()
    handler = logging.StreamHandler(lines)
    handler.addFilter(lightlink.LogFilter())
    handler.setFormatter(logging.Formatter("%(correlation_id)s|%(service)s|%(method)s|%(command_id)s|%(message)s"))
    log = logging.getLogger(f"test.{prefix}")
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False
    service = lightlink.Service(prefix, url)
    service.register("say", lambda: log.info("inside"))

    with service:
        client.call(prefix, "say", headers={HEADER: "mine"})
    log.info("outside")

    assert lines.getvalue().splitlines() == [f"mine|{prefix}|say||inside", "||||outside"]


def test_a_failed_handler_is_logged_with_caller_id_and_method(
    client: lightlink.Client, service: lightlink.Service, prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.handler.addFilter(lightlink.LogFilter())
    with pytest.raises(lightlink.HandlerError):
        client.call(prefix, "fail", headers={HEADER: "mine"})

    inbox = client._connection.session.replies.prefix.decode().rstrip(".")
    [record] = [each for each in caplog.records if "failed" in each.message]
    assert record.message == f"lightlink: {prefix}.fail failed (caller {inbox}, correlation id mine)"
    assert vars(record)["correlation_id"] == "mine"


def test_a_failed_handler_of_events_is_logged_with_the_id(
    client: lightlink.Client, prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    failed: queue.SimpleQueue[Exception] = queue.SimpleQueue()
    with lightlink.connect(client.options.servers[0], on_error=failed.put) as receiver:

        @receiver.on(prefix)
        def on_event(_: int) -> None:
            raise RuntimeError("on purpose")

        client.publish(prefix, 1, headers={HEADER: "mine"})
        assert str(failed.get(timeout=30)) == "on purpose"

    messages = [each.message for each in caplog.records]
    assert f"lightlink: the handler of {prefix!r} failed (correlation id mine)" in messages


def test_structlog_merges_it_by_its_own_means(url: str, prefix: str) -> None:
    pytest.importorskip("structlog")
    code = """
        import sys, structlog, lightlink
        url, name = sys.argv[1:]
        structlog.configure(processors=[structlog.contextvars.merge_contextvars, structlog.processors.JSONRenderer()])
        service = lightlink.Service(name, url)

        @service.rpc
        def say():
            structlog.get_logger().info("inside")

        with service, lightlink.connect(url) as client:
            client.call(name, "say", headers={"LightLink-Correlation-Id": "mine"})
            structlog.get_logger().info("outside")
    """
    done = run_python(code, url, prefix)
    inside, outside = done.stdout.splitlines()
    assert all(word in inside for word in ('"correlation_id": "mine"', f'"service": "{prefix}"', '"method": "say"'))
    assert outside == '{"event": "outside"}'
