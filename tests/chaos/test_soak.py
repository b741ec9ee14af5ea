"""The soak in little: minutes of it are what `make soak` is for."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from chaos import soak
from chaos.ledger import Calls, Ledger

if TYPE_CHECKING:
    from conftest import StartPython


def test_a_short_soak_balances_its_books_and_leaves_nothing(python: StartPython) -> None:
    finished = python("import chaos.soak as s; raise SystemExit(s.main())", "--minutes=0.05", "--seed=8").wait(110)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert "seed 8" in finished.stdout
    assert re.search(r"^calls: made [1-9].* run twice 0.* lost 0,", finished.stdout, re.MULTILINE)
    assert finished.stdout.endswith("the books balance\n")


def test_a_soak_whose_books_do_not_balance_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def keep_false_books(_dice: object, _seconds: float, ledger: Ledger, _say: object) -> None:
        calls: Calls = ledger.open(Calls())
        calls.make(lambda number: calls.run(calls.run(number)), 1.0)
        ledger.balance()

    monkeypatch.setattr(soak, "soak", keep_false_books)
    assert soak.main(["--seed", "5"]) == 1
    assert "run twice 1" in capsys.readouterr().out
