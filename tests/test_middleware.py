"""Middleware on every path and on both sides: what it sees, in which order, and what it may change."""

from __future__ import annotations

import contextvars
import io
import queue
import threading
from typing import TYPE_CHECKING, Any

import pytest

import lightlink
from lightlink import middleware
from lightlink.errors import CallTimeout, CommandFailed, EncodeError, HandlerError, InvalidOption, ServiceUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from helpers.commands import World

    from lightlink.commands import AgentMessage
    from lightlink.middleware import Middleware, Proceed


class Seen(list[Any]):
    """Notes, in order, what passes through middleware that it makes."""

    def noting(self, name: str) -> Middleware:
        def note(call: lightlink.Call, proceed: Proceed) -> Any:
            self.append((name, "before", call.kind, call.name))
            try:
                return proceed(call)
            finally:
                self.append((name, "after", call.kind, call.name))

        return note


@pytest.fixture
def seen() -> Seen:
    return Seen()


@pytest.fixture
def service(url: str, prefix: str) -> Iterator[lightlink.Service]:
    running = lightlink.Service(prefix, url)

    @running.rpc
    def add(a: int, b: int) -> int:
        return a + b

    with running:
        yield running


def doubling(call: lightlink.Call, proceed: Proceed) -> Any:
    return 2 * proceed(call)


# Calls ----------------------------------------------------------------------------------------------------------------


def test_the_first_is_the_outermost_from_client_to_method(url: str, prefix: str, seen: Seen) -> None:
    with lightlink.connect(url, middleware=[seen.noting("client"), seen.noting("second")]) as client:
        service = lightlink.Service(prefix, client, middleware=[seen.noting("service")])

        @service.rpc(middleware=[seen.noting("method")])
        def look() -> None:
            seen.append("the handler")

        with service:
            client.call(prefix, "look")

    name = f"{prefix}.look"
    on_the_way_out = [("client", "before", "call", name), ("second", "before", "call", name)]
    on_the_way_in = [(each, "before", "serve", name) for each in ("client", "second", "service", "method")]
    back = [(each, "after", "serve", name) for each in ("method", "service", "second", "client")]
    home = [("second", "after", "call", name), ("client", "after", "call", name)]
    # The two sides share a process here, and the caller goes on once it is answered.
    assert seen == [*on_the_way_out, *on_the_way_in, "the handler", *back, *home]


def test_a_service_gives_a_client_of_its_own_its_middleware(url: str, prefix: str, seen: Seen) -> None:
    service = lightlink.Service(prefix, url, middleware=[seen.noting("mine")])

    @service.rpc
    def outer(request: lightlink.Request) -> Any:
        return request.client.call(prefix, "inner")

    @service.rpc
    def inner() -> int:
        return 7

    with service, lightlink.connect(url) as client:
        assert client.call(prefix, "outer") == 7

    kinds = [(kind, name.rpartition(".")[2]) for _, when, kind, name in seen if when == "before"]
    assert kinds == [("serve", "outer"), ("call", "inner"), ("serve", "inner")]


def test_arguments_headers_and_timeout_may_be_changed(url: str, prefix: str) -> None:
    def change(call: lightlink.Call, proceed: Proceed) -> Any:
        call.args = {**call.args, "b": 40}
        call.headers["Tenant"] = "acme"
        call.timeout = 50.0
        return proceed(call)

    service = lightlink.Service(prefix, url)

    @service.rpc
    def add(request: lightlink.Request, a: int, b: int) -> Any:
        return [a + b, request.headers["Tenant"], request.remaining() > 10]

    with service, lightlink.connect(url, middleware=[change]) as client:
        assert client.call(prefix, "add", {"a": 2, "b": 0}, timeout=1.0) == [42, "acme", True]
        assert client.submit(prefix, "add", {"a": 2, "b": 0}).result(30) == [42, "acme", True]


def test_arguments_may_be_changed_on_the_way_in(url: str, prefix: str) -> None:
    def change(call: lightlink.Call, proceed: Proceed) -> Any:
        assert call.request is not None
        assert call.headers == call.request.headers
        call.args["b"] += int(call.headers["Bonus"])
        return proceed(call)

    service = lightlink.Service(prefix, url, middleware=[change])
    service.register("add", _add)
    with service, lightlink.connect(url) as client:
        assert client.call(prefix, "add", {"a": 1, "b": 2}, headers={"Bonus": "10"}) == 13


