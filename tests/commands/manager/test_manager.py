"""Managers: sending, following, cancelling, and several of them side by side."""

from __future__ import annotations

import concurrent.futures
import json
import os
import threading
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from helpers.commands import World
from helpers.waiting import eventually

import lightlink
from lightlink.commands import Cancelled, CommandContext, StoreOptions
from lightlink.commands.manager import losses
from lightlink.errors import (
    AgentOffline,
    ClosedError,
    CommandCancelled,
    CommandEnded,
    CommandFailed,
    CommandNotFound,
    CommandTimeout,
    EncodeError,
    InvalidName,
    InvalidOption,
    PayloadTooLarge,
    StoreUnavailable,
)
from lightlink.protocol import subjects

if TYPE_CHECKING:
    from conftest import StartProxy, StartServer

    from lightlink.commands import Agent, CommandManager, CommandPromise


@pytest.fixture
def agent(world: World, prefix: str) -> Agent:
    """An agent that runs, with a command that adds and one that waits until it is cancelled."""
    agent = world.agent(prefix)

    @agent.command("add")
    def add(x: int, y: int = 1) -> int:
        return x + y

    @agent.command("wait")
    def wait(context: CommandContext) -> None:
        context.progress(0.5, "waiting")
        context.cancelled.wait(30)
        context.check()

    return agent.start()


def running(promise: CommandPromise) -> bool:
    return promise.status == "executing"


# Sending --------------------------------------------------------------------------------------------------------------


def test_a_command_brings_its_result_back(manager: CommandManager, agent: Agent) -> None:
    promise = manager.send(agent.client_id, "add", {"x": 1, "y": 2}, priority=3)
    assert promise.result(timeout=30) == 3
    command = promise.command()
    assert promise.done()
    assert (command.status, command.result, command.payload) == ("completed", 3, {"x": 1, "y": 2})
    assert (command.priority, command.attempt, command.instance) == (3, 1, agent.instance)
    assert command.issued_by == manager.name
    assert command.sent_at
    assert command.completed_at
    assert command.created_at <= command.sent_at <= command.completed_at
    assert manager.get(promise.command_id) == command


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("no.token", "add"), InvalidName),
        (("x" * 201, "add"), InvalidName),
        (("a", ""), InvalidOption),
        (("a", "add", object()), EncodeError),
        (("a", "add", "x" * 2_000_000), PayloadTooLarge),
    ],
)
def test_a_mistake_is_told_before_anything_is_sent(
    manager: CommandManager, arguments: tuple[Any, ...], error: type[Exception]
) -> None:
    before = manager.list(limit=1)
    with pytest.raises(error):
        manager.send(*arguments)
    with pytest.raises(error):
        manager.send_many([arguments[0]], *arguments[1:])
    assert manager.list(limit=1) == before


@pytest.mark.parametrize(
    "options",
    [
        {"timeout": 0},
        {"timeout": 1e9},
        {"timeout": "5"},
        {"priority": 0.5},
        {"priority": 10**9},
        {"idempotency_key": ""},
        {"idempotency_key": "\ud800"},
        {"issued_by": 5},
    ],
)
def test_a_setting_that_cannot_be_is_refused(manager: CommandManager, options: dict[str, Any]) -> None:
    with pytest.raises(InvalidOption):
        manager.send("a", "add", **options)


@pytest.mark.parametrize(("reason", "issued_by"), [(None, None), (5, None), ("\ud800", None), ("x", 5)])
def test_a_cancel_that_nobody_could_read_is_refused(
    manager: CommandManager, agent: Agent, reason: Any, issued_by: Any
) -> None:
    promise = manager.send(agent.client_id, "wait")
    eventually(lambda: running(promise))
    with pytest.raises(InvalidOption):
        manager.cancel(promise.command_id, reason, issued_by=issued_by)
    assert manager.get(promise.command_id).status == "executing"
    manager.cancel(promise.command_id)
    with pytest.raises(CommandCancelled):
        promise.result(30)


def test_how_the_streams_are_made_is_said_by_store_options(world: World, prefix: str) -> None:
    with pytest.raises(InvalidOption, match="store"):
        lightlink.CommandManager(world.client(), store={"replicas": 3})  # type: ignore[arg-type]
    with pytest.raises(InvalidOption, match="store"):
        lightlink.Agent(prefix, world.client(), store=3).start()  # type: ignore[arg-type]


def test_a_manager_needs_a_client_and_a_name(world: World) -> None:
    for client, options in ((world.url, {}), (None, {}), (world.client(), {"name": 5}), (world.client(), {"name": ""})):
        with pytest.raises(InvalidOption):
            lightlink.CommandManager(client, **options)  # type: ignore[arg-type]


