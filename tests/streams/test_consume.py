"""Handlers of durable events: acknowledged when done, retried when they fail, dead-lettered in the end."""

from __future__ import annotations

import queue
import sys
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from helpers.waiting import eventually
from prometheus_client import CollectorRegistry

import lightlink
import lightlink.metrics
from lightlink.concurrency.threads import pause
from lightlink.errors import BatchFailed, InvalidOption, Later, Reject, StreamError, StreamNotFound
from lightlink.jetstream import api
from lightlink.protocol import codec
from lightlink.streams import Consumption, StoredMessage, consumption
from lightlink.streams.outcomes import Outcomes

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import StartPython, StartServer

QUICK = [0.02, 0.02]


class Order(msgspec.Struct):
    number: int
    customer: str = ""


def test_each_event_is_handled_once_and_acknowledged(client: lightlink.Client) -> None:
    for number in range(50):
        client.publish_stored("orders.new", Order(number))
    seen: list[int] = []

    @client.consume("orders.>", name="billing", workers=4)
    def bill(order: Order) -> None:
        seen.append(order.number)

    eventually(lambda: len(seen) == 50)
    client.publish_stored("orders.new", Order(50))
    eventually(lambda: 50 in seen)
    assert sorted(seen) == list(range(51))
    lag = client.consumer("ORDERS", "billing").lag
    eventually(lambda: (lag().waiting, lag().in_flight) == (0, 0))


def test_a_handler_that_blocks_holds_up_no_quick_ones(client: lightlink.Client) -> None:
    # One thread handles what is quick; the others come to help when it stands.
    with client.storing() as batch:
        for number in range(200):
            batch.publish("orders.new", number)
    last, seen = threading.Event(), []

    @client.consume("orders.>", name="billing", workers=2)
    def bill(number: int) -> None:
        if number == 100:
            assert last.wait(20)
        seen.append(number)
        if number == 199:
            last.set()

    eventually(lambda: len(seen) == 200, 30)
    assert seen[-1] == 100


def test_a_failing_event_is_retried_then_dead_lettered(client: lightlink.Client) -> None:
    tries: Counter[int] = Counter()

    @client.consume("orders.>", name="billing", workers=2, retries=QUICK)
    def bill(message: StoredMessage) -> None:
        tries[message.data] += 1
        assert message.attempt == tries[message.data]
        if message.data == 1 or (message.data == 2 and message.attempt == 1):
            raise ValueError("odd, or the first time")

    for number in range(4):
        client.publish_stored("orders.new", number, headers={"k": "v"})
    letters = client.dead_letters("ORDERS", "billing")
    (letter,) = eventually(letters.list)
    eventually(lambda: tries == {0: 1, 1: 3, 2: 2, 3: 1})  # the others may be handled after it
    assert (letter.subject, letter.data, letter.sequence, letter.attempts) == ("orders.new", b"1", 2, 3)
    assert letter.error == "ValueError: odd, or the first time"
    assert letter.headers["k"] == "v"


def test_a_dead_letter_is_redelivered_only_to_its_consumer(client: lightlink.Client) -> None:
    broken, seen, others, times = threading.Event(), [], [], []
    broken.set()

    @client.consume("orders.>", name="billing", retries=[])
    def bill(message: StoredMessage) -> None:
        if broken.is_set():
            raise Reject("no such customer")
        seen.append((message.subject, message.data, message.sequence, message.attempt, message.headers.get("k")))
        times.append(message.stored_at)

    @client.consume("orders.>", name="other")
    def other(data: Any) -> None:
        others.append(data)

    for number in (1, 2):
        client.publish_stored("orders.new", number, headers={"k": "v"})
    letters = client.dead_letters("ORDERS", "billing")
    eventually(lambda: len(letters.list()) == 2)
    first, second = letters.list()
    assert first.error == "no such customer"
    letters.redeliver(first.number)  # it becomes a dead letter again
    eventually(lambda: [each.sequence for each in letters.list()] == [2, 1])
    broken.clear()
    letters.redeliver(letters.list()[1].number)
    eventually(lambda: seen)
    assert seen == [("orders.new", 1, 1, 1, "v")]
    assert times == [first.stored_at] == [next(iter(client.replay("orders.>"))).stored_at]
    assert first.stored_at < first.at
    letters.drop(second.number)
    eventually(lambda: not letters.list())
    assert others == [1, 2]
    for number in (second.number, 999):
        with pytest.raises(StreamNotFound):
            letters.drop(number)


