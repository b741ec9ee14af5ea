"""Commands while agents and servers are killed and connections cut: each ends once, and runs no more than it may."""

from __future__ import annotations

import collections
import contextlib
import random
import shutil
import threading
import time
from typing import TYPE_CHECKING

import pytest
from helpers.commands import World
from helpers.process import PythonProcess
from helpers.proxy import TcpProxy
from helpers.waiting import eventually

from chaos.nodes import leader_of
from lightlink.commands import StoreOptions, model
from lightlink.errors import LightLinkError
from lightlink.protocol import subjects

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from conftest import StartServer

    from lightlink.commands import Command, CommandManager, CommandPromise
    from lightlink.server import EmbeddedCluster

# It tells each of its runs to a file, which outlives it; like a good supervisor it starts an agent that had to stop.
AGENT = """
    import os, random, sys, time
    import lightlink

    url, client_id, ledger, replicas = sys.argv[1:]
    options = lightlink.StoreOptions(ack_wait=1.0, heartbeat=0.3, replicas=int(replicas))
    runs = os.open(ledger, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def work(context: lightlink.CommandContext, number: int) -> int:
        os.write(runs, f"{context.command_id}\\n".encode())
        time.sleep(random.choice([0, 0, 0.01, 0.1, 0.5]))
        return number

    while True:
        agent = lightlink.Agent(client_id, url, workers=3, prefetch=32, store=options)
        agent.register("plain", work)
        agent.register("again", work, idempotent=True)
        try:
            agent.run()
        except lightlink.LightLinkError as exc:
            print("ended:", exc)
"""
CLIENTS = ("a0", "a1", "a2")


class Load:
    """Agents in processes of their own, and threads that send to them until `stop`."""

    def __init__(
        self,
        world: World,
        urls: list[str],
        ledger: Path,
        replicas: int,
        timeouts: tuple[float, ...] = (2.0, 20.0, 40.0),
    ) -> None:
        self._timeouts = timeouts
        self._urls = urls
        self._ledger = ledger
        self._replicas = replicas
        self._stopped = threading.Event()
        self._agents: dict[int, PythonProcess] = {}
        self.sent: dict[str, tuple[str, int, CommandPromise]] = {}
        self.managers = [world.manager(f"manager-{number}", sweep_interval=1.0) for number in range(2)]
        for number in range(len(CLIENTS)):
            self.start_agent(number)
        self._senders = [threading.Thread(target=self._send, args=(number,)) for number in range(4)]
        for sender in self._senders:
            sender.start()

    def start_agent(self, number: int) -> None:
        """Start an agent, having killed the one there was."""
        if number in self._agents:
            self._agents.pop(number).kill()
        url = self._urls[number % len(self._urls)]
        self._agents[number] = PythonProcess(AGENT, url, CLIENTS[number], self._ledger, self._replicas)

    def stop(self) -> None:
        """Send no more."""
        self._stopped.set()
        for sender in self._senders:
            sender.join(60)

    def close(self) -> None:
        """End the agents."""
        self.stop()
        for agent in self._agents.values():
            agent.kill()

    def runs(self) -> collections.Counter[str]:
        """Return how often each command was begun."""
        return collections.Counter(self._ledger.read_text().split())

    def _send(self, thread: int) -> None:
        chance = random.Random(thread)
        manager = self.managers[thread % 2]
        for number in range(1_000_000):
            if self._stopped.wait(0.05):
                return
            kind = chance.choice(["plain", "again"])
            # Refused, the caller knows; it is none of those that count.
            with contextlib.suppress(LightLinkError):
                promise = manager.send(
                    chance.choice(CLIENTS),
                    kind,
                    {"number": number},
                    timeout=chance.choice(self._timeouts),
                    priority=chance.randint(0, 3),
                )
                self.sent[promise.command_id] = kind, number, promise
                if chance.random() < 0.05:
                    manager.cancel(promise.command_id)


