"""One command to many agents."""

from __future__ import annotations

import collections
import itertools
import threading
import time
from typing import TYPE_CHECKING

import pytest
from helpers.commands import World
from helpers.instants import interrupt_at
from helpers.process import run_python
from helpers.raw import RawPeer
from helpers.waiting import eventually

import lightlink
from lightlink.commands import CommandContext
from lightlink.errors import ClosedError, InvalidName, InvalidOption, StoreUnavailable
from lightlink.jetstream import api
from lightlink.protocol import subjects

if TYPE_CHECKING:
    from conftest import StartProxy, StartServer

    from lightlink.commands import CommandManager


def fleet(world: World, prefix: str, count: int, handler: object, **labels: str) -> list[str]:
    """Start agents that share a client, and return their ids."""
    client = world.client()
    agents = [world.agent(f"{prefix}-{number}", target=client, workers=1, labels=labels) for number in range(count)]
    for agent in agents:
        agent.register("work", handler)  # type: ignore[arg-type]
        agent.start()
    return [agent.client_id for agent in agents]


def test_a_batch_reaches_all_and_brings_their_results(world: World, manager: CommandManager, prefix: str) -> None:
    ids = fleet(world, prefix, 10, lambda x: x + 1)
    batch = manager.send_many(ids, "work", {"x": 1}, issued_by="ops")
    assert batch.wait(20)
    assert len(batch) == 10
    assert batch.counts() == {
        "pending": 0,
        "executing": 0,
        "completed": 10,
        "failed": 0,
        "timeout": 0,
        "not_sent": 0,
    }
    results = batch.results()
    assert {client_id: command.result for client_id, command in results.items()} == dict.fromkeys(ids, 2)
    assert {command.batch_id for command in results.values()} == {batch.batch_id}
    assert {command.issued_by for command in results.values()} == {"ops"}
    assert sorted(command.client_id for command in batch) == sorted(ids)
    assert sorted(command.client_id for command in manager.list(batch_id=batch.batch_id)) == sorted(ids)


def test_labels_say_who_gets_it(world: World, manager: CommandManager, prefix: str) -> None:
    fleet(world, f"{prefix}-a", 2, lambda: "a", test=prefix, site="a")
    fleet(world, f"{prefix}-b", 2, lambda: "b", test=prefix, site="b")
    batch = manager.send_many(None, "work", labels={"test": prefix, "site": "b"})
    assert {command.result for command in batch.results(20).values()} == {"b"}
    assert len(batch) == 2
    nobody = manager.send_many(None, "work", labels={"test": prefix, "site": "c"})
    assert nobody.wait(0)
    assert list(nobody) == []


def test_results_can_be_iterated_as_they_come(world: World, manager: CommandManager, prefix: str) -> None:
    gates = {f"{prefix}-{number}": threading.Event() for number in range(3)}

    def work(context: CommandContext) -> None:
        gates[context.client_id].wait(20)

    ids = fleet(world, prefix, 3, work)
    results = iter(manager.send_many(ids, "work"))
    for client_id in reversed(ids):
        gates[client_id].set()
        assert next(results).client_id == client_id
    assert list(results) == []


def test_no_more_run_at_a_time_than_may(world: World, manager: CommandManager, prefix: str) -> None:
    lock = threading.Lock()
    running: list[int] = [0]
    most: list[int] = [0]

    def work() -> None:
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        threading.Event().wait(0.02)
        with lock:
            running[0] -= 1

    ids = fleet(world, prefix, 8, work)
    batch = manager.send_many(ids, "work", max_concurrency=3)
    assert batch.wait(20)
    assert batch.counts()["completed"] == 8
    assert 1 <= most[0] <= 3


def test_the_time_of_each_counts_from_when_it_is_sent(world: World, manager: CommandManager, prefix: str) -> None:
    ids = fleet(world, prefix, 4, lambda: threading.Event().wait(0.6))
    batch = manager.send_many(ids, "work", max_concurrency=1, timeout=2)
    assert batch.wait(20)
    assert batch.counts()["completed"] == 4


def test_after_too_many_failures_no_more_are_sent(world: World, manager: CommandManager, prefix: str) -> None:
    def fail() -> None:
        raise RuntimeError

    ids = fleet(world, prefix, 8, fail)
    batch = manager.send_many(ids, "work", max_concurrency=1, max_failures=2)
    assert batch.wait(20)
    assert (batch.counts()["failed"], batch.counts()["not_sent"]) == (3, 5)
    assert sorted(batch.not_sent) == ids[3:]
    assert len(list(batch)) == 3


def test_a_batch_can_be_cancelled(world: World, manager: CommandManager, prefix: str) -> None:
    begun = threading.Semaphore(0)

    def work(context: CommandContext) -> None:
        begun.release()
        context.cancelled.wait(20)
        context.check()

    ids = fleet(world, prefix, 4, work)
    offline = [f"{prefix}-offline-{number}" for number in range(3)]
    batch = manager.send_many(ids + offline, "work")
    for _ in ids:
        assert begun.acquire(timeout=30)
    with pytest.raises(InvalidOption):
        batch.cancel(None)  # type: ignore[arg-type]
    assert batch.cancel("enough") == 7
    assert batch.wait(20)
    assert {command.status_detail for command in batch} == {"cancelled"}
    assert batch.counts()["failed"] == 7
    assert batch.cancel() == 0