def test_a_handler_that_is_called_again_gets_the_same(url: str, prefix: str) -> None:
    seen: list[Any] = []

    def again(call: lightlink.Call, proceed: Proceed) -> Any:
        try:
            return proceed(call)
        except ValueError:
            seen.append(dict(call.args))
            return proceed(call)

    service = lightlink.Service(prefix, url, middleware=[again])
    tried: list[Any] = []

    def pay(account: str, amount: int = 5, /, *, request: lightlink.Request) -> str:
        tried.append(request)
        if len(tried) == 1:
            raise ValueError("the first time")
        return f"{amount} to {account}"

    service.register("pay", pay)
    with service, lightlink.connect(url) as client:
        assert client.call(prefix, "pay", {"account": "ann", "amount": 100}) == "100 to ann"
    assert seen == [{"account": "ann", "amount": 100}]


def test_a_submitted_call_ends_though_its_client_is_closed(url: str, prefix: str) -> None:
    entered, go_on = threading.Event(), threading.Event()

    def slow(call: lightlink.Call, proceed: Proceed) -> Any:
        entered.set()
        go_on.wait(30)
        return proceed(call)

    client = lightlink.connect(url, middleware=[slow])
    future = client.submit(prefix, "none", timeout=30)
    assert entered.wait(30)
    client.close(timeout=0.1)
    go_on.set()
    with pytest.raises(lightlink.ClosedError):
        future.result(30)


def _add(a: int, b: int) -> int:
    return a + b


def test_what_middleware_returns_is_the_result(url: str, prefix: str, service: lightlink.Service) -> None:
    with lightlink.connect(url, middleware=[doubling]) as client:
        args = {"a": 1, "b": 2}
        assert client.call(prefix, "add", args) == 6
        assert client.service(prefix).add(**args) == 6
        assert client.submit(prefix, "add", args).result(30) == 6
        assert list(client.map(prefix, "add", [args, args])) == [6, 6]
        assert list(client.map(prefix, "add", [args], as_completed=True)) == [(0, 6)]


def test_middleware_that_does_not_proceed_answers_by_itself(url: str, prefix: str) -> None:
    with lightlink.connect(url, middleware=[lambda call, _: f"no {call.name}"]) as client:
        assert client.call(prefix, "nobody_is_there") == f"no {prefix}.nobody_is_there"


def test_an_exception_of_middleware_reaches_the_caller(url: str, prefix: str, service: lightlink.Service) -> None:
    class Refused(Exception):
        pass

    def refuse(call: lightlink.Call, _: Proceed) -> Any:
        raise Refused(call.name)

    with lightlink.connect(url, middleware=[refuse]) as client:
        with pytest.raises(Refused, match=prefix):
            client.call(prefix, "add", {"a": 1, "b": 2})
        with pytest.raises(Refused, match=prefix):
            client.submit(prefix, "add", {"a": 1, "b": 2}).result(30)
        with pytest.raises(Refused, match=prefix):
            client.publish(prefix, 1)


def test_an_error_of_a_services_middleware_is_its_handlers(url: str, prefix: str) -> None:
    def refuse(call: lightlink.Call, _: Proceed) -> Any:
        raise PermissionError(f"not for you: {call.name}")

    service = lightlink.Service(prefix, url)
    service.register("add", _add, middleware=[refuse])
    with service, lightlink.connect(url) as client, pytest.raises(HandlerError, match="PermissionError: not for you"):
        client.call(prefix, "add", {"a": 1, "b": 2})


def test_the_error_of_a_call_passes_through_middleware(url: str, prefix: str) -> None:
    errors: queue.SimpleQueue[BaseException] = queue.SimpleQueue()

    def note(call: lightlink.Call, proceed: Proceed) -> Any:
        try:
            return proceed(call)
        except lightlink.CallError as exc:
            errors.put(exc)
            return "in place of it"

    with lightlink.connect(url, middleware=[note]) as client:
        assert client.call(prefix, "nobody_is_there") == "in place of it"
        retry = lightlink.Retry(attempts=2)
        assert client.call(prefix, "nobody_is_there", retry=retry) == "in place of it"

    # Once for each call, however often it was repeated.
    assert [type(errors.get(timeout=30)) for _ in range(2)] == [ServiceUnavailable] * 2
    assert errors.empty()


