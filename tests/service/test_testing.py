"""A service's handlers in the caller's thread, without a server."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import attrs
import pytest

import lightlink
from lightlink.errors import (
    DecodeError,
    EncodeError,
    HandlerError,
    InvalidArguments,
    InvalidName,
    InvalidOption,
    MethodNotFound,
    NotReady,
)

if TYPE_CHECKING:
    from lightlink.middleware import Proceed


@attrs.define
class Point:
    x: int
    y: int


@pytest.fixture
def service() -> lightlink.Service:
    made = lightlink.Service("math")

    @made.rpc
    def add(a: int, b: int = 2) -> int:
        return a + b

    @made.rpc
    def move(point: Point) -> Point:
        return Point(point.x + 1, point.y)

    @made.rpc
    def look(request: lightlink.Request) -> list[Any]:
        left = request.remaining()
        context = lightlink.log_context()
        return [request.headers.get("Tenant"), 4 < left <= 5, context["method"], threading.current_thread().name]

    @made.rpc
    def fail() -> None:
        raise RuntimeError("on purpose")

    @made.rpc
    def forward(request: lightlink.Request) -> Any:
        return request.client.call("other", "method")

    @made.rpc
    def unfit() -> object:
        return object()

    return made


def test_a_call_runs_in_the_callers_thread_as_behind_a_server(service: lightlink.Service) -> None:
    client = service.test_client()
    assert client.call("add", {"a": 1}) == 3
    assert client.call("move", {"point": Point(1, 2)}) == {"x": 2, "y": 2}
    assert client.call("move", {"point": Point(1, 2)}, returns=Point) == Point(2, 2)
    seen = client.call("look", headers={"Tenant": "acme"}, timeout=5.0)
    assert seen == ["acme", True, "look", threading.current_thread().name]


def test_errors_are_those_that_a_caller_gets(service: lightlink.Service) -> None:
    client = service.test_client()
    with pytest.raises(InvalidArguments, match="missing argument 'a'"):
        client.call("add", {})
    with pytest.raises(MethodNotFound, match=r"did you mean add\?"):
        client.call("ad")
    with pytest.raises(HandlerError, match="RuntimeError: on purpose"):
        client.call("fail")
    with pytest.raises(HandlerError, match="EncodeError"):
        client.call("unfit")
    with pytest.raises(EncodeError):
        client.call("add", {"a": object()})
    with pytest.raises(DecodeError):
        client.call("add", {"a": 1}, returns=str)
    with pytest.raises(InvalidOption, match="returns"):
        client.call("add", {"a": 1}, returns=5)
    with pytest.raises(InvalidName):
        client.call("no method")


def test_middleware_is_around_the_handlers() -> None:
    def doubling(call: lightlink.Call, proceed: Proceed) -> Any:
        assert call.request is not None
        return 2 * proceed(call)

    def adding(call: lightlink.Call, proceed: Proceed) -> Any:
        call.args["a"] += 10
        return proceed(call)

    service = lightlink.Service("math", middleware=[doubling])
    service.register("double", lambda a: a, middleware=[adding])
    assert service.test_client().call("double", {"a": 1}) == 22


def test_events_reach_every_handler_for_them(service: lightlink.Service) -> None:
    got: list[Any] = []

    @service.on("events.*")
    def on_any(message: lightlink.Message) -> None:
        got.append((message.subject, message.data, message.headers))

    @service.on("events.user")
    def on_user(point: Point) -> None:
        got.append(point)

    client = service.test_client()
    assert client.publish("events.user", {"x": 1, "y": 2}, headers={"Tenant": "acme"}) == 2
    assert client.publish("events.other", 5) == 1
    assert client.publish("nobody", 5) == 0
    assert got == [
        ("events.user", {"x": 1, "y": 2}, {"Tenant": "acme"}),
        Point(1, 2),
        ("events.other", 5, {}),
    ]
    with pytest.raises(DecodeError):
        client.publish("events.user", "no point")


def test_an_exception_of_an_events_handler_is_the_tests(service: lightlink.Service) -> None:
    @service.on("events.user")
    def on_user(_: Any) -> None:
        raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError, match="on purpose"):
        service.test_client().publish("events.user")


def test_a_handler_that_needs_a_client_is_given_one_or_told(service: lightlink.Service, url: str, prefix: str) -> None:
    with pytest.raises(HandlerError, match="NotReady: the client of service 'math' is not there for 'call'"):
        service.test_client().call("forward")
    other = lightlink.Service("other", url)
    other.register("method", lambda: "answer")
    with other, lightlink.connect(url) as client:
        assert service.test_client(client).call("forward") == "answer"
        assert service.client is client


def test_a_service_that_was_started_has_no_test_client(service: lightlink.Service, url: str) -> None:
    service.use(url)
    service.test_client()
    with service, pytest.raises(NotReady, match="comes too late"):
        service.test_client()


def test_a_service_can_be_started_after_its_handlers_were_tested(url: str, prefix: str) -> None:
    service = lightlink.Service(prefix, url)
    service.register("add", lambda a: a + 1)
    assert service.test_client().call("add", {"a": 1}) == 2
    with service, lightlink.connect(url) as client:
        assert client.call(prefix, "add", {"a": 1}) == 2


def test_each_test_client_has_the_client_it_was_given(service: lightlink.Service, url: str) -> None:
    with lightlink.connect(url) as one, lightlink.connect(url) as other:
        service.register("who", lambda: [service.client is one, service.client is other])
        first, second, without = service.test_client(one), service.test_client(other), service.test_client()
        assert first.call("who") == [True, False]
        assert second.call("who") == [False, True]
        with pytest.raises(HandlerError, match="NotReady"):
            without.call("who")
        with pytest.raises(HandlerError, match="NotReady"):
            without.call("forward")


def test_the_client_of_a_test_is_not_the_services(service: lightlink.Service, url: str, prefix: str) -> None:
    with lightlink.connect(url) as lent:
        tests = service.test_client(lent)
        assert tests.call("add", {"a": 1}) == 3
        service.use(url)
        with service:
            assert service.client is not lent
            assert tests.call("add", {"a": 1}) == 3
            assert service.client is not lent
        assert lent.status is lightlink.Status.CONNECTED


def test_what_is_registered_later_is_tested_too(service: lightlink.Service) -> None:
    tests, got = service.test_client(), list[Any]()
    service.register("late", lambda: 1, wrap="value")
    service.on("late")(got.append)
    assert tests.call("late") == {"value": 1}
    assert (tests.publish("late", 1), got) == (1, [1])
