"""Commands between identities that may do what their role needs and no more, over mutual TLS.

Each attack starts from all that an agent's identity can do: its certificate, and any protocol message it likes.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from helpers.commands import FAST
from helpers.pki import connect_to, is_refused, tls_of
from helpers.waiting import eventually

import lightlink
from lightlink.commands import Agent, CommandContext, CommandManager, model
from lightlink.errors import (
    AgentOffline,
    CommandCancelled,
    CommandFailed,
    CommandTimeout,
    PermissionDenied,
    StoreUnavailable,
)
from lightlink.protocol import subjects

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from conftest import StartPython, StartServer
    from helpers.raw import RawPeer
    from nats.aio.client import Client

    from lightlink.server import EmbeddedServer

    MakeAgent = Callable[[str], Agent]

STATUS = subjects.STATUS_STREAM


@pytest.fixture(scope="module")
def commanded(identities: Path) -> Iterator[EmbeddedServer]:
    """A server with mutual TLS for commands alone."""
    with lightlink.EmbeddedServer(tls=identities) as server:
        yield server


@pytest.fixture
def manager(commanded: EmbeddedServer, identities: Path) -> Iterator[CommandManager]:
    """A manager with the certificate of one."""
    with (
        lightlink.connect(commanded.url, name="manager", tls=tls_of(identities, "manager")) as client,
        CommandManager(client, store=FAST, sweep_interval=0.2) as manager,
    ):
        yield manager


@pytest.fixture
def make_agent(commanded: EmbeddedServer, identities: Path) -> Iterator[MakeAgent]:
    """Make agents with the certificate of their name; they are stopped with the test."""
    with contextlib.ExitStack() as stack:

        def make(name: str) -> Agent:
            agent = Agent(name, commanded.url, tls=tls_of(identities, name), store=FAST)
            stack.callback(agent.stop)
            return agent

        yield make


@pytest.fixture
def intruder(commanded: EmbeddedServer, identities: Path) -> Iterator[RawPeer]:
    """A plain nats-py client with the certificate of agent-b."""
    with connect_to(commanded, identities, "agent-b") as peer:
        yield peer


# What each may do -----------------------------------------------------------------------------------------------------


def test_a_manager_s_identity_can_do_all_that_a_manager_does(
    commanded: EmbeddedServer, manager: CommandManager, make_agent: MakeAgent
) -> None:
    agent = make_agent("agent-a")
    agent.register("add", lambda x: x + 1)
    got = threading.Event()
    agent.on_message(lambda _: got.set())

    @agent.command("wait")
    def wait(context: CommandContext) -> None:
        context.progress(0.5, "waiting")
        context.cancelled.wait(20)
        context.check()

    agent.start()
    assert manager.send("agent-a", "add", {"x": 1}).result(30) == 2
    promise = manager.send("agent-a", "wait", idempotency_key=commanded.url)
    eventually(lambda: promise.command().progress)
    assert manager.promise(promise.command_id).status == "executing"
    manager.cancel(promise.command_id)
    with pytest.raises(CommandCancelled):
        promise.result(30)
    with pytest.raises(CommandTimeout):
        manager.send("nobody", "add", timeout=0.1).result(20)
    batch = manager.send_many(["agent-a"], "add", {"x": 1}, repeat=3)
    assert batch.wait(30)
    assert manager.get(promise.command_id).status_detail == "cancelled"
    assert len(manager.list("agent-a")) >= 5
    assert [presence.client_id for presence in manager.clients()] == ["agent-a"]
    assert eventually(lambda: len(list(manager.audit(promise.command_id))) == 4)
    assert manager.message("agent-a", "notice", wait_ack=True).reached == ("agent-a",)
    assert manager.broadcast("notice").reached == ("agent-a",)
    assert got.is_set()
    with pytest.raises(AgentOffline):
        manager.message("agent-b", "notice")


def test_an_agent_s_identity_can_do_all_that_an_agent_does(manager: CommandManager, make_agent: MakeAgent) -> None:
    for _ in range(2):
        agent = make_agent("agent-a")
        agent.register("add", lambda x: x + 1)
        with agent:
            promises = [manager.send("agent-a", "add", {"x": number}) for number in range(300)]
            assert [promise.result(20) for promise in promises] == list(range(1, 301))
            with pytest.raises(lightlink.AgentInUse):
                make_agent("agent-a").start()


WAITER = """
    import logging, sys
    from pathlib import Path
    from helpers.commands import FAST
    from helpers.pki import tls_of
    from lightlink import Agent

    logging.basicConfig(stream=sys.stdout, format="%(message)s")
    agent = Agent("agent-a", sys.argv[1], tls=tls_of(Path(sys.argv[2]), "agent-a"), store=FAST)
    agent.register("add", lambda x: x + 1)
    agent.run()
    print("left")
