from __future__ import annotations

import contextlib
import functools
import logging
import queue
import threading
from typing import TYPE_CHECKING, Any

import attrs
import pytest
from helpers.waiting import eventually

import lightlink
from lightlink import InvalidName, InvalidOption
from lightlink.errors import ClosedError, DecodeError, NoMessage

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import StartServer
    from helpers.raw import RawPeer


@attrs.define
class Reading:
    t: float


@pytest.fixture
def errors() -> queue.SimpleQueue[Exception]:
    return queue.SimpleQueue()


@pytest.fixture
def client(url: str, errors: queue.SimpleQueue[Exception]) -> Iterator[lightlink.Client]:
    with lightlink.connect(url, on_error=errors.put) as connected:
        yield connected


class Collector(list[Any]):
    """Messages as they were handled; ``wait`` returns them when there are so many."""

    def __call__(self, data: Any) -> None:
        self.append(data)

    def wait(self, number: int) -> list[Any]:
        eventually(lambda: len(self) >= number)
        return list(self)


# What a handler is given ----------------------------------------------------------------------------------------------


def test_a_handler_gets_the_data_on_a_worker_thread(client: lightlink.Client, prefix: str) -> None:
    seen: queue.SimpleQueue[Any] = queue.SimpleQueue()
    client.subscribe(prefix, lambda data: seen.put((data, threading.current_thread().name)))
    client.publish(prefix, {"user_id": "U001"})
    data, thread = seen.get(timeout=30)
    assert data == {"user_id": "U001"}
    assert thread.startswith("lightlink-client-worker-")


def test_a_handler_annotated_message_gets_all_of_it(client: lightlink.Client, peer: RawPeer, prefix: str) -> None:
    seen: queue.SimpleQueue[lightlink.Message] = queue.SimpleQueue()

    @client.on(f"{prefix}.>")
    def handler(message: lightlink.Message) -> None:
        seen.put(message)

    peer.run(peer.nc.publish(f"{prefix}.a.b", b'{"x":1}', reply="answer.here", headers={"Trace": "7"}))
    message = seen.get(timeout=30)
    assert message == lightlink.Message(f"{prefix}.a.b", {"x": 1}, {"Trace": "7"}, "answer.here")


def test_a_handler_annotated_with_a_type_gets_that_type(
    client: lightlink.Client, prefix: str, errors: queue.SimpleQueue[Exception]
) -> None:
    readings = queue.SimpleQueue[Reading]()

    def handler(reading: Reading) -> None:
        readings.put(reading)

    client.subscribe(prefix, handler)
    client.publish(prefix, {"t": "warm"})
    client.publish(prefix, {"t": 21.5})
    assert readings.get(timeout=30) == Reading(21.5)
    error = errors.get(timeout=30)
    assert isinstance(error, DecodeError)
    assert (error.subject, error.start) == (prefix, b'{"t":"warm"}')


def test_raw_leaves_the_data_as_bytes_for_every_form_of_reader(client: lightlink.Client, prefix: str) -> None:
    plain, message = Collector(), Collector()

    def on_message(given: lightlink.Message) -> None:
        message(given)

    client.subscribe(prefix, plain, raw=True)
    client.subscribe(prefix, on_message, raw=True)
    iterated = client.subscribe(prefix, raw=True)
    client.publish(prefix, b"\xff{")
    assert plain.wait(1) == [b"\xff{"]
    assert message.wait(1)[0].data == b"\xff{"
    assert iterated.get(30).data == b"\xff{"


class Handlers:
    def __init__(self) -> None:
        self.seen: list[Any] = []

    def method(self, data: Any) -> None:
        self.seen.append(data)

    def __call__(self, data: Any, unused: int = 0) -> None:
        self.seen.append(data)

    def more(self, first: str, data: Any) -> None:
        self.seen.append(data)

    def catch_all(self, *data: Any) -> None:
        self.seen += data


