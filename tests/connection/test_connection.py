from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
from typing import TYPE_CHECKING, Any

import pytest
from helpers.waiting import eventually

import lightlink
from lightlink import Status
from lightlink.errors import (
    ClosedError,
    DeliveryUnknown,
    FlushTimeout,
    InvalidName,
    OutboxFull,
    PayloadTooLarge,
    ServiceUnavailable,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from conftest import StartProxy, StartServer
    from helpers.proxy import TcpProxy

QUICK: dict[str, Any] = {"reconnect_wait": 0.01, "reconnect_wait_max": 0.05}


class Started:
    """A function in a thread; ``wait`` returns what it returned, or raises what it raised."""

    def __init__(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        self._outcome: list[Any] = []
        self._error: list[BaseException] = []
        self._thread = threading.Thread(target=self._work, args=(function, args, kwargs), daemon=True)
        self._thread.start()

    def wait(self, timeout: float = 30.0) -> Any:
        self._thread.join(timeout)
        assert not self._thread.is_alive(), "it did not end"
        if self._error:
            raise self._error[0]
        return self._outcome[0]

    def _work(self, function: Callable[..., Any], args: Any, kwargs: Any) -> None:
        try:
            self._outcome.append(function(*args, **kwargs))
        except BaseException as exc:
            self._error.append(exc)


@pytest.fixture
def line(proxy: StartProxy) -> TcpProxy:
    """The way to the shared server, which can be cut."""
    return proxy()


@pytest.fixture
def client(line: TcpProxy) -> Iterator[lightlink.Client]:
    with lightlink.connect(line.url, **QUICK) as connected:
        yield connected


@pytest.fixture
def echo(url: str, prefix: str) -> Iterator[list[Any]]:
    """A service named like the test's prefix on a good line; the list gets each call that it runs."""
    ran: list[Any] = []
    service = lightlink.Service(prefix, url)

    @service.rpc("echo")
    def echo(x: Any) -> Any:
        ran.append(x)
        return x

    with service:
        yield ran


def cut_off(client: lightlink.Client, line: TcpProxy) -> None:
    """Cut the line, and let no new connection through; on return the client knows."""
    line.refuse()
    line.cut()
    eventually(lambda: client.status is Status.RECONNECTING)


def restore(client: lightlink.Client, line: TcpProxy) -> None:
    line.accept()
    assert client.wait_connected(30)


# Outages --------------------------------------------------------------------------------------------------------------


def test_a_call_while_disconnected_fails_in_time_and_never_runs(
    client: lightlink.Client, line: TcpProxy, prefix: str, echo: list[Any]
) -> None:
    assert client.call(prefix, "echo", {"x": "before"}) == "before"
    cut_off(client, line)
    with pytest.raises(lightlink.ServiceUnavailable, match=r"not connected for 0\.1 s; the call was not sent"):
        client.call(prefix, "echo", {"x": "meanwhile"}, timeout=0.1)
    with pytest.raises(lightlink.ServiceUnavailable):
        client.submit(prefix, "echo", {"x": "meanwhile too"}, timeout=0.1).result(timeout=30)
    restore(client, line)
    assert client.call(prefix, "echo", {"x": "after"}) == "after"
    assert echo == ["before", "after"]


def test_a_call_to_a_killed_server_does_not_run_when_it_returns(fresh_server: StartServer) -> None:
    server = fresh_server()
    ran: list[str] = []
    service = lightlink.Service("echo", server.url, **QUICK)
    service.register("echo", lambda x: ran.append(x))  # noqa: PLW0108 - the argument needs its name
    with service, lightlink.connect(server.url, **QUICK) as client:
        client.call("echo", "echo", {"x": "before"})
        server.kill()
        eventually(lambda: client.status is Status.RECONNECTING)
        with pytest.raises(lightlink.ServiceUnavailable):
            client.call("echo", "echo", {"x": "meanwhile"}, timeout=0.1)
        server.start()
        assert client.wait_connected(30)
        assert service.client.wait_connected(30)
        client.call("echo", "echo", {"x": "after"})
    assert ran == ["before", "after"]


def test_a_call_while_disconnected_runs_when_back_in_time(
    client: lightlink.Client, line: TcpProxy, prefix: str, echo: list[Any]
) -> None:
    cut_off(client, line)
    call = Started(client.call, prefix, "echo", {"x": 1}, timeout=30)
    future = client.submit(prefix, "echo", {"x": 2}, timeout=30)
    restore(client, line)
    assert call.wait() == 1
    assert future.result(timeout=30) == 2
    assert sorted(echo) == [1, 2]


def test_a_call_whose_connection_is_lost_may_have_run(
    client: lightlink.Client, line: TcpProxy, url: str, prefix: str
) -> None:
    begun, go = threading.Event(), threading.Event()
    service = lightlink.Service(prefix, url)
    service.register("wait", lambda: begun.set() or go.wait(30))
    with service:
        calls: list[Started] = []

        def runs() -> bool:
            calls.append(Started(client.call, prefix, "wait", timeout=1.0))
            return begun.wait(1.0)  # a busy machine may bring it too late to be run

        assert eventually(runs)
        cut_off(client, line)
        with pytest.raises(lightlink.CallTimeout, match="may have run"):
            calls[-1].wait()
        go.set()


def test_messages_published_while_disconnected_arrive_in_order(
    client: lightlink.Client, line: TcpProxy, url: str, prefix: str
) -> None:
    with lightlink.connect(url) as other, other.subscribe(prefix) as subscription:
        client.publish(prefix, 0)
        client.flush()
        cut_off(client, line)
        for n in range(1, 1000):
            client.publish(prefix, n)
        restore(client, line)
        assert [subscription.get(timeout=30).data for _ in range(1000)] == list(range(1000))


def test_subscriptions_go_on_after_an_outage(client: lightlink.Client, line: TcpProxy, url: str, prefix: str) -> None:
    subscription = client.subscribe(prefix)
    handled: list[Any] = []
    client.subscribe(prefix, handled.append, queue="q")
    with lightlink.connect(url) as other:
        for n in range(3):
            other.publish(prefix, n)
            assert subscription.get(timeout=30).data == n
            cut_off(client, line)
            restore(client, line)
    eventually(lambda: handled == [0, 1, 2])


def test_a_subscription_while_disconnected_counts_afterwards(
    client: lightlink.Client, line: TcpProxy, url: str, prefix: str
) -> None:
    cut_off(client, line)
    subscription = client.subscribe(prefix)
    stopped = client.subscribe(f"{prefix}.stopped")
    stopped.stop()
    restore(client, line)
    client.flush()
    with lightlink.connect(url) as other:
        other.publish(f"{prefix}.stopped", 0)
        other.publish(prefix, 1)
        assert subscription.get(timeout=30).data == 1
    assert list(stopped) == []


def test_a_subscription_denied_after_a_reconnect_is_reported(fresh_server: StartServer) -> None:
    server = fresh_server(config="authorization { users = [{user: a, password: a}] }")
    errors: list[Exception] = []
    with lightlink.connect(server.url, user="a", password="a", on_error=errors.append, **QUICK) as client:
        client.subscribe("Secret.plans")
        server.kill()
        deny = 'permissions: {subscribe: {deny: "Secret.>"}}'
        server.config = f"authorization {{ users = [{{user: a, password: a, {deny}}}] }}"
        server.start()
        eventually(lambda: errors, timeout=30)
    assert [str(error) for error in errors] == [str(lightlink.PermissionDenied("subscribe", "Secret.plans", "a"))]


def test_a_full_outbox_makes_the_publisher_wait_and_then_refuses(line: TcpProxy, prefix: str) -> None:
    with lightlink.connect(line.url, outbox_messages=10, outbox_timeout=0.05, **QUICK) as client:
        cut_off(client, line)
        for n in range(10):
            client.publish(prefix, n)
        with pytest.raises(OutboxFull) as caught:
            client.publish(prefix, 10)
        assert (caught.value.messages, caught.value.timeout) == (10, 0.05)
        with pytest.raises(OutboxFull):
            client.call("math", "add", timeout=0.05)
        with pytest.raises(FlushTimeout):
            client.flush(timeout=0.05)
        waiting = Started(lightlink.Client.publish, client, prefix, 11)
        restore(client, line)
        with contextlib.suppress(OutboxFull):  # it may have come too late, but not have been stuck
            waiting.wait()
        client.flush()
        client.publish(prefix, 12)


def test_a_fast_publisher_is_slowed_down_and_loses_nothing(line: TcpProxy, url: str, prefix: str) -> None:
    received: list[int] = []
    with (
        lightlink.connect(url) as other,
        lightlink.connect(line.url, outbox_bytes=100_000, outbox_timeout=30) as client,
        other.subscribe(prefix, lambda data: received.append(len(data)), raw=True),
    ):
        line.pause()
        publisher = Started(lambda: [client.publish(prefix, bytes(50_000)) for _ in range(200)])
        eventually(lambda: client._connection.session.outbox._waiting)
        line.resume()
        publisher.wait()
        client.flush()
        eventually(lambda: len(received) == 200)
    assert received == [50_000] * 200


def test_a_flush_while_disconnected_waits_up_to_its_timeout(client: lightlink.Client, line: TcpProxy) -> None:
    cut_off(client, line)
    for _ in range(3):
        with pytest.raises(FlushTimeout) as caught:
            client.flush(timeout=0.02)
        assert (caught.value.timeout, caught.value.status) == (0.02, "reconnecting")
    flush = Started(client.flush, timeout=30)
    restore(client, line)
    flush.wait()


def test_a_server_that_does_not_read_is_left_for_another(fresh_server: StartServer, prefix: str) -> None:
    first, second = fresh_server(), fresh_server()
    with lightlink.connect(first.url, ping_interval=0.2, connect_timeout=30.0, **QUICK) as client:
        client._connection.session.nc.set_server_pool([second.url])
        os.kill(first.pid, signal.SIGSTOP)
        for _ in range(100):  # more than the socket takes
            client.publish(prefix, bytes(100_000))
        eventually(lambda: client._connection.session.losses, timeout=30)
        assert client.wait_connected(30), "the old connection first had to take what it was given"
        with pytest.raises(DeliveryUnknown):
            client.flush()
        client.flush()
        first.kill()


def test_status_tells_of_outages_and_listeners_hear_in_order(client: lightlink.Client, line: TcpProxy) -> None:
    seen: list[Status] = []
    client.on_status_change(seen.append)
    assert client.status is Status.CONNECTED
    cut_off(client, line)
    assert not client.wait_connected(0.02)
    restore(client, line)
    client.close()
    eventually(lambda: len(seen) == 4)
    assert seen == [Status.RECONNECTING, Status.CONNECTED, Status.CLOSING, Status.CLOSED]
    assert client.status is Status.CLOSED
    assert not client.wait_connected(30)


def test_a_listener_that_fails_is_logged_and_the_others_are_told(
    client: lightlink.Client, line: TcpProxy, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[Status] = []
    client.on_status_change(lambda status: 1 // 0)
    client.on_status_change(seen.append)
    cut_off(client, line)
    eventually(lambda: seen)
    assert "ZeroDivisionError" in caplog.text


def test_an_outage_is_one_line_in_the_log_and_its_end_another(
    client: lightlink.Client, line: TcpProxy, caplog: pytest.LogCaptureFixture
) -> None:
    cut_off(client, line)
    attempts = client._connection.session._backoff
    eventually(lambda: attempts._attempt >= 3)
    restore(client, line)
    client.flush()
    lines = [record.getMessage() for record in caplog.records if record.levelname != "DEBUG"]
    assert [text.split(" after")[0] for text in lines] == [
        "lightlink: connection to NATS lost; reconnecting",
        "lightlink: connected to NATS again",
    ]


def test_the_servers_last_complaint_is_an_error_of_ours(fresh_server: StartServer, prefix: str) -> None:
    server = fresh_server(config="max_payload: 2000")
    errors: list[Exception] = []
    with lightlink.connect(server.url, on_error=errors.append, **QUICK) as client:
        client._connection.session.nc.max_payload = 5000  # as if the server's limit had changed meanwhile
        client.publish(prefix, bytes(3000))
        eventually(lambda: errors)
        assert isinstance(errors[0], lightlink.LinkError)
        assert "Maximum Payload Violation" in str(errors[0])
        eventually(lambda: client._connection.session.losses == 1)
        assert client.wait_connected(30)
        with pytest.raises(DeliveryUnknown) as lost:
            client.flush()
        assert lost.value.messages == 1
        client.flush()


@pytest.mark.parametrize("served", [False, True])
def test_a_flush_says_once_what_may_be_lost(proxy: StartProxy, url: str, prefix: str, served: bool) -> None:
    line = proxy()
    with (
        lightlink.connect(line.url, **QUICK) as client,
        lightlink.connect(url) as other,
        other.subscribe(prefix) as sub,
    ):
        client.publish(prefix, 0)
        client.flush()
        line.pause()  # from here on what is written goes nowhere
        for number in range(1, 4):
            client.publish(prefix, number)
        eventually(lambda: client._connection.session.nc.unconfirmed == 3)
        cut_off(client, line)
        line.resume()
        restore(client, line)
        client.publish(prefix, "after")
        if served:  # what a service does at its end is not the program's flush
            lightlink.Service(prefix, client).start().stop()
        with pytest.raises(DeliveryUnknown, match="3 messages") as lost:
            client.flush()
        assert lost.value.messages == 3
        client.flush()
        assert [sub.get(30).data for _ in range(2)] == [0, "after"]


def test_an_outage_after_calls_and_flushes_loses_nothing(client: lightlink.Client, line: TcpProxy, prefix: str) -> None:
    client.publish(prefix, 1)
    client.flush()
    with pytest.raises(ServiceUnavailable):
        client.call(prefix, "none")
    cut_off(client, line)
    restore(client, line)
    client.flush()


def test_a_server_that_is_slow_after_a_reconnect_gets_all(
    line: TcpProxy, prefix: str, echo: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "lightlink")
    with lightlink.connect(line.url, connect_timeout=0.5, **QUICK) as client:
        # It answers what nats-py asks after a reconnect, and then what we ask only once that was given up.
        line.pause_behind(b"PONG", 2)
        line.cut()
        eventually(lambda: line.is_paused)
        eventually(lambda: "the server is slow" in caplog.text)
        line.resume()
        assert client.call(prefix, "echo", {"x": "after"}, timeout=30) == "after"


# Limits ---------------------------------------------------------------------------------------------------------------

ACCOUNT = """
max_payload: 1048576
accounts {{ A {{ users: [{{user: a, password: a}}], limits {{ max_payload: {limit} }} }} }}
"""


def test_the_limit_of_an_account_is_known_at_once(fresh_server: StartServer, prefix: str) -> None:
    server = fresh_server(config=ACCOUNT.format(limit=1000))
    url = server.url.replace("://", "://a:a@")
    with lightlink.connect(url, **QUICK) as client, client.subscribe(prefix, raw=True) as sub:
        with pytest.raises(PayloadTooLarge) as caught:
            client.publish(prefix, bytes(5000))
        assert caught.value.limit == 1000
        client.publish(prefix, bytes(1000))
        client.flush()
        assert len(sub.get(30).data) == 1000
        assert client._connection.session.losses == 0


def test_a_message_that_fits_no_more_is_dropped_alone(fresh_server: StartServer, tmp_path: Path, prefix: str) -> None:
    file = tmp_path / "server.conf"
    file.write_text(ACCOUNT.format(limit=10_000))
    server = fresh_server(config=file)
    errors: list[Exception] = []
    url = server.url.replace("://", "://a:a@")
    with lightlink.connect(url, on_error=errors.append, **QUICK) as client, client.subscribe(prefix, raw=True) as sub:
        server.stop()
        eventually(lambda: client.status is Status.RECONNECTING)
        client.publish(prefix, b"first")
        client.publish(prefix, bytes(5000), headers={"A": "b"})
        client.publish(prefix, b"last")
        future = client.submit("none", "m", {"x": "y" * 5000}, timeout=30)
        file.write_text(ACCOUNT.format(limit=1000))
        server.start()
        assert [sub.get(30).data for _ in range(2)] == [b"first", b"last"]
        with pytest.raises(PayloadTooLarge):
            future.result(30)
        assert [error.limit for error in errors if isinstance(error, PayloadTooLarge)] == [1000]
        assert client._connection.session.losses == 1


def test_a_payload_over_the_limit_is_refused_in_the_caller(fresh_server: StartServer) -> None:
    server = fresh_server(config="max_payload: 1000")
    with lightlink.connect(server.url) as client, client.subscribe("x", raw=True) as subscription:
        client.publish("x", bytes(1000))
        with pytest.raises(PayloadTooLarge) as caught:
            client.publish("x", bytes(1001))
        assert (caught.value.subject, caught.value.size, caught.value.limit) == ("x", 1001, 1000)
        with pytest.raises(PayloadTooLarge):
            client.publish("x", bytes(990), headers={"A": "b"})
        client.publish("x", "end")
        assert [len(subscription.get(30).data) for _ in range(2)] == [1000, 5]


def test_every_size_around_the_limit_is_sent_or_refused(
    fresh_server: StartServer,
) -> None:
    server = fresh_server(config="max_payload: 1000")
    service = lightlink.Service("size", server.url)
    service.register("size", lambda text: len(text))  # noqa: PLW0108 - the argument needs its name
    refused = 0
    with service, lightlink.connect(server.url) as client:
        for size in range(840, 960):
            try:
                assert client.call("size", "size", {"text": "x" * size}) == size
            except PayloadTooLarge:
                refused += 1
        with pytest.raises(PayloadTooLarge):
            client.submit("size", "size", {"text": "x" * 2000})
        assert client._connection.session.losses == 0
    assert 20 < refused < 100


def test_headers_count_however_small_the_payload_is(fresh_server: StartServer) -> None:
    server = fresh_server(config="max_payload: 1000")
    with lightlink.connect(server.url) as client:
        for call in (client.call, lambda *args, **options: client.submit(*args, **options).result(30)):
            with pytest.raises(PayloadTooLarge) as caught:
                call("size", "size", headers={"A": "x" * 1000})
            assert (caught.value.limit, caught.value.size > 1000) == (1000, True)
        client.flush()
        assert client._connection.session.losses == 0


@pytest.mark.parametrize("subject", ["a b", "a.*", "a.>", "", "a..b", "a\r\nPUB x 0\r\n\r\n", "a\x00", None, 5])
def test_a_bad_subject_is_refused_in_the_callers_thread(subject: Any, client: lightlink.Client) -> None:
    with pytest.raises(InvalidName):
        client.publish(subject, 1)


@pytest.mark.parametrize("headers", [{"a b": "x"}, {"A": "x\r\nB: y"}, {"": "x"}, {"A": 5}])
def test_headers_that_would_break_the_message_are_refused(headers: Any, client: lightlink.Client) -> None:
    with pytest.raises(InvalidName):
        client.publish("a", 1, headers=headers)


def test_a_value_that_json_cannot_carry_is_refused(client: lightlink.Client) -> None:
    with pytest.raises(lightlink.EncodeError, match="the message for 'a'"):
        client.publish("a", object())
    with pytest.raises(lightlink.EncodeError, match="the arguments of 'add'"):
        client.call("math", "add", {"a": object()})


@pytest.mark.parametrize("timeout", [0, -1, "1", float("inf"), True])
def test_a_timeout_that_is_none_is_refused(timeout: Any, client: lightlink.Client) -> None:
    for method in (
        lambda: client.call("math", "add", timeout=timeout),
        lambda: client.submit("math", "add", timeout=timeout),
        lambda: client.flush(timeout=timeout),
        lambda: client.wait_connected(timeout=timeout),
    ):
        with pytest.raises(lightlink.InvalidOption, match="timeout"):
            method()


# The end --------------------------------------------------------------------------------------------------------------


def test_closing_delivers_what_was_published(url: str, prefix: str) -> None:
    with lightlink.connect(url) as other, other.subscribe(prefix) as subscription:
        client = lightlink.connect(url)
        for n in range(5000):
            client.publish(prefix, n)
        client.close()
        assert [subscription.get(timeout=30).data for _ in range(5000)] == list(range(5000))


def test_closing_leaves_no_thread_and_no_socket(url: str, prefix: str) -> None:
    def leftovers() -> tuple[set[threading.Thread], int]:
        threads = {thread for thread in threading.enumerate() if thread.name.startswith("lightlink-")}
        return threads, len(os.listdir("/proc/self/fd"))  # noqa: PTH208

    threads, descriptors = leftovers()  # of which some, of other tests, may be about to end
    for _ in range(3):
        with lightlink.connect(url) as client:
            client.subscribe(prefix, lambda data: None)
            client.publish(prefix, 1)
    eventually(lambda: leftovers()[0] <= threads and leftovers()[1] <= descriptors)


def test_every_method_of_a_closed_client_says_so(url: str, prefix: str) -> None:
    client = lightlink.connect(url)
    client.close()
    client.close()
    for use in (
        lambda: client.publish(prefix, 1),
        lambda: client.call("math", "add"),
        lambda: client.submit("math", "add"),
        lambda: client.service("math").add(),
        client.flush,
        lambda: client.subscribe(prefix),
        lambda: client.on(prefix)(print),
    ):
        with pytest.raises(ClosedError, match="the client is closed"):
            use()
    assert client.status is Status.CLOSED
    assert repr(client).startswith("<Client 'client' closed nats://")


def test_closing_from_another_thread_ends_what_waits(
    client: lightlink.Client, line: TcpProxy, url: str, prefix: str
) -> None:
    go, begun = threading.Event(), threading.Event()
    service = lightlink.Service(prefix, url)
    service.register("wait", lambda: begun.set() or go.wait(30))
    with service:
        subscription = client.subscribe(prefix)
        call = Started(client.call, prefix, "wait", timeout=50)
        read = Started(subscription.get, timeout=50)
        future = client.submit(prefix, "wait", timeout=50)
        assert begun.wait(30)
        Started(client.close, timeout=5).wait()
        for waiting in (call, read):
            with pytest.raises(ClosedError):
                waiting.wait()
        with pytest.raises(ClosedError):
            future.result(timeout=30)
        go.set()


def test_closing_while_disconnected_says_what_was_not_sent(
    client: lightlink.Client, line: TcpProxy, prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    cut_off(client, line)
    for n in range(3):
        client.publish(prefix, n)
    call = Started(client.call, "math", "add", timeout=50)
    flush = Started(client.flush, timeout=50)
    eventually(lambda: len(client._connection.session.outbox) == 5)
    Started(client.close, timeout=5).wait()
    for waiting in (call, flush):
        with pytest.raises(ClosedError):
            waiting.wait()
    assert "closed with 3 messages never sent" in caplog.text


def test_closing_on_a_line_that_hangs_is_bounded_by_its_timeout(line: TcpProxy, prefix: str) -> None:
    client = lightlink.connect(line.url)
    for n in range(20):
        client.subscribe(f"{prefix}.{n}", lambda data: None)
    line.pause()
    for _ in range(50):
        client.publish(prefix, bytes(100_000))
    Started(client.close, timeout=0.2).wait(30)
    assert client.status is Status.CLOSED


def test_many_threads_may_close_at_once(url: str) -> None:
    client = lightlink.connect(url)
    closing = [Started(client.close) for _ in range(8)]
    for each in closing:
        each.wait()
    assert client.status is Status.CLOSED


def test_publishing_while_another_closes_works_or_says_so(url: str, prefix: str) -> None:
    client = lightlink.connect(url)

    def publish() -> bool:
        try:
            while True:
                client.publish(prefix, 1)
        except ClosedError:
            return True

    publishers = [Started(publish) for _ in range(4)]
    client.flush()
    client.close()
    assert all(each.wait() for each in publishers)


def test_blocking_on_the_loops_own_thread_is_refused_by_name(client: lightlink.Client) -> None:
    subscription = client.subscribe("x")

    async def misuse(method: Callable[[], Any]) -> None:
        method()

    for method in (
        lambda: client.call("math", "add"),
        client.flush,
        lambda: client.subscribe("y"),
        lambda: subscription.get(1),
        subscription.stop,
        client.close,
    ):
        with pytest.raises(ClosedError, match="is the thread a blocking method was called from"):
            client._connection.run(misuse, method)
    client.flush()
    assert not subscription.closed


def test_a_subscription_given_up_meanwhile_receives_nothing(
    client: lightlink.Client, line: TcpProxy, url: str, prefix: str
) -> None:
    """So Ctrl-C, and once more the same line of a notebook, does not make two of it."""
    given_up: list[object] = []
    line.pause()
    session = client._connection.session
    with pytest.raises(TimeoutError):
        session._subscribe_within(0.1, prefix, "", lambda *_: given_up.append(1), 60.0)
    line.resume()
    with client.subscribe(prefix) as received, lightlink.connect(url) as other:
        other.publish(prefix, "once")
        assert received.get(timeout=30).data == "once"
    assert given_up == []


def test_a_status_listener_may_close_the_client(url: str, proxy: StartProxy) -> None:
    line = proxy()
    client = lightlink.connect(line.url, **QUICK)
    closed = threading.Event()

    def close(status: Status) -> None:
        if status is Status.RECONNECTING:
            client.close()
            closed.set()

    client.on_status_change(close)
    line.cut()
    assert closed.wait(30)


def test_a_forgotten_client_does_not_lose_its_subscriptions(url: str, prefix: str) -> None:
    seen: list[Any] = []
    heard = threading.Event()

    def subscribe() -> None:
        lightlink.connect(url, name="forgotten").subscribe(prefix, lambda data: (seen.append(data), heard.set()))

    subscribe()
    with lightlink.connect(url) as client:
        client.publish(prefix, 1)
        assert heard.wait(30)
    assert seen == [1]


def test_no_thread_starts_before_the_first_connect() -> None:
    from helpers.process import run_python

    code = """
    import threading, lightlink
    lightlink.ConnectOptions.resolve("nats://x:1")
    service = lightlink.Service("math", "nats://x:1")
    service.register("add", lambda a: a)
    print([thread.name for thread in threading.enumerate()])
    """
    result = run_python(code)
    assert (result.stdout, result.stderr) == ("['MainThread']\n", "")
