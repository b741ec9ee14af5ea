"""Calls, seen from the caller: our client against a raw nats-py peer, written from the wire format alone, and ours."""

from __future__ import annotations

import concurrent.futures
import json
import pickle
import queue
import re
import threading
import time
import uuid
from typing import TYPE_CHECKING, Any

import attrs
import pytest
from helpers.waiting import eventually

import lightlink
from lightlink.errors import (
    CallTimeout,
    ClosedError,
    DeadlineExceeded,
    DecodeError,
    EncodeError,
    HandlerError,
    InvalidArguments,
    InvalidName,
    InvalidOption,
    InvalidRequest,
    MethodNotFound,
    RemoteError,
    ServiceBusy,
    ServiceUnavailable,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from helpers.raw import RawPeer
    from nats.aio.msg import Msg


@attrs.define
class Point:
    x: int
    y: int = 0


@pytest.fixture
def client(url: str) -> Iterator[lightlink.Client]:
    with lightlink.connect(url) as connected:
        yield connected


@pytest.fixture
def service(url: str, prefix: str) -> Iterator[lightlink.Service]:
    """A running service named like the test's prefix."""
    running = lightlink.Service(prefix, url)
    running.register("add", add)
    running.register("echo", lambda **given: given)
    running.register("point", point)
    with running:
        yield running


def add(a: int, b: int) -> int:
    return a + b


def point(x: int) -> Point:
    return Point(x, 2 * x)


class PeerService:
    """A service by a peer: ``answer(request)`` returns what to reply, or raises; it sees the raw message."""

    def __init__(self, peer: RawPeer, name: str, answer: Callable[[Msg], Any]) -> None:
        self.requests: queue.SimpleQueue[Msg] = queue.SimpleQueue()

        async def serve(message: Msg) -> None:
            self.requests.put(message)
            for reply in answer(message):
                headers, body = reply if isinstance(reply, tuple) else (None, reply)
                data = body if isinstance(body, bytes) else json.dumps(body).encode()
                await peer.nc.publish(message.reply, data, headers=headers)

        peer.run(peer.nc.subscribe(f"$SRV.{name}.*", queue="q", cb=serve))
        peer.run(peer.nc.flush())


def success(message: Msg, result: Any) -> dict[str, Any]:
    return {"id": json.loads(message.data)["id"], "success": True, "result": result}


def failure(message: Msg, error: Any, **more: Any) -> dict[str, Any]:
    return {"id": json.loads(message.data)["id"], "success": False, "error": error, **more}


# The wire -------------------------------------------------------------------------------------------------------------


@pytest.mark.interop
def test_a_peer_that_knows_the_wire_format_serves_our_client(
    client: lightlink.Client, peer: RawPeer, prefix: str
) -> None:
    peer_service = PeerService(peer, prefix, lambda m: [success(m, {"sum": 3})])
    assert client.call(prefix, "add", {"a": 1, "b": 2}, timeout=5.0) == {"sum": 3}
    request = peer_service.requests.get(timeout=30)
    body = json.loads(request.data)
    assert request.subject == f"$SRV.{prefix}.add"
    assert body == {"id": body["id"], "method": "add", "args": {"a": 1, "b": 2}}
    assert str(uuid.UUID(body["id"])) == body["id"]
    assert request.headers is not None
    assert set(request.headers) == {"LightLink-Timeout-Ms"}
    assert 4000 < int(request.headers["LightLink-Timeout-Ms"]) <= 5000


@pytest.mark.parametrize(
    ("args", "sent"), [(None, {}), ({}, {}), ({"a": None}, {"a": None}), (Point(1), {"x": 1, "y": 0})]
)
def test_arguments_are_sent_as_an_object(
    args: Any, sent: Any, client: lightlink.Client, peer: RawPeer, prefix: str
) -> None:
    peer_service = PeerService(peer, prefix, lambda m: [success(m, None)])
    assert client.call(prefix, "m", args) is None
    assert json.loads(peer_service.requests.get(timeout=30).data)["args"] == sent


@pytest.mark.parametrize("result", [None, 0, "", False, [], {}, "text", [1, {"a": None}], 1.5, "ünï\u2028", 2**60])
def test_every_json_value_is_a_result(
    result: Any, client: lightlink.Client, service: lightlink.Service, peer: RawPeer, prefix: str
) -> None:
    assert client.call(prefix, "echo", {"value": result}) == {"value": result}
    PeerService(peer, f"{prefix}_peer", lambda m: [success(m, result)])
    assert client.call(f"{prefix}_peer", "m") == result


def test_a_success_without_a_result_is_none(client: lightlink.Client, peer: RawPeer, prefix: str) -> None:
    PeerService(peer, prefix, lambda m: [{"id": json.loads(m.data)["id"], "success": True}])
    assert client.call(prefix, "m") is None


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("method_not_found", MethodNotFound),
        ("invalid_request", InvalidRequest),
        ("invalid_arguments", InvalidArguments),
        ("busy", ServiceBusy),
        ("deadline_exceeded", DeadlineExceeded),
        ("handler_error", HandlerError),
        ("of_a_later_version", RemoteError),
    ],
)
def test_an_error_code_becomes_its_error(
    code: str, kind: type[RemoteError], client: lightlink.Client, peer: RawPeer, prefix: str
) -> None:
    PeerService(peer, prefix, lambda m: [failure(m, "the text", code=code)])
    with pytest.raises(RemoteError) as caught:
        client.call(prefix, "m")
    error = caught.value
    assert type(error) is kind
    assert (error.service, error.method, error.code, error.message) == (prefix, "m", code, "the text")