def test_cancelling_keeps_back_what_was_not_sent(world: World, manager: CommandManager, prefix: str) -> None:
    begun = threading.Event()

    def work(context: CommandContext) -> None:
        begun.set()
        context.cancelled.wait(20)
        context.check()

    ids = fleet(world, prefix, 5, work)
    batch = manager.send_many(ids, "work", max_concurrency=1)
    assert begun.wait(30)
    batch.cancel()
    assert batch.is_cancelled
    assert batch.wait(20)
    assert (batch.counts()["failed"], batch.counts()["not_sent"]) == (1, 4)


@pytest.mark.parametrize("repeat", [1, 2])
def test_a_client_given_twice_gets_as_many_as_every_other(
    world: World, manager: CommandManager, prefix: str, repeat: int
) -> None:
    runs: collections.Counter[str] = collections.Counter()

    def work(context: CommandContext) -> None:
        runs[context.client_id] += 1

    ids = fleet(world, prefix, 2, work)
    batch = manager.send_many([*reversed(ids), *ids], "work", repeat=repeat)
    assert batch.wait(20)
    assert runs == dict.fromkeys(ids, repeat)
    assert [promise.client_id for promise in batch.promises] == [*reversed(ids)] * repeat
    assert batch.wait_stored(5)


def test_mistakes_are_refused_before_anything_is_sent(manager: CommandManager, prefix: str) -> None:
    good = f"{prefix}-good"
    for error, arguments in (
        (InvalidName, {"client_ids": [good, "no.token"]}),
        (InvalidOption, {"client_ids": None}),
        (InvalidOption, {"client_ids": [good], "labels": {}}),
        (InvalidOption, {"client_ids": good}),
        (InvalidOption, {"client_ids": 5}),
        (InvalidName, {"client_ids": [[good]]}),
        (InvalidOption, {"client_ids": None, "labels": "site"}),
        (InvalidOption, {"client_ids": [good], "max_concurrency": 0}),
        (InvalidOption, {"client_ids": [good], "max_failures": -1}),
        (InvalidOption, {"client_ids": [good], "max_failures": True}),
        (InvalidOption, {"client_ids": [good], "repeat": 0}),
        (InvalidOption, {"client_ids": [good], "repeat": 1.5}),
        (InvalidOption, {"client_ids": [good], "timeout": 0}),
    ):
        with pytest.raises(error):
            manager.send_many(**{"command_type": "work", **arguments})  # type: ignore[arg-type]
    assert manager.list(good) == []


def test_what_cannot_be_stored_is_counted_as_not_sent(proxy: StartProxy, prefix: str) -> None:
    link = proxy()
    with lightlink.connect(link.url, timeout=2.0) as client, lightlink.CommandManager(client) as manager:
        ids = [f"{prefix}-{number}" for number in range(3)]
        manager._store.ensure_consumers(ids)
        link.refuse()
        link.cut()
        eventually(lambda: client.status is not lightlink.Status.CONNECTED)
        batch = manager.send_many(ids, "work")
        assert batch.wait(20)
        assert batch.counts()["not_sent"] == 3
        assert sorted(batch.not_sent) == ids
        assert list(batch) == []
        assert batch.results() == {}
        for promise in batch.promises:
            with pytest.raises(StoreUnavailable):
                promise.result(0)
        link.accept()
        client.wait_connected(20)