def test_methods_objects_partials_and_built_ins_are_handlers(client: lightlink.Client, prefix: str) -> None:
    handlers = Handlers()
    for handler in (
        handlers.method,
        handlers,
        functools.partial(handlers.more, "first"),
        handlers.seen.append,
        handlers.catch_all,
        lambda data: handlers.method(data),  # noqa: PLW0108 - a lambda is what is to be tested
    ):
        client.subscribe(prefix, handler)
    client.publish(prefix, 7)
    eventually(lambda: len(handlers.seen) == 6)
    assert handlers.seen == [7] * 6


async def coroutine(data: Any) -> None:
    pass


def two(a: Any, b: Any) -> None:
    pass


def keyword(*, data: Any) -> None:
    pass


def unfit(data: Reading | Handlers | dict[str, int]) -> None:
    pass


@pytest.mark.parametrize(
    ("handler", "problem"),
    [
        (42, "not callable"),
        (coroutine, "coroutine function"),
        (functools.partial(coroutine), "coroutine function"),
        (two, "must take one argument"),
        (keyword, "must take one argument"),
        (lambda: None, "must take one argument"),
        (unfit, "annotation cannot be checked"),
    ],
    ids=["no-callable", "coroutine", "partial-coroutine", "two", "keyword", "none", "unfit-type"],
)
def test_a_handler_that_takes_no_message_is_refused(
    handler: Any, problem: str, client: lightlink.Client, prefix: str
) -> None:
    with pytest.raises(InvalidOption, match=problem):
        client.subscribe(prefix, handler)
    with pytest.raises(InvalidOption, match=problem):
        client.on(prefix)(handler)


def test_the_decorator_takes_a_subject_and_returns_the_function(client: lightlink.Client, prefix: str) -> None:
    with pytest.raises(InvalidOption, match="name the subject"):
        client.on(two)  # type: ignore[arg-type]

    def handler(data: Any) -> None:
        pass

    assert client.on(prefix)(handler) is handler


@pytest.mark.parametrize(
    "settings", [{"max_pending": 0}, {"concurrency": 0}, {"concurrency": 1.5}, {"max_pending": True}]
)
def test_limits_must_be_whole_numbers_above_0(settings: dict[str, Any], client: lightlink.Client, prefix: str) -> None:
    with pytest.raises(InvalidOption, match="positive integer"):
        client.subscribe(prefix, lambda data: None, **settings)


@pytest.mark.parametrize(("subject", "queue"), [("a b", ""), ("", ""), ("a..b", ""), ("a.>.b", ""), ("a", "q q")])
def test_a_bad_subject_or_group_is_refused_in_the_caller(subject: str, queue: str, client: lightlink.Client) -> None:
    with pytest.raises(InvalidName):
        client.subscribe(subject, queue=queue)


# Which messages -------------------------------------------------------------------------------------------------------


def test_messages_are_handled_in_the_order_published(client: lightlink.Client, prefix: str) -> None:
    handled = Collector()
    client.subscribe(prefix, handled)
    for n in range(5000):
        client.publish(prefix, n)
    assert handled.wait(5000) == list(range(5000))


def test_wildcards_select_subjects(client: lightlink.Client, prefix: str) -> None:
    one, all_below = client.subscribe(f"{prefix}.*"), client.subscribe(f"{prefix}.>")
    for subject in (prefix, f"{prefix}.a", f"{prefix}.a.b"):
        client.publish(subject, subject)
    client.publish(f"{prefix}.end", "end")
    assert [one.get(30).subject for _ in range(2)] == [f"{prefix}.a", f"{prefix}.end"]
    assert [all_below.get(30).subject for _ in range(3)] == [f"{prefix}.a", f"{prefix}.a.b", f"{prefix}.end"]