def test_a_submitted_call_takes_the_callers_context_along(url: str, prefix: str, service: lightlink.Service) -> None:
    tenant: contextvars.ContextVar[str] = contextvars.ContextVar("tenant", default="nobody")
    found: queue.SimpleQueue[str] = queue.SimpleQueue()

    def note(call: lightlink.Call, proceed: Proceed) -> Any:
        found.put(tenant.get())
        return proceed(call)

    with lightlink.connect(url, middleware=[note]) as client:
        tenant.set("acme")
        assert client.submit(prefix, "add", {"a": 1, "b": 2}).result(30) == 3
    assert found.get(timeout=30) == "acme"


def test_a_submitted_call_that_is_given_up_stays_so(url: str, prefix: str, service: lightlink.Service) -> None:
    entered, leave = threading.Event(), threading.Event()

    def hold(call: lightlink.Call, proceed: Proceed) -> Any:
        entered.set()
        assert leave.wait(30)
        return proceed(call)

    with lightlink.connect(url, middleware=[hold]) as client:
        future = client.submit(prefix, "add", {"a": 1, "b": 2})
        assert entered.wait(30)
        assert future.cancel()
        leave.set()
        assert future.cancelled()
        assert client.submit(prefix, "add", {"a": 1, "b": 2}).result(30) == 3


def test_a_submitted_call_times_out_within_middleware(url: str, prefix: str) -> None:
    release = threading.Event()
    service = lightlink.Service(prefix, url)
    service.register("wait", lambda: release.wait(30))
    passing: Middleware = lambda call, proceed: proceed(call)  # noqa: E731
    with service, lightlink.connect(url, middleware=[passing]) as client:
        with pytest.raises(CallTimeout):
            client.submit(prefix, "wait", timeout=0.2).result(30)
        release.set()


def test_a_submitted_call_has_the_arguments_it_was_given(url: str, prefix: str, service: lightlink.Service) -> None:
    leave = threading.Event()

    def hold(call: lightlink.Call, proceed: Proceed) -> Any:
        assert leave.wait(30)
        return proceed(call)

    with lightlink.connect(url, middleware=[hold]) as client:
        used, futures = {"a": 0, "b": 0}, []
        for used["a"] in range(3):
            futures.append(client.submit(prefix, "add", used))
        leave.set()
        assert [future.result(30) for future in futures] == [0, 1, 2]
        assert list(client.map(prefix, "add", (used for used["a"] in range(3)))) == [0, 1, 2]
        uncopied = {"a": 1, "b": 2, "c": threading.Lock()}
        with pytest.raises(EncodeError):
            client.submit(prefix, "add", uncopied).result(30)


# Events, files, commands ----------------------------------------------------------------------------------------------


def test_events_pass_through_on_the_way_out_and_in(url: str, prefix: str) -> None:
    got: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def change(call: lightlink.Call, proceed: Proceed) -> Any:
        if call.kind == "publish":
            call.headers["Tenant"] = "acme"
            call.args += 1
        else:
            assert call.message is not None
            assert (call.kind, call.message.subject, call.message.data) == ("event", call.name, call.args)
            call.args *= 10
        return proceed(call)

    with lightlink.connect(url, middleware=[change]) as client:

        @client.on(prefix)
        def on_message(message: lightlink.Message) -> None:
            got.put((message.data, message.headers["Tenant"]))

        @client.on(prefix)
        def on_number(number: int) -> None:
            got.put(number)

        client.publish(prefix, 4)
        assert {got.get(timeout=30), got.get(timeout=30)} == {(50, "acme"), 50}


def test_an_event_that_middleware_drops_is_not_published(url: str, prefix: str) -> None:
    def drop(call: lightlink.Call, proceed: Proceed) -> Any:
        return None if call.args == "secret" else proceed(call)

    with lightlink.connect(url) as receiver, receiver.subscribe(prefix) as subscription:
        with lightlink.connect(url, middleware=[drop]) as client:
            client.publish(prefix, "secret")
            client.publish(prefix, "public")
        assert subscription.get(30).data == "public"