@pytest.mark.parametrize(
    ("reply", "kind", "message"),
    [
        ({"success": False, "error": "method not found: m"}, MethodNotFound, "method not found: m"),
        ({"success": False, "error": "something else"}, RemoteError, "something else"),
        ({"success": False, "id": None, "error": "no id"}, RemoteError, "no id"),
        ({"success": False, "id": "", "result": None, "error": "bad thing"}, RemoteError, "bad thing"),
        ({"success": False, "id": "", "error": "Method not found: m"}, MethodNotFound, "Method not found: m"),
        (
            {
                "success": False,
                "error": "validation failed",
                "result": {
                    "type": "validation_error",
                    "parameter_name": "count",
                    "expected_type": "int",
                    "actual_type": "str",
                },
            },
            InvalidArguments,
            "argument 'count': expected int, got str",
        ),
        ({"success": False, "error": {"deep": 1}}, RemoteError, "{'deep': 1}"),
        ({"success": False, "error": "x", "code": 7}, RemoteError, "x"),
        ({"success": False}, RemoteError, "None"),
    ],
)
def test_an_error_without_a_code_is_read_all_the_same(
    reply: Any, kind: type[RemoteError], message: str, client: lightlink.Client, peer: RawPeer, prefix: str
) -> None:
    PeerService(peer, prefix, lambda m: [reply])
    with pytest.raises(RemoteError) as caught:
        client.call(prefix, "m")
    assert (type(caught.value), caught.value.message) == (kind, message)


def test_an_error_in_headers_alone_as_adr_32_has_it_is_read_too(
    client: lightlink.Client, peer: RawPeer, prefix: str
) -> None:
    headers = {"Nats-Service-Error": "out of stock", "Nats-Service-Error-Code": "409"}
    PeerService(peer, prefix, lambda m: [(headers, b"")])
    with pytest.raises(RemoteError) as caught:
        client.call(prefix, "m")
    assert (caught.value.code, caught.value.message) == ("409", "out of stock")


@pytest.mark.parametrize("reply", [b"", b"not JSON", b"[]", b"7", b'{"result":1}', b'{"success":"yes"}', b"\xff"])
def test_a_reply_that_is_no_envelope_is_a_decode_error(
    reply: bytes, client: lightlink.Client, peer: RawPeer, prefix: str
) -> None:
    PeerService(peer, prefix, lambda m: [reply])
    with pytest.raises(DecodeError) as caught:
        client.call(prefix, "m")
    assert (caught.value.subject, caught.value.start) == (f"$SRV.{prefix}.m", reply)


@pytest.mark.parametrize("wrong_id", ["another", None])
def test_a_result_for_another_request_is_not_taken(
    wrong_id: str | None, client: lightlink.Client, peer: RawPeer, prefix: str
) -> None:
    PeerService(peer, prefix, lambda m: [{"id": wrong_id, "success": True, "result": "not yours"}])
    with pytest.raises(DecodeError, match="the reply is to request"):
        client.call(prefix, "m")


