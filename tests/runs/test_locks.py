"""Locks of runs: all of them or none, whoever else wants some of them at the same time."""

from __future__ import annotations

import random
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from lightlink.commands.store.access import Conflict
from lightlink.jetstream import api
from lightlink.jetstream.read import read_current
from lightlink.protocol import codec
from lightlink.runs import RunState
from lightlink.runs import store as run_store
from lightlink.runs.store import STREAM, Lock, RunStore, stream_config

if TYPE_CHECKING:
    from helpers.runs import RunWorld

NAMES = [f"site:{letter}" for letter in "abcde"]


def make_stream(store: RunStore, *, allow_atomic: bool) -> None:
    """Make the stream of runs again, as a version or a server that knows of no batches would."""
    api.delete_stream(store.connection, STREAM, 5.0)
    api.create_stream(store.connection, {**stream_config(store.options), "allow_atomic": allow_atomic}, 5.0)


def store_of(world: RunWorld, name: str) -> RunStore:
    return world.orchestrator(name, work=False)._ports.runs


def queued(run_id: str) -> RunState:
    return RunState(run_id=run_id, state="queued", stage="lock", event="started")


def running(run_id: str) -> RunState:
    return RunState(run_id=run_id, state="running", stage="wave", event="locked")


class Players:
    """Runs that each want some locks, again and again, and note when they have them."""

    def __init__(self, stores: list[RunStore]) -> None:
        self._stores = stores
        self._guard = threading.Lock()
        self._taken: dict[str, str] = {}
        self.parts: list[dict[str, str]] = []

    def play(self, number: int, rounds: int) -> None:
        """Take two or three locks, look whether they are all there and nobody else's, and give them back."""
        dice, store, run_id = random.Random(number), self._stores[number % len(self._stores)], f"run-{number}"
        revision = store.write_state(queued(run_id), 0)
        for _ in range(rounds):
            names = dice.sample(NAMES, dice.randint(2, 3))
            while (holder := store.take_locks(names, running(run_id), revision)) is not None:
                assert holder != run_id
            with self._guard:
                assert not self._taken.keys() & set(names), "two runs have one lock"
                self._taken.update(dict.fromkeys(names, run_id))
            mine = {name for name, holder in store.locks().items() if holder == run_id}
            if mine != set(names):
                self.parts.append({run_id: f"{sorted(mine)}, not {sorted(names)}"})
            with self._guard:
                for name in names:
                    del self._taken[name]
            revision = store.write_state(queued(run_id), store.state(run_id)[1])
            store.release_locks(names, run_id, revision)


@pytest.mark.parametrize("way", ["in a batch", "by a server without batches", "made again", "more than a batch takes"])
def test_runs_that_want_overlapping_locks_never_block(
    world: RunWorld, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of six gets all its locks, again and again; nobody keeps a part of them, and nobody waits for ever."""
    stores = [store_of(world, "one"), store_of(world, "two")]
    if way == "by a server without batches":
        make_stream(stores[0], allow_atomic=False)
        stores = [store_of(world, "three"), store_of(world, "four")]
    elif way == "made again":
        make_stream(stores[0], allow_atomic=False)
    elif way == "more than a batch takes":
        monkeypatch.setattr(run_store, "MOST_MESSAGES", 3)
    players = Players(stores)
    with ThreadPoolExecutor(6) as threads:
        for each in [threads.submit(players.play, number, 4) for number in range(6)]:
            each.result(60)
    assert players.parts == []
    assert stores[0].locks() == {}
    if way == "in a batch":
        assert batches(stores[0]) == ["locks and state at once"] * 24


def batches(store: RunStore) -> list[str]:
    """Return, for each state of a run that has its locks, whether these were stored right before it, and no others."""
    found, locks = [], []
    for each in read_current(store.connection, STREAM, "ll.runs.>", 5.0):
        if each.subject.endswith(b".lock"):
            locks.append(codec.decode(each.data, "", Lock).run_id)
        elif codec.decode(each.data, "", RunState).event == "locked":
            run_id = codec.decode(each.data, "", RunState).run_id
            together = [each for each in locks if each is not None]
            found.append("locks and state at once" if set(together) == {run_id} else f"{together} before {run_id}")
            locks = []
    return found


def test_a_run_that_moved_on_takes_no_lock(world: RunWorld) -> None:
    """A manager that stood still while it took them finds that somebody has cancelled the run meanwhile."""
    store = store_of(world, "one")
    first = store.write_state(queued("run"), 0)
    store.write_state(RunState(run_id="run", state="stopping", stage="halt", event="cancelled"), first)
    with pytest.raises(Conflict):
        store.take_locks(NAMES, running("run"), first)
    assert store.locks() == {}


def test_a_lock_that_was_taken_again_is_not_given_back(world: RunWorld) -> None:
    """A manager that gives back what an ended run had may be late: somebody has tried the run again meanwhile."""
    store = store_of(world, "one")
    assert store.take_locks(NAMES, running("run"), store.write_state(queued("run"), 0)) is None
    ended = store.write_state(
        RunState(run_id="run", state="failed", stage="end", event="failed"), store.state("run")[1]
    )
    again = store.write_state(queued("run"), ended)
    assert store.take_locks(NAMES, running("run"), again) is None
    store.release_locks(NAMES, "run", ended)
    assert store.locks() == dict.fromkeys(NAMES, "run")
    store.release_locks(NAMES, "run", again + 100)
    assert store.locks() == {}