def test_a_services_events_and_files_pass_through_its_middleware(url: str, prefix: str, seen: Seen) -> None:
    got: queue.SimpleQueue[Any] = queue.SimpleQueue()
    service = lightlink.Service(prefix, url, middleware=[seen.noting("service")])
    service.on(f"{prefix}.event")(got.put)
    service.on_file(got.put)

    with service, lightlink.connect(url, middleware=[seen.noting("client")]) as client:
        client.publish(f"{prefix}.event", 5)
        assert got.get(timeout=30) == 5
        client.send_file(io.BytesIO(b"x"), f"{prefix}-another")
        client.send_file(io.BytesIO(b"x"), prefix, name="a.txt")
        assert got.get(timeout=30).name == "a.txt"

    before = sorted((who, kind, name) for who, when, kind, name in seen if when == "before")
    assert before == [
        ("client", "publish", "file.transfer"),
        ("client", "publish", "file.transfer"),
        ("client", "publish", f"{prefix}.event"),
        ("service", "event", f"{prefix}.event"),
        ("service", "file", "file.transfer"),
    ]


def test_commands_pass_through_where_they_are_sent_and_run(world: World, prefix: str) -> None:
    calls: queue.SimpleQueue[lightlink.Call] = queue.SimpleQueue()

    def note(call: lightlink.Call, proceed: Proceed) -> Any:
        calls.put(call)
        call.args = {"n": call.args["n"] + 1}
        return proceed(call)

    client = world.client(middleware=[note])
    agent = world.agent(prefix, middleware=[note])
    agent.register("double", lambda n: 2 * n)
    with agent, lightlink.CommandManager(client, sweep_interval=None) as manager:
        assert manager.send(prefix, "double", {"n": 1}).result(30) == 6
        assert [each.result for each in manager.send_many([prefix], "double", {"n": 2})] == [8]

    seen = [calls.get(timeout=30) for _ in range(4)]
    assert [(call.kind, call.name, call.to) for call in seen] == [
        ("send", "double", (prefix,)),
        ("command", "double", ()),
    ] * 2
    assert seen[1].context is not None
    assert seen[1].context.client_id == prefix


def test_an_executor_is_run_inside_middleware_too(world: World, manager: lightlink.CommandManager, prefix: str) -> None:
    class Echo:
        def execute(self, command_type: str, payload: Any) -> Any:
            return [command_type, payload]

    def refuse(call: lightlink.Call, proceed: Proceed) -> Any:
        if call.args == "bad":
            raise lightlink.Rejected("not this one")
        call.args = f"{call.args}!"
        return proceed(call)

    with world.agent(prefix, executor=Echo(), middleware=[refuse]):
        assert manager.send(prefix, "say", "good").result(30) == ["say", "good!"]
        with pytest.raises(CommandFailed) as caught:
            manager.send(prefix, "say", "bad").result(30)
    assert caught.value.command.status_detail == "rejected"


# How it is given ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", [doubling, "abc", [1], [None], {"a": 1}])
def test_what_is_no_list_of_functions_is_refused(url: str, prefix: str, wrong: Any) -> None:
    with pytest.raises(InvalidOption, match="middleware"):
        lightlink.connect(url, middleware=wrong)
    with pytest.raises(InvalidOption, match="middleware"):
        lightlink.Service(prefix, url, middleware=wrong)
    with pytest.raises(InvalidOption, match="middleware"):
        lightlink.Agent(prefix, url, middleware=wrong)
    with pytest.raises(InvalidOption, match="middleware"):
        lightlink.Service(prefix, url).register("add", _add, middleware=wrong)


def test_middleware_may_be_added_to_a_client_that_is_there(url: str, prefix: str, service: lightlink.Service) -> None:
    with lightlink.connect(url) as client:
        proxy = client.service(prefix)
        assert proxy.add(a=1, b=2) == 3
        client.add_middleware(doubling)
        assert proxy.add(a=1, b=2) == 6
        with pytest.raises(InvalidOption, match="middleware"):
            client.add_middleware(5)  # type: ignore[arg-type]


def test_what_is_installed_is_around_all_of_a_new_client(url: str, prefix: str, seen: Seen) -> None:
    everywhere = seen.noting("everywhere")
    middleware.install(everywhere)
    try:
        middleware.install(everywhere)
        service = lightlink.Service(prefix, url, middleware=[seen.noting("service")])
        service.register("add", _add)
        with service, lightlink.connect(url) as client:
            assert client.call(prefix, "add", {"a": 1, "b": 2}) == 3
    finally:
        middleware.uninstall(everywhere)
    assert [(who, kind) for who, when, kind, _ in seen if when == "before"] == [
        ("everywhere", "call"),
        ("everywhere", "serve"),
        ("service", "serve"),
    ]
    with lightlink.connect(url) as client:
        client.publish(prefix, 1)
    assert len(seen) == 6