def test_the_first_reply_counts_and_others_are_dropped(client: lightlink.Client, peer: RawPeer, prefix: str) -> None:
    PeerService(peer, prefix, lambda m: [success(m, 1), success(m, 2), success(m, 3)])
    assert [client.call(prefix, "m") for _ in range(20)] == [1] * 20
    replies = client._connection.session.replies
    eventually(lambda: replies.strays == 40)
    inbox = replies.prefix.decode()
    for token in ("guess", "", str(uuid.uuid4())):
        peer.run(peer.nc.publish(f"{inbox}{token or 'x'}", b'{"success":true,"result":"forged"}'))
    eventually(lambda: replies.strays == 43)
    assert client.call(prefix, "m") == 1
    assert len(replies) == 0


def test_a_late_reply_is_dropped_and_harms_no_later_call(client: lightlink.Client, peer: RawPeer, prefix: str) -> None:
    held: list[Msg] = []
    PeerService(peer, prefix, lambda m: held.append(m) or [])
    with pytest.raises(CallTimeout) as caught:
        client.call(prefix, "m", timeout=0.5)
    assert (caught.value.service, caught.value.method, caught.value.timeout) == (prefix, "m", 0.5)
    assert "may have run" in str(caught.value)
    assert isinstance(caught.value, TimeoutError)
    later = client.submit(prefix, "m", timeout=30)
    eventually(lambda: len(held) == 2)
    for message, result in ((held[0], "late"), (held[1], "in time")):
        peer.run(peer.nc.publish(message.reply, json.dumps(success(message, result)).encode()))
    assert later.result(timeout=30) == "in time"
    assert client._connection.session.replies.strays == 1


# Our service ----------------------------------------------------------------------------------------------------------


def test_a_call_returns_the_handlers_result(client: lightlink.Client, service: lightlink.Service, prefix: str) -> None:
    assert client.call(prefix, "add", {"a": 1, "b": 2}) == 3
    assert client.call(prefix, "point", {"x": 4}) == {"x": 4, "y": 8}


def test_a_result_can_be_converted_to_a_type(client: lightlink.Client, service: lightlink.Service, prefix: str) -> None:
    assert client.call(prefix, "point", {"x": 4}, returns=Point) == Point(4, 8)
    assert client.submit(prefix, "point", {"x": 4}, returns=Point).result(30) == Point(4, 8)
    assert client.call(prefix, "echo", {"a": {"x": 1}}, returns=dict[str, Point]) == {"a": Point(1)}
    with pytest.raises(DecodeError, match="Expected `int`"):
        client.call(prefix, "point", {"x": 4}, returns=int)


@pytest.mark.parametrize("returns", [Point | dict[str, int], [int]], ids=["union", "list"])
def test_an_impossible_result_type_is_refused_before_the_call(
    returns: Any, client: lightlink.Client, peer: RawPeer, prefix: str
) -> None:
    peer_service = PeerService(peer, prefix, lambda m: [success(m, 1)])
    for method in (client.call, client.submit):
        with pytest.raises(InvalidOption, match="returns"):
            method(prefix, "m", returns=returns)
    client.call(prefix, "end")
    assert peer_service.requests.get(timeout=30).subject.endswith(".end")


def test_an_unknown_service_is_unavailable_at_once(client: lightlink.Client, prefix: str) -> None:
    client.flush()
    began = time.monotonic()
    with pytest.raises(ServiceUnavailable, match="no responders") as caught:
        client.call(prefix, "add", timeout=30)
    assert time.monotonic() - began < 25  # a moment; a busy machine is no bug
    assert (caught.value.service, caught.value.method) == (prefix, "add")
    with pytest.raises(ServiceUnavailable):
        client.submit(prefix, "add", timeout=30).result(timeout=30)


def test_an_unknown_method_is_named(client: lightlink.Client, service: lightlink.Service, prefix: str) -> None:
    with pytest.raises(MethodNotFound, match="method not found: foo"):
        client.call(prefix, "foo")


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ({"a": 1}, "add: missing argument 'b'"),
        ({"a": 1, "b": 2, "c": 3}, "add: unknown argument 'c'"),
        ({"a": 1, "b": "2"}, "add: argument 'b': expected `int`, got `str`"),
        ([1, 2], "arguments must be an object"),
        ("text", "expected `object`, got `str`"),
        (None, "missing argument 'a'"),
    ],
)
def test_a_wrong_argument_is_named_with_what_was_expected(
    args: Any, words: str, client: lightlink.Client, service: lightlink.Service, prefix: str
) -> None:
    with pytest.raises(InvalidArguments) as caught:
        client.call(prefix, "add", args)
    assert words in str(caught.value)
    assert f"{prefix}.add" in str(caught.value)


