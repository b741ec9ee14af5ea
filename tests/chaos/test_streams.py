"""Consumers die and stand still among durable events; none is lost, lanes never overlap, dead letters are complete."""

from __future__ import annotations

import contextlib
import logging
import random
import time
from typing import TYPE_CHECKING

import pytest

import lightlink
from chaos.streams_ledger import Books, Consumers, publish

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import StartServer

_PATIENCE = 120.0


def play(url: str, folder: Path, events: int, processes: int, workers: int, seed: int) -> str:
    """Have events handled among crashes, and check the books."""
    dice = random.Random(seed)
    ledger = folder / "ledger"
    ledger.touch()
    with contextlib.ExitStack() as stack:
        client = stack.enter_context(lightlink.connect(url, name="judge"))
        client.stream("LEDGER", ["ledger.>"])
        stored = publish(client, events)
        consumers = Consumers(url, ledger, processes, workers, dice)
        stack.callback(consumers.close)
        letters = client.dead_letters("LEDGER", "ledger")
        give_up = time.monotonic() + _PATIENCE + events / 200
        unlucky = sum(number % 997 == 13 for number in stored.values())
        while True:
            books = Books.read(ledger)
            done = {each[2] for each in books.lines if each[0] == "done"}
            dead = {letter.sequence for letter in letters.list(10_000)}
            if len(done) + len(dead) >= events and len(dead) >= unlucky:
                break
            assert time.monotonic() < give_up, f"seed {seed}: {len(done)} done, {len(dead)} parked of {events}"
            if dice.random() < 0.5:
                consumers.strike()
            consumers.replace()
            time.sleep(dice.random() * 0.5)
        told = books.check(stored, dead, consumers.crashes, strict=workers == 1)
        told = f"{told}, crashes {consumers.crashes}"
        assert not books.faults, f"seed {seed}: {told}: {books.faults[:10]}"
        return told


@pytest.mark.parametrize("workers", [1, 8])
def test_no_event_is_lost_among_consumers_that_die(fresh_server: StartServer, tmp_path: Path, workers: int) -> None:
    play(fresh_server().url, tmp_path, 1_500, 2, workers, random.randrange(10_000))


@pytest.mark.slow
def test_a_hundred_thousand_events_among_consumers_that_die(fresh_server: StartServer, tmp_path: Path) -> None:
    told = play(fresh_server().url, tmp_path, 100_000, 3, 8, random.randrange(10_000))
    logging.getLogger(__name__).warning("%s", told)
