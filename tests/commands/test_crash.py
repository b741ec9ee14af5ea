"""Processes killed in the middle: the manager's, the agent's, the server's."""

from __future__ import annotations

import collections
import signal
import threading
from typing import TYPE_CHECKING

import attrs
import pytest
from helpers.commands import FAST, World
from helpers.waiting import eventually

import lightlink
from lightlink.commands import CommandContext, model
from lightlink.commands.agent import execution
from lightlink.errors import CommandFailed, LightLinkError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import StartProxy, StartPython, StartServer

    from lightlink.commands import CommandManager, CommandPromise
    from lightlink.server import EmbeddedServer


@pytest.fixture(scope="module")
def fast_server() -> Iterator[EmbeddedServer]:
    """A server on which agents count as gone after 0.6 s."""
    with lightlink.EmbeddedServer() as server:
        yield server


@pytest.fixture
def world(fast_server: EmbeddedServer) -> Iterator[World]:
    with World(fast_server.url, FAST) as world:
        yield world


@pytest.fixture
def manager(world: World) -> CommandManager:
    return world.manager(sweep_interval=None)


SENDER = """
    import sys, time
    from helpers.commands import FAST, World
    with World(sys.argv[1], FAST) as world:
        promise = world.manager("sender").send(sys.argv[2], "add", {"x": 1}, timeout=float(sys.argv[3]))
        print("sent", promise.command_id)
        time.sleep(60)
"""

AGENT = """
    import sys, time
    from helpers.commands import FAST, World
    with World(sys.argv[1], FAST) as world:
        agent = world.agent(sys.argv[2], workers=1, prefetch=16)

        @agent.command("work", idempotent=sys.argv[3] == "idempotent")
        def work(number: int) -> str:
            print("working on", number)
            time.sleep(60)

        agent.start()
        print("up")
        time.sleep(60)
"""


def test_another_manager_returns_a_killed_senders_result(
    world: World, manager: CommandManager, prefix: str, python: StartPython
) -> None:
    sender = python(SENDER, world.url, prefix, 30)
    command_id = sender.wait_line("sent")
    sender.signal(signal.SIGKILL)
    sender.wait()
    promise = manager.promise(command_id)
    assert promise.command().status == "pending"
    agent = world.agent(prefix)
    agent.register("add", lambda x: x + 1)
    agent.start()
    assert promise.result(30) == 2
    assert promise.command().issued_by == "sender"


def test_what_nobody_took_without_managers_has_timed_out(world: World, prefix: str, python: StartPython) -> None:
    sender = python(SENDER, world.url, prefix, 0.1)
    command_id = sender.wait_line("sent")
    sender.signal(signal.SIGKILL)
    sender.wait()
    reader = world.manager("reader", sweep_interval=None)
    seen = eventually(lambda: command if (command := reader.get(command_id)).ended else None)
    assert (seen.status, seen.status_detail) == ("timeout", "delivery_timeout")
    assert reader.list(prefix, "timeout") == [seen]
    eventually(lambda: [entry.kind for entry in reader.audit(command_id)] == ["request"])
    world.manager("sweeper", sweep_interval=0.1)
    entries = eventually(lambda: found if len(found := list(reader.audit(command_id))) > 1 else None)
    assert [(entry.status, entry.by) for entry in entries] == [("pending", "sender"), ("timeout", "sweeper")]
    assert reader.get(command_id) == seen


@pytest.mark.parametrize("idempotent", [False, True])
def test_a_command_whose_agent_was_killed(
    world: World, manager: CommandManager, prefix: str, python: StartPython, idempotent: bool
) -> None:
    process = python(AGENT, world.url, prefix, "idempotent" if idempotent else "plain")
    process.wait_line("up")
    promises = [manager.send(prefix, "work", {"number": number}) for number in range(3)]
    process.wait_line("working on")
    process.signal(signal.SIGKILL)
    process.wait()
    agent = world.agent(prefix)
    agent.register("work", lambda number: number, idempotent=idempotent)
    agent.start()
    # What was fetched and not begun is run as if nothing had happened.
    assert [promise.result(30) for promise in promises[1:]] == [1, 2]
    assert [promise.command().attempt for promise in promises[1:]] == [1, 1]
    if idempotent:
        assert promises[0].result(30) == 0
        assert promises[0].command().attempt == 2
        return
    with pytest.raises(CommandFailed) as caught:
        promises[0].result(30)
    command = caught.value.command
    assert (command.status_detail, command.outcome_unknown, command.attempt) == ("interrupted", True, 1)


def test_a_command_whose_agent_stays_away_ends_in_time(
    world: World, manager: CommandManager, prefix: str, python: StartPython
) -> None:
    process = python(AGENT, world.url, prefix, "plain")
    process.wait_line("up")
    promise = manager.send(prefix, "work", {"number": 1}, timeout=2)
    process.wait_line("working on")
    process.signal(signal.SIGKILL)
    command = promise.wait(20)
    assert command is not None
    assert (command.status, command.status_detail, command.outcome_unknown) == ("timeout", "execution_timeout", True)


# The server -----------------------------------------------------------------------------------------------------------