def test_a_dead_letter_keeps_all_values_of_a_header(fresh_server: StartServer) -> None:
    with lightlink.connect(fresh_server(config="max_payload: 4096").url) as client:
        client.stream("ORDERS", ["orders.>"])
        seen: list[list[str]] = []

        @client.consume("orders.>", name="billing")
        def bill(message: StoredMessage) -> None:
            seen.append(codec.header_values(message.headers, "Link"))
            if len(seen) % 2:
                raise Reject("not yet")

        letters = client.dead_letters("ORDERS", "billing")
        for data in ("small", "x" * 4040):  # the other has no room in its letter
            client.publish_stored("orders.new", data, headers={"Link": ["a", "b"]})
            (letter,) = eventually(letters.list)
            assert codec.header_values(letter.headers, "Link") == ["a", "b"]
            letters.redeliver(letter.number)
            eventually(lambda: len(seen) in (2, 4))
        assert seen == [["a", "b"]] * 4


def test_a_stream_made_anew_has_dead_letters_of_its_own(client: lightlink.Client) -> None:
    def refuse(data: Any) -> None:
        raise Reject(f"no {data}")

    for number in (1, 2):
        client.publish_stored("orders.new", number)
        client.consume("orders.>", name="billing")(refuse)
        letters = client.dead_letters("ORDERS", "billing")
        eventually(lambda: len(letters.list()) == number)  # noqa: B023 - awaited here
        client.subscriptions[0].stop()
        client.stream("ORDERS").delete()
        client.stream("ORDERS", ["orders.>"])
    assert [(each.sequence, each.error) for each in letters.list()] == [(1, "no 1"), (1, "no 2")]


@pytest.mark.parametrize("spare", [0, 400])
@pytest.mark.parametrize("options", [{}, {"workers": 2, "key": lambda message: message.data[:3]}])
def test_an_event_that_fills_a_message_can_be_dead(fresh_server: StartServer, spare: int, options: Any) -> None:
    most, seen = 4096, []
    with lightlink.connect(fresh_server(config=f"max_payload: {most}").url) as client:
        client.stream("ORDERS", ["orders.>"], work_queue=True)

        @client.consume("orders.>", name="billing", **options)
        def bill(message: StoredMessage) -> None:
            seen.append((len(message.data), message.headers.get("k"), message.attempt))
            if len(message.data) > 5 and len(seen) < 4:
                raise Reject("x" * 9999)

        size = most - spare - len(codec.encode_headers({"k": "v"})) - 2
        client.publish_stored("orders.new", "x" * size, headers={"k": "v"})
        client.publish_stored("orders.new", "after")
        letters = client.dead_letters("ORDERS", "billing")
        (letter,) = eventually(letters.list)
        eventually(lambda: len(seen) == 2)
        letters.redeliver(letter.number)
        eventually(lambda: len(seen) == 3)
        (again,) = eventually(letters.list)
        for each in (letter, again, letters.get(again.number)):
            assert (each.subject, len(each.data), each.headers, each.sequence) == (
                "orders.new",
                size + 2,
                {"k": "v"},
                1,
            )
            assert each.error.startswith("x" * 64)
        letters.redeliver(again.number)
        eventually(lambda: len(seen) == 4)
        assert sorted(seen) == [(5, None, 1), *[(size, "v", 1)] * 3]
        eventually(lambda: client.stream("LIGHTLINK_DEAD").info().messages == 0)  # nothing is left behind


def test_a_dropped_letter_takes_its_event_along(fresh_server: StartServer) -> None:
    with lightlink.connect(fresh_server(config="max_payload: 4096").url) as client:
        client.stream("ORDERS", ["orders.>"])

        @client.consume("orders.>", name="billing")
        def bill(_: StoredMessage) -> None:
            raise Reject("no")

        letters = client.dead_letters("ORDERS", "billing")
        dead = client.stream("LIGHTLINK_DEAD")
        client.publish_stored("orders.new", "x" * 4094)
        (letter,) = eventually(letters.list)
        letters.drop(letter.number)
        assert dead.info().messages == 0
        client.publish_stored("orders.new", "y" * 4094)
        (letter,) = eventually(letters.list)
        api.delete_message(client._connection, dead.name, letter.number - 1, 5.0)
        assert letters.get(letter.number).data == b""
        with pytest.raises(StreamError, match=f"the data of letter {letter.number} is gone"):
            letters.redeliver(letter.number)


