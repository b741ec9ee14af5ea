"""Whole subjects count: an agent that adds tokens to its own speaks for nobody else."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING

import pytest
from helpers.waiting import eventually

from lightlink.commands import CommandContext, model
from lightlink.errors import DecodeError
from lightlink.protocol import subjects

if TYPE_CHECKING:
    from helpers.commands import World
    from helpers.raw import RawPeer
    from nats.aio.msg import Msg

    from lightlink.commands import CommandManager

END = json.dumps({"status": "completed", "at": "2026-01-01T00:00:00Z", "by": "a1", "result": "forged"}).encode()


def test_a_longer_subject_settles_nobody_elses_promise(
    world: World, manager: CommandManager, peer: RawPeer, prefix: str
) -> None:
    agent = world.agent(prefix)
    may_end = threading.Event()

    @agent.command("work")
    def work(context: CommandContext) -> str:
        may_end.wait(30)
        return "done"

    agent.start()
    promise = manager.send(prefix, "work")
    eventually(lambda: promise.command().status == "executing")
    for start in (f"ll.status.a1.{prefix}", f"ll.status.a1.x.{prefix}", f"ll.status.x.ll.status.{prefix}"):
        peer.run(peer.nc.publish(f"{start}.{promise.command_id}", END))
        peer.run(peer.nc.publish(f"ll.progress{start[9:]}.{promise.command_id}", b'{"fraction": 0.9}'))
    peer.run(peer.nc.flush())
    manager._connection.flush()
    assert promise.wait(0) is None
    assert promise.command().progress is None
    may_end.set()
    assert promise.result(30) == "done"


def test_a_broadcast_counts_answers_by_their_whole_subject(manager: CommandManager, peer: RawPeer, prefix: str) -> None:
    now = model.now().isoformat()
    victim = {"client_id": prefix, "instance": "x", "connected_at": now, "last_heartbeat": now}
    peer.run(peer.nc.jetstream().publish(subjects.agent_presence(prefix), json.dumps(victim).encode()))

    async def forge(message: Msg) -> None:
        token = json.loads(message.data)["msg_id"]
        await peer.nc.publish(f"ll.acks.a1.{prefix}.{token}", b"{}")
        await peer.nc.publish(f"ll.acks.a1.{token}", b"{}")

    peer.run(peer.nc.subscribe("ll.broadcast", cb=forge))
    peer.run(peer.nc.flush())
    receipt = manager.broadcast("notice", timeout=1.0)
    assert "a1" in receipt.reached
    assert prefix not in receipt.reached


@pytest.mark.parametrize(
    "subject",
    [
        "$KV.lightlink_command_status.a1.victim.x",
        "$KV.lightlink_command_status.a1",
        "$KV.lightlink_agents.a1.x",
        "ll.commands.a1.b.c",
    ],
)
def test_streams_take_exactly_the_tokens_they_need(manager: CommandManager, peer: RawPeer, subject: str) -> None:
    from nats.js.errors import NoStreamResponseError

    with pytest.raises(NoStreamResponseError):
        peer.run(peer.nc.jetstream().publish(subject, b"{}"))


@pytest.mark.parametrize(
    "subject", ["ll.commands.a", "ll.commands.a.b.c", "ll.status.a.b", "a.b", "", "x.ll.commands.a.b"]
)
def test_ids_are_those_of_a_whole_subject(subject: str) -> None:
    with pytest.raises(DecodeError):
        subjects.command_ids(subject)
    assert (
        subjects.command_ids("ll.commands.a.b")
        == subjects.command_ids("$KV.lightlink_command_status.a.b")
        == ("a", "b")
    )