def test_an_overdue_call_is_not_told_of_a_missing_connection(client: lightlink.Client, prefix: str) -> None:
    words = re.escape(f"{prefix}.any is unavailable: the call could not be sent within 1e-09 s")
    with pytest.raises(lightlink.ServiceUnavailable, match=words):
        client.call(prefix, "any", timeout=1e-9)
    with pytest.raises(lightlink.ServiceUnavailable, match=words):
        client.submit(prefix, "any", timeout=1e-9).result(30)


def test_what_cannot_be_sent_is_refused_in_the_callers_thread(client: lightlink.Client, prefix: str) -> None:
    for method in (client.call, client.submit):
        with pytest.raises(EncodeError, match="the arguments of 'add'"):
            method(prefix, "add", {"a": object()})


@pytest.mark.parametrize(
    ("service", "method"),
    [
        ("a b", "m"),
        ("a.b", "m"),
        ("*", "m"),
        ("", "m"),
        ("PING", "m"),
        ("s", "a..b"),
        ("s", ">"),
        ("s", ""),
        (None, "m"),
        ("s", []),
    ],
)
def test_a_bad_name_is_refused_in_the_callers_thread(service: Any, method: Any, client: lightlink.Client) -> None:
    for use in (client.call, client.submit):
        with pytest.raises(InvalidName):
            use(service, method)


def test_not_a_number_arrives_as_none(client: lightlink.Client, service: lightlink.Service, prefix: str) -> None:
    given = {"nan": float("nan"), "list": [float("inf")]}
    assert client.call(prefix, "echo", given) == {"nan": None, "list": [None]}


# The proxy ------------------------------------------------------------------------------------------------------------


def test_a_proxy_calls_methods_like_functions(
    client: lightlink.Client, service: lightlink.Service, prefix: str
) -> None:
    math = client.service(prefix, timeout=5)
    assert math.add(a=1, b=2) == 3
    assert math.echo(timeout=1, service="x") == {"timeout": 1, "service": "x"}
    assert repr(math) == f"ServiceProxy({prefix!r})"
    assert math.add.__name__ == "add"
    with pytest.raises(TypeError, match=r"\.add: give each argument by name"):
        math.add(1, 2)
    with pytest.raises(MethodNotFound):
        math.missing()


def test_a_proxy_is_no_trap_for_what_looks_at_it(client: lightlink.Client, prefix: str) -> None:
    proxy = client.service(prefix)
    assert not hasattr(proxy, "__iter__")
    with pytest.raises((TypeError, AttributeError, pickle.PicklingError)):
        pickle.dumps(proxy)
    with pytest.raises(InvalidName):
        client.service("a b")


def test_a_proxy_has_its_own_timeout(client: lightlink.Client, peer: RawPeer, prefix: str) -> None:
    PeerService(peer, prefix, lambda m: [])
    with pytest.raises(CallTimeout, match=r"within 0\.5 s"):
        client.service(prefix, timeout=0.5).m()


# Futures --------------------------------------------------------------------------------------------------------------


def test_a_future_brings_the_result_or_the_error(
    client: lightlink.Client, service: lightlink.Service, prefix: str
) -> None:
    assert client.submit(prefix, "add", {"a": 1, "b": 2}).result(30) == 3
    assert isinstance(client.submit(prefix, "foo").exception(30), MethodNotFound)


def test_many_futures_are_under_way_at_once(client: lightlink.Client, service: lightlink.Service, prefix: str) -> None:
    futures = [client.submit(prefix, "add", {"a": n, "b": 0}) for n in range(500)]
    assert [future.result(30) for future in futures] == list(range(500))
    assert len(client._connection.session.replies) == 0


def test_a_future_times_out_like_a_call(client: lightlink.Client, peer: RawPeer, prefix: str) -> None:
    PeerService(peer, prefix, lambda m: [])
    with pytest.raises(CallTimeout, match=r"within 0\.5 s"):
        client.submit(prefix, "m", timeout=0.5).result(30)
    assert len(client._connection.session.replies) == 0


def test_a_cancelled_future_is_done_and_its_reply_dropped(client: lightlink.Client, peer: RawPeer, prefix: str) -> None:
    held: list[Msg] = []
    PeerService(peer, prefix, lambda m: held.append(m) or [])
    future, other = client.submit(prefix, "m", timeout=30), client.submit(prefix, "m", timeout=30)
    eventually(lambda: len(held) == 2)
    assert future.cancel()
    done, _ = concurrent.futures.wait([future, other], timeout=10, return_when=concurrent.futures.FIRST_COMPLETED)
    assert done == {future}
    with pytest.raises(concurrent.futures.CancelledError):
        future.result(1)
    for message in held:
        peer.run(peer.nc.publish(message.reply, json.dumps(success(message, 1)).encode()))
    assert other.result(30) == 1
    assert client._connection.session.replies.strays == 1