def test_the_first_letters_are_read_without_the_others(client: lightlink.Client) -> None:
    client.consume("orders.>", name="billing")(lambda message: None)  # makes the stream of dead letters
    with client.storing() as batch:
        for number in range(1500):
            batch.publish("ll.dead.ORDERS.billing", number)
    asked = client.subscribe("$JS.API.CONSUMER.MSG.NEXT.LIGHTLINK_DEAD.*")
    client.flush()
    letters = client.dead_letters("ORDERS", "billing")
    assert [each.data for each in letters.list(3)] == [b"0", b"1", b"2"]
    assert letters.list(0) == []
    client.flush()
    wanted = [asked.get(30).data["batch"] for _ in range(asked.pending)]
    assert 0 < sum(wanted) < 1000


def test_a_letter_that_is_gone_meanwhile_is_dropped(client: lightlink.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where the answer to its removal was lost, and that is asked for again."""

    @client.consume("orders.>", name="billing")
    def bill(_: StoredMessage) -> None:
        raise Reject("no")

    client.publish_stored("orders.new", 1)
    letters = client.dead_letters("ORDERS", "billing")
    (letter,) = eventually(letters.list)
    read = api.get_written

    def read_and_remove(*args: Any) -> Any:
        found = read(*args)
        api.delete_message(client._connection, "LIGHTLINK_DEAD", letter.number, 5.0)
        return found

    monkeypatch.setattr(api, "get_written", read_and_remove)
    letters.drop(letter.number)
    assert letters.list() == []


def test_on_dead_letter_is_called_with_message_and_error(client: lightlink.Client, url: str) -> None:
    told: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def tell(message: StoredMessage, error: str) -> None:
        told.put((message.subject, message.data, message.sequence, error, lightlink.log_context()["correlation_id"]))
        sys.exit("a failure in here must not block the consumer")

    @client.consume("orders.>", name="billing", retries=[], on_dead_letter=tell)
    def bill(data: int) -> None:
        raise Reject("no such customer")

    client.publish_stored("orders.new", 1, headers={"LightLink-Correlation-Id": "mine"})
    assert told.get(timeout=30) == ("orders.new", 1, 1, "no such customer", "mine")
    client.publish_stored("orders.new", b"no JSON")
    assert told.get(timeout=30)[1] == b"no JSON"
    assert len(client.dead_letters("ORDERS", "billing").list()) == 2
    for wrong in ({"on_dead_letter": 1}, {"on_dead_letter": tell, "dead_letters": False}):
        with pytest.raises(InvalidOption, match="on_dead_letter"):
            client.consume("orders.>", name="x", **wrong)


@pytest.mark.parametrize("options", [{"workers": 1}, {"workers": 4}, {"batch": 2, "within": 0.05}])
def test_later_does_not_count_as_a_failure(client: lightlink.Client, options: Any) -> None:
    seen: dict[int, list[int]] = {1: [], 2: []}

    def handle(message: StoredMessage) -> None:
        attempts = seen[message.data]
        attempts.append(message.attempt)
        if len(attempts) < 6:
            raise Later(0.01)
        if len(attempts) < 8:
            raise ValueError("not yet")

    def handle_batch(messages: list[StoredMessage]) -> None:
        errors: dict[int, Exception] = {}
        for place, message in enumerate(messages):
            try:
                handle(message)
            except (Later, ValueError) as exc:
                errors[place] = exc
        if errors:
            raise BatchFailed(errors)

    client.consume("orders.>", name="billing", retries=QUICK, **options)(handle_batch if "batch" in options else handle)
    for number in seen:
        client.publish_stored("orders.new", number)
    letters = client.dead_letters("ORDERS", "billing")
    eventually(lambda: [*map(len, seen.values())] == [8, 8] or letters.list())
    assert seen == {number: [1, 1, 1, 1, 1, 1, 2, 3] for number in seen}
    # What was noted of them goes with them.
    eventually(lambda: client.stream("LIGHTLINK_DEAD").info().messages == 0)


def deliver_again(client: lightlink.Client, times: int) -> None:
    """Have the server deliver the event that billing holds again, as in outages that are longer than ``ack_wait``."""
    (running,) = client.subscriptions
    (held,) = running._sources[0].pulls._held.values()  # type: ignore[union-attr]
    for number in range(2, times + 2):
        client.publish(held.reply.decode(), b"-NAK")
        eventually(lambda: held.attempt == number)  # noqa: B023 - awaited here


@pytest.mark.parametrize("workers", [1, 2])
def test_what_comes_again_to_its_holder_is_no_attempt(client: lightlink.Client, workers: int) -> None:
    seen: list[int] = []

    @client.consume("orders.>", name="billing", workers=workers, retries=QUICK)
    def handle(message: StoredMessage) -> None:
        seen.append(message.attempt)
        if len(seen) == 1:
            deliver_again(client, 5)
        if len(seen) < 3:
            raise ValueError("not yet")

    client.publish_stored("orders.new", 1)
    eventually(lambda: len(seen) == 3 or client.dead_letters("ORDERS", "billing").list())
    assert seen == [1, 2, 3]


def test_an_undecodable_event_is_a_dead_letter_at_once(client: lightlink.Client) -> None:
    @client.consume("orders.>", name="billing")
    def bill(order: Order) -> None: ...

    client.publish_stored("orders.new", b"no json")
    client.publish_stored("orders.new", {"number": "five"})
    letters = client.dead_letters("ORDERS", "billing")
    eventually(lambda: len(letters.list()) == 2)
    first, second = letters.list()
    assert (first.data, first.attempts) == (b"no json", 1)
    assert "Expected `int`, got `str`" in second.error


def test_one_worker_keeps_the_order_across_retries(client: lightlink.Client) -> None:
    seen: list[tuple[int, int]] = []

    @client.consume("orders.>", name="billing", retries=[0.05, 0.05])
    def bill(message: StoredMessage) -> None:
        seen.append((message.data, message.attempt))
        if message.data == 3 and message.attempt < 3:
            raise ValueError("not yet")

    for number in range(8):
        client.publish_stored("orders.new", number)
    eventually(lambda: len(seen) == 10)
    assert seen == [(0, 1), (1, 1), (2, 1), (3, 1), (3, 2), (3, 3), (4, 1), (5, 1), (6, 1), (7, 1)]


def test_events_of_one_key_are_handled_one_at_a_time_in_order(client: lightlink.Client) -> None:
    running: Counter[str] = Counter()
    seen: list[tuple[str, int]] = []
    overlaps: list[str] = []
    lock = threading.Lock()

    @client.consume("orders.>", name="billing", workers=8, key=lambda message: message.data["customer"], retries=QUICK)
    def bill(order: Order) -> None:
        with lock:
            running[order.customer] += 1
            if running[order.customer] > 1:
                overlaps.append(order.customer)
            fails = order.number == 7 and (order.customer, 7) not in seen
            seen.append((order.customer, order.number))
        time.sleep(0.002)
        with lock:
            running[order.customer] -= 1
        if fails:
            raise ValueError("once")

    for number in range(20):
        for customer in "abc":
            client.publish_stored("orders.new", Order(number, customer))
    eventually(lambda: len(seen) == 63)
    assert overlaps == []
    for customer in "abc":
        assert [number for each, number in seen if each == customer] == sorted([*range(20), 7])


def test_events_of_one_key_reach_its_lane_in_order(client: lightlink.Client) -> None:
    seen: list[int] = []

    def slow_for_the_first(message: StoredMessage) -> str:
        if message.data == 0:
            pause(0.2)  # long enough for other threads to take the events behind it
        return "all of one"

    with client.storing() as batch:
        for number in range(10):
            batch.publish("orders.new", number)
    client.consume("orders.>", name="billing", workers=4, key=slow_for_the_first)(seen.append)
    eventually(lambda: len(seen) == 10)
    assert seen == list(range(10))


def test_an_event_whose_key_function_fails_is_a_dead_letter(client: lightlink.Client) -> None:
    client.consume("orders.>", name="billing", workers=2, key=lambda message: message.data["customer"])(print)
    client.publish_stored("orders.new", {"n": 1})
    client.publish_stored("orders.new", {"customer": []})
    letters = client.dead_letters("ORDERS", "billing")
    eventually(lambda: len(letters.list()) == 2)
    assert {letter.error for letter in letters.list()} == {
        "it has no valid key: KeyError('customer')",
        """it has no valid key: TypeError("unhashable type: 'list'")""",
    }


def test_a_handler_that_calls_exit_fails_but_its_thread_lives(client: lightlink.Client) -> None:
    seen: list[tuple[int, int]] = []

    @client.consume("orders.>", name="billing", retries=QUICK)
    def bill(message: StoredMessage) -> None:
        seen.append((message.data, message.attempt))
        if message.attempt < 3 and message.data == 1:
            raise SystemExit(3)

    for number in (1, 2):
        client.publish_stored("orders.new", number)
    eventually(lambda: len(seen) == 4)
    assert seen == [(1, 1), (1, 2), (1, 3), (2, 1)]


class Untellable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("cannot be told")


@pytest.mark.parametrize(
    "options", [{"workers": 1}, {"workers": 2}, {"workers": 2, "batch": 2, "within": 0.05}], ids=str
)
@pytest.mark.parametrize(
    "kind", [Untellable, Reject, lambda _: Reject("half a pair: \ud800")], ids=["any", "reject", "surrogate"]
)
def test_an_error_without_text_still_makes_a_dead_letter(client: lightlink.Client, kind: Any, options: Any) -> None:
    for number in range(4):
        client.publish_stored("orders.new", number)

    @client.consume("orders.>", name="billing", retries=[], **options)
    def bill(_: Any) -> None:
        raise kind(Untellable())

    dead = client.dead_letters("ORDERS", "billing")
    eventually(lambda: len(dead.list()) == 4)
    assert {letter.error.split(":")[0] for letter in dead.list()} <= {"Untellable", "(no text", "half a pair"}


@pytest.mark.parametrize("options", [{"workers": 1}, {"workers": 2}, {"batch": 2, "within": 0.05}], ids=str)
def test_an_internal_fault_loses_no_event_and_no_thread(
    client: lightlink.Client, options: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = iter(range(4))

    def fail(outcomes: Outcomes, job: Any) -> None:
        if next(left, None) is not None:
            raise MemoryError
        settle(outcomes, job)

    settle = Outcomes.done
    monkeypatch.setattr(Outcomes, "done", fail)
    seen: list[int] = []

    @client.consume("orders.>", name="billing", ack_wait=1.0, **options)
    def bill(found: Any) -> None:
        seen.extend([each.data for each in found] if isinstance(found, list) else [found])

    for number in range(10):
        client.publish_stored("orders.new", number)
    lag = client.consumer("ORDERS", "billing").lag
    eventually(lambda: set(seen) == set(range(10)) and (lag().waiting, lag().in_flight) == (0, 0), timeout=30)


def test_few_events_are_held_while_handlers_take_long(client: lightlink.Client) -> None:
    go, inside = threading.Event(), threading.Semaphore(0)

    @client.consume("orders.>", name="billing", workers=3)
    def bill(_: Any) -> None:
        inside.release()
        assert go.wait(30)

    with client.storing() as batch:
        for number in range(100):
            batch.publish("orders.new", number)
    for _ in range(3):
        assert inside.acquire(timeout=30)  # all workers are busy
    (running,) = (each for each in client.subscriptions if isinstance(each, Consumption))
    assert running.held <= 2 * 3
    assert client.consumer("ORDERS", "billing").lag().in_flight <= 2 * 3
    go.set()
    eventually(lambda: running.counts["done"] == 100)


@pytest.mark.parametrize("workers", [1, 2])
def test_an_event_is_retried_when_its_handler_times_out(client: lightlink.Client, workers: int) -> None:
    attempts: list[StoredMessage] = []

    @client.consume("orders.>", name="billing", workers=workers, timeout=1.0, retries=QUICK)
    def bill(message: StoredMessage) -> None:
        attempts.append(message)
        if len(attempts) == 1:
            assert message.cancelled.wait(30)  # then returns normally

    client.publish_stored("orders.new", 1)
    eventually(lambda: len(attempts) == 2)
    assert [each.attempt for each in attempts] == [1, 2]
    assert attempts[0].cancelled.is_set()
    (running,) = (each for each in client.subscriptions if isinstance(each, Consumption))
    eventually(
        lambda: (
            running.counts == {"delivered": running.counts["delivered"], "done": 1, "retried": 1, "dead": 0, "stuck": 1}
        )
    )


def test_running_and_queued_events_outlast_ack_wait(client: lightlink.Client) -> None:
    seen: list[tuple[int, int]] = []

    @client.consume("orders.>", name="billing", ack_wait=1.5)
    def bill(message: StoredMessage) -> None:
        seen.append((message.data, message.attempt))
        pause(2.0)

    for number in range(2):  # the second waits for the only worker
        client.publish_stored("orders.new", number)
    info = client.consumer("ORDERS", "billing").lag
    eventually(lambda: (info().waiting, info().in_flight) == (0, 0))
    assert seen == [(0, 1), (1, 1)]
    assert info().retried == 0


def test_retries_are_left_to_the_client_and_have_jitter(client: lightlink.Client) -> None:
    client.consume("orders.>", name="billing", retries=[1, 5])(print)
    config = api.api(client._connection, "CONSUMER.INFO.ORDERS.billing", None, 5.0)["config"]
    assert (config["ack_policy"], config["ack_wait"], config["max_deliver"]) == ("explicit", 30_000_000_000, -1)
    assert not config.get("backoff")
    (running,) = (each for each in client.subscriptions if isinstance(each, Consumption))
    for attempt, seconds in ((1, 1), (2, 5), (3, 5)):
        delays = {running.settings.delay(attempt) for _ in range(50)}
        assert len(delays) > 1  # jitter
        assert all(0.9 * seconds <= delay <= 1.1 * seconds for delay in delays)


def test_a_batch_is_delivered_when_full_or_after_within(client: lightlink.Client) -> None:
    batches: list[list[int]] = []
    failed: set[int] = set()

    @client.consume("orders.>", name="db", batch=10, within=0.1, retries=QUICK)
    def store(messages: list[StoredMessage]) -> None:
        batches.append([message.data for message in messages])
        errors = {place: ValueError("odd") for place, each in enumerate(messages) if each.data == 3 and 3 not in failed}
        failed.update(messages[place].data for place in errors)
        if errors:
            raise BatchFailed(errors)

    with client.storing() as batch:
        for number in range(25):
            batch.publish("orders.new", number)
    eventually(lambda: sum(map(len, batches)) == 26)
    assert all(len(each) <= 10 for each in batches)
    assert Counter(number for each in batches for number in each) == Counter([*range(25), 3])
    lag = client.consumer("ORDERS", "db").lag
    eventually(lambda: (lag().waiting, lag().in_flight) == (0, 0))


def test_a_stop_naks_events_that_have_not_begun(connect: Callable[..., lightlink.Client]) -> None:
    first, second = connect(), connect()
    first.stream("ORDERS", ["orders.>"])
    go, seen = threading.Event(), []

    def handle(message: StoredMessage) -> None:
        seen.append(message.data)
        assert go.wait(30)

    first.consume("orders.>", name="billing", workers=1)(handle)
    for number in range(4):
        first.publish_stored("orders.new", number)
    eventually(lambda: seen == [0])
    threading.Timer(0.1, go.set).start()
    first.close()
    assert seen == [0]
    second.consume("orders.>", name="billing", workers=1)(handle)
    eventually(lambda: len(seen) >= 4)
    assert sorted(seen) == [0, 1, 2, 3]  # NAKed events may be redelivered in any order


@pytest.mark.parametrize("errors", [{}, {3: ValueError("x")}, {"a": ValueError("x")}, [ValueError("x")]])
def test_a_batch_that_names_no_places_has_failed_as_a_whole(client: lightlink.Client, errors: Any) -> None:
    for number in range(3):
        client.publish_stored("orders.new", number)

    @client.consume("orders.>", name="billing", batch=3, retries=[])
    def handle(_: list[StoredMessage]) -> None:
        raise BatchFailed(errors)

    letters = client.dead_letters("ORDERS", "billing")
    eventually(lambda: len(letters.list()) == 3)
    assert all("must name which of the 3 events failed, from 0 on; it names [" in each.error for each in letters.list())


@pytest.mark.parametrize("delay", ["soon", -1, float("nan"), float("inf")])
@pytest.mark.parametrize("workers", [1, 2])
def test_a_delay_that_cannot_be_is_a_failure(client: lightlink.Client, delay: Any, workers: int) -> None:
    client.publish_stored("orders.new", 1)

    @client.consume("orders.>", name="billing", workers=workers, retries=[])
    def handle(_: StoredMessage) -> None:
        raise Later(delay)

    (letter,) = eventually(client.dead_letters("ORDERS", "billing").list)
    assert f"invalid delay {delay!r}: must be a number of seconds" in letter.error


def test_a_stop_asks_nothing_of_a_server_that_is_gone(fresh_server: StartServer) -> None:
    server = fresh_server()
    go, begun = threading.Event(), threading.Event()

    def handle(_: StoredMessage) -> None:
        begun.set()
        assert go.wait(30)

    with lightlink.connect(server.url) as client:
        client.stream("ORDERS", ["orders.>"])
        client.consume("orders.>", name="billing", workers=10)(handle)
        for number in range(20):
            client.publish_stored("orders.new", number)
        assert begun.wait(30)
        (running,) = client.subscriptions
        eventually(lambda: running.held == 20)  # type: ignore[union-attr]
        server.kill()
        eventually(lambda: not client.is_connected)
        stopping = threading.Thread(target=running.stop, args=[1.0], daemon=True)
        stopping.start()
        stopping.join(20)  # it took 5 seconds for each of ten events
        go.set()
        assert not stopping.is_alive()


class Naks:
    """The places of the events of ORDERS that the consumer billing has NAKed, read by another client."""

    def __init__(self, other: lightlink.Client) -> None:
        self._words = other.subscribe("$JS.ACK.ORDERS.billing.>", raw=True)
        other.flush()

    def next(self, count: int) -> list[int]:
        naks: list[int] = []
        while len(naks) < count:
            word = self._words.get(30)
            if word.data == b"-NAK":
                naks.append(int(word.subject.split(".")[-4]))
        return naks


@pytest.mark.parametrize("slow", [0, 3])
def test_a_stop_naks_in_the_order_of_arrival(connect: Callable[..., lightlink.Client], slow: int) -> None:
    first, other = connect(), connect()
    first.stream("ORDERS", ["orders.>"])
    naks = Naks(other)
    go, begun, reached = threading.Event(), threading.Event(), threading.Event()

    def key(message: StoredMessage) -> str:
        if message.sequence == (slow or 8):
            reached.set()
        if message.sequence == slow:
            assert go.wait(30)
        return "one"

    def handle(_: StoredMessage) -> None:
        begun.set()
        assert go.wait(30)

    first.consume("orders.>", name="billing", workers=4, key=key)(handle)
    for number in range(8):
        first.publish_stored("orders.new", number)
    assert begun.wait(30)
    assert reached.wait(30)
    (consumption,) = first.subscriptions
    eventually(lambda: consumption.held == 8)  # type: ignore[union-attr]
    closing = threading.Thread(target=first.close)
    closing.start()
    assert naks.next(7) == [2, 3, 4, 5, 6, 7, 8]
    go.set()
    closing.join(30)


def test_a_stop_naks_first_what_waits_for_its_retry(connect: Callable[..., lightlink.Client]) -> None:
    first, other = connect(), connect()
    first.stream("ORDERS", ["orders.>"])
    naks = Naks(other)

    @first.consume("orders.>", name="billing", retries=[300])
    def handle(message: StoredMessage) -> None:
        if message.sequence == 2:
            raise ValueError("not yet")

    for number in range(3):
        first.publish_stored("orders.new", number)
    (running,) = first.subscriptions
    eventually(lambda: running.counts["retried"] == 1 and running.held == 2)  # type: ignore[union-attr]
    first.close()
    assert naks.next(2) == [2, 3]


def test_invalid_options_and_consumers_are_refused_by_name(client: lightlink.Client) -> None:
    def handle(_: Any) -> None: ...

    for options in (
        {"workers": 0},
        {"batch": 0},
        {"key": 5},
        {"retries": 5},
        {"nonsense": 1},
        {"batch": 2, "key": lambda m: m},
    ):
        with pytest.raises(InvalidOption):
            client.consume("orders.>", name="billing", **options)(handle)
    with pytest.raises(StreamError, match="no stream captures it"):
        client.consume("nowhere.>", name="billing")(handle)
    client.consume("orders.new", name="billing")(handle)
    with pytest.raises(StreamError, match=r"it reads orders\.new, not orders\.paid"):
        client.consume("orders.paid", name="billing")(handle)
    queue = client.stream("QUEUE", ["jobs.>"], work_queue=True)
    client.consume("jobs.a.>", name="a")(handle)
    with pytest.raises(StreamError, match=r"jobs\.> overlaps with jobs\.a\.>, which consumer 'a' reads"):
        client.consume(["else.x", "jobs.>"], name="all", stream="QUEUE")(handle)
    client.consume("jobs.b.>", name="b")(handle)
    client.publish_stored("jobs.a.1", 1)
    eventually(lambda: queue.info().messages == 0)


def test_changes_by_another_program_are_logged(
    client: lightlink.Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(consumption, "_LOOK_SECONDS", 0.02)
    go = threading.Event()
    client.consume("orders.>", name="billing")(lambda _: go.wait(30))
    client.publish_stored("orders.new", 1)
    (running,) = (each for each in client.subscriptions if isinstance(each, Consumption))
    eventually(lambda: running.lag == 1)
    go.set()
    eventually(lambda: running.lag == 0)
    theirs = {"durable_name": "billing", "ack_policy": "explicit", "filter_subject": "orders.>", "max_deliver": 3}
    body = {"stream_name": "ORDERS", "config": theirs, "action": "update"}
    api.api(client._connection, "CONSUMER.CREATE.ORDERS.billing.orders.>", body, 5.0)

    def said() -> list[str]:
        return [each.getMessage() for each in caplog.records if "another program has changed" in each.getMessage()]

    eventually(said)
    assert "ORDERS/billing" in said()[0]
    assert "max_deliver is 3, not -1" in said()[0]
    assert len(said()) == 1  # the same difference is logged once


def test_a_deleted_consumer_is_recreated(client: lightlink.Client, caplog: pytest.LogCaptureFixture) -> None:
    seen: list[int] = []
    client.consume("orders.>", name="billing")(seen.append)
    client.publish_stored("orders.new", 1)
    eventually(lambda: seen == [1])
    client.consumer("ORDERS", "billing").delete()
    client.publish_stored("orders.new", 2)
    eventually(lambda: 2 in seen)
    # The consumer delivers before the record is written.
    eventually(lambda: "consumer ORDERS/billing was gone and is recreated; it starts with all" in caplog.text)


def test_an_event_that_kills_its_process_is_a_dead_letter(client: lightlink.Client, python: StartPython) -> None:
    url = client.server or ""
    code = """
        import os, sys, time
        import lightlink
        with lightlink.connect(sys.argv[1]) as client:
            @client.consume("orders.>", name="killer", workers=2, retries=[0.01], ack_wait=0.5)
            def kill(data):
                if data == 1:
                    os._exit(3)
                print("handled", data)

            print("ready")
            time.sleep(60)
    """
    client.publish_stored("orders.new", 1)
    for _ in range(2):
        assert python(code, url).wait().returncode == 3
    survivor = python(code, url)
    survivor.wait_line("ready")
    client.publish_stored("orders.new", 2)
    survivor.wait_line("handled 2")
    (letter,) = eventually(client.dead_letters("ORDERS", "killer").list)
    assert (letter.data, letter.attempts) == (b"1", 2)
    assert "never settled" in letter.error


def test_a_service_consumes_and_settles_what_it_holds(connect: Callable[..., lightlink.Client]) -> None:
    client = connect()
    client.stream("ORDERS", ["orders.>"])
    service = lightlink.Service("shop", client)
    seen: list[int] = []

    @service.consume("orders.>", workers=4)
    def bill(message: StoredMessage) -> None:
        time.sleep(0.01)
        seen.append(message.data)

    for number in range(20):
        client.publish_stored("orders.new", number)
    with service:
        eventually(lambda: len(seen) == 20)
        client.publish_stored("orders.new", 20)
        eventually(lambda: 20 in seen)
    assert client.stream("ORDERS").consumers() == ["shop-bill"]
    lag = client.consumer("ORDERS", "shop-bill").lag()
    assert (lag.waiting, lag.in_flight) == (0, 0)


def test_middleware_wraps_the_handlers_of_events(connect: Callable[..., lightlink.Client]) -> None:
    kinds: list[tuple[str, str]] = []

    def note(call: lightlink.Call, proceed: Any) -> Any:
        kinds.append((call.kind, call.name))
        return proceed(call)

    client = connect(middleware=[note])
    client.stream("ORDERS", ["orders.>"])
    seen: list[int] = []
    client.consume("orders.>", name="billing")(seen.append)
    client.publish_stored("orders.new", 1)
    eventually(lambda: seen == [1])
    assert ("consume", "orders.new") in kinds


def test_metrics_count_events_by_outcome(client: lightlink.Client) -> None:
    registry = CollectorRegistry()
    lightlink.metrics.register(client, registry)

    @client.consume("orders.>", name="billing", workers=2, retries=[])
    def bill(data: int) -> None:
        if data == 2:
            raise Reject("no")

    for number in range(4):
        client.publish_stored("orders.new", number)

    def count(outcome: str) -> float | None:
        labels = {"stream": "ORDERS", "consumer": "billing", "outcome": outcome}
        return registry.get_sample_value("lightlink_consumer_events_total", labels)

    eventually(lambda: (count("done"), count("dead"), count("delivered")) == (3, 1, 4))
    where = {"stream": "ORDERS", "consumer": "billing"}
    eventually(lambda: registry.get_sample_value("lightlink_consumer_held", where) == 0)
    assert registry.get_sample_value("lightlink_consumer_lag", where) == 0
    assert (registry.get_sample_value("lightlink_consumer_seconds_total", where) or 0) > 0
