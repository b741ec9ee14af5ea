"""Many calls from one thread: their order, how many are under way, errors, and ends that come early."""

from __future__ import annotations

import itertools
import threading
from typing import TYPE_CHECKING, Any

import pytest
from helpers.waiting import eventually

import lightlink
from lightlink.errors import ClosedError, HandlerError, InvalidName, InvalidOption, ServiceUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def client(url: str) -> Iterator[lightlink.Client]:
    with lightlink.connect(url) as connected:
        yield connected


class Gate:
    """Handlers that wait, counted."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.most = 0
        self._now = 0
        self._lock = threading.Lock()

    def through(self, n: int) -> int:
        with self._lock:
            self._now += 1
            self.most = max(self.most, self._now)
        self.open.wait(30)
        with self._lock:
            self._now -= 1
        return n

    @property
    def now(self) -> int:
        return self._now


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
def service(url: str, prefix: str, gate: Gate) -> Iterator[lightlink.Service]:
    made = lightlink.Service(prefix, url, workers=32)
    made.register("through", gate.through)
    made.register("double", lambda n: 2 * n)
    made.register("inverse", lambda n: 1 / n)
    made.register("text", lambda n: f"{n}")

    @made.rpc
    def header(n: int, request: lightlink.Request) -> str:
        return f"{n} {request.headers['Trace']}"

    with made:
        yield made
        gate.open.set()


def numbers(count: int) -> Iterator[dict[str, int]]:
    return ({"n": n} for n in range(count))


@pytest.mark.parametrize("concurrency", [1, 7, 256])
@pytest.mark.parametrize("count", [0, 1, 1000])
def test_results_come_in_the_order_of_the_arguments(
    client: lightlink.Client, service: lightlink.Service, concurrency: int, count: int
) -> None:
    mapped = client.map(service.name, "double", numbers(count), concurrency=concurrency)
    assert list(mapped) == [2 * n for n in range(count)]


def test_results_can_come_as_they_are_there(client: lightlink.Client, service: lightlink.Service, gate: Gate) -> None:
    slow_first = itertools.chain([{"n": -1}], numbers(50))
    waiting = client.map(service.name, "through", slow_first, concurrency=4, as_completed=True)
    gate.open.set()
    found = dict(waiting)
    assert found == {0: -1, **{place + 1: place for place in range(50)}}


def test_no_more_are_under_way_than_may_be(client: lightlink.Client, service: lightlink.Service, gate: Gate) -> None:
    taken: list[int] = []

    def arguments() -> Iterator[dict[str, int]]:
        for n in range(100):
            taken.append(n)
            yield {"n": n}

    threading.Thread(target=lambda: eventually(lambda: gate.now == 5) and gate.open.set()).start()
    mapped = client.map(service.name, "through", arguments(), concurrency=5)
    assert taken == []
    assert next(mapped) == 0
    assert len(taken) == 5
    assert list(mapped) == list(range(1, 100))
    assert gate.most == 5


@pytest.mark.parametrize("as_completed", [False, True])
def test_an_error_ends_it_or_stands_for_its_result(
    client: lightlink.Client, service: lightlink.Service, as_completed: bool
) -> None:
    given = [{"n": 4}, {"n": 0}, {"n": object()}, {"n": 2}]
    with pytest.raises(HandlerError, match="ZeroDivisionError"):
        list(client.map(service.name, "inverse", given[:2], as_completed=as_completed))  # type: ignore[call-overload]

    mapped: Any = client.map(service.name, "inverse", given, errors="return", as_completed=as_completed)  # type: ignore[call-overload]
    results = [value for _, value in sorted(mapped, key=lambda pair: pair[0])] if as_completed else list(mapped)

    assert [each if isinstance(each, float) else type(each).__name__ for each in results] == [
        0.25,
        "HandlerError",
        "EncodeError",
        0.5,
    ]


def test_errors_of_a_service_that_is_not_there_are_values_too(client: lightlink.Client, prefix: str) -> None:
    assert [type(each) for each in client.map(prefix, "double", numbers(3), errors="return")] == [
        ServiceUnavailable
    ] * 3


@pytest.mark.parametrize("as_completed", [False, True])
def test_a_map_that_ends_early_waits_for_nothing(
    client: lightlink.Client, service: lightlink.Service, gate: Gate, as_completed: bool
) -> None:
    quick = itertools.chain([{"n": 0}], itertools.repeat({"n": 1}))
    mapped: Any = client.map(service.name, "through", quick, concurrency=16, as_completed=as_completed)  # type: ignore[call-overload]
    threading.Thread(target=lambda: eventually(lambda: gate.now == 16) and gate.open.set()).start()
    next(mapped)
    gate.open.clear()
    mapped.close()
    assert len(client._connection.session.replies) == 0


def test_a_map_carries_headers_and_types(client: lightlink.Client, service: lightlink.Service) -> None:
    assert list(client.map(service.name, "header", numbers(2), headers={"Trace": "t"})) == ["0 t", "1 t"]
    errors = list(client.map(service.name, "text", numbers(2), returns=int, errors="return"))
    assert [type(each).__name__ for each in errors] == ["DecodeError"] * 2


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"concurrency": 0}, "concurrency"),
        ({"concurrency": True}, "concurrency"),
        ({"errors": "ignore"}, "must be 'raise' or 'return'"),
        ({"timeout": -1}, "timeout"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_asked_for(
    client: lightlink.Client, prefix: str, options: Any, words: str
) -> None:
    with pytest.raises(InvalidOption, match=words):
        client.map(prefix, "double", [], **options)


def test_a_closed_client_ends_a_map_even_where_errors_are_values(url: str, service: lightlink.Service) -> None:
    with lightlink.connect(url) as client:
        mapped = client.map(service.name, "double", itertools.repeat({"n": 1}), concurrency=4, errors="return")
        assert next(mapped) == 2
    with pytest.raises(ClosedError):
        list(mapped)
    with lightlink.connect(url) as client, pytest.raises(InvalidName):
        list(client.map("no good name", "double", [{}]))


def test_what_a_callback_would_wait_for_in_vain_is_refused(
    client: lightlink.Client, service: lightlink.Service
) -> None:
    ended: list[Any] = []
    done = threading.Event()

    def map_in_callback(_: object) -> None:
        try:
            ended.extend(client.map(service.name, "double", numbers(2)))
            ended.extend(client.map(service.name, "double", numbers(2), as_completed=True))
        except ClosedError as exc:
            ended.append(str(exc))
        done.set()

    client.submit(service.name, "double", {"n": 1}).add_done_callback(map_in_callback)
    assert done.wait(30)
    assert ended[:2] == [0, 2]
    assert "callback" in ended[2]