def test_a_queue_group_shares_the_messages_and_others_get_all(client: lightlink.Client, prefix: str) -> None:
    members = [Collector(), Collector()]
    outsider = Collector()
    for member in members:
        client.subscribe(prefix, member, queue="billing")
    client.subscribe(prefix, outsider)
    for n in range(200):
        client.publish(prefix, n)
    outsider.wait(200)
    eventually(lambda: len(members[0]) + len(members[1]) == 200)
    assert sorted(members[0] + members[1]) == list(range(200))
    assert all(members), "each got some"


def test_concurrency_lets_several_messages_be_handled_at_a_time(client: lightlink.Client, prefix: str) -> None:
    together = threading.Barrier(4)
    done = Collector()

    def handler(data: Any) -> None:
        together.wait(30)
        done(data)

    client.subscribe(prefix, handler, concurrency=4)
    for n in range(8):
        client.publish(prefix, n)
    assert sorted(done.wait(8)) == list(range(8))


def test_a_thousand_subscriptions_get_their_own_and_end(url: str, prefix: str) -> None:
    handled = Collector()
    with lightlink.connect(url) as client:
        subscriptions = [client.subscribe(f"{prefix}.{n}", handled) for n in range(1000)]
        for n in range(1000):
            client.publish(f"{prefix}.{n}", n)
        assert sorted(handled.wait(1000)) == list(range(1000))
    assert all(subscription.closed for subscription in subscriptions)


# What goes wrong ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("payload", [b"not JSON", b"", b"\xff\xfe", b'{"a":'])
def test_a_message_that_is_not_json_is_reported_and_passed_over(
    payload: bytes,
    client: lightlink.Client,
    prefix: str,
    errors: queue.SimpleQueue[Exception],
    caplog: pytest.LogCaptureFixture,
) -> None:
    handled = Collector()
    client.subscribe(prefix, handled)
    iterated = client.subscribe(prefix)
    client.publish(prefix, payload)
    client.publish(prefix, "fine")
    assert handled.wait(1) == ["fine"]
    assert iterated.get(30).data == "fine"
    for _ in range(2):
        error = errors.get(timeout=30)
        assert isinstance(error, DecodeError)
        assert (error.subject, error.start) == (prefix, payload)
    assert caplog.text.count(f"cannot decode the message on '{prefix}'") == 2


