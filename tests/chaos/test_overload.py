"""More than can be done: what can be is, the rest is refused at once, and when the load ends all is as it was."""

from __future__ import annotations

import collections
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

import lightlink
from chaos.ledger import Calls

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from conftest import StartPython

    from chaos.ledger import Ledger

# A service in a process of its own. It can do `workers / seconds` calls a second: few, so that a machine that does
# little else can still be asked for ten times as many.
SERVICE = """
import resource, sys, time
import lightlink

url, name, workers, max_pending, seconds = sys.argv[1:]
service = lightlink.Service(name, url, workers=int(workers), max_pending=int(max_pending))
runs = []

@service.rpc
def work(number: int, ballast: str = "") -> int:
    runs.append((number, time.monotonic()))
    time.sleep(float(seconds))
    return number

# Asked through events, which no refusal concerns.
@service.on(f"{name}.report")
def report(_):
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // (1024 if sys.platform == "darwin" else 1)
    service.client.publish(f"{name}.reported", {"runs": runs, "kilobytes": kilobytes})

service.start()
print("ready", flush=True)
service.run()
"""


class Overloaded:
    """A service with a capacity of 40 calls a second, and a client that calls it as often as one likes."""

    def __init__(self, python: StartPython, url: str, name: str, calls: Calls, max_pending: int) -> None:
        self._name = name
        self._calls = calls
        self.process = python(SERVICE, url, name, 4, max_pending, 0.1)
        self.process.wait_line("ready")
        self.client = lightlink.connect(url)
        self._reports = self.client.subscribe(f"{name}.reported")

    def load(self, seconds: float, timeout: float, ballast: str = "", answers: int = 0) -> None:
        """Call 2000 times a second, if the machine can, until there were so many answers too; wait for all calls."""
        futures: list[Any] = []
        end = time.monotonic() + seconds
        give_up = end + 30
        while time.monotonic() < end or self._calls.count("answered") < answers:
            assert time.monotonic() < give_up, self._calls
            futures += [self._calls.submit(self._submitting(timeout, ballast)) for _ in range(20)]
            time.sleep(0.01)
        for future in futures:
            future.exception(timeout + 30)

    def report(self) -> dict[str, Any]:
        """Return the service's runs and the most memory it ever used, in kilobytes."""
        self.client.publish(f"{self._name}.report", None)
        reported: dict[str, Any] = self._reports.get(timeout=30).data
        return reported

    def write_down_runs(self) -> None:
        for number, begun in self.report()["runs"]:
            self._calls.run(number, begun)

    def _submitting(self, timeout: float, ballast: str) -> Callable[[int], Any]:
        def submit(number: int) -> Any:
            args = {"number": number, "ballast": ballast}
            return self.client.submit(self._name, "work", args, timeout=timeout)

        return submit


@pytest.fixture
def calls(ledger: Ledger) -> Calls:
    book: Calls = ledger.open(Calls())
    return book


@pytest.fixture
def start(python: StartPython, url: str, prefix: str, calls: Calls) -> Iterator[Callable[[int], Overloaded]]:
    started: list[Overloaded] = []

    def start_service(max_pending: int) -> Overloaded:
        started.append(Overloaded(python, url, prefix, calls, max_pending))
        return started[0]

    yield start_service
    for each in started:
        each.client.close()


@pytest.mark.parametrize("seconds", [1.5, pytest.param(60.0, marks=[pytest.mark.slow, pytest.mark.timeout(180)])])
def test_a_service_ten_times_overloaded_does_what_it_can(
    seconds: float, start: Callable[[int], Overloaded], ledger: Ledger, calls: Calls
) -> None:
    service = start(16)
    before = service.report()["kilobytes"]
    service.load(seconds, timeout=30.0, ballast="x" * 10_000, answers=round(0.3 * 40 * seconds))
    # Every call has ended, and so it has room.
    last = calls.submit(lambda number: service.client.submit(service._name, "work", {"number": number}, timeout=30))
    assert last.result(30) is not None
    service.write_down_runs()
    assert set(calls.outcomes.values()) == {"answered", "ServiceBusy"}
    assert calls.count("ServiceBusy") > calls.count("answered")
    assert service.report()["kilobytes"] - before < 65_536
    ledger.balance()


def test_requests_whose_callers_gave_up_are_not_run(
    start: Callable[[int], Overloaded], ledger: Ledger, calls: Calls
) -> None:
    service = start(400)  # ten seconds' work
    service.load(1.0, timeout=0.4)
    last = calls.submit(lambda number: service.client.submit(service._name, "work", {"number": number}, timeout=30))
    assert last.result(30) is not None
    service.write_down_runs()
    taken = len(calls.outcomes) - calls.count("ServiceBusy")
    assert len(service.report()["runs"]) < taken - 100
    ledger.balance()


def test_a_slow_subscriber_drops_counts_and_slows_nobody(url: str, prefix: str) -> None:
    total = 20_000
    go_on, all_came = threading.Event(), threading.Barrier(3)
    heard: collections.Counter[str] = collections.Counter()

    def hear(name: str) -> Callable[[Any], None]:
        def handle(number: int) -> None:
            heard[name] += 1
            if number == total - 1:
                all_came.wait(60)

        return handle

    def hear_slowly(number: int) -> None:
        go_on.wait(100)
        heard["slow"] += 1

    with lightlink.connect(url) as shared, lightlink.connect(url) as other, lightlink.connect(url) as publisher:
        slow = shared.subscribe(prefix, hear_slowly, max_pending=100)
        shared.subscribe(prefix, hear("beside it"))
        other.subscribe(prefix, hear("elsewhere"))
        for number in range(total):
            publisher.publish(prefix, number)
        all_came.wait(60)
        shared.flush()
        assert (slow.pending, slow.dropped) == (100, total - 101)
        go_on.set()
        slow.stop()
        other.close()
    assert heard == {"slow": 101, "beside it": total, "elsewhere": total}
