"""An agent on a real nats-server with mutual TLS: it does its work, and cannot read, forge or finish another's."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from helpers.pki import is_refused
from nats.js import api
from nats.js.errors import NotFoundError

from lightlink.protocol.subjects import STATE_BUCKET

if TYPE_CHECKING:
    from helpers.pki import ConnectAs
    from helpers.raw import RawPeer
    from nats.aio.client import Client

COMMANDS = "LIGHTLINK_COMMANDS"
STATUS = "KV_lightlink_command_status"
AGENTS = "KV_lightlink_agents"
DIRECT = f"$JS.API.DIRECT.GET.{STATUS}.$KV.lightlink_command_status"


@pytest.fixture
def manager(connect_as: ConnectAs) -> RawPeer:
    """A manager who has made the streams as certs/README.md says, with one command for each agent."""
    peer = connect_as("manager")

    async def prepare(nc: Client) -> None:
        js = nc.jetstream()
        # Roll-ups stay off: with them one agent could erase the whole bucket.
        await js.add_stream(
            name=STATUS,
            subjects=["$KV.lightlink_command_status.>"],
            max_msgs_per_subject=16,
            allow_direct=True,
            deny_delete=True,
            republish=api.RePublish(src="$KV.lightlink_command_status.>", dest="ll.status.>"),
        )
        await js.add_stream(
            name=COMMANDS, subjects=["ll.commands.>"], allow_direct=True, deny_delete=True, deny_purge=True
        )
        await js.add_stream(name=AGENTS, subjects=["$KV.lightlink_agents.>"], max_msgs_per_subject=1, allow_direct=True)
        for agent in ("agent-a", "agent-b"):
            durable = api.ConsumerConfig(
                durable_name=f"agent-{agent}",
                filter_subject=f"ll.commands.{agent}.*",
                ack_policy=api.AckPolicy.EXPLICIT,
            )
            await js.add_consumer(COMMANDS, durable)

    peer.run(prepare)
    assert peer.errors == []
    return peer


async def execute(nc: Client, command: str) -> list[bytes]:
    """Take the commands that wait for agent-a, the way certs/README.md describes, and return their payloads."""
    js = nc.jetstream()
    await js.publish("$KV.lightlink_agents.agent-a", b"here")
    pull = await js.pull_subscribe_bind("agent-agent-a", stream=COMMANDS)
    taken = []
    for message in await pull.fetch(10, timeout=30):
        key = f"$KV.lightlink_command_status.{message.subject.removeprefix('ll.commands.')}"
        ack = await js.publish(key, b"executing", headers={"Nats-Expected-Last-Subject-Sequence": "0"})
        await message.in_progress()
        await nc.publish(f"ll.progress.agent-a.{command}", b"half")
        stored = await nc.request(f"$JS.API.DIRECT.GET.{STATUS}.{key}", timeout=30)
        assert stored.data == b"executing"
        await js.publish(key, b"completed", headers={"Nats-Expected-Last-Subject-Sequence": str(ack.seq)})
        await message.ack_sync(timeout=30)
        taken.append(message.data)
    return taken


def test_an_agent_executes_and_the_manager_follows(connect_as: ConnectAs, manager: RawPeer) -> None:
    agent = connect_as("agent-a")

    async def follow(nc: Client) -> tuple[Any, Any]:
        status = await nc.subscribe("ll.status.agent-a.follow")
        progress = await nc.subscribe("ll.progress.agent-a.follow")
        await nc.flush()
        for agent_id in ("agent-a", "agent-b"):
            await nc.jetstream().publish(f"ll.commands.{agent_id}.follow", b"for " + agent_id.encode())
        return status, progress

    async def heard(nc: Client) -> bytes:
        own = await nc.subscribe("ll.status.agent-a.>")
        await nc.flush()
        taken = await execute(nc, "follow")
        assert taken == [b"for agent-a"]
        return (await own.next_msg(30)).data

    status, progress = manager.run(follow)
    assert agent.run(heard) == b"executing"
    assert [manager.run(status.next_msg(30)).data for _ in range(2)] == [b"executing", b"completed"]
    assert manager.run(progress.next_msg(30)).data == b"half"
    kept = manager.run(lambda nc: nc.jetstream().get_last_msg(AGENTS, "$KV.lightlink_agents.agent-a", direct=True))
    assert kept.data == b"here"
    assert agent.errors == []
    assert manager.errors == []


# A server sends the answer to a JetStream request to the reply subject the request names, past all permissions.
TARGETS = {
    "another agent's command": (COMMANDS, "ll.commands.agent-b.forged"),
    "another agent's status": (STATUS, "$KV.lightlink_command_status.agent-b.forged"),
    "another agent's presence": (AGENTS, "$KV.lightlink_agents.agent-b"),
    "its own command": (COMMANDS, "ll.commands.agent-a.forged"),
}


@pytest.mark.parametrize("request_subject", [f"{DIRECT}.agent-a.bait", "$KV.lightlink_command_status.agent-a.bait"])
@pytest.mark.parametrize("target", TARGETS)
def test_an_agent_cannot_have_the_server_write_for_it(
    connect_as: ConnectAs, manager: RawPeer, target: str, request_subject: str
) -> None:
    agent = connect_as("agent-a")
    stream, subject = TARGETS[target]

    async def attack(nc: Client) -> None:
        await nc.jetstream().publish("$KV.lightlink_command_status.agent-a.bait", b'{"forged": true}')
        await nc.publish(request_subject, b"", reply=subject)
        # JetStream answers in order, so the answer to this is the proof that it has dealt with the one before.
        await nc.request(f"{DIRECT}.agent-a.bait", timeout=30)
        await nc.jetstream().publish("$KV.lightlink_command_status.agent-a.bait", b"{}")

    agent.run(attack)
    assert agent.errors == []
    with pytest.raises(NotFoundError):
        manager.run(lambda nc: nc.jetstream().get_last_msg(stream, subject))


def test_the_same_trick_works_within_the_shared_account(connect_as: ConnectAs, manager: RawPeer) -> None:
    # The residual risk that certs/README.md names: if a server ever closes it, that page can say so.
    keeper = connect_as("keeper")

    async def attack(nc: Client) -> None:
        js = nc.jetstream()
        await js.create_key_value(bucket=STATE_BUCKET, history=5, direct=True)
        await js.publish("$KV.light_link_state.bait", b"forged")
        await nc.publish(
            "$JS.API.DIRECT.GET.KV_light_link_state.$KV.light_link_state.bait", b"", reply="ll.commands.agent-b.stolen"
        )
        await nc.flush()

    watch = manager.run(lambda nc: nc.jetstream().pull_subscribe("ll.commands.agent-b.stolen", stream=COMMANDS))
    keeper.run(attack)
    (forged,) = manager.run(watch.fetch(1, timeout=30))
    assert forged.data == b"forged"


def test_an_agent_cannot_purge_a_stream_through_the_server(connect_as: ConnectAs, manager: RawPeer) -> None:
    agent = connect_as("agent-a")
    manager.run(lambda nc: nc.jetstream().publish("$KV.lightlink_command_status.agent-b.kept", b"kept"))

    async def attack(nc: Client) -> None:
        await nc.jetstream().publish("$KV.lightlink_command_status.agent-a.empty", b"{}")
        await nc.publish(f"{DIRECT}.agent-a.empty", b"", reply=f"$JS.API.STREAM.PURGE.{STATUS}")
        await nc.request(f"{DIRECT}.agent-a.empty", timeout=30)

    agent.run(attack)
    kept = manager.run(
        lambda nc: nc.jetstream().get_last_msg(STATUS, "$KV.lightlink_command_status.agent-b.kept", direct=True)
    )
    assert kept.data == b"kept"


def test_an_agent_cannot_roll_the_status_bucket_up(connect_as: ConnectAs, manager: RawPeer) -> None:
    agent = connect_as("agent-a")

    async def attack(nc: Client) -> dict[str, Any]:
        headers = {"Nats-Rollup": "all"}
        answer = await nc.request("$KV.lightlink_command_status.agent-a.x", b"", headers=headers, timeout=30)
        return dict(json.loads(answer.data))

    assert "rollup" in agent.run(attack)["error"]["description"]


def test_an_agent_hears_no_status_but_the_server_s(connect_as: ConnectAs) -> None:
    first, second = connect_as("agent-a"), connect_as("agent-a")
    heard = first.run(lambda nc: nc.subscribe("ll.status.agent-a.>"))
    first.run(first.nc.flush())
    assert is_refused(second, "publish", "ll.status.agent-a.x")
    first.run(first.nc.flush())
    assert heard.pending_msgs == 0
