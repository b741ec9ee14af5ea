"""Services, seen from the other side of the wire: a raw nats-py peer that knows the wire format alone, and ours."""

from __future__ import annotations

import collections
import functools
import io
import json
import logging
import queue
import signal
import threading
import time
from typing import TYPE_CHECKING, Any

import attrs
import pytest
from helpers.loop import error_on_loop
from helpers.waiting import eventually

import lightlink
from lightlink.errors import (
    CallTimeout,
    ClosedError,
    DeadlineExceeded,
    HandlerError,
    InvalidArguments,
    InvalidName,
    InvalidOption,
    MethodNotFound,
    NotReady,
    ServiceBusy,
    ServiceUnavailable,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Future

    from conftest import StartPython, StartServer
    from helpers.raw import RawPeer
    from nats.aio.msg import Msg


@attrs.define
class Order:
    item: str
    amount: int = 1


def add(a: int, b: int) -> int:
    return a + b


def ask(peer: RawPeer, subject: str, body: Any, headers: dict[str, str] | None = None, timeout: float = 5) -> Msg:
    """Send a request as a peer does: an envelope, or the bytes given."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return peer.run(peer.nc.request(subject, data, timeout=timeout, headers=headers))


@pytest.fixture
def client(url: str) -> Iterator[lightlink.Client]:
    with lightlink.connect(url) as connected:
        yield connected


@pytest.fixture
def service(url: str, prefix: str) -> Iterator[lightlink.Service]:
    """A service named like the test's prefix, with ``add``, that the test starts; it is stopped in the end."""
    made = lightlink.Service(prefix, url, workers=4)
    made.register("add", add)
    yield made
    made.stop(5)


class Gate:
    """A handler that waits: ``begun`` counts who has come in, ``open`` lets them out."""

    def __init__(self) -> None:
        self.begun: list[Any] = []
        self._open = threading.Event()

    def __call__(self, n: Any = None) -> Any:
        self.begun.append(n)
        assert self._open.wait(30)
        return n

    def wait(self, number: int) -> None:
        eventually(lambda: len(self.begun) >= number)

    def open(self) -> None:
        self._open.set()


# The wire -------------------------------------------------------------------------------------------------------------


def holding(service: lightlink.Service, client: lightlink.Client, prefix: str) -> tuple[Gate, Future[Any]]:
    """Start a service, and have it hold one request until its gate is opened."""
    gate = Gate()
    service.register("wait", gate)
    service.start()
    future = client.submit(prefix, "wait", timeout=30)
    gate.wait(1)
    return gate, future


@pytest.mark.interop
def test_a_peer_that_knows_the_wire_format_calls_our_service(
    service: lightlink.Service, peer: RawPeer, prefix: str
) -> None:
    with service:
        reply = ask(peer, f"$SRV.{prefix}.add", {"id": "any text", "method": "add", "args": {"a": 1, "b": 2}})
    assert json.loads(reply.data) == {"id": "any text", "success": True, "result": 3}
    assert reply.headers is None


@pytest.mark.interop
@pytest.mark.parametrize(
    ("method", "body", "code", "status", "words"),
    [
        ("foo", {"id": "7", "method": "foo", "args": {}}, "method_not_found", "404", "method not found: foo"),
        ("add", {"id": "7", "method": "add", "args": {"a": 1}}, "invalid_arguments", "400", "missing argument 'b'"),
        ("add", {"id": "7", "method": "add", "args": [1, 2]}, "invalid_arguments", "400", "must be an object"),
        ("add", {"id": "7", "method": "add"}, "invalid_arguments", "400", "missing argument 'a'"),
        ("add", {"id": "7", "method": "add", "args": None}, "invalid_arguments", "400", "missing argument 'a'"),
        ("fail", {"id": "7", "method": "fail", "args": {}}, "handler_error", "500", "ZeroDivisionError"),
        ("add", {"id": "7", "method": "other", "args": {}}, "invalid_request", "400", "the subject says 'add'"),
        ("add", {"id": "7"}, "invalid_request", "400", "invalid request"),
        ("add", b'{"id":"7","method":5}', "invalid_request", "400", "invalid request"),
    ],
)
def test_an_error_reply_echoes_the_id_with_code_and_text(
    method: str, body: Any, code: str, status: str, words: str, service: lightlink.Service, peer: RawPeer, prefix: str
) -> None:
    service.register("fail", lambda: 1 // 0)
    with service:
        reply = ask(peer, f"$SRV.{prefix}.{method}", body)
    answer = json.loads(reply.data)
    assert set(answer) == {"id", "success", "error", "code"}
    assert (answer["id"], answer["success"], answer["code"]) == ("7", False, code)
    assert words in answer["error"]
    assert reply.headers is not None
    assert set(reply.headers) == {"Nats-Service-Error", "Nats-Service-Error-Code"}
    assert reply.headers["Nats-Service-Error-Code"] == status
    assert words in reply.headers["Nats-Service-Error"]


@pytest.mark.parametrize(
    "body", [b"", b"not JSON", b"[]", b"7", b"null", b"\xff\xfe", b'{"method":"add"}', b'{"id":5}']
)
def test_a_request_that_is_no_envelope_gets_an_error_reply(
    body: bytes, service: lightlink.Service, peer: RawPeer, prefix: str
) -> None:
    with service:
        reply = ask(peer, f"$SRV.{prefix}.add", body)
        answer = json.loads(reply.data)
        assert (answer["id"], answer["success"], answer["code"]) == (None, False, "invalid_request")
        stats = service._calls.methods["add"].stats
        assert (stats.requests, stats.errors) == (1, 1)
        assert stats.last_error.startswith("invalid request")
        request = {"id": "1", "method": "add", "args": {"a": 1, "b": 2}}
        assert json.loads(ask(peer, f"$SRV.{prefix}.add", request).data)["result"] == 3


def test_a_request_without_a_reply_subject_is_only_run(
    service: lightlink.Service, peer: RawPeer, prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    ran: queue.SimpleQueue[int] = queue.SimpleQueue()
    service.register("note", ran.put)
    with service:
        for body in (b'{"id":"1","method":"note","args":{"item":5}}', b"not JSON"):
            peer.run(peer.nc.publish(f"$SRV.{prefix}.note", body))
        assert ran.get(timeout=30) == 5
    assert "could not" not in caplog.text


def test_instances_share_the_load_in_the_queue_group_q(url: str, client: lightlink.Client, prefix: str) -> None:
    ran: dict[int, int] = {0: 0, 1: 0}

    def make(instance: int) -> lightlink.Service:
        made = lightlink.Service(prefix, url)

        @made.rpc
        def run(n: int) -> int:
            ran[instance] += 1
            return n

        return made

    with make(0), make(1):
        assert [client.call(prefix, "run", {"n": n}) for n in range(100)] == list(range(100))
    assert sum(ran.values()) == 100
    assert all(ran.values()), "each got some"


# Handlers -------------------------------------------------------------------------------------------------------------


def test_methods_are_registered_by_decorator_name_and_function(
    service: lightlink.Service, client: lightlink.Client, prefix: str
) -> None:
    @service.rpc
    def plain(a: int) -> int:
        return a

    @service.rpc("getUser")
    def get_user(user_id: str) -> dict[str, str]:
        return {"user_id": user_id}

    service.register("order", lambda order: order)
    assert (plain(1), get_user("U1")) == (1, {"user_id": "U1"}), "returned unchanged"
    assert service.has_rpc("plain")
    assert service.has_rpc("getUser")
    assert not service.has_rpc("get_user")
    with service:
        assert client.call(prefix, "plain", {"a": 1}) == 1
        assert client.call(prefix, "getUser", {"user_id": "U1"}) == {"user_id": "U1"}
        assert client.call(prefix, "order", {"order": 7}) == 7


def test_arguments_and_results_of_rich_types_come_and_go(
    service: lightlink.Service, client: lightlink.Client, prefix: str
) -> None:
    @service.rpc
    def double(orders: list[Order]) -> dict[str, Order]:
        return {order.item: Order(order.item, 2 * order.amount) for order in orders}

    with service:
        given = {"orders": [Order("tea"), Order("cake", 3)]}
        assert client.call(prefix, "double", given, returns=dict[str, Order]) == {
            "tea": Order("tea", 2),
            "cake": Order("cake", 6),
        }


def test_a_handler_can_ask_for_the_request(service: lightlink.Service, peer: RawPeer, prefix: str) -> None:
    @service.rpc
    def about(a: int, request: lightlink.Request) -> dict[str, Any]:
        assert request.client is service.client
        assert request.deadline is not None
        return {
            "service": request.service,
            "method": request.method,
            "trace": request.headers["Trace"],
            "remaining": request.remaining(),
        }

    with service:
        headers = {"Trace": "x-1", "LightLink-Timeout-Ms": "5000"}
        body = {"id": "1", "method": "about", "args": {"a": 1}}
        result = json.loads(ask(peer, f"$SRV.{prefix}.about", body, headers).data)["result"]
    assert 0 < result.pop("remaining") <= 5
    assert result == {"service": prefix, "method": "about", "trace": "x-1"}


def test_a_request_without_a_deadline_has_for_ever(service: lightlink.Service, peer: RawPeer, prefix: str) -> None:
    @service.rpc
    def deadline(request: lightlink.Request) -> list[Any]:
        return [request.deadline, request.remaining() == float("inf")]

    with service:
        reply = ask(peer, f"$SRV.{prefix}.deadline", {"id": "1", "method": "deadline", "args": {}})
    assert json.loads(reply.data)["result"] == [None, True]


def test_a_handler_may_call_another_service_and_its_own(
    service: lightlink.Service, client: lightlink.Client, url: str, prefix: str
) -> None:
    @service.rpc
    def outer(n: int, request: lightlink.Request) -> list[int]:
        other = request.client.call(f"{prefix}_other", "square", {"n": n})
        own = request.client.call(prefix, "add", {"a": n, "b": 1})
        return [other, own]

    other = lightlink.Service(f"{prefix}_other", url)
    other.register("square", lambda n: n * n)
    with service, other:
        assert client.call(prefix, "outer", {"n": 5}) == [25, 6]


def test_a_handler_that_raises_is_told_by_type_and_text(
    service: lightlink.Service, client: lightlink.Client, prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    @service.rpc
    def fail(secret: str) -> None:
        raise LookupError(f"no such thing: {secret}")

    with service, pytest.raises(HandlerError) as caught:
        client.call(prefix, "fail", {"secret": "x"})
    assert caught.value.message == "LookupError: no such thing: x"
    assert "Traceback" not in str(caught.value)
    assert f"{prefix}.fail failed" in caplog.text
    assert "Traceback" in caplog.text


class Untellable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("cannot be told")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (SystemExit(3), "SystemExit: 3"),
        (KeyboardInterrupt(), "KeyboardInterrupt: "),
        (ValueError("line one\r\nInjected: yes\x00\x07"), "ValueError: line one\r\nInjected: yes\x00\x07"),
        (ValueError("half a pair: \ud800"), "ValueError: half a pair: ?"),
        (ValueError("ünï\u2028cödé"), "ValueError: ünï\u2028cödé"),
        (Untellable(), "Untellable: (no text: RuntimeError)"),
        (ValueError("x" * 100_000), "ValueError: " + "x" * 4084 + "..."),
        (lightlink.CallTimeout("other", "m", 1.0), "CallTimeout: other.m did not answer within 1 s; it may have run"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_whatever_a_handler_raises_is_answered(
    error: BaseException,
    message: str,
    url: str,
    client: lightlink.Client,
    peer: RawPeer,
    prefix: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.CRITICAL, "lightlink")  # xdist cannot carry half a pair in a captured log
    service = lightlink.Service(prefix, url, workers=1)

    @service.rpc
    def fail() -> None:
        raise error

    service.register("add", add)
    with service:
        with pytest.raises(HandlerError) as caught:
            client.call(prefix, "fail")
        assert caught.value.message == message
        headers = ask(peer, f"$SRV.{prefix}.fail", {"id": "1", "method": "fail", "args": {}}).headers
        assert headers is not None
        assert set(headers) == {"Nats-Service-Error", "Nats-Service-Error-Code"}, "nothing was injected"
        assert client.call(prefix, "add", {"a": 1, "b": 2}) == 3


@pytest.mark.parametrize(
    "result",
    [object(), {1, object()}, (n for n in [1]), {(1, 2): 3}, "\ud800"],
    ids=["object", "set", "generator", "key", "text"],
)
def test_a_result_that_json_cannot_carry_is_the_handlers_error(
    result: Any, service: lightlink.Service, client: lightlink.Client, prefix: str
) -> None:
    service.register("odd", lambda: result)
    with service:
        with pytest.raises(HandlerError, match="EncodeError: cannot encode the result as JSON"):
            client.call(prefix, "odd")
        assert client.call(prefix, "add", {"a": 1, "b": 2}) == 3


def test_a_result_over_the_limit_is_an_error_and_no_timeout(
    service: lightlink.Service, client: lightlink.Client, prefix: str
) -> None:
    service.register("large", lambda: "x" * 2_000_000)
    with service:
        with pytest.raises(HandlerError, match=r"PayloadTooLarge: the result has 20000\d\d bytes"):
            client.call(prefix, "large", timeout=30)
        assert client.call(prefix, "add", {"a": 1, "b": 2}) == 3
        assert service.client._connection.session.losses == 0


# Overload -------------------------------------------------------------------------------------------------------------


def test_what_exceeds_the_waiting_room_is_refused_as_busy(url: str, client: lightlink.Client, prefix: str) -> None:
    gate = Gate()
    service = lightlink.Service(prefix, url, workers=2, max_pending=3)
    service.register("wait", gate)
    with service:
        taken = [client.submit(prefix, "wait", {"n": n}, timeout=30) for n in range(5)]
        gate.wait(2)
        refused = [client.submit(prefix, "wait", {"n": "too many"}, timeout=30) for _ in range(10)]
        for future in refused:
            error = future.exception(30)
            assert isinstance(error, ServiceBusy)
            assert error.message == f"{prefix} is busy: 3 requests wait already"
        gate.open()
        assert [future.result(30) for future in taken] == list(range(5))
        assert client.call(prefix, "wait") is None
    assert "too many" not in gate.begun


def test_a_burst_that_idle_workers_can_take_is_not_refused(
    url: str, peer: RawPeer, client: lightlink.Client, prefix: str
) -> None:
    together = threading.Barrier(6)
    service = lightlink.Service(prefix, url, workers=6, max_pending=1)
    service.register("meet", lambda: together.wait(30))

    async def burst() -> list[Msg]:
        import asyncio

        body = b'{"id":"1","method":"meet","args":{}}'
        return list(await asyncio.gather(*(peer.nc.request(f"$SRV.{prefix}.meet", body, timeout=30) for _ in range(6))))

    with service:
        for _ in range(5):
            answers = [json.loads(message.data) for message in peer.run(burst())]
            assert [answer.get("code") for answer in answers] == [None] * 6


def test_a_busy_reply_echoes_the_id_and_is_counted(
    url: str, client: lightlink.Client, peer: RawPeer, prefix: str
) -> None:
    gate = Gate()
    service = lightlink.Service(prefix, url, workers=1, max_pending=1)
    service.register("wait", gate)
    with service:
        taken = [client.submit(prefix, "wait", timeout=30) for _ in range(2)]
        gate.wait(1)
        client.flush()
        reply = ask(peer, f"$SRV.{prefix}.wait", {"id": "mine", "method": "wait", "args": {}})
        answer = json.loads(reply.data)
        assert (answer["id"], answer["code"]) == ("mine", "busy")
        assert reply.headers is not None
        assert reply.headers["Nats-Service-Error-Code"] == "429"
        gate.open()
        assert [future.result(30) for future in taken] == [None, None]
        stats = service._calls.methods["wait"].stats
        assert (stats.requests, stats.errors) == (3, 1)


def test_a_request_whose_caller_has_given_up_is_not_run(
    url: str, client: lightlink.Client, peer: RawPeer, prefix: str
) -> None:
    gate = Gate()
    service = lightlink.Service(prefix, url, workers=1)
    service.register("wait", gate)
    with service:
        first = client.submit(prefix, "wait", {"n": "first"}, timeout=30)
        gate.wait(1)
        answer: list[Any] = []

        async def ask_briefly() -> None:
            body = b'{"id":"7","method":"wait","args":{"n":"overdue"}}'
            headers = {"LightLink-Timeout-Ms": "1"}
            answer.append(await peer.nc.request(f"$SRV.{prefix}.wait", body, timeout=20, headers=headers))

        thread = threading.Thread(target=lambda: peer.run(ask_briefly(), timeout=30))
        thread.start()
        eventually(lambda: service.stats.held == 2)
        with pytest.raises(CallTimeout):
            client.call(prefix, "wait", {"n": "overdue too"}, timeout=0.5)
        # Its time counts from its arrival, of which its caller knows nothing.
        eventually(lambda: service.stats.held == 3)
        time.sleep(0.6)
        gate.open()
        assert first.result(30) == "first"
        thread.join(20)
        assert client.call(prefix, "wait", {"n": "last"}) == "last"
    reply = json.loads(answer[0].data)
    assert (reply["id"], reply["code"]) == ("7", "deadline_exceeded")
    assert answer[0].headers["Nats-Service-Error-Code"] == "504"
    assert "was not run" in reply["error"]
    assert gate.begun == ["first", "last"]


def test_a_deadline_answer_is_its_error(client: lightlink.Client, peer: RawPeer, prefix: str) -> None:
    async def serve(message: Msg) -> None:
        body = {"id": json.loads(message.data)["id"], "success": False, "error": "late", "code": "deadline_exceeded"}
        await peer.nc.publish(message.reply, json.dumps(body).encode())

    peer.run(peer.nc.subscribe(f"$SRV.{prefix}.*", cb=serve))
    peer.run(peer.nc.flush())
    with pytest.raises(DeadlineExceeded):
        client.call(prefix, "m")


# Events ---------------------------------------------------------------------------------------------------------------


def test_each_event_goes_to_one_instance_of_the_service(url: str, client: lightlink.Client, prefix: str) -> None:
    handled: list[tuple[int, Any]] = []

    def make(instance: int) -> lightlink.Service:
        made = lightlink.Service(prefix, url)

        @made.on(f"{prefix}.event")
        def on_event(data: Any) -> None:
            handled.append((instance, data))

        return made

    with make(0), make(1):
        for n in range(100):
            client.publish(f"{prefix}.event", n)
        eventually(lambda: len(handled) == 100)
    assert sorted(n for _, n in handled) == list(range(100))
    assert {instance for instance, _ in handled} == {0, 1}


def test_an_empty_queue_group_gives_every_instance_every_event(url: str, client: lightlink.Client, prefix: str) -> None:
    handled: list[Any] = []
    instances = [lightlink.Service(prefix, url), lightlink.Service(prefix, url)]
    for instance in instances:
        instance.on(f"{prefix}.event", queue="")(handled.append)
    with instances[0], instances[1]:
        client.publish(f"{prefix}.event", 1)
        eventually(lambda: handled == [1, 1])


def test_event_handlers_of_a_service_take_the_same_forms(
    service: lightlink.Service, client: lightlink.Client, prefix: str
) -> None:
    handled: queue.SimpleQueue[Any] = queue.SimpleQueue()

    @service.on(f"{prefix}.message")
    def on_message(message: lightlink.Message) -> None:
        handled.put((message.subject, message.data))

    @service.on(f"{prefix}.order")
    def on_order(order: Order) -> None:
        handled.put(order)

    @service.on(f"{prefix}.raw", raw=True)
    def on_raw(data: bytes) -> None:
        handled.put(data)

    with service:
        for subject, data, expected in (
            ("message", 1, (f"{prefix}.message", 1)),
            ("order", {"item": "tea"}, Order("tea")),
            ("raw", b"\xff", b"\xff"),
        ):
            client.publish(f"{prefix}.{subject}", data)
            assert handled.get(timeout=30) == expected


@pytest.mark.parametrize("number", [1000])
def test_handlers_of_overlapping_subjects_each_get_all(
    url: str, prefix: str, client: lightlink.Client, number: int
) -> None:
    counts: collections.Counter[str] = collections.Counter()
    lock = threading.Lock()

    def instance() -> lightlink.Service:
        service = lightlink.Service(prefix, url)

        def count(name: str) -> None:
            with lock:
                counts[name] += 1

        @service.on(f"{prefix}.>")
        def everything(_: Any) -> None:
            count("everything")

        @service.on(f"{prefix}.user")
        def user(_: Any) -> None:
            count("user")

        # Without names of their own they have groups of their own all the same.
        service.on(f"{prefix}.*")(lambda _: count("one lambda"))
        service.on(f"{prefix}.user")(lambda _: count("another"))
        return service

    with instance(), instance():
        for each in range(number):
            client.publish(f"{prefix}.user", each)
        expected = dict.fromkeys(("everything", "user", "one lambda", "another"), number)
        eventually(lambda: counts == expected)
    assert counts == expected


def test_files_reach_on_file_beside_events_that_cover_them(url: str, prefix: str, client: lightlink.Client) -> None:
    files: list[str] = []
    events: list[Any] = []

    def instance() -> lightlink.Service:
        service = lightlink.Service(prefix, url)
        service.on_file(lambda info: files.append(info.name))
        service.on("file.>")(lambda data: events.append(data["file_name"]) if data["to"] == prefix else None)
        return service

    with instance(), instance():
        for number in range(100):
            client.send_file(io.BytesIO(b"x"), to=prefix, name=f"{number}")
        eventually(lambda: len(files) == len(events) == 100)
    assert sorted(files) == sorted(events) == sorted(map(str, range(100)))


# Where answers go -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "reply",
    ["$KV.light_link_state.device.1", "events.user", "_INBOXES.x", "$JS.API.STREAM.PURGE.X"],
)
@pytest.mark.parametrize("subject", ["$SRV.{}.add", "$SRV.{}.none", "$SRV.PING.{}", "$SRV.INFO.{}", "$SRV.STATS.{}"])
def test_a_service_does_not_publish_where_a_caller_says(
    service: lightlink.Service, peer: RawPeer, prefix: str, caplog: pytest.LogCaptureFixture, subject: str, reply: str
) -> None:
    watched = peer.run(peer.nc.subscribe(reply))
    with service:
        for _ in range(3):
            peer.run(
                peer.nc.publish(subject.format(prefix), b'{"id":"1","method":"add","args":{"a":1,"b":2}}', reply=reply)
            )
        ask(peer, f"$SRV.{prefix}.add", {"id": "2", "method": "add", "args": {"a": 1, "b": 2}})
        ask(peer, f"$SRV.PING.{prefix}", b"")
        eventually(lambda: service._calls.strangers == 3)
    peer.run(peer.nc.flush())
    assert watched.pending_msgs == 0
    told = [record.getMessage() for record in caplog.records if "which is no inbox" in record.getMessage()]
    assert [reply in text for text in told] == [True]


def test_a_service_answers_inboxes_that_it_is_told_of(url: str, prefix: str) -> None:
    service = lightlink.Service(prefix, url, inboxes=["my.own"])
    service.register("add", add)
    with service, lightlink.connect(url, inbox_prefix="my.own") as client:
        assert client.call(prefix, "add", {"a": 1, "b": 2}) == 3
    with pytest.raises(InvalidName):
        lightlink.Service(prefix, url, inboxes=["a b"])


# Registering ----------------------------------------------------------------------------------------------------------


def two(a: Any, b: Any) -> None:
    pass


async def coroutine(data: Any) -> None:
    pass


def test_a_name_can_be_registered_but_once(service: lightlink.Service, prefix: str) -> None:
    with pytest.raises(InvalidOption, match=f"registered already with service '{prefix}'"):
        service.register("add", lambda: None)
    with pytest.raises(InvalidOption, match="registered already"):
        service.rpc(add)
    handler = functools.partial(two, 1)
    service.on("events.a")(handler)
    service.on("events.b")(handler)
    with pytest.raises(InvalidOption, match=r"registered already for 'events\.a'"):
        service.on("events.a")(handler)


def test_nothing_can_be_registered_after_the_start(service: lightlink.Service, prefix: str) -> None:
    with service:
        for register in (
            lambda: service.register("late", add),
            lambda: service.rpc("late")(add),
            lambda: service.on("late")(print),
        ):
            with pytest.raises(NotReady, match=f"service '{prefix}' is running"):
                register()
    with pytest.raises(NotReady, match="stopped"):
        service.register("late", add)


@pytest.mark.parametrize(
    ("register", "error"),
    [
        (lambda s: s.register("x", 42), "not callable"),
        (lambda s: s.register("x", coroutine), "coroutine function"),
        (lambda s: s.register("x", lambda *numbers: None), r"\*numbers cannot be bound"),
        (lambda s: s.rpc(coroutine), "coroutine function"),
        (lambda s: s.rpc()(functools.partial(two, 1)), "give the method a name"),
        (lambda s: s.on("a")(coroutine), "coroutine function"),
        (lambda s: s.on("a")(two), "must take one argument"),
        (lambda s: s.on("a")(42), "not callable"),
        (lambda s: s.on(two), "name the subject"),
    ],
    ids=["42", "coroutine", "star", "rpc-coroutine", "nameless", "on-coroutine", "on-two", "on-42", "on-bare"],
)
def test_a_handler_that_cannot_be_is_refused_at_once(
    register: Callable[[lightlink.Service], Any], error: str, service: lightlink.Service
) -> None:
    with pytest.raises(InvalidOption, match=error):
        register(service)


@pytest.mark.parametrize("name", ["", "a b", "a..b", "*", "<lambda>", 5])
def test_a_name_nats_would_refuse_is_refused_at_once(name: Any, service: lightlink.Service) -> None:
    with pytest.raises(InvalidName):
        service.register(name, add)
    with pytest.raises(InvalidName):
        lightlink.Service(name)


def test_a_lambda_needs_a_name(service: lightlink.Service) -> None:
    with pytest.raises(InvalidName, match="<lambda>"):
        service.rpc(lambda: None)


@pytest.mark.parametrize(
    "settings",
    [
        {"version": "1"},
        {"version": 1},
        {"workers": 0},
        {"workers": 1.5},
        {"max_pending": 0},
        {"max_pending": True},
        # Tools that list services could not read these, and would list none.
        {"metadata": {"zone": 1}},
        {"metadata": "zone"},
        {"metadata": 5},
        {"description": None},
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(InvalidOption, match=next(iter(settings))):
        lightlink.Service("math", **settings)


@pytest.mark.parametrize("name", ["PING", "INFO", "STATS"])
def test_the_names_of_service_discovery_are_refused(name: str) -> None:
    with pytest.raises(InvalidName, match="service discovery"):
        lightlink.Service(name)


# Lifetime -------------------------------------------------------------------------------------------------------------


def test_a_service_starts_once_and_not_again(service: lightlink.Service, prefix: str) -> None:
    with pytest.raises(NotReady, match="has no client"):
        _ = service.client
    assert service.start() is service
    with pytest.raises(NotReady, match="is running already"):
        service.start()
    service.stop()
    service.stop()
    with pytest.raises(ClosedError, match=f"service '{prefix}' is closed"):
        service.start()
    assert repr(service) == f"<Service '{prefix}' 0.0.0 stopped, 1 methods>"


def test_a_service_that_cannot_connect_says_so_and_may_try_again(url: str, prefix: str) -> None:
    service = lightlink.Service(prefix, "nats://127.0.0.1:1", connect_timeout=0.5, wait=0)
    with pytest.raises(lightlink.ConnectError):
        service.start()
    service._target = url
    with service:
        assert service.client.status is lightlink.Status.CONNECTED


def test_a_service_that_may_not_subscribe_says_so(fresh_server: StartServer, prefix: str) -> None:
    config = 'authorization { users = [{user: a, password: a, permissions: {subscribe: {deny: "$SRV.>"}}}] }'
    service = lightlink.Service(prefix, fresh_server(config=config).url, user="a", password="a")
    service.register("add", add)
    with pytest.raises(lightlink.PermissionDenied, match="subscribe"):
        service.start()
    eventually(lambda: not [thread for thread in threading.enumerate() if prefix in thread.name])


def test_stopping_answers_what_was_taken_and_takes_no_more(
    service: lightlink.Service, client: lightlink.Client, prefix: str
) -> None:
    gate = Gate()
    service.register("wait", gate)
    service.start()
    taken = [client.submit(prefix, "wait", {"n": n}, timeout=30) for n in range(10)]
    gate.wait(4)
    eventually(lambda: service._calls._held == 10)
    stopping = threading.Thread(target=service.stop, args=(20,))
    stopping.start()
    _until_it_takes_no_more(client, prefix)
    gate.open()
    assert sorted(future.result(30) for future in taken) == list(range(10))
    stopping.join(20)
    assert not stopping.is_alive()


def test_stopping_is_bounded_by_its_timeout(
    service: lightlink.Service, client: lightlink.Client, prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    gate, future = holding(service, client, prefix)
    service.stop(timeout=0.1)
    assert f"service {prefix} stops with requests unanswered" in caplog.text
    assert f"lightlink-{prefix}-worker" in caplog.text
    gate.open()
    future.cancel()


def test_who_stops_a_stopping_service_waits_for_the_end_too(
    service: lightlink.Service, client: lightlink.Client, prefix: str
) -> None:
    gate, future = holding(service, client, prefix)
    stopping = [threading.Thread(target=service.stop, args=(20,)) for _ in range(3)]
    for thread in stopping:
        thread.start()
    _until_it_takes_no_more(client, prefix)
    assert all(thread.is_alive() for thread in stopping)
    gate.open()
    for thread in stopping:
        thread.join(20)
        assert not thread.is_alive()
    assert future.result(30) is None


def test_a_stop_refused_on_the_loop_s_thread_changes_nothing(
    service: lightlink.Service, client: lightlink.Client, prefix: str
) -> None:
    gate, future = holding(service, client, prefix)
    error = error_on_loop(service.client, service.stop)
    assert isinstance(error, lightlink.ClosedError)
    assert "blocking method" in str(error)
    assert service.stage.value == "running"
    assert not service._stop_signal.is_set
    other = client.submit(prefix, "wait", timeout=30)
    gate.wait(2)
    stopping = threading.Thread(target=service.stop, args=(20,))
    stopping.start()
    _until_it_takes_no_more(client, prefix)
    gate.open()
    assert future.result(30) is other.result(30) is None
    stopping.join(20)


def test_a_handler_may_stop_its_own_service_and_is_answered(
    service: lightlink.Service, client: lightlink.Client, prefix: str
) -> None:
    @service.rpc
    def shutdown() -> str:
        service.stop(30)
        return "bye"

    service.start()
    assert client.call(prefix, "shutdown", timeout=30) == "bye"
    service.stop(20)
    assert service.client.status is lightlink.Status.CLOSED


def test_an_event_handler_may_stop_its_own_service(
    service: lightlink.Service, client: lightlink.Client, prefix: str
) -> None:
    service.on(f"{prefix}.stop")(lambda data: service.stop(30))
    service.start()
    client.publish(f"{prefix}.stop", 1)
    eventually(lambda: service.client.status is lightlink.Status.CLOSED)


def test_a_stopped_service_leaves_no_thread_behind(url: str, client: lightlink.Client, prefix: str) -> None:
    service = lightlink.Service(prefix, url)
    service.register("add", add)
    service.on(f"{prefix}.event")(lambda data: None)
    with service:
        client.call(prefix, "add", {"a": 1, "b": 2})
        assert [thread for thread in threading.enumerate() if prefix in thread.name]
    eventually(lambda: not [thread for thread in threading.enumerate() if prefix in thread.name])


def test_a_service_can_share_a_client_and_leaves_it_open(client: lightlink.Client, url: str, prefix: str) -> None:
    service = lightlink.Service(prefix, client)
    service.register("add", add)
    with service, lightlink.connect(url) as other:
        assert service.client is client
        assert other.call(prefix, "add", {"a": 1, "b": 2}) == 3
        assert client.call(prefix, "add", {"a": 1, "b": 2}) == 3
    assert client.status is lightlink.Status.CONNECTED
    with pytest.raises(ServiceUnavailable):
        client.call(prefix, "add", {"a": 1, "b": 2})
    with pytest.raises(InvalidOption, match="timeout"):
        lightlink.Service(prefix, client, timeout=5.0)


def test_a_service_goes_on_after_an_outage(proxy: Any, client: lightlink.Client, prefix: str) -> None:
    line = proxy()
    service = lightlink.Service(prefix, line.url, reconnect_wait=0.01)
    service.register("add", add)
    with service:
        assert client.call(prefix, "add", {"a": 1, "b": 2}) == 3
        line.cut()
        eventually(lambda: service.client._connection.session.losses)
        assert service.client.wait_connected(30)
        service.client.flush()
        assert client.call(prefix, "add", {"a": 1, "b": 2}) == 3


def test_a_rolling_restart_of_two_instances_fails_no_call(url: str, client: lightlink.Client, prefix: str) -> None:
    def make() -> lightlink.Service:
        made = lightlink.Service(prefix, url)
        made.register("add", add)
        return made.start()

    failed: list[Exception] = []
    done = threading.Event()
    calls = [0]

    def work() -> None:
        while not done.is_set():
            try:
                assert client.call(prefix, "add", {"a": 1, "b": 2}, timeout=30) == 3
                calls[0] += 1
            except Exception as exc:
                failed.append(exc)

    running = [make(), make()]
    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(4):
        before = calls[0]
        eventually(lambda before=before: calls[0] > before + 20)
        running.append(make())
        running.pop(0).stop()
    done.set()
    for thread in threads:
        thread.join(20)
    for service in running:
        service.stop()
    assert failed == []


RUN = """
import sys, logging
import lightlink
logging.basicConfig(level=logging.INFO, format="%(message)s")
service = lightlink.Service(sys.argv[2], sys.argv[1])
held = []
@service.rpc
def wait():
    import time
    print("taken", flush=True)
    while not held:
        time.sleep(0.01)
    return "answered"
@service.rpc
def release():
    held.append(1)
@service.rpc
def add(a: int, b: int) -> int:
    return a + b
print("ready", flush=True)
service.run(stop_timeout=30)
print("ended", flush=True)
"""


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT])
def test_run_serves_until_a_signal_and_answers_what_it_holds(
    sign: signal.Signals, python: StartPython, client: lightlink.Client, url: str, prefix: str
) -> None:
    process = python(RUN, url, prefix)
    process.wait_line("ready")
    _until_it_serves(client, prefix)
    held = client.submit(prefix, "wait", timeout=30)
    process.wait_line("taken")
    releasing = client.submit(prefix, "release", timeout=30)
    releasing.result(30)
    process.signal(sign)
    assert held.result(20) == "answered"
    result = process.wait()
    assert result.returncode == 0
    assert result.stdout.endswith("ended\n")
    assert f"{sign.name} received; stopping" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_second_signal_ends_a_run_that_drains(
    python: StartPython, client: lightlink.Client, url: str, prefix: str
) -> None:
    process = python(RUN, url, prefix)
    process.wait_line("ready")
    _until_it_serves(client, prefix)
    client.submit(prefix, "wait", timeout=30)
    process.wait_line("taken")
    process.signal(signal.SIGTERM)
    _until_it_takes_no_more(client, prefix)
    process.signal(signal.SIGTERM)
    assert process.wait().returncode == -signal.SIGTERM


def test_run_ends_when_somebody_stops_the_service(
    python: StartPython, client: lightlink.Client, url: str, prefix: str
) -> None:
    code = RUN.replace("held.append(1)", "service.stop(); return 'stopping'")
    process = python(code, url, prefix)
    process.wait_line("ready")
    _until_it_serves(client, prefix)
    assert client.call(prefix, "release", timeout=30) == "stopping"
    result = process.wait()
    assert (result.returncode, result.stdout.splitlines()[-1]) == (0, "ended")


def test_run_works_in_a_thread_of_ones_own(service: lightlink.Service, client: lightlink.Client, prefix: str) -> None:
    thread = threading.Thread(target=service.run)
    thread.start()
    _until_it_serves(client, prefix)
    service.stop()
    thread.join(20)
    assert not thread.is_alive()


def _until_it_serves(client: lightlink.Client, name: str) -> None:
    def serves() -> bool:
        try:
            client.call(name, "add", {"a": 1, "b": 2})
        except ServiceUnavailable:
            return False
        return True

    eventually(serves)  # with a pause between: who asks without one takes the time that the start needs


def _until_it_takes_no_more(client: lightlink.Client, name: str) -> None:
    def takes_no_more() -> bool:
        try:
            client.call(name, "add", {"a": 1, "b": 2}, timeout=0.05)
        except ServiceUnavailable:
            return True
        except CallTimeout:
            pass  # every worker has something else to do
        return False

    eventually(takes_no_more)


def test_starting_and_stopping_are_told_in_the_log(
    service: lightlink.Service, prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "lightlink"), service:
        pass
    assert f"service {prefix} is running (instance {service.instance})" in caplog.text
    assert f"service {prefix} has stopped" in caplog.text


def test_a_method_s_name_may_have_dots_in_it(client: lightlink.Client, peer: RawPeer, url: str, prefix: str) -> None:
    service = lightlink.Service(prefix, url)

    @service.rpc("backup.create")
    def create(name: str) -> str:
        return f"created {name}"

    @service.rpc("backup.create.twice")
    def twice(name: str) -> str:
        return f"created {name}, twice"

    with service:
        assert client.call(prefix, "backup.create", {"name": "a"}) == "created a"
        assert client.service(prefix).backup.create(name="b") == "created b"
        assert client.service(prefix)["backup.create.twice"](name="c") == "created c, twice"
        with pytest.raises(MethodNotFound, match=r"method not found: backup\.creat"):
            client.call(prefix, "backup.creat")
        assert {"backup.create", "backup.create.twice"} <= client.service(prefix).info().methods.keys()
    for wrong in ("backup.", ".create", "backup..create", "backup.*"):
        with pytest.raises(InvalidName, match="dots between them"):
            client.call(prefix, wrong)

    async def serve(message: Any) -> None:
        asked = json.loads(message.data)
        await message.respond(json.dumps({"id": asked["id"], "success": True, "result": asked["method"]}).encode())

    peer.run(peer.nc.subscribe(f"$SRV.{prefix}.backup.create", cb=serve))
    peer.run(peer.nc.flush())
    assert client.call(prefix, "backup.create") == "backup.create"


def test_a_result_may_be_wrapped_for_peers_that_take_objects(client: lightlink.Client, url: str, prefix: str) -> None:
    service = lightlink.Service(prefix, url)

    @service.rpc(wrap="value")
    def count(words: list[str]) -> int:
        """Count."""
        return len(words)

    with service:
        assert count(["a"]) == 1
        assert client.call(prefix, "count", {"words": ["a", "b"]}) == {"value": 2}
        told = client.service(prefix).info().methods["count"].description
        assert told.result == {"type": "object", "properties": {"value": {"type": "integer"}}, "required": ["value"]}
        with pytest.raises(InvalidArguments):
            client.call(prefix, "count", {"words": 5})
    with pytest.raises(InvalidOption, match="wrap"):
        lightlink.Service("x", url).register("y", count, wrap=5)  # type: ignore[arg-type]