def test_a_client_that_is_not_there_can_be_refused(manager: CommandManager, agent: Agent, prefix: str) -> None:
    with pytest.raises(AgentOffline):
        manager.send(f"{prefix}-nobody", "add", queue=False)
    assert manager.list(f"{prefix}-nobody") == []
    assert manager.send(agent.client_id, "add", {"x": 1}, queue=False).result(30) == 2


def test_an_idempotency_key_brings_the_first_command_back(world: World, manager: CommandManager, agent: Agent) -> None:
    first = manager.send(agent.client_id, "add", {"x": 1}, idempotency_key=agent.client_id)
    assert first.result(30) == 2
    again = manager.send(agent.client_id, "add", {"x": 5}, idempotency_key=agent.client_id)
    assert again.command_id == first.command_id
    assert again.result(30) == 2
    assert again.command().payload == {"x": 1}
    # Another caller's key is another key.
    other = world.manager("other")
    assert other.send(agent.client_id, "add", {"x": 5}, idempotency_key=agent.client_id).result(30) == 6


def test_an_idempotency_key_under_way_shares_its_promise(manager: CommandManager, agent: Agent) -> None:
    first = manager.send(agent.client_id, "wait", idempotency_key=agent.client_id)
    eventually(lambda: running(first))
    second = manager.send(agent.client_id, "wait", idempotency_key=agent.client_id)
    manager.cancel(first.command_id)
    for promise in (first, second):
        with pytest.raises(CommandCancelled):
            promise.result(30)


def test_an_idempotency_key_stands_for_one_command_only(manager: CommandManager, agent: Agent) -> None:
    manager.send(agent.client_id, "add", {"x": 1}, idempotency_key=agent.client_id)
    with pytest.raises(InvalidOption, match="was used for the command 'add'"):
        manager.send(agent.client_id, "wait", idempotency_key=agent.client_id)
    with pytest.raises(InvalidOption, match="was used for the command 'add'"):
        manager.send(f"{agent.client_id}-other", "add", idempotency_key=agent.client_id)