def check(load: Load) -> None:
    """Check that every command sent has ended, once, and that it ran as often as it may."""
    ends: dict[str, Command] = {}
    for command_id, (_, _, promise) in load.sent.items():
        end = promise.wait(60)
        assert end is not None, f"{command_id} is lost"
        ends[command_id] = end
    runs = load.runs()
    for command_id, (kind, number, _) in load.sent.items():
        end = ends[command_id]
        if kind == "plain":
            assert runs[command_id] <= 1
        if end.status == "completed":
            assert (end.result, runs[command_id] > 0) == (number, True)
        if end.status_detail in (model.DELIVERY_TIMEOUT, model.REJECTED):
            assert not runs[command_id]
    assert sum(end.status == "completed" for end in ends.values()) > len(ends) / 4
    eventually(lambda: audited(load.managers[0], ends), timeout=60, interval=1.0)


def audited(manager: CommandManager, ends: dict[str, Command]) -> bool:
    """Tell whether the audit has the request of each command and one end, the one that was told."""
    requests: set[str] = set()
    found: dict[str, list[str]] = {command_id: [] for command_id in ends}
    for entry in manager.audit():
        if entry.kind == "request":
            requests.add(entry.command_id)
        elif entry.kind == "status" and entry.status in model.ENDED and entry.command_id in found:
            found[entry.command_id].append(entry.status)
    assert all(len(statuses) <= 1 for statuses in found.values())
    return ends.keys() <= requests and all(found[command_id] == [end.status] for command_id, end in ends.items())


def disturb(load: Load, seconds: float, disturbances: list[Callable[[], None]]) -> None:
    """Do harm for a while, now this, now that."""
    chance = random.Random(1)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        time.sleep(chance.uniform(0.3, 1.5))
        chance.choice([*disturbances, lambda: load.start_agent(chance.randrange(len(CLIENTS)))])()
    load.stop()


@pytest.fixture
def ledger_file(tmp_path: Path) -> Path:
    """The file in which agents write down what they run."""
    path = tmp_path / "runs"
    path.touch()
    return path


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_commands_survive_kills_of_agents_and_server_and_cuts(fresh_server: StartServer, ledger_file: Path) -> None:
    server = fresh_server()
    with contextlib.ExitStack() as stack:
        proxies = [stack.enter_context(TcpProxy("127.0.0.1", server.port)) for _ in CLIENTS]
        world = stack.enter_context(World(server.url, StoreOptions(ack_wait=1.0, heartbeat=0.3)))
        load = Load(world, [proxy.url for proxy in proxies], ledger_file, 1)
        stack.callback(load.close)

        def restart() -> None:
            server.kill()
            server.start()

        def hang() -> None:
            proxies[0].pause()
            time.sleep(1.5)
            proxies[0].resume()

        disturb(load, 20, [restart, hang, proxies[1].cut, proxies[2].cut])
        check(load)


@pytest.fixture
def replicated(cluster: EmbeddedCluster) -> Iterator[World]:
    """Managers and agents of a cluster in which every stream has three replicas."""
    with World(",".join(cluster.urls), StoreOptions(ack_wait=1.0, heartbeat=0.3, replicas=3)) as world:
        yield world


def test_what_is_sent_while_a_cluster_elects_is_stored_once(cluster: EmbeddedCluster) -> None:
    with World(",".join(cluster.urls), StoreOptions(ack_wait=1.0, heartbeat=0.3, replicas=3)) as world:
        world.manager("first", timeout=30.0).send("a0", "work")  # the streams are there
        leader = leader_of(cluster, subjects.COMMANDS_STREAM)
        world.url = ",".join(node.url for node in cluster.nodes if node is not leader)
        manager = world.manager("second", timeout=30.0, sweep_interval=None)  # an election may take longer than 5 s
        doomed = manager.send("a0", "work")
        leader.kill()
        promise = manager.send("a0", "work", timeout=120)
        ids = [f"b{number}" for number in range(50)]
        batch = manager.send_many(ids, "work", timeout=120)
        assert batch.wait_stored(60)
        assert batch.not_sent == []
        manager.cancel(doomed.command_id, "no more")
        end = doomed.wait(30)
        assert end is not None
        assert end.error == "cancelled: no more"
        stored = {command.command_id for command in manager.list(limit=1000)}
        assert stored >= {each.command_id for each in (promise, doomed, *batch.promises)}
        assert batch.cancel("enough") == len(ids)
        assert batch.wait(30)
        assert {command.error for command in batch} == {"cancelled: enough"}


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_commands_survive_kills_of_the_servers_of_a_cluster(
    cluster: EmbeddedCluster, replicated: World, ledger_file: Path
) -> None:
    load = Load(replicated, [replicated.url], ledger_file, 3)
    try:
        number = iter(range(1_000_000))

        def restart() -> None:
            node = cluster.nodes[next(number) % len(cluster.nodes)]
            node.kill()
            node.start()
            cluster.wait_ready(30)

        disturb(load, 20, [restart])
        check(load)
    finally:
        load.close()