def test_a_server_killed_while_a_handler_runs_loses_nothing(fresh_server: StartServer, prefix: str) -> None:
    server = fresh_server()
    with World(server.url, FAST) as world:
        manager = world.manager()
        agent = world.agent(prefix)
        release = threading.Event()
        runs: list[int] = []

        @agent.command("work")
        def work(context: CommandContext) -> str:
            runs.append(1)
            release.wait(30)
            return "done"

        agent.start()
        promise = manager.send(prefix, "work", timeout=60)
        eventually(lambda: promise.status == "executing")
        server.kill()
        release.set()
        eventually(lambda: agent.client.status is not lightlink.Status.CONNECTED)
        server.start()
        assert promise.result(30) == "done"
        assert len(runs) == 1


def test_an_agent_goes_on_when_the_server_has_lost_what_it_ran(
    fresh_server: StartServer, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(execution, "_STALE_TRIES", 3)
    server = fresh_server()
    with World(server.url, attrs.evolve(FAST, storage="memory")) as world:
        manager = world.manager()
        agent = world.agent(prefix, workers=1)
        release = threading.Event()
        agent.register("wait", lambda: release.wait(30))
        agent.register("add", lambda: 2)
        agent.start()
        lost = manager.send(prefix, "wait", timeout=600)
        eventually(lambda: lost.status == "executing")
        server.kill()
        eventually(lambda: agent.client.status is not lightlink.Status.CONNECTED)
        server.start()
        agent.client.wait_connected(30)
        release.set()
        assert manager.send(prefix, "add").result(20) == 2


def test_a_cancel_during_the_agents_outage_is_heard_after_it(
    world: World, manager: CommandManager, proxy: StartProxy, prefix: str
) -> None:
    link = proxy(world.url)
    agent = world.agent(prefix, target=link.url)

    @agent.command("wait")
    def wait(context: CommandContext) -> None:
        context.cancelled.wait(30)
        context.check()

    agent.start()
    promise = manager.send(prefix, "wait")
    eventually(lambda: promise.status == "executing")
    link.refuse()
    link.cut()
    eventually(lambda: agent.client.status is not lightlink.Status.CONNECTED)
    manager.cancel(promise.command_id)
    link.accept()
    with pytest.raises(CommandFailed) as caught:
        promise.result(20)
    assert caught.value.command.status_detail == "cancelled"
    agent.stop()


COMMANDS = 500


def test_a_server_killed_in_the_middle_of_500_commands(fresh_server: StartServer, prefix: str) -> None:
    server = fresh_server()
    runs: collections.Counter[int] = collections.Counter()
    lock = threading.Lock()
    halfway = threading.Event()
    with World(server.url, FAST) as world:
        manager = world.manager(sweep_interval=0.5)

        def work(number: int) -> int:
            with lock:
                runs[number] += 1
                if len(runs) >= COMMANDS // 4:
                    halfway.set()
            return number

        for number in range(5):
            agent = world.agent(f"{prefix}-{number}", workers=2)
            agent.register("work", work)
            agent.start()
        promises: dict[int, CommandPromise] = {}
        refused = []

        def send() -> None:
            for number in range(COMMANDS):
                try:
                    promises[number] = manager.send(f"{prefix}-{number % 5}", "work", {"number": number}, timeout=60)
                except LightLinkError as exc:
                    refused.append((number, exc))  # the caller knows

        sender = threading.Thread(target=send)
        sender.start()
        assert halfway.wait(30)
        server.kill()
        eventually(lambda: manager._connection.status is not lightlink.Status.CONNECTED)
        server.start()
        sender.join(120)
        assert not sender.is_alive()
        assert len(promises) + len(refused) == COMMANDS
        check_ends(promises, runs)
        check_audit(manager, promises)


def check_ends(promises: dict[int, CommandPromise], runs: collections.Counter[int]) -> None:
    """Check that no command is lost or was run twice, and that most have brought their result."""
    ends = {number: promise.wait(60) for number, promise in promises.items()}
    assert all(ends.values()), "lost"
    outcomes = collections.Counter((end.status, end.status_detail) for end in ends.values() if end)
    assert set(outcomes) <= {("completed", ""), ("failed", "interrupted")}
    assert outcomes["completed", ""] >= len(promises) - 10
    assert [number for number, count in runs.items() if count > 1] == []
    for number, end in ends.items():
        if end is not None and end.status == "completed":
            assert (end.result, runs[number]) == (number, 1)


def check_audit(manager: CommandManager, promises: dict[int, CommandPromise]) -> None:
    """Check that the audit has the request, the claim and exactly one end of each command."""
    wanted = {promise.command_id for promise in promises.values()}

    def read() -> dict[str, list[str]]:
        kinds: dict[str, list[str]] = {command_id: [] for command_id in wanted}
        for entry in manager.audit():
            if entry.command_id in wanted:
                kinds[entry.command_id].append(entry.status)
        return kinds

    def complete() -> dict[str, list[str]] | None:
        kinds = read()
        return kinds if all(each and each[-1] in model.ENDED for each in kinds.values()) else None

    for statuses in eventually(complete, interval=0.2).values():
        assert statuses[:2] == ["pending", "executing"]
        assert sum(status in model.ENDED for status in statuses) == 1