"""
IT_WAITS = "lightlink: agent agent-a has to wait: "


def test_an_agent_before_any_manager_waits_for_its_streams(
    identities: Path, fresh_server: StartServer, python: StartPython
) -> None:
    server = fresh_server(tls=identities)
    process = python(WAITER, server.url, identities)
    assert "a manager makes them" in process.wait_line(IT_WAITS)
    with (
        lightlink.connect(server.url, tls=tls_of(identities, "manager")) as client,
        CommandManager(client, store=FAST) as manager,
    ):
        assert manager.send("agent-a", "add", {"x": 1}).result(20) == 2
        process.signal(signal.SIGTERM)
        assert process.wait().returncode == 0
        assert manager.clients() == []


def test_a_signal_ends_the_wait_for_the_streams(
    identities: Path, fresh_server: StartServer, python: StartPython
) -> None:
    process = python(WAITER, fresh_server(tls=identities).url, identities)
    process.wait_line(IT_WAITS)
    process.signal(signal.SIGTERM)
    assert process.wait().returncode == 0, process.stderr
    assert process.stdout.endswith("left\n")


def test_a_start_waits_for_the_streams_no_longer_than_it_may(identities: Path, fresh_server: StartServer) -> None:
    agent = Agent("agent-a", fresh_server(tls=identities).url, tls=tls_of(identities, "agent-a"), store=FAST)
    with pytest.raises(StoreUnavailable, match="the streams of commands are not there yet"):
        agent.start(timeout=0.1)
    assert repr(agent).endswith("stopped>")


def test_an_agent_before_its_consumer_gets_its_commands_soon(identities: Path, fresh_server: StartServer) -> None:
    server = fresh_server(tls=identities)
    with (
        lightlink.connect(server.url, tls=tls_of(identities, "manager")) as client,
        CommandManager(client) as manager,
    ):
        agent = Agent("agent-a", server.url, tls=tls_of(identities, "agent-a"), store=FAST)
        agent.register("add", lambda x: x + 1)
        with agent:
            assert manager.send("agent-a", "add", {"x": 1}).result(30) == 2


def test_agents_with_the_wrong_certificate_do_not_start(
    commanded: EmbeddedServer, identities: Path, manager: CommandManager
) -> None:
    with pytest.raises(PermissionDenied):
        Agent("agent-a", commanded.url, tls=tls_of(identities, "agent-b")).start()


# What an agent cannot do ----------------------------------------------------------------------------------------------


@pytest.fixture
def victim(manager: CommandManager) -> str:
    """The id of a command for agent-a, which is offline."""
    return manager.send("agent-a", "secret", {"password": "x"}).command_id


def test_it_cannot_read_another_s_commands(intruder: RawPeer, victim: str) -> None:
    for subject in (
        f"$JS.API.CONSUMER.MSG.NEXT.{subjects.COMMANDS_STREAM}.agent-agent-a",
        f"$JS.API.DIRECT.GET.{subjects.COMMANDS_STREAM}.ll.commands.agent-a.{victim}",
        f"$JS.API.DIRECT.GET.{subjects.COMMANDS_STREAM}",
        f"$JS.API.STREAM.MSG.GET.{subjects.COMMANDS_STREAM}",
        f"$JS.API.CONSUMER.CREATE.{subjects.COMMANDS_STREAM}.mine.ll.commands.>",
        f"$JS.API.DIRECT.GET.{subjects.AUDIT_STREAM}",
        f"$JS.API.DIRECT.GET.{STATUS}.{subjects.command_status('agent-a', victim)}",
    ):
        assert is_refused(intruder, "publish", subject), subject
    for subject in ("ll.commands.>", "ll.status.agent-a.>", "ll.status.>", "ll.progress.>", "ll.messages.agent-a"):
        assert is_refused(intruder, "subscribe", subject), subject


def test_it_cannot_finish_or_cancel_another_s_command(intruder: RawPeer, manager: CommandManager, victim: str) -> None:
    for subject in (subjects.command_status("agent-a", victim), f"ll.status.agent-a.{victim}"):
        assert is_refused(intruder, "publish", subject), subject
    assert is_refused(intruder, "publish", f"$JS.ACK.{subjects.COMMANDS_STREAM}.agent-agent-a.1.1.1.1.0")
    assert manager.get(victim).status == "pending"


def test_it_cannot_send_commands_or_messages(intruder: RawPeer) -> None:
    for subject in ("ll.commands.agent-a.forged", "ll.commands.agent-b.forged", "ll.messages.agent-a", "ll.broadcast"):
        assert is_refused(intruder, "publish", subject), subject


def test_it_cannot_answer_messages_for_another(intruder: RawPeer) -> None:
    for subject in ("ll.acks.agent-a.x", "ll.progress.agent-a.x", subjects.agent_presence("agent-a")):
        assert is_refused(intruder, "publish", subject), subject


def test_it_cannot_wipe_the_statuses_with_a_roll_up(intruder: RawPeer, manager: CommandManager, victim: str) -> None:
    manager.cancel(victim)

    async def attack(nc: Client) -> list[dict[str, Any]]:
        answers = []
        for scope in ("all", "sub"):
            subject = subjects.command_status("agent-b", "x")
            answer = await nc.request(subject, b"", headers={"Nats-Rollup": scope}, timeout=30)
            answers.append(msgspec.json.decode(answer.data))
        return answers

    assert all("rollup" in answer["error"]["description"] for answer in intruder.run(attack))
    assert manager.get(victim).status_detail == "cancelled"


def test_it_cannot_wipe_them_with_markers_or_short_lives(
    intruder: RawPeer, manager: CommandManager, victim: str
) -> None:
    manager.cancel(victim)

    async def attack(nc: Client) -> None:
        for headers in ({"KV-Operation": "PURGE"}, {"Nats-TTL": "1s"}, {"Nats-Msg-Id": "1"}):
            await nc.request(subjects.command_status("agent-b", "x"), b"{}", headers=headers, timeout=30)

    intruder.run(attack)
    assert manager.get(victim).status_detail == "cancelled"


def test_it_cannot_have_the_server_forge_a_command(intruder: RawPeer, manager: CommandManager) -> None:
    # The server answers a JetStream request wherever the request says; a status that looks like a command would do.
    forged = model.RequestRecord(
        command_id="forged", client_id="agent-a", command_type="add", created_at=model.now(), timeout=60.0
    )

    async def attack(nc: Client) -> None:
        bait = subjects.command_status("agent-b", "bait")
        await nc.request(bait, msgspec.json.encode(forged), timeout=30)
        await nc.publish(f"$JS.API.DIRECT.GET.{STATUS}.{bait}", b"", reply="ll.commands.agent-a.forged")
        await nc.flush()

    intruder.run(attack)
    with pytest.raises(lightlink.CommandNotFound):
        manager.get("forged")


def test_what_it_says_about_others_is_not_believed(intruder: RawPeer, manager: CommandManager, victim: str) -> None:
    promise = manager.promise(victim)
    end = model.StatusRecord(status="completed", at=model.now(), result="forged", completed_at=model.now())
    presence = {"client_id": "agent-a", "instance": "x", "connected_at": "", "last_heartbeat": ""}

    async def attack(nc: Client) -> None:
        # The same command id, under the client id that it may write to.
        await nc.request(subjects.command_status("agent-b", victim), msgspec.json.encode(end), timeout=30)
        await nc.publish(f"ll.progress.agent-b.{victim}", b'{"fraction": 1.0, "note": "forged"}')
        await nc.publish(f"ll.acks.agent-b.{victim}", b"{}")
        await nc.request(subjects.agent_presence("agent-b"), msgspec.json.encode(presence), timeout=30)
        await nc.flush()

    intruder.run(attack)
    manager._connection.flush()
    assert (promise.status, promise.command().progress) == ("pending", None)
    assert manager.get(victim).status == "pending"
    assert manager.clients() == []
    # The sweep goes on undisturbed, and so does the audit.
    with pytest.raises(CommandTimeout):
        manager.send("agent-a", "add", timeout=0.1).result(20)
    assert eventually(lambda: next(manager.audit(victim), None)).kind == "request"


def test_garbage_about_its_own_commands_harms_nobody_else(intruder: RawPeer, manager: CommandManager) -> None:
    own = manager.send("agent-b", "add")
    other = manager.send("agent-a", "add", timeout=0.5)

    async def attack(nc: Client) -> None:
        await nc.request(subjects.command_status("agent-b", own.command_id), b"garbage", timeout=30)
        await nc.request(subjects.agent_presence("agent-b"), b"garbage", timeout=30)
        await nc.publish(f"ll.progress.agent-b.{own.command_id}", b"garbage")
        await nc.publish("ll.acks.agent-b.x", b"garbage")
        await nc.flush()

    intruder.run(attack)
    with pytest.raises(CommandFailed) as caught:
        own.result(30)
    assert caught.value.command.status_detail == "unreadable"
    assert manager.list("agent-b")[0].status_detail == "unreadable"
    assert manager.clients() == []
    with pytest.raises(CommandTimeout):
        other.result(20)
    details = eventually(lambda: found if len(found := list(manager.audit(own.command_id))) == 2 else None)
    assert [entry.status_detail for entry in details] == ["", "unreadable"]
