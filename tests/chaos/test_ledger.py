"""The books themselves: what must never happen is found when it does."""

from __future__ import annotations

import time
from concurrent.futures import Future
from typing import Any

import pytest

from chaos.ledger import Calls, Ledger, Transfers, Writes
from lightlink.errors import CallTimeout, ServiceUnavailable, StateError


def faults_of(book: Any) -> list[str]:
    return [name for name, numbers in book.faults().items() if numbers]


def fail(error: Exception) -> Any:
    raise error


def test_calls_that_ran_once_and_were_answered_are_no_fault() -> None:
    calls = Calls()
    assert calls.make(calls.run, 1.0) == "answered"
    assert calls.make(lambda _: fail(ServiceUnavailable("s", "m")), 1.0) == "ServiceUnavailable"
    assert calls.make(lambda number: fail(CallTimeout("s", "m", calls.run(number))), 1.0) == "CallTimeout"
    assert faults_of(calls) == []
    assert str(calls).startswith("calls: made 3, answered 1, ServiceUnavailable 1, CallTimeout 1, run 2, run twice 0")


def test_a_call_that_ran_twice_is_found() -> None:
    calls = Calls()
    calls.make(lambda number: calls.run(calls.run(number)), 1.0)
    assert faults_of(calls) == ["run twice"]


def test_a_call_that_ran_after_its_caller_gave_up_is_found() -> None:
    calls = Calls()
    calls.make(lambda _: fail(CallTimeout("s", "m", 1.0)), 1.0)
    calls.run(1, time.monotonic() + 1.4)
    assert faults_of(calls) == []
    calls.make(lambda _: fail(CallTimeout("s", "m", 1.0)), 1.0)
    calls.run(2, time.monotonic() + 1.6)
    assert calls.faults()["run after the caller gave up"] == [2]


def test_a_call_that_ran_and_was_said_not_to_have_run_is_found() -> None:
    calls = Calls()
    calls.make(lambda number: fail(ServiceUnavailable("s", str(calls.run(number)))), 1.0)
    assert faults_of(calls) == ["run though it was said not to"]


def test_an_answer_out_of_nowhere_or_of_another_call_is_found() -> None:
    calls = Calls()
    calls.make(lambda number: number, 1.0)
    assert faults_of(calls) == ["lost"]
    calls.run(1)
    calls.make(lambda number: calls.run(number) + 1, 1.0)
    assert faults_of(calls) == ["answered wrongly"]


def test_a_call_that_outstays_its_timeout_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = Calls()
    instants = iter([0.0, 0.0, 3.5])
    monkeypatch.setattr("chaos.ledger.time.monotonic", lambda: next(instants))
    calls.make(calls.run, 1.0)
    assert faults_of(calls) == ["overdue"]


def test_futures_are_in_the_books_too() -> None:
    calls = Calls()
    futures: list[Future[Any]] = [Future() for _ in range(3)]
    for future in futures:
        calls.submit(lambda _, future=future: future)
    futures[0].set_result(calls.run(1))
    futures[1].set_exception(ServiceUnavailable("s", "m"))
    futures[2].set_exception(ZeroDivisionError())
    assert str(calls).startswith("calls: made 3, answered 1, ServiceUnavailable 1, ZeroDivisionError() 1")
    assert calls.faults()["answered wrongly"] == [3]


def test_a_write_that_was_acknowledged_and_is_gone_is_found() -> None:
    writes = Writes()
    assert writes.make(lambda number: number) == "acknowledged"
    writes.watch(1)
    writes.close([1])
    assert faults_of(writes) == []
    writes.close([])
    assert faults_of(writes) == ["lost"]


def test_a_write_that_was_refused_and_is_there_is_found() -> None:
    writes = Writes()
    assert writes.make(lambda _: fail(StateError("b", "set", "no"))) == "refused"
    assert writes.make(lambda _: fail(StateError("b", "set", "no", unknown=True))) == "unknown"
    writes.close([2])
    assert faults_of(writes) == []
    writes.close([1, 2])
    assert faults_of(writes) == ["stored though it was said not to"]


def test_a_file_that_came_back_otherwise_or_not_at_all_is_found() -> None:
    transfers = Transfers()
    transfers.make(lambda _: True)
    transfers.make(lambda _: False)
    transfers.make(lambda _: fail(OSError("no")))
    assert faults_of(transfers) == ["failed", "corrupt"]
    assert transfers.progress == 1


def test_books_that_do_not_balance_say_where() -> None:
    ledger = Ledger()
    calls: Calls = ledger.open(Calls())
    ledger.balance()
    calls.make(lambda number: calls.run(calls.run(number)), 1.0)
    with pytest.raises(AssertionError, match=r"calls run twice.*\[1\]"):
        ledger.balance()