def test_a_key_sent_by_many_at_once_runs_once(world: World, prefix: str) -> None:
    runs = []
    agent = world.agent(prefix)
    agent.register("note", lambda: runs.append(1))
    agent.start()
    managers = [world.manager("same") for _ in range(4)]
    results: list[str] = []

    def send(manager: CommandManager) -> None:
        promise = manager.send(prefix, "note", idempotency_key=prefix)
        promise.result(30)
        results.append(promise.command_id)

    threads = [threading.Thread(target=send, args=(manager,)) for manager in managers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4
    assert len(set(results)) == 1
    assert len(runs) == 1


# Failing --------------------------------------------------------------------------------------------------------------


def test_a_payload_that_does_not_fit_is_rejected_with_the_reason(manager: CommandManager, agent: Agent) -> None:
    with pytest.raises(CommandFailed, match="argument 'x'") as caught:
        manager.send(agent.client_id, "add", {"x": "one"}).result(30)
    command = caught.value.command
    assert (command.status, command.status_detail, command.attempt) == ("failed", "rejected", 0)


def test_a_type_nobody_knows_is_rejected(manager: CommandManager, agent: Agent) -> None:
    with pytest.raises(CommandFailed, match="unknown command type 'fly'"):
        manager.send(agent.client_id, "fly").result(30)


def test_a_wait_that_is_too_short_says_so_and_leaves_the_command(manager: CommandManager, agent: Agent) -> None:
    promise = manager.send(agent.client_id, "wait")
    with pytest.raises(CommandTimeout) as caught:
        promise.result(timeout=0.05)
    assert caught.value.waited == 0.05
    assert not promise.done()
    assert promise.wait(0.01) is None
    manager.cancel(promise.command_id)


def test_a_wait_takes_seconds(manager: CommandManager, prefix: str) -> None:
    with pytest.raises(InvalidOption):
        manager.send(prefix, "add", timeout=1).result("soon")  # type: ignore[arg-type]


def test_what_nobody_takes_ends_as_delivery_timeout(manager: CommandManager, prefix: str) -> None:
    promise = manager.send(prefix, "add", timeout=0.1)
    with pytest.raises(CommandTimeout) as caught:
        promise.result(timeout=30)
    assert caught.value.waited is None
    assert caught.value.command.status_detail == "delivery_timeout"
    (_, end) = eventually(lambda: entries if len(entries := list(manager.audit(promise.command_id))) == 2 else None)
    assert (end.status, end.by) == ("timeout", manager.name)


# Looking --------------------------------------------------------------------------------------------------------------


def test_a_command_nobody_sent_is_not_found(manager: CommandManager) -> None:
    for look in (manager.get, manager.cancel, manager.promise):
        with pytest.raises(CommandNotFound):
            look("nonesuch")
        for no_id in ("no.token", None, 5, ["nonesuch"]):
            with pytest.raises(InvalidName):
                look(no_id)  # type: ignore[arg-type]


def test_another_manager_finds_and_follows_a_command(world: World, manager: CommandManager, agent: Agent) -> None:
    promise = manager.send(agent.client_id, "wait")
    eventually(lambda: running(promise))
    other = world.manager("other")
    followed = other.promise(promise.command_id)
    assert followed.command().status == "executing"
    other.cancel(promise.command_id, "enough")
    for each in (promise, followed):
        with pytest.raises(CommandCancelled):
            each.result(30)
    assert other.promise(promise.command_id).wait(0) is not None


def test_progress_arrives_in_order(world: World, manager: CommandManager, prefix: str) -> None:
    agent = world.agent(prefix)
    go = threading.Semaphore(0)

    @agent.command("count")
    def count(context: CommandContext) -> None:
        for step in range(1, 101):
            if step % 20 == 0:
                assert go.acquire(timeout=30)
            context.progress(step / 100, f"step {step}")

    agent.start()
    promise = manager.send(prefix, "count")
    for step in (19, 39, 59, 79, 99):
        eventually(lambda: (seen := promise.command().progress) and seen.note == f"step {step}")  # noqa: B023
        go.release()
    promise.result(30)
    progress = promise.command().progress
    assert progress
    assert progress.fraction == 1.0


def test_clients_tells_who_is_online(world: World, manager: CommandManager, prefix: str) -> None:
    agents = [world.agent(f"{prefix}-{site}", labels={"site": site, "test": prefix}) for site in ("berlin", "paris")]
    for agent in agents:
        agent.start()
    found = manager.clients({"test": prefix})
    assert [presence.client_id for presence in found] == [f"{prefix}-berlin", f"{prefix}-paris"]
    assert found[0].instance == agents[0].instance
    assert found[0].remote_addr == "127.0.0.1"
    assert [each.client_id for each in manager.clients({"test": prefix, "site": "paris"})] == [f"{prefix}-paris"]
    agents[0].stop()
    assert [each.client_id for each in manager.clients({"test": prefix})] == [f"{prefix}-paris"]
    with pytest.raises(InvalidOption):
        manager.clients({"site": 1})  # type: ignore[dict-item]


# Cancelling -----------------------------------------------------------------------------------------------------------


def test_a_pending_command_is_cancelled_for_good(world: World, manager: CommandManager, prefix: str) -> None:
    promise = manager.send(prefix, "add", {"x": 1})
    command = manager.cancel(promise.command_id, "not needed", issued_by="ops")
    assert (command.status, command.status_detail) == ("failed", "cancelled")
    with pytest.raises(CommandCancelled, match="not needed"):
        promise.result(30)
    runs: list[int] = []
    agent = world.agent(prefix)
    agent.register("add", runs.append)
    agent.register("last", lambda: None)
    agent.start()
    manager.send(prefix, "last").result(30)
    assert runs == []
    cancelled = eventually(
        lambda: [each for each in manager.audit(promise.command_id) if each.status_detail == "cancelled"]
    )
    assert [entry.by for entry in cancelled] == ["ops"]


def test_a_running_command_is_told_and_ends_as_cancelled(manager: CommandManager, agent: Agent) -> None:
    promise = manager.send(agent.client_id, "wait")
    eventually(lambda: running(promise))
    assert manager.cancel(promise.command_id, "stop").cancel_requested
    with pytest.raises(CommandCancelled) as caught:
        promise.result(30)
    assert not caught.value.command.outcome_unknown
    assert caught.value.command.error == "cancelled: stop"
    with pytest.raises(CommandEnded):
        manager.cancel(promise.command_id)


def test_a_handler_may_finish_in_spite_of_a_cancel(world: World, manager: CommandManager, prefix: str) -> None:
    agent = world.agent(prefix)
    may_end = threading.Event()

    @agent.command("stubborn")
    def stubborn(context: CommandContext) -> str:
        context.cancelled.wait(20)
        may_end.wait(20)
        return "done"

    agent.start()
    promise = manager.send(prefix, "stubborn")
    eventually(lambda: running(promise))
    manager.cancel(promise.command_id)
    assert manager.cancel(promise.command_id).cancel_requested  # once more changes nothing
    may_end.set()
    assert promise.result(30) == "done"
    assert promise.command().cancel_requested


def test_a_cancel_is_heard_even_when_it_comes_at_once(world: World, manager: CommandManager, prefix: str) -> None:
    agent = world.agent(prefix)
    heard = []

    @agent.command("wait")
    def wait(context: CommandContext) -> None:
        heard.append(context.cancelled.wait(20))
        raise Cancelled

    agent.start()
    for _ in range(30):
        promise = manager.send(prefix, "wait")
        eventually(lambda: promise.status != "pending", interval=0.0001)  # noqa: B023
        manager.cancel(promise.command_id)
        with pytest.raises(CommandCancelled):
            promise.result(30)
    assert all(heard)


def test_a_cancel_is_heard_however_its_json_is_spaced(world: World, manager: CommandManager, prefix: str) -> None:
    agent = world.agent(prefix)

    @agent.command("wait")
    def wait(context: CommandContext) -> bool:
        return context.cancelled.wait(20)

    agent.start()
    promise = manager.send(prefix, "wait")
    eventually(lambda: promise.status == "executing")
    status, revision = promise.last
    cancelled = json.loads(msgspec.json.encode(status)) | {"cancel_requested": True}
    subject = subjects.command_status(prefix, promise.command_id)
    headers = {"Nats-Expected-Last-Subject-Sequence": str(revision)}
    manager._store.put(subjects.STATUS_STREAM, subject, json.dumps(cancelled, indent=1).encode(), headers, "cancelling")
    assert promise.result(30) is True


# Callbacks ------------------------------------------------------------------------------------------------------------


def test_a_callback_may_send_and_wait(manager: CommandManager, agent: Agent) -> None:
    results: list[Any] = []
    finished = threading.Event()

    def go_on(promise: CommandPromise) -> None:
        results.append(manager.send(agent.client_id, "add", {"x": promise.result()}).result(30))
        batch = manager.send_many([agent.client_id], "add", {"x": 1}, repeat=2000)
        assert batch.wait(30)
        results.append(batch.counts()["completed"])
        finished.set()

    manager.send(agent.client_id, "add", {"x": 1}).add_done_callback(go_on)
    assert finished.wait(40)
    assert results == [3, 2000]


def test_a_callback_on_what_has_ended_is_called_at_once(manager: CommandManager, agent: Agent) -> None:
    promise = manager.send(agent.client_id, "add", {"x": 1})
    promise.result(30)
    called: list[CommandPromise] = []
    promise.add_done_callback(called.append)
    assert called == [promise]


def test_a_callback_that_fails_is_logged_however_early_the_end(
    manager: CommandManager, agent: Agent, caplog: pytest.LogCaptureFixture
) -> None:
    after = threading.Event()

    def fail(_: CommandPromise) -> None:
        raise RuntimeError("of the callback")

    promise = manager.send(agent.client_id, "wait")
    promise.add_done_callback(fail)
    promise.add_done_callback(lambda _: after.set())
    manager.cancel(promise.command_id)
    assert after.wait(30)
    promise.add_done_callback(fail)
    assert [str(record.exc_info[1]) for record in caplog.records if record.exc_info] == ["of the callback"] * 2


# Lifetime -------------------------------------------------------------------------------------------------------------


def test_closing_ends_every_wait(world: World, prefix: str) -> None:
    manager = world.manager()
    promise = manager.send(prefix, "add")
    with concurrent.futures.ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(promise.result)
        manager.close()
        assert isinstance(waiting.exception(30), ClosedError)
    with pytest.raises(ClosedError):
        promise.result(0)
    for call in (lambda: manager.send(prefix, "add"), lambda: manager.get("x"), manager.list, manager.clients):
        with pytest.raises(ClosedError):
            call()
    manager.close()


def test_closing_the_client_under_a_manager_ends_every_wait(url: str, prefix: str) -> None:
    client = lightlink.connect(url)
    manager = lightlink.CommandManager(client)
    promise = manager.send(prefix, "add")
    client.close()
    with pytest.raises(StoreUnavailable):
        promise.result(30)
    with pytest.raises(ClosedError):
        manager.send(prefix, "add")
    manager.close()


def test_a_closed_manager_leaves_nothing_behind(url: str, prefix: str) -> None:
    with lightlink.connect(url, name=prefix) as client:
        before = {thread.name for thread in threading.enumerate() if prefix in thread.name}
        listeners = len(client._connection._listeners)
        for _ in range(3):
            with lightlink.CommandManager(client, sweep_interval=0.05) as manager:
                manager.send(prefix, "add", timeout=0.1)
                manager.broadcast("hello", timeout=0.1)
        eventually(lambda: {thread.name for thread in threading.enumerate() if prefix in thread.name} <= before)
        assert len(client._connection._listeners) == listeners
        subscriptions = client._connection.session.nc._subs
        assert not [each.subject for each in subscriptions.values() if each.subject.startswith("ll.")]


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_child_is_told_to_make_its_own_manager(manager: CommandManager, agent: Agent) -> None:
    promise = manager.send(agent.client_id, "wait")
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            refused = 0
            try:
                promise.result()
            except ClosedError:
                refused += 1
            agent.stop()  # the parent's
            result = manager.send(agent.client_id, "add", {"x": 1}).result(30)
            online = [each.client_id for each in manager.clients()]
            manager.close()
            code = 0 if (refused, result, agent.client_id in online) == (1, 2, True) else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    manager.cancel(promise.command_id)
    with pytest.raises(CommandCancelled):
        promise.result(30)


# Outages --------------------------------------------------------------------------------------------------------------


def test_while_disconnected_nothing_is_sent_later(
    world: World, proxy: StartProxy, manager: CommandManager, prefix: str
) -> None:
    link = proxy()
    with (
        lightlink.connect(link.url, timeout=2.0) as client,
        lightlink.CommandManager(client, sweep_interval=None) as remote,
    ):
        link.refuse()
        link.cut()
        eventually(lambda: client.status is not lightlink.Status.CONNECTED)
        with pytest.raises(StoreUnavailable) as caught:
            remote.send(prefix, "add")
        assert not caught.value.unknown
        link.accept()
        assert client.wait_connected(30)
        client.flush(30)  # whatever it had kept back is there before this
        manager.send(prefix, "marker")
        assert [command.command_type for command in manager.list(prefix)] == ["marker"]


@pytest.mark.parametrize("more_follows", [False, True])
def test_an_end_that_was_lost_on_its_way_is_noticed(
    url: str, prefix: str, more_follows: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What is lost at the end is noticed by asking now and then, what is lost before at once.
    monkeypatch.setattr(losses, "_ASK_SECONDS", 600.0 if more_follows else 0.1)
    with World(url) as world:
        manager = world.manager(sweep_interval=None)
        follower, connection = manager._follower, manager._connection
        promise = manager.send(prefix, "add", timeout=600)
        ticks: list[bool] = []
        found = follower._losses.found
        monkeypatch.setattr(follower._losses, "found", lambda: ticks.append(found()) or ticks[-1])
        eventually(lambda: len(ticks) > 3)  # what it did not hear before it began is dealt with
        follower._checks = []
        connection.session.unroute(follower._routes[0], 5)
        world.manager("other", sweep_interval=None).cancel(promise.command_id)
        assert not promise.done()
        follower._routes[0] = connection.subscribe(subjects.command_status_event("*", "*"), "", follower._on_status)
        if more_follows:
            manager.cancel(manager.send(prefix, "add").command_id)
        with pytest.raises(CommandCancelled):
            promise.result(30)


def has_consumer(manager: CommandManager, client_id: str) -> bool:
    try:
        return manager._store.consumer_ack_wait(client_id) > 0
    except StoreUnavailable:
        return False


def test_streams_that_a_server_has_forgotten_are_made_again(fresh_server: StartServer, prefix: str) -> None:
    server = fresh_server()
    with World(server.url, StoreOptions(storage="memory")) as world:
        manager = world.manager(sweep_interval=None)
        manager.send(prefix, "add")
        server.kill()
        eventually(lambda: manager._connection.status is not lightlink.Status.CONNECTED)
        server.start()
        world.client().wait_connected(30)
        manager._client.wait_connected(30)
        promise = manager.send(prefix, "add", timeout=600)
        # Nobody but the manager makes its consumer.
        assert eventually(lambda: has_consumer(manager, prefix))
        assert manager.get(promise.command_id).status == "pending"


def test_an_end_that_came_during_an_outage_is_heard_after_it(
    world: World, proxy: StartProxy, manager: CommandManager, agent: Agent
) -> None:
    link = proxy()
    with lightlink.connect(link.url) as client, lightlink.CommandManager(client, sweep_interval=None) as remote:
        promise = remote.send(agent.client_id, "wait")
        eventually(lambda: running(promise))
        link.refuse()
        link.cut()
        manager.cancel(promise.command_id)
        eventually(lambda: manager.get(promise.command_id).ended)
        assert not promise.done()
        link.accept()
        with pytest.raises(CommandCancelled):
            promise.result(20)