def test_a_store_that_refuses_all_ends_a_large_batch_soon(
    fresh_server: StartServer, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lightlink.jetstream.retry.ELECTION_SECONDS", 0.5)
    with World(fresh_server().url) as world:
        manager = world.manager(sweep_interval=None)
        manager._store.ensure_consumers([prefix])
        with RawPeer(world.url) as peer:
            peer.run(peer.nc.jetstream().delete_stream(subjects.COMMANDS_STREAM))
        batch = manager.send_many([prefix], "work", repeat=2000)
        # Were each tried for itself, this would take minutes.
        assert batch.wait(20)
        assert (batch.counts()["not_sent"], len(batch.not_sent)) == (2000, 2000)
        assert batch.wait_stored(0)


def test_what_is_refused_for_a_while_is_stored_in_the_end(fresh_server: StartServer, prefix: str) -> None:
    with World(fresh_server().url) as world:
        manager = world.manager(sweep_interval=None)
        manager._store.ensure_consumers([prefix])
        with RawPeer(world.url) as peer:
            peer.run(peer.nc.jetstream().delete_stream(subjects.COMMANDS_STREAM))
        batch = manager.send_many([prefix], "work", repeat=300, timeout=600)
        assert not batch.wait_stored(0.3)
        manager._store.ensure_streams()
        assert batch.wait_stored(20)
        assert batch.not_sent == []
        assert len(manager.list(prefix, batch_id=batch.batch_id, limit=1000)) == 300


def test_closing_the_manager_ends_a_batch(world: World, prefix: str) -> None:
    manager = world.manager()
    batch = manager.send_many([f"{prefix}-{number}" for number in range(3)], "work", max_concurrency=1)
    manager.close()
    assert batch.wait(30)
    with pytest.raises(ClosedError):
        batch.promises[0].result(0)


def test_ctrl_c_at_any_instant_leaves_the_manager_working(manager: CommandManager, prefix: str) -> None:
    """Never is a lock left taken, or the loop asleep that was to be woken."""
    ids = [f"{prefix}-{number}" for number in range(3)]
    manager.send_many(ids, "work")  # what is done only the first time is done
    for instant in itertools.count(1, 3):
        try:
            with interrupt_at(instant):
                manager.send_many(ids, "work", timeout=600)
        except KeyboardInterrupt:
            assert manager.send_many(ids[:1], "work").wait_stored(30), f"at instant {instant}"
        else:
            break
    assert instant > 100


def test_a_fork_beside_a_batch_stores_each_command_once(url: str, prefix: str) -> None:
    """Wherever the sending thread was at that instant: it goes on in the parent only."""
    finished = run_python(
        """
        import os, sys, threading
        import lightlink

        url, prefix = sys.argv[1:]
        manager = lightlink.CommandManager(lightlink.connect(url, timeout=30), sweep_interval=None)
        batches = []

        def send():
            for _ in range(3):
                batches.append(manager.send_many([prefix], "work", repeat=300, timeout=600))

        thread = threading.Thread(target=send)
        thread.start()
        for n in range(3):
            child = os.fork()
            if not child:
                assert manager.send_many([f"{prefix}-{n}"], "work", repeat=10, timeout=600).wait_stored(30)
                os._exit(0)
            assert os.waitpid(child, 0)[1] == 0, n
        thread.join()
        assert all(batch.wait_stored(30) and not batch.not_sent for batch in batches)
        """,
        url,
        prefix,
        options=("-W", "error", "-W", "ignore:This process:DeprecationWarning"),
    )
    assert finished.returncode == 0, finished.stderr
    with lightlink.connect(url) as client:
        sent = {
            name: len(api.subjects_of(client.connection, subjects.COMMANDS_STREAM, pattern, 30))
            for name in [prefix, *(f"{prefix}-{n}" for n in range(3))]
            for pattern in [subjects.command_request(name, "*")]
        }
    assert sent == {prefix: 900, **{f"{prefix}-{n}": 10 for n in range(3)}}


# Many -----------------------------------------------------------------------------------------------------------------


def run_fleet(server_url: str, agents: int, commands: int) -> dict[str, float]:
    """Send so many commands to so many agents in one batch; return seconds by stage."""
    with World(server_url) as world:
        manager = world.manager(sweep_interval=None)
        clients = [world.client() for _ in range(4)]
        started = time.monotonic()
        ids = []
        for number in range(agents):
            agent = world.agent(f"a{number}", target=clients[number % 4], workers=1)
            agent.register("work", lambda x: x + 1)
            ids.append(agent.start().client_id)
        ready = time.monotonic()
        batch = manager.send_many(ids, "work", {"x": 1}, timeout=600, repeat=commands // agents)
        assert batch.wait_stored(120)
        stored = time.monotonic()
        assert batch.wait(240), batch.counts()
        ended = time.monotonic()
        assert batch.counts()["completed"] == commands
        assert {command.result for command in batch} == {2}
        assert {command.attempt for command in batch} == {1}
    return {"agents started": ready - started, "stored": stored - ready, "ended": ended - ready}


def test_1000_commands_to_100_agents(fresh_server: StartServer) -> None:
    run_fleet(fresh_server().url, 100, 1000)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_10000_commands_to_1000_agents(fresh_server: StartServer, capsys: pytest.CaptureFixture[str]) -> None:
    took = run_fleet(fresh_server().url, 1000, 10_000)
    with capsys.disabled():
        figures = ", ".join(f"{stage} {seconds:.1f} s" for stage, seconds in took.items())
        print(f"\n10,000 commands to 1,000 agents: {figures}; {10_000 / took['stored']:,.0f} stored/s")  # noqa: T201


@pytest.mark.parametrize("value", ["1", float("nan")])
def test_a_wait_for_what_is_no_time_is_refused(manager: CommandManager, prefix: str, value: float) -> None:
    batch, promise = manager.send_many([prefix], "late"), manager.send(prefix, "late")
    for wait in (batch.wait, batch.results, batch.wait_stored, promise.wait, promise.result):
        with pytest.raises(InvalidOption, match="timeout"):
            wait(value)


def test_a_wait_may_be_for_ever(world: World, manager: CommandManager, prefix: str) -> None:
    batch, promise = manager.send_many([prefix], "answer"), manager.send(prefix, "answer")
    agent = world.agent(prefix)
    agent.register("answer", lambda: 42)
    with agent:
        assert promise.result(float("inf")) == 42
        assert batch.wait(float("inf"))
    assert batch.wait_stored(1e300)