def test_a_handler_that_raises_is_reported_and_goes_on(
    client: lightlink.Client, prefix: str, errors: queue.SimpleQueue[Exception], caplog: pytest.LogCaptureFixture
) -> None:
    handled = Collector()

    def handler(data: int) -> None:
        handled(10 // data)

    client.subscribe(prefix, handler)
    for data in (0, 5):
        client.publish(prefix, data)
    assert handled.wait(1) == [2]
    assert isinstance(errors.get(timeout=30), ZeroDivisionError)
    assert caplog.text.count("Traceback") == 1


def test_a_handler_that_exits_ends_neither_thread_nor_program(client: lightlink.Client, prefix: str) -> None:
    handled = Collector()

    def handler(data: int) -> None:
        if data == 0:
            raise SystemExit(3)
        handled(data)

    client.subscribe(prefix, handler)
    for data in (0, 1):
        client.publish(prefix, data)
    assert handled.wait(1) == [1]


def test_an_error_hook_that_fails_is_logged(url: str, prefix: str, caplog: pytest.LogCaptureFixture) -> None:
    def hook(error: Exception) -> None:
        raise RuntimeError("a bug in the hook")

    with lightlink.connect(url, on_error=hook) as client:
        handled = Collector()
        client.subscribe(prefix, handled)
        client.publish(prefix, b"not JSON")
        client.publish(prefix, 1)
        assert handled.wait(1) == [1]
    assert "a bug in the hook" in caplog.text


def test_a_slow_handler_loses_counts_and_logs_once_a_burst(
    client: lightlink.Client, prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    go = threading.Semaphore(0)
    begun, handled = Collector(), Collector()

    def handler(data: int) -> None:
        begun(data)
        go.acquire(timeout=30)
        handled(data)

    subscription = client.subscribe(prefix, handler, max_pending=10)
    client.publish(prefix, 0)
    begun.wait(1)  # the first is being handled, the others wait
    for n in range(1, 31):
        client.publish(prefix, n)
    eventually(lambda: subscription.dropped == 20)
    # The handler is a little faster than before, but the burst is not over.
    for n in range(31, 34):
        go.release()
        eventually(lambda n=n: len(handled) == n - 30 and subscription.pending == 9)
        client.publish(prefix, n)
        client.publish(prefix, n)
        eventually(lambda n=n: subscription.dropped == n - 10)
    assert caplog.text.count("is too slow") == 1
    for _ in range(11):
        go.release()
    handled.wait(14)
    client.publish(prefix, 0)
    begun.wait(15)  # and now a second burst
    for _ in range(11):
        client.publish(prefix, 1)
    eventually(lambda: subscription.dropped == 24)
    eventually(lambda: caplog.text.count("is too slow") == 2)
    for _ in range(11):
        go.release()
    assert handled[:14] == [*range(11), 31, 32, 33]


def test_a_subscription_is_bounded_by_bytes_too(client: lightlink.Client, prefix: str) -> None:
    from lightlink.events.subscription import Subscription

    connection = client._connection
    with Subscription(connection, connection.session.workers, prefix, max_pending_bytes=250) as subscription:
        for _ in range(5):
            client.publish(prefix, bytes(100))
        eventually(lambda: subscription.dropped == 3)
        assert subscription.pending == 2


def test_headers_count_among_the_bytes_that_wait(client: lightlink.Client, prefix: str) -> None:
    from lightlink.events.subscription import Subscription

    connection = client._connection
    with Subscription(connection, connection.session.workers, prefix, max_pending_bytes=250) as subscription:
        for _ in range(2):
            client.publish(prefix, 1, headers={"A": "x" * 200})
        eventually(lambda: subscription.dropped == 1)


def test_a_slow_handler_does_not_slow_another_subscription_down(client: lightlink.Client, prefix: str) -> None:
    go = threading.Event()
    slow, quick = Collector(), Collector()

    def wait(data: int) -> None:
        go.wait(30)
        slow(data)

    client.subscribe(f"{prefix}.slow", wait)
    client.subscribe(f"{prefix}.quick", quick)
    for n in range(500):
        client.publish(f"{prefix}.slow", n)
        client.publish(f"{prefix}.quick", n)
    assert quick.wait(500) == list(range(500))
    assert slow == []
    go.set()
    assert slow.wait(500) == list(range(500))


def test_a_refused_subscription_is_an_error_in_the_caller(fresh_server: StartServer) -> None:
    config = 'authorization { users = [{user: a, password: a, permissions: {subscribe: {deny: ["Secret.>"]}}}] }'
    server = fresh_server(config=config)
    with lightlink.connect(server.url, user="a", password="a") as client:
        with pytest.raises(lightlink.PermissionDenied) as caught:
            client.subscribe("Secret.plans")
        assert (caught.value.operation, caught.value.subject) == ("subscribe", "Secret.plans")
        with client.subscribe("open") as subscription:
            client.publish("open", 1)
            assert subscription.get(30).data == 1


def test_one_subscription_too_many_is_an_error_in_the_caller(
    fresh_server: StartServer,
) -> None:
    server = fresh_server(config="max_subscriptions: 3")  # replies need one
    errors: list[Exception] = []
    with lightlink.connect(server.url, on_error=errors.append) as client:
        first, second = client.subscribe("first"), client.subscribe("second")
        with pytest.raises(lightlink.LinkError, match=r"subscribing to 'third' failed: maximum subscriptions exceeded"):
            client.subscribe("third")
        client.publish("first", 1)
        assert first.get(30).data == 1
        second.stop()
        with client.subscribe("third") as third:
            client.publish("third", 3)
            assert third.get(30).data == 3
    assert errors == []


def test_all_threads_that_subscribe_to_the_refused_are_told(fresh_server: StartServer) -> None:
    config = 'authorization { users = [{user: a, password: a, permissions: {subscribe: {deny: ["Secret.>"]}}}] }'
    server = fresh_server(config=config)
    outcomes: list[str] = []
    with lightlink.connect(server.url, user="a", password="a") as client:

        def subscribe() -> None:
            try:
                client.subscribe("Secret.plans")
                outcomes.append("subscribed")
            except lightlink.PermissionDenied:
                outcomes.append("denied")

        threads = [threading.Thread(target=subscribe) for _ in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
    assert outcomes == ["denied"] * 16


def test_threads_may_subscribe_while_the_client_closes(url: str, prefix: str) -> None:
    client = lightlink.connect(url)
    problems: list[BaseException] = []
    begun = threading.Barrier(5)

    def subscribe() -> None:
        begun.wait(30)
        try:
            while True:
                client.subscribe(prefix, lambda data: None)
        except ClosedError:
            pass
        except BaseException as exc:
            problems.append(exc)

    threads = [threading.Thread(target=subscribe) for _ in range(4)]
    for thread in threads:
        thread.start()
    begun.wait(30)
    client.close()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    assert problems == []


# Reading without a handler --------------------------------------------------------------------------------------------


def test_get_returns_the_next_message_or_says_that_none_came(client: lightlink.Client, prefix: str) -> None:
    with client.subscribe(prefix) as subscription:
        client.publish(prefix, 1)
        assert subscription.get(timeout=30).data == 1
        with pytest.raises(NoMessage) as caught:
            subscription.get(timeout=0.02)
        assert (caught.value.subject, caught.value.timeout) == (prefix, 0.02)
        with pytest.raises(TimeoutError):
            subscription.get(timeout=0)


def test_get_belongs_to_subscriptions_without_a_handler(client: lightlink.Client, prefix: str) -> None:
    subscription = client.subscribe(prefix, lambda data: None)
    with pytest.raises(InvalidOption, match="has a handler"):
        subscription.get(timeout=0.1)


def test_several_threads_can_read_one_subscription(client: lightlink.Client, prefix: str) -> None:
    found = Collector()
    subscription = client.subscribe(prefix)
    threads = [threading.Thread(target=lambda: [found(message.data) for message in subscription]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for n in range(1000):
        client.publish(prefix, n)
    found.wait(1000)
    subscription.stop()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    assert sorted(found) == list(range(1000))


def test_iteration_yields_what_is_left_when_it_stops(client: lightlink.Client, prefix: str) -> None:
    subscription = client.subscribe(prefix)
    for n in range(3):
        client.publish(prefix, n)
    eventually(lambda: subscription.pending == 3)
    subscription.stop()
    assert [message.data for message in subscription] == [0, 1, 2]
    with pytest.raises(ClosedError, match=prefix):
        subscription.get()


@pytest.mark.parametrize("end", ["stop", "close"])
def test_iteration_in_another_thread_ends_with_its_source(end: str, url: str, prefix: str) -> None:
    client = lightlink.connect(url)
    subscription = client.subscribe(prefix)
    found = Collector()
    thread = threading.Thread(target=lambda: [found(message.data) for message in subscription])
    thread.start()
    client.publish(prefix, 1)
    found.wait(1)
    subscription.stop() if end == "stop" else client.close()
    thread.join(30)
    assert not thread.is_alive()
    client.close()


def test_a_bad_reply_subject_does_not_break_the_reader(url: str, prefix: str) -> None:
    import socket
    from urllib.parse import urlsplit

    with lightlink.connect(url) as client, client.subscribe(prefix) as subscription:
        address = urlsplit(url)
        assert address.port
        with socket.create_connection((address.hostname, address.port)) as raw:
            reader = raw.makefile("rb")
            reader.readline()
            raw.sendall(b"CONNECT {}\r\nPUB %b \xff\xfe 1\r\n7\r\nPING\r\n" % prefix.encode())
            reader.readline()
        message = subscription.get(30)
    assert (message.data, message.reply) == (7, "\ufffd\ufffd")


# The end --------------------------------------------------------------------------------------------------------------


def test_stopping_lets_the_handler_finish_what_has_come(client: lightlink.Client, prefix: str) -> None:
    handled = Collector()
    subscription = client.subscribe(prefix, handled)
    for n in range(500):
        client.publish(prefix, n)
    client.flush()
    subscription.stop()
    assert handled == list(range(500))
    assert subscription.closed
    subscription.stop()
    client.publish(prefix, "late")
    client.flush()
    assert len(handled) == 500


def test_stopping_gives_up_on_a_handler_that_does_not_finish(
    client: lightlink.Client, prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    go, begun = threading.Event(), threading.Event()

    def handler(data: Any) -> None:
        begun.set()
        go.wait(30)

    subscription = client.subscribe(prefix, handler)
    client.publish(prefix, 1)
    client.publish(prefix, 2)
    assert begun.wait(30)
    eventually(lambda: subscription.pending == 1)
    subscription.stop(timeout=0.05)
    assert "did not finish; 1 messages are lost" in caplog.text
    go.set()


def test_a_handler_may_stop_its_own_subscription(client: lightlink.Client, prefix: str) -> None:
    handled, stopped = Collector(), threading.Event()
    filled = threading.Event()

    def handler(data: Any) -> None:
        filled.wait(30)
        handled(data)
        subscription.stop(timeout=60)
        stopped.set()

    subscription = client.subscribe(prefix, handler)
    for n in range(10):
        client.publish(prefix, n)
    eventually(lambda: subscription.pending == 9)
    filled.set()
    assert stopped.wait(30), "it waited for itself"
    client.publish(prefix, "late")
    client.flush()
    assert handled == [0]


def test_a_handler_may_close_the_client(url: str, prefix: str) -> None:
    client = lightlink.connect(url)
    closed = threading.Event()

    def handler(data: Any) -> None:
        client.close()
        closed.set()

    client.subscribe(prefix, handler)
    client.publish(prefix, 1)
    assert closed.wait(30)
    assert client.status is lightlink.Status.CLOSED


def test_a_handler_may_publish_subscribe_and_call(client: lightlink.Client, prefix: str) -> None:
    answers = Collector()

    def handler(data: int) -> None:
        with client.subscribe(f"{prefix}.inner") as inner:
            client.publish(f"{prefix}.inner", data + 1)
            data = inner.get(30).data
        with contextlib.suppress(lightlink.ServiceUnavailable):
            client.call(prefix, "nobody", timeout=5)
        client.flush()
        answers(data)

    client.subscribe(f"{prefix}.outer", handler)
    client.publish(f"{prefix}.outer", 1)
    assert answers.wait(1) == [2]


def test_nothing_can_be_subscribed_with_a_closed_client(url: str, prefix: str) -> None:
    client = lightlink.connect(url)
    client.close()
    with pytest.raises(ClosedError):
        client.subscribe(prefix)


def test_a_subscription_tells_what_it_is(client: lightlink.Client, prefix: str) -> None:
    subscription = client.subscribe(prefix, queue="q")
    assert (subscription.subject, subscription.queue, subscription.dropped, subscription.pending) == (prefix, "q", 0, 0)
    assert repr(subscription) == f"<Subscription '{prefix}' 0 pending, 0 dropped>"
    subscription.close()
    assert repr(subscription) == f"<Subscription '{prefix}' closed>"


def test_a_message_after_the_end_is_not_counted_as_dropped(
    client: lightlink.Client, prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    subscription = client.subscribe(prefix)
    subscription.stop()
    subscription._arrive(b"x", b"", b"1", None)
    assert subscription.dropped == 0
    with caplog.at_level(logging.WARNING):
        assert "too slow" not in caplog.text