def test_durable_events_pass_through_where_stored_and_consumed(world: World, prefix: str) -> None:
    got: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def change(call: lightlink.Call, proceed: Proceed) -> Any:
        if call.kind == "publish":
            call.headers["Tenant"] = "acme"
            call.args += 1
        else:
            assert call.kind == "consume"
            call.args *= 10
        return proceed(call)

    client = world.client(middleware=[change])
    client.stream(f"S_{prefix}", [f"{prefix}.>"])

    @client.consume(f"{prefix}.>", name="billing")
    def bill(message: lightlink.Message) -> None:
        got.put((message.data, message.headers["Tenant"]))

    client.publish_stored(f"{prefix}.one", 1)
    client.submit_stored(f"{prefix}.two", 2).result(30)
    with client.storing() as batch:
        batch.publish(f"{prefix}.three", 3)
    assert {got.get(timeout=30) for _ in range(3)} == {(20, "acme"), (30, "acme"), (40, "acme")}


def test_a_submitted_event_is_stored_as_it_was_given(world: World, prefix: str) -> None:
    leave = threading.Event()

    def hold(call: lightlink.Call, proceed: Proceed) -> Any:
        assert leave.wait(30)
        return proceed(call)

    client = world.client(middleware=[hold])
    client.stream(f"S_{prefix}", [f"{prefix}.>"])
    data, headers = {"n": 1}, {"Tenant": "acme"}
    future = client.submit_stored(f"{prefix}.one", data, headers=headers)
    data["n"], headers["Tenant"] = 2, "other"
    leave.set()
    future.result(30)
    (event,) = client.replay(f"{prefix}.>")
    assert (event.data, event.headers["Tenant"]) == ({"n": 1}, "acme")


def test_a_batch_of_durable_events_passes_through_once(world: World, prefix: str) -> None:
    got: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def change(call: lightlink.Call, proceed: Proceed) -> Any:
        if call.kind == "consume":
            got.put((call.name, [each.data for each in call.args]))
            call.args = call.args[::-1]
        return proceed(call)

    client = world.client(middleware=[change])
    client.stream(f"S_{prefix}", [f"{prefix}.>"])
    for number in range(3):
        client.publish_stored(f"{prefix}.one", number)

    @client.consume(f"{prefix}.>", name="billing", batch=3, within=5.0)
    def bill(messages: list[lightlink.Message]) -> None:
        got.put([each.data for each in messages])

    assert got.get(timeout=30) == ("billing", [0, 1, 2])
    assert got.get(timeout=30) == [2, 1, 0]


def test_messages_to_agents_pass_through_on_both_sides(world: World, prefix: str) -> None:
    got: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def change(call: lightlink.Call, proceed: Proceed) -> Any:
        if call.kind == "notify":
            assert call.to in ((prefix,), ())
            call.headers["Tenant"] = "acme"
        if call.kind in ("notify", "message"):
            call.args = {"n": call.args["n"] + 1}
        return proceed(call)

    agent = world.agent(prefix, middleware=[change])

    @agent.on_message("notice")
    def notice(message: AgentMessage) -> None:
        got.put((message.payload, message.headers["Tenant"], lightlink.log_context()["client_id"]))
        if message.payload["n"] > 10:
            raise ValueError("too many")

    agent.start(timeout=10)
    client = world.client(middleware=[change])
    with lightlink.CommandManager(client, store=world.options) as manager:
        manager.message(prefix, "notice", {"n": 1}, wait_ack=True, headers={"Other": "x"})
        assert got.get(timeout=30) == ({"n": 3}, "acme", prefix)
        assert prefix in manager.broadcast("notice", {"n": 2}).reached
        assert got.get(timeout=30) == ({"n": 4}, "acme", prefix)
        failed = manager.message(prefix, "notice", {"n": 10}, wait_ack=True)
        assert failed.errors == {prefix: "ValueError: too many"}


def test_changes_of_state_pass_through_to_their_handler(url: str, prefix: str) -> None:
    got: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def note(call: lightlink.Call, proceed: Proceed) -> Any:
        got.put((call.kind, call.name, call.args.value))
        return proceed(call)

    def handle(change: lightlink.StateChange[Any]) -> None:
        got.put((change.value, "correlation_id" in lightlink.log_context()))

    with lightlink.connect(url, middleware=[note]) as client:
        client.set_state(prefix, 1)
        with client.watch_state(prefix, handle):
            assert got.get(timeout=30) == ("watch", prefix, 1)
            assert got.get(timeout=30) == (1, True)
