"""Agents: what they take, how they run it, how they leave, and that there is one of each."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from typing import TYPE_CHECKING, Any, Literal

import attrs
import pytest
from helpers.commands import FAST, World
from helpers.loop import error_on_loop
from helpers.waiting import eventually

import lightlink
from lightlink.commands import CommandContext, Rejected, StoreOptions, UnknownCommand
from lightlink.errors import (
    AgentInUse,
    ClosedError,
    CommandFailed,
    CommandTimeout,
    InvalidName,
    InvalidOption,
    NotReady,
    PermissionDenied,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import StartProxy, StartPython

    from lightlink.commands import Agent, CommandManager
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


# Handlers -------------------------------------------------------------------------------------------------------------


@attrs.define
class Place:
    site: str
    rack: int = 1


def test_payloads_are_bound_like_the_arguments_of_a_call(world: World, manager: CommandManager, prefix: str) -> None:
    agent = world.agent(prefix)

    @agent.command("move")
    def move(to: Place, how: Literal["slow", "fast"] = "slow", **rest: int) -> dict[str, Any]:
        return {"to": to, "how": how, "rest": rest}

    agent.start()
    result = manager.send(prefix, "move", {"to": {"site": "berlin"}, "how": "fast", "x": 1}).result(30)
    assert result == {"to": {"site": "berlin", "rack": 1}, "how": "fast", "rest": {"x": 1}}
    for payload in (None, [1], {"to": {"site": 1}}, {"to": {"site": "x"}, "how": "never"}):
        with pytest.raises(CommandFailed) as caught:
            manager.send(prefix, "move", payload).result(30)
        assert caught.value.command.status_detail == "rejected"


def test_the_context_tells_about_the_command(world: World, manager: CommandManager, prefix: str) -> None:
    agent = world.agent(prefix)

    @agent.command("look")
    def look(context: CommandContext) -> dict[str, Any]:
        known = {name: getattr(context, name) for name in ("command_id", "client_id", "command_type", "attempt")}
        return {**known, "remaining": context.remaining(), "cancelled": context.cancelled.is_set()}

    agent.start()
    promise = manager.send(prefix, "look", timeout=20)
    result = promise.result(30)
    assert 10 < result.pop("remaining") <= 20
    named = {"command_id": promise.command_id, "client_id": prefix, "command_type": "look", "attempt": 1}
    assert result == {**named, "cancelled": False}


@pytest.mark.parametrize("text", ["plain", "surrogate \ud800", "x" * 10_000], ids=["plain", "surrogate", "long"])
def test_what_a_handler_raises_becomes_the_error(
    world: World, manager: CommandManager, prefix: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # pytest-xdist cannot send a captured log with a lone surrogate.
    monkeypatch.setattr(logging.getLogger("lightlink"), "disabled", True)
    agent = world.agent(prefix)

    @agent.command("fail")
    def fail() -> None:
        raise ValueError(text)

    agent.start()
    with pytest.raises(CommandFailed) as caught:
        manager.send(prefix, "fail").result(30)
    command = caught.value.command
    assert command.error.startswith(f"ValueError: {text[:5]}")
    assert len(command.error) < 5000
    assert not command.outcome_unknown


def test_an_exception_that_cannot_be_shown_is_an_error(world: World, manager: CommandManager, prefix: str) -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no text")

    agent = world.agent(prefix)

    @agent.command("fail")
    def fail() -> None:
        raise Mute

    agent.start()
    with pytest.raises(CommandFailed, match="Mute"):
        manager.send(prefix, "fail").result(30)


def test_sys_exit_in_a_handler_ends_the_command_only(world: World, manager: CommandManager, prefix: str) -> None:
    agent = world.agent(prefix, workers=1)
    agent.register("exit", lambda: os.sys.exit(3))  # type: ignore[attr-defined]
    agent.register("add", lambda: 2)
    agent.start()
    with pytest.raises(CommandFailed, match="SystemExit: 3"):
        manager.send(prefix, "exit").result(30)
    assert manager.send(prefix, "add").result(30) == 2


@pytest.mark.parametrize(
    ("result", "error"), [(object, "cannot encode"), (lambda: "x" * 2_000_000, "the result is too large")]
)
def test_a_result_that_cannot_be_stored_is_a_failure(
    world: World, manager: CommandManager, prefix: str, result: Any, error: str
) -> None:
    agent = world.agent(prefix)
    agent.register("make", result)
    agent.start()
    with pytest.raises(CommandFailed, match=error):
        manager.send(prefix, "make").result(30)


def test_a_handler_may_reject(world: World, manager: CommandManager, prefix: str) -> None:
    agent = world.agent(prefix)

    @agent.command("move")
    def move(to: str) -> None:
        raise Rejected(f"there is no {to}")

    agent.start()
    with pytest.raises(CommandFailed, match="there is no way") as caught:
        manager.send(prefix, "move", {"to": "way"}).result(30)
    assert caught.value.command.status_detail == "rejected"


class Executor:
    """Knows one type of command, and its context."""

    def execute(self, command_type: str, payload: Any, context: CommandContext) -> Any:
        if command_type != "echo":
            raise UnknownCommand(command_type)
        return [payload, context.command_type]


class AsyncExecutor:
    async def execute(self, command_type: str, payload: Any) -> Any:
        """Nobody would await it."""


class NarrowExecutor:
    def execute(self, payload: Any) -> Any:
        """It does not want to know the type."""


class PlainExecutor:
    def execute(self, command_type: str, payload: Any) -> Any:
        return [command_type, payload]


def test_an_executor_is_asked_for_what_has_no_function(world: World, manager: CommandManager, prefix: str) -> None:
    agent = world.agent(prefix, executor=Executor())
    agent.register("add", lambda: 2)
    agent.start()
    assert manager.send(prefix, "add").result(30) == 2
    assert manager.send(prefix, "echo", [1, "x"]).result(30) == [[1, "x"], "echo"]
    with pytest.raises(CommandFailed) as caught:
        manager.send(prefix, "fly").result(30)
    assert caught.value.command.status_detail == "rejected"


def test_an_executor_need_not_know_of_contexts(world: World, manager: CommandManager, prefix: str) -> None:
    world.agent(prefix, executor=PlainExecutor()).start()
    assert manager.send(prefix, "anything", {"a": 1}).result(30) == ["anything", {"a": 1}]


# Order and time -------------------------------------------------------------------------------------------------------


def test_what_waited_is_run_by_priority_and_then_by_age(world: World, manager: CommandManager, prefix: str) -> None:
    priorities = [0, 5, 1, 0, 9, 5, -3]
    promises = [
        manager.send(prefix, "note", {"number": number}, priority=priority)
        for number, priority in enumerate(priorities)
    ]
    order: list[int] = []
    agent = world.agent(prefix, workers=1)

    @agent.command("note")
    def note(number: int) -> None:
        order.append(number)

    agent.start()
    for promise in promises:
        promise.result(30)
    assert order == [4, 1, 5, 2, 0, 3, 6]


def test_more_than_is_fetched_ahead_is_run_too(world: World, manager: CommandManager, prefix: str) -> None:
    agent = world.agent(prefix, workers=2, prefetch=3)
    agent.register("add", lambda x: x + 1)
    agent.start()
    promises = [manager.send(prefix, "add", {"x": number}) for number in range(40)]
    assert [promise.result(20) for promise in promises] == list(range(1, 41))


def test_workers_run_side_by_side(world: World, manager: CommandManager, prefix: str) -> None:
    together = threading.Barrier(3)
    agent = world.agent(prefix, workers=3)
    agent.register("meet", lambda: together.wait(20))
    agent.start()
    promises = [manager.send(prefix, "meet") for _ in range(3)]
    assert sorted(promise.result(20) for promise in promises) == [0, 1, 2]


def test_what_overruns_is_told_and_its_result_is_kept(world: World, manager: CommandManager, prefix: str) -> None:
    agent = world.agent(prefix)
    release = threading.Event()

    @agent.command("slow")
    def slow(context: CommandContext) -> str:
        assert context.cancelled.wait(20)
        release.wait(20)
        return "late"

    agent.start()
    promise = manager.send(prefix, "slow", timeout=1.5)  # in which it has to begin
    with pytest.raises(CommandTimeout) as caught:
        promise.result(20)
    command = caught.value.command
    assert (command.status_detail, command.outcome_unknown, command.late_result) == ("execution_timeout", False, None)
    release.set()
    late = eventually(lambda: command if (command := manager.get(promise.command_id)).late_result else None)
    assert (late.status, late.late_result, late.result) == ("timeout", "late", None)
    assert late.completed_at
    assert (late.completed_at - late.created_at).total_seconds() == pytest.approx(1.5)
    kinds = eventually(
        lambda: kinds if len(kinds := [e.kind for e in manager.audit(promise.command_id)]) == 4 else None
    )
    assert kinds == ["request", "status", "status", "late_result"]


def test_what_overruns_does_not_keep_others_from_being_told(world: World, manager: CommandManager, prefix: str) -> None:
    agent = world.agent(prefix, workers=4)
    told = threading.Semaphore(0)
    release = threading.Event()

    @agent.command("slow")
    def slow(context: CommandContext) -> None:
        assert context.cancelled.wait(20)
        told.release()
        release.wait(20)

    agent.start()
    promises = [manager.send(prefix, "slow", timeout=timeout) for timeout in (1.8, 1.5, 1.7, 1.6)]
    for promise in promises:
        with pytest.raises(CommandTimeout):
            promise.result(20)
    for _ in promises:
        assert told.acquire(timeout=30)
    release.set()


def test_a_command_overdue_at_its_turn_is_not_run(world: World, manager: CommandManager, prefix: str) -> None:
    runs: list[str] = []
    release = threading.Event()
    agent = world.agent(prefix, workers=1)
    agent.register("block", lambda: release.wait(20))
    agent.register("note", lambda: runs.append("note"))
    agent.start()
    first = manager.send(prefix, "block")
    late = manager.send(prefix, "note", timeout=0.1)
    eventually(lambda: late.command().created_at.timestamp() + 0.1 < time.time())
    release.set()
    with pytest.raises(CommandTimeout) as caught:
        late.result(20)
    assert caught.value.command.status_detail == "delivery_timeout"
    first.result(20)
    assert runs == []


def test_a_command_held_longer_than_ack_wait_is_run_once(world: World, manager: CommandManager, prefix: str) -> None:
    runs: list[int] = []
    agent = world.agent(prefix, workers=1)

    @agent.command("slow")
    def slow(seconds: float) -> None:
        runs.append(1)
        threading.Event().wait(seconds)

    agent.start()
    # The server would deliver both again after a second, the one that runs and the one that waits.
    promises = [manager.send(prefix, "slow", {"seconds": 2.5}), manager.send(prefix, "slow", {"seconds": 0})]
    for promise in promises:
        promise.result(20)
        assert promise.command().attempt == 1
    assert len(runs) == 2


# One of each ----------------------------------------------------------------------------------------------------------


def test_a_second_live_agent_is_refused(world: World, prefix: str) -> None:
    first = world.agent(prefix).start()
    with pytest.raises(AgentInUse) as caught:
        world.agent(prefix).start()
    assert (caught.value.client_id, caught.value.instance) == (prefix, first.instance)
    assert repr(first).endswith("running>")


def test_an_agent_that_left_is_followed_at_once(url: str, prefix: str) -> None:
    with World(url) as world:  # where a dead agent would be waited for half a minute
        manager = world.manager(sweep_interval=None)
        for _ in range(3):
            agent = world.agent(prefix)
            agent.register("add", lambda: 2)
            started = time.monotonic()
            agent.start()
            assert time.monotonic() - started < StoreOptions().presence_age
            assert manager.send(prefix, "add").result(30) == 2
            agent.stop()


def test_a_dead_agent_is_waited_out(world: World, manager: CommandManager, prefix: str, python: StartPython) -> None:
    code = """
        import sys, time
        from helpers.commands import FAST, World
        with World(sys.argv[1], FAST) as world:
            world.agent(sys.argv[2]).start()
            print("up")
            time.sleep(60)
    """
    process = python(code, world.url, prefix)
    process.wait_line("up")
    process.signal(signal.SIGKILL)
    agent = world.agent(prefix)
    agent.register("add", lambda: 2)
    agent.start()
    assert manager.send(prefix, "add").result(30) == 2


def test_an_agent_that_was_silent_too_long_gives_way_to_the_next(
    world: World, manager: CommandManager, proxy: StartProxy, prefix: str
) -> None:
    link = proxy(world.url)
    lost = world.agent(prefix, target=link.url, ping_interval=0.2)
    errors: list[BaseException] = []

    def run() -> None:
        try:
            lost.run()
        except AgentInUse as exc:
            errors.append(exc)

    thread = threading.Thread(target=run)
    thread.start()
    eventually(lambda: manager.clients() and repr(lost).endswith("running>"))
    link.refuse()
    link.cut()
    successor = world.agent(prefix)
    successor.register("add", lambda: 2)
    successor.start()
    link.accept()
    thread.join(20)
    assert [type(error) for error in errors] == [AgentInUse]
    assert errors[0].instance == successor.instance  # type: ignore[attr-defined]
    assert manager.send(prefix, "add").result(30) == 2
    assert [presence.instance for presence in manager.clients() if presence.client_id == prefix] == [successor.instance]


def test_presence_lasts_as_long_as_the_agent(world: World, manager: CommandManager, prefix: str) -> None:
    agent = world.agent(prefix, labels={"a": "b"}).start()
    (first,) = manager.clients({"a": "b"})
    (later,) = eventually(
        lambda: [each for each in manager.clients({"a": "b"}) if each.last_heartbeat > first.last_heartbeat]
    )
    assert (later.client_id, later.instance, later.connected_at) == (prefix, agent.instance, first.connected_at)
    agent.stop()
    assert manager.clients({"a": "b"}) == []


def test_an_agent_goes_by_its_streams_heartbeat(
    world: World, manager: CommandManager, fast_server: EmbeddedServer, prefix: str
) -> None:
    with lightlink.connect(fast_server.url) as client:
        pulls = client.subscribe(f"$JS.API.CONSUMER.MSG.NEXT.LIGHTLINK_COMMANDS.agent-{prefix}")
        client.flush()
        # By its own options it would be gone most of the time.
        agent = world.agent(prefix, store=StoreOptions(heartbeat=10), labels={"c": "d"}).start()
        (first,) = manager.clients({"c": "d"})
        eventually(lambda: [each for each in manager.clients({"c": "d"}) if each.last_heartbeat > first.last_heartbeat])
        # It asks the server for a sign of life as often, within bounds: a leader that was killed says nothing.
        beats = (pulls.get(30).data.get("idle_heartbeat") for _ in range(5))
        assert next(filter(None, beats)) == 5_000_000_000
        agent.stop()


# Leaving --------------------------------------------------------------------------------------------------------------


def test_a_stop_finishes_what_runs_and_hands_back_what_waits(
    world: World, manager: CommandManager, prefix: str
) -> None:
    begun = threading.Event()
    release = threading.Event()
    agent = world.agent(prefix, workers=1)

    @agent.command("work")
    def work(number: int) -> str:
        begun.set()
        release.wait(20)
        return agent.instance

    agent.start()
    promises = [manager.send(prefix, "work", {"number": number}) for number in range(3)]
    assert begun.wait(30)
    stopper = threading.Thread(target=agent.stop)
    stopper.start()
    eventually(lambda: not agent._runner._waiting)  # type: ignore[union-attr]
    release.set()
    stopper.join(20)
    assert promises[0].result(30) == agent.instance
    successor = world.agent(prefix)
    successor.register("work", lambda number: successor.instance)
    successor.start()
    # Handed back, they come at once, and not when the server has waited for the first agent in vain.
    assert {promise.result(30) for promise in promises[1:]} == {successor.instance}
    assert [promise.command().attempt for promise in promises] == [1, 1, 1]


def test_a_stop_refused_on_the_loop_s_thread_changes_nothing(
    world: World, manager: CommandManager, prefix: str
) -> None:
    agent = world.agent(prefix)
    agent.register("one", lambda: 1)
    agent.start()
    error = error_on_loop(agent.client, agent.stop)
    assert isinstance(error, lightlink.ClosedError)
    assert "blocking method" in str(error)
    assert agent.stage.value == "running"
    assert manager.send(prefix, "one").result(30) == 1
    agent.stop()
    assert agent.stage.value == "stopped"


def test_what_comes_while_it_stops_is_handed_back_too(world: World, manager: CommandManager, prefix: str) -> None:
    begun = threading.Event()
    release = threading.Event()
    agent = world.agent(prefix, workers=1)

    @agent.command("work")
    def work() -> None:
        begun.set()
        release.wait(20)

    agent.start()
    for _ in range(2):
        manager.send(prefix, "work")
    assert begun.wait(30)
    runner = agent._runner
    assert runner is not None
    eventually(lambda: len(runner._waiting))
    late = runner._waiting.take()
    assert late is not None
    stop_pool = runner.pool.stop

    def stop(timeout: float) -> bool:
        release.set()
        stopped = stop_pool(timeout)
        runner._take([late])  # a round had it in hand
        return stopped

    runner.pool.stop = stop  # type: ignore[method-assign]
    agent.stop()
    assert len(runner._deliveries) == 0


def test_an_agent_that_may_not_hear_all_leaves_nothing_behind(
    world: World, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = world.client(name=prefix)
    agent = world.agent(prefix, target=client)
    agent.on_message(lambda _: None)
    subscribe = client._connection.subscribe

    def refuse(subject: str, *rest: Any) -> Any:
        if subject == "ll.broadcast":
            raise PermissionDenied("subscribe", subject)
        return subscribe(subject, *rest)

    monkeypatch.setattr(client._connection, "subscribe", refuse)
    with pytest.raises(PermissionDenied):
        agent.start()
    eventually(lambda: not [s for s in client._connection.session.nc._subs.values() if s.subject.startswith("ll.")])


@pytest.mark.parametrize("idempotent", [False, True])
def test_a_handler_that_does_not_end_in_time_is_told(
    world: World, manager: CommandManager, prefix: str, idempotent: bool
) -> None:
    agent = world.agent(prefix)
    begun = threading.Event()

    @agent.command("wait", idempotent=idempotent)
    def wait(context: CommandContext) -> str:
        begun.set()
        context.cancelled.wait(20)
        context.check()
        return "never"

    agent.start()
    promise = manager.send(prefix, "wait")
    assert begun.wait(30)
    agent.stop(timeout=0.2)
    if not idempotent:
        with pytest.raises(CommandFailed) as caught:
            promise.result(30)
        command = caught.value.command
        assert (command.status_detail, command.outcome_unknown) == ("interrupted", True)
        return
    assert promise.status == "executing"
    successor = world.agent(prefix)
    successor.register("wait", lambda: "again", idempotent=True)
    successor.start()
    assert promise.result(30) == "again"
    assert promise.command().attempt == 2


def test_a_stuck_handler_does_not_keep_the_agent_from_leaving(
    world: World, manager: CommandManager, prefix: str
) -> None:
    release = threading.Event()
    agent = world.agent(prefix)
    begun = threading.Event()

    @agent.command("stuck")
    def stuck() -> None:
        begun.set()
        release.wait(30)

    agent.start()
    promise = manager.send(prefix, "stuck")
    assert begun.wait(30)
    started = time.monotonic()
    agent.stop(timeout=0.2)
    assert time.monotonic() - started < 25  # its handler has 30 s
    assert repr(agent).endswith("stopped>")
    successor = world.agent(prefix)
    successor.register("stuck", lambda: None)
    successor.start()
    with pytest.raises(CommandFailed) as caught:
        promise.result(30)
    assert caught.value.command.status_detail == "interrupted"
    release.set()


def test_a_handler_may_stop_its_agent_and_is_answered(world: World, manager: CommandManager, prefix: str) -> None:
    agent = world.agent(prefix)
    ended = threading.Event()

    @agent.command("leave")
    def leave() -> str:
        agent.stop()
        return "bye"

    def run() -> None:
        agent.run()
        ended.set()

    threading.Thread(target=run, daemon=True).start()
    assert manager.send(prefix, "leave").result(30) == "bye"
    assert ended.wait(20)
    assert repr(agent).endswith("stopped>")
    assert [each for each in manager.clients() if each.client_id == prefix] == []


def test_a_message_handler_may_stop_its_agent(world: World, manager: CommandManager, prefix: str) -> None:
    agent = world.agent(prefix)
    agent.on_message(lambda _: agent.stop())
    agent.start()
    manager.message(prefix, "leave")
    eventually(lambda: repr(agent).endswith("stopped>"), timeout=30)


def test_sigterm_drains(world: World, manager: CommandManager, prefix: str, python: StartPython) -> None:
    code = """
        import sys
        from lightlink import Agent
        agent = Agent(sys.argv[2], sys.argv[1])

        @agent.command("work")
        def work() -> str:
            print("begun")
            input()
            return "done"

        print("up")
        agent.run()
        print("left")
    """
    process = python(code, world.url, prefix)
    process.wait_line("up")
    promise = manager.send(prefix, "work")
    process.wait_line("begun")
    process.signal(signal.SIGTERM)
    process.send_line()
    process.wait_line("left")
    assert process.wait().returncode == 0
    assert promise.result(30) == "done"


def test_a_signal_that_comes_with_the_first_command_drains_too(
    world: World, manager: CommandManager, prefix: str, python: StartPython
) -> None:
    code = """
        import os, signal, sys, threading
        from lightlink import Agent

        begun = threading.Event()

        class Slow(Agent):
            def start(self, timeout=None):
                super().start(timeout)
                begun.wait(20)  # the command is there before `run` waits for a signal

        agent = Slow(sys.argv[2], sys.argv[1])

        @agent.command("work")
        def work() -> str:
            os.kill(os.getpid(), signal.SIGTERM)
            begun.set()
            return "done"

        agent.run()
        print("left")
    """
    promise = manager.send(prefix, "work")
    process = python(code, world.url, prefix)
    assert process.wait().returncode == 0, process.stderr
    assert process.stdout == "left\n"
    assert promise.result(30) == "done"


def test_a_signal_ends_the_wait_for_the_client_id(world: World, prefix: str, python: StartPython) -> None:
    code = """
        import sys, threading
        from helpers.waiting import eventually
        from lightlink import Agent

        agent = Agent(sys.argv[2], sys.argv[1])

        def tell():
            eventually(lambda: agent.stage.name == "STARTING")
            print("starting")

        threading.Thread(target=tell).start()
        agent.run()
        print("left")
    """
    holder = world.agent(prefix).start()
    holder._runner._periodic[1].stop(1)  # type: ignore[union-attr]  # it falls silent
    process = python(code, world.url, prefix)
    process.wait_line("starting")
    process.signal(signal.SIGTERM)
    assert process.wait().returncode == 0, process.stderr
    assert process.stdout.endswith("left\n")


def test_closing_the_client_under_an_agent_ends_it(world: World, prefix: str) -> None:
    client = lightlink.connect(world.url)
    agent = world.agent(prefix, target=client)
    errors: list[BaseException] = []

    def run() -> None:
        try:
            agent.run()
        except ClosedError as exc:
            errors.append(exc)

    thread = threading.Thread(target=run)
    thread.start()
    eventually(lambda: repr(agent).endswith("running>"))
    client.close()
    thread.join(20)
    assert len(errors) == 1


def test_a_shared_client_outlives_its_agents(world: World, prefix: str) -> None:
    client = world.client(name=prefix)
    listeners = len(client._connection._listeners)
    agents = [world.agent(f"{prefix}-{number}", target=client) for number in range(5)]
    for agent in agents:
        agent.start()
    for agent in agents:
        agent.stop()
    assert client.status is lightlink.Status.CONNECTED
    assert len(client._connection._listeners) == listeners
    eventually(lambda: not [s for s in client._connection.session.nc._subs.values() if s.subject.startswith("ll.")])
    eventually(lambda: not [each for each in threading.enumerate() if f"lightlink-{prefix}-" in each.name])


# Mistakes -------------------------------------------------------------------------------------------------------------


def test_mistakes_are_told_at_once(world: World, prefix: str) -> None:
    with pytest.raises(InvalidName):
        world.agent("no.token")
    for options in (
        {"workers": 0},
        {"prefetch": 0},
        {"prefetch": 5000},
        {"executor": object()},
        {"labels": {"site": 1}},
        {"labels": {"": "x"}},
        {"labels": ["site"]},
        {"executor": PlainExecutor},
        {"executor": AsyncExecutor()},
        {"executor": NarrowExecutor()},
    ):
        with pytest.raises(InvalidOption):
            world.agent(prefix, **options)
    with world.client() as client, pytest.raises(InvalidOption):
        world.agent(prefix, target=client, name="other")
    agent = world.agent(prefix)
    with pytest.raises(InvalidOption):
        agent.command(repr)  # type: ignore[arg-type]
    agent.register("add", lambda: 2)
    for command_type, function in (("add", lambda: 2), ("", lambda: 2), ("print", print)):
        with pytest.raises(InvalidOption):
            agent.register(command_type, function)
    with pytest.raises(NotReady):
        _ = agent.client


def test_an_agent_lives_once(world: World, prefix: str) -> None:
    agent = world.agent(prefix).start()
    with pytest.raises(NotReady):
        agent.start()
    with pytest.raises(NotReady):
        agent.register("late", lambda: 2)
    agent.stop()
    agent.stop()
    with pytest.raises(ClosedError):
        agent.start()
    unborn = world.agent(prefix)
    unborn.stop()
    with pytest.raises(ClosedError):
        unborn.start()


def test_an_agent_that_cannot_start_leaves_nothing_behind(world: World, prefix: str) -> None:
    world.agent(prefix).start()
    rival = world.agent(prefix, name=f"rival-{prefix}")
    with pytest.raises(AgentInUse):
        rival.start()
    eventually(lambda: not [thread for thread in threading.enumerate() if f"rival-{prefix}" in thread.name])
    assert repr(rival).endswith("stopped>")


def test_a_stop_ends_the_wait_for_the_client_id(fast_server: EmbeddedServer, prefix: str) -> None:
    # A claim of a dead agent that lasts: presence written by nobody who lives.
    with World(fast_server.url, FAST) as world:
        first = world.agent(prefix).start()
        first._runner._periodic[1].stop(1)  # type: ignore[union-attr]  # it falls silent
        second = world.agent(prefix)
        errors: list[BaseException] = []

        def start() -> None:
            try:
                second.start()
            except ClosedError as exc:
                errors.append(exc)

        thread = threading.Thread(target=start)
        thread.start()
        eventually(lambda: repr(second).endswith("starting>"))
        second.stop()
        thread.join(10)
        assert not thread.is_alive()


@pytest.mark.parametrize(("fraction", "note"), [(1.5, ""), ("half", ""), (float("nan"), ""), (0.5, 5)])
def test_progress_must_be_a_fraction_and_a_note(
    world: World, manager: CommandManager, prefix: str, fraction: Any, note: Any
) -> None:
    agent = world.agent(prefix)

    @agent.command("work")
    def work(context: CommandContext) -> None:
        context.progress(fraction, note)

    agent.start()
    with pytest.raises(CommandFailed, match=r"InvalidOption: invalid (progress|note)"):
        manager.send(prefix, "work").result(30)


def test_the_agent_is_a_context_manager(world: World, manager: CommandManager, prefix: str) -> None:
    agent: Agent = world.agent(prefix)
    agent.register("add", lambda: 2)
    with agent as entered:
        assert entered is agent
        assert manager.send(prefix, "add").result(30) == 2
    assert repr(agent).endswith("stopped>")