@pytest.mark.parametrize("lost", [False, True], ids=["an_older_copy", "nothing_left"])
def test_a_promise_ends_though_the_store_is_not_what_it_was(
    fresh_server: StartServer, tmp_path: Path, prefix: str, lost: bool
) -> None:
    """Revisions count anew, and the command that runs was never asked for, as far as the store knows."""
    folder, copy = tmp_path / "store", tmp_path / "copy"
    server = fresh_server(store_dir=folder)
    begun, may_end = threading.Event(), threading.Event()
    with World(server.url, StoreOptions(ack_wait=1.0, heartbeat=0.3)) as world:
        manager, agent = world.manager(sweep_interval=1.0), world.agent(prefix, workers=1)

        @agent.command("work")
        def work() -> None:
            begun.set()
            may_end.wait(60)

        agent.start()
        server.stop()
        shutil.copytree(folder, copy)
        server.start()
        assert manager._client.wait_connected(30)
        for _ in range(5):  # revisions that the copy does not have
            manager.cancel(manager.send("nobody", "none").command_id)

        def begin() -> CommandPromise | None:
            promise = manager.send(prefix, "work", timeout=3)
            eventually(lambda: begun.is_set() or promise.done())  # the agent may be back too late for it
            return promise if begun.is_set() else None

        promise = eventually(begin)
        server.stop()
        shutil.rmtree(folder)
        if not lost:
            shutil.copytree(copy, folder)
        server.start()
        command = promise.wait(50)
        assert command is not None
        assert (command.status, command.status_detail) == ("timeout", "execution_timeout")
        may_end.set()
        # What has its end, as the store sees it, does not keep the agent from others until that is long over.
        promise = manager.send(prefix, "work", timeout=60)
        assert promise.wait(70)
        assert promise.command().status == "completed"


@pytest.mark.timeout(240)
@pytest.mark.parametrize("lost", [False, True], ids=["an_older_copy", "nothing_left"])
def test_the_books_of_a_store_that_is_lost_or_restored(
    fresh_server: StartServer, tmp_path: Path, ledger_file: Path, lost: bool
) -> None:
    """What the store forgot may be run once more, as nobody can know of it; everything else holds."""
    folder, copy = tmp_path / "store", tmp_path / "copy"
    server = fresh_server(store_dir=folder)
    with contextlib.ExitStack() as stack:
        world = stack.enter_context(World(server.url, StoreOptions(ack_wait=1.0, heartbeat=0.3)))
        load = Load(world, [server.url], ledger_file, 1, timeouts=(1.0, 5.0))
        stack.callback(load.close)

        def some_more() -> None:
            goal = len(load.sent) + 40
            eventually(lambda: len(load.sent) >= goal, timeout=60)

        some_more()
        settled = {command_id for command_id, (_, _, promise) in load.sent.items() if promise.done()}
        server.stop()
        shutil.copytree(folder, copy)
        server.start()
        some_more()
        server.stop()
        forgotten = set(load.sent) - settled
        shutil.rmtree(folder)
        if not lost:
            shutil.copytree(copy, folder)
        server.start()
        some_more()
        load.stop()
        ends = {command_id: promise.wait(90) for command_id, (_, _, promise) in load.sent.items()}
        assert [command_id for command_id, end in ends.items() if end is None] == []
        runs = load.runs()
        for command_id, (kind, number, _) in load.sent.items():
            end = ends[command_id]
            assert end is not None
            if kind == "plain":
                assert runs[command_id] <= (2 if command_id in forgotten and not lost else 1)
            if end.status == "completed":
                assert (end.result, runs[command_id] > 0) == (number, True)
        # It all goes on as before.
        later = load.managers[0].send(CLIENTS[0], "plain", {"number": 7}, timeout=60)
        assert later.result(60) == 7