def test_cancelling_races_with_the_reply_and_ends_every_future(
    client: lightlink.Client, service: lightlink.Service, prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    futures = [client.submit(prefix, "add", {"a": n, "b": 0}) for n in range(300)]
    cancelled = [future for future in futures if future.cancel()]
    assert not concurrent.futures.wait(futures, timeout=30).not_done
    assert all(future.cancelled() or future.result() == n for n, future in enumerate(futures))
    assert [future for future in futures if future.cancelled()] == cancelled
    assert "unexpected state" not in caplog.text


def test_callbacks_run_on_a_thread_of_the_library_and_may_fail(
    client: lightlink.Client, service: lightlink.Service, prefix: str
) -> None:
    seen: queue.SimpleQueue[Any] = queue.SimpleQueue()
    future = client.submit(prefix, "add", {"a": 1, "b": 2})
    future.add_done_callback(lambda done: 1 // 0)
    future.add_done_callback(lambda done: seen.put(done.result()))
    assert seen.get(timeout=30) == 3
    assert client.submit(prefix, "add", {"a": 2, "b": 2}).result(30) == 4


def test_a_callback_may_call(client: lightlink.Client, service: lightlink.Service, prefix: str) -> None:
    seen: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def call_again(done: concurrent.futures.Future[Any]) -> None:
        seen.put(client.call(prefix, "add", {"a": done.result(), "b": 1}))

    client.submit(prefix, "add", {"a": 1, "b": 1}).add_done_callback(call_again)
    assert seen.get(timeout=30) == 3


def test_futures_under_way_end_when_the_client_closes(url: str, peer: RawPeer, prefix: str) -> None:
    PeerService(peer, prefix, lambda m: [])
    client = lightlink.connect(url)
    future = client.submit(prefix, "m", timeout=60)
    client.close()
    with pytest.raises(ClosedError):
        future.result(timeout=30)


# Many -----------------------------------------------------------------------------------------------------------------


def test_64_threads_get_the_answers_to_their_own_calls(
    client: lightlink.Client, service: lightlink.Service, prefix: str
) -> None:
    wrong: list[Any] = []
    made: list[int] = []

    def work(thread: int) -> None:
        count = 0
        for n in range(157 if thread < 16 else 156):
            question = {"thread": thread, "n": n}
            try:
                answer = client.call(prefix, "echo", question, timeout=30)
            except Exception as exc:
                answer = exc
            if answer != question:
                wrong.append((question, answer))
            count += 1
        made.append(count)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(50)
        assert not thread.is_alive()
    assert wrong == []
    assert sum(made) == 10_000
    assert len(client._connection.session.replies) == 0


def test_large_arguments_and_results_come_through(
    client: lightlink.Client, service: lightlink.Service, prefix: str
) -> None:
    text = "x" * 1_000_000
    assert client.call(prefix, "echo", {"text": text}, timeout=30) == {"text": text}
    with pytest.raises(lightlink.PayloadTooLarge) as caught:
        client.call(prefix, "echo", {"text": "x" * 2_000_000})
    assert caught.value.limit == 1024 * 1024


def test_headers_of_a_call_reach_the_handler_beside_the_deadline(
    client: lightlink.Client, url: str, prefix: str
) -> None:
    running = lightlink.Service(prefix, url)
    got: queue.SimpleQueue[dict[str, str]] = queue.SimpleQueue()

    @running.rpc
    def look(request: lightlink.Request) -> float:
        got.put(request.headers)
        return request.remaining()

    with running:
        mine = {"Trace": "a", "LightLink-Timeout-Ms": "9999999"}
        assert 0 < client.call(prefix, "look", headers=mine, timeout=50.0) <= 50
        assert client.submit(prefix, "look", headers={"Trace": "b"}).result(30) > 0
        assert client.service(prefix, headers={"Trace": "c"}).look() > 0
        assert client.call(prefix, "look") > 0

    assert [got.get(timeout=30).get("Trace") for _ in range(4)] == ["a", "b", "c", None]
    with pytest.raises(InvalidName, match="header value"):
        client.call(prefix, "look", headers={"Trace": "two\r\nlines"})
