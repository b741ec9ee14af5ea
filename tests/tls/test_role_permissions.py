"""Each role on a real nats-server with mutual TLS, tried by plain nats-py: what it may do works, the rest fails."""

from __future__ import annotations

import contextlib
import io
from typing import TYPE_CHECKING

import nats.errors
import pytest
from helpers.pki import connect_to, is_refused, serve
from helpers.raw import some
from nats.js.errors import NotFoundError

from lightlink.certs import CertificateAuthority, server_config
from lightlink.protocol.permissions import ROLES, inbox_prefix
from lightlink.protocol.subjects import FILES_BUCKET, STATE_BUCKET
from lightlink.server import EmbeddedServer

if TYPE_CHECKING:
    from pathlib import Path

    from helpers.pki import ConnectAs
    from nats.aio.client import Client

COMMANDS = "LIGHTLINK_COMMANDS"
STATUS = "KV_lightlink_command_status"
AGENTS = "KV_lightlink_agents"
NEXT = f"$JS.API.CONSUMER.MSG.NEXT.{COMMANDS}"
DIRECT = f"$JS.API.DIRECT.GET.{STATUS}.$KV.lightlink_command_status"


MAY = {
    "user-service": {
        "publish": ["events.user.created", "$SRV.math.add", "_INBOX.x.y", "_INBOX.web.x.y", "_INBOX.web_eu.x.y"],
        "subscribe": [
            "$SRV.user-service.> q",
            "$SRV.user-service.get q",
            *(
                f"$SRV.{verb}{of}"
                for verb in ("PING", "INFO", "STATS")
                for of in ("", ".user-service", ".user-service.x")
            ),
            "_INBOX.user-service.x.*",
            "events.orders",
            "events.orders billing",
        ],
    },
    "web": {"publish": ["$SRV.math.add", "$SRV.other.method", "events.a.b"], "subscribe": ["_INBOX.web.>"]},
    "web.eu": {
        "publish": ["$SRV.math.add", "events.eu.x"],
        "subscribe": ["_INBOX.web_eu.>", "events.news", "events.news queue"],
    },
    "keeper": {
        "publish": ["$KV.light_link_state.a.b", "$O.light_link_files.C.x", "file.transfer", "$JS.API.STREAM.NAMES"],
        "subscribe": ["_INBOX.keeper.>"],
    },
    "store": {
        "publish": ["file.transfer", "$KV.light_link_state.k"],
        "subscribe": ["file.transfer", "file.transfer store"],
    },
    "agent-a": {
        "publish": [
            "$KV.lightlink_command_status.agent-a.1",
            "$KV.lightlink_agents.agent-a",
            "ll.progress.agent-a.1",
            "ll.acks.agent-a.1",
            f"{NEXT}.agent-agent-a",
            f"$JS.ACK.{COMMANDS}.agent-agent-a.1.1.1.1.0",
            f"{DIRECT}.agent-a.1",
            f"$JS.API.DIRECT.GET.{AGENTS}.$KV.lightlink_agents.agent-a",
        ],
        "subscribe": [
            "_INBOX.agent-a.>",
            "ll.status.agent-a.*",
            "ll.status.agent-a.1",
            "ll.messages.agent-a",
            "ll.broadcast",
        ],
    },
    "manager": {
        "publish": [
            "ll.commands.agent-a.1",
            "ll.messages.agent-a",
            "ll.broadcast",
            "$KV.lightlink_command_status.agent-a.1",
            f"$JS.API.STREAM.CREATE.{COMMANDS}",
            f"$JS.API.CONSUMER.DURABLE.CREATE.{COMMANDS}.agent-x",
            f"$JS.API.CONSUMER.CREATE.{STATUS}.x.$KV.lightlink_command_status.>",
            "$JS.API.STREAM.INFO.LIGHTLINK_COMMANDS_AUDIT",
            f"$JS.API.DIRECT.GET.{AGENTS}.$KV.lightlink_agents.agent-a",
        ],
        "subscribe": ["_INBOX.manager.>", "ll.status.*.*", "ll.progress.*.*", "ll.acks.*.*", "ll.status.agent-a.1"],
    },
    "caller": {"publish": ["$SRV.user-service.get", "ll.commands.agent-a.1"], "subscribe": ["_INBOX.caller.>"]},
    "ops": {"publish": ["anything", "$JS.API.STREAM.LIST", "_INBOX.web.x.y"], "subscribe": [">", "_INBOX.web.>"]},
}

# What an identity without buckets has no business with.
JETSTREAM = [
    "$JS.API.INFO",
    "$JS.API.STREAM.NAMES",
    "$JS.API.STREAM.CREATE.X",
    "$JS.API.STREAM.INFO.KV_light_link_state",
    "$JS.API.STREAM.PURGE.KV_light_link_state",
    "$JS.API.STREAM.DELETE.KV_light_link_state",
    "$JS.API.CONSUMER.CREATE.KV_light_link_state",
    "$JS.API.CONSUMER.CREATE.KV_light_link_state.x.y",
    "$JS.API.CONSUMER.DURABLE.CREATE.KV_light_link_state.x",
    "$JS.API.DIRECT.GET.KV_light_link_state.$KV.light_link_state.k",
    "$KV.light_link_state.k",
    "$O.light_link_files.C.x",
]
# What is for managers and admins only.
OTHERS = [f"$JS.API.STREAM.DELETE.{COMMANDS}", f"$JS.API.STREAM.PURGE.{COMMANDS}", f"$JS.API.STREAM.UPDATE.{STATUS}"]
COMMANDING = [
    "ll.commands.agent-a.1",
    "$KV.lightlink_command_status.agent-a.1",
    f"$JS.API.STREAM.INFO.{COMMANDS}",
    *OTHERS,
]
INBOXES = [
    ">",
    "*.>",
    "_INBOX.>",
    "_INBOX.*",
    "_INBOX.*.>",
    "_INBOX.web.>",
    "_INBOX.web_eu.>",
    "_INBOX.agent-a.>",
    "_INBOX.ops.x",
    "_R_.>",
    "$SYS.>",
]

MAY_NOT = {
    "user-service": {
        "publish": ["events.orders", "events.other", "$SRV.other.x", "$SRV.user-service.x", *JETSTREAM, *COMMANDING],
        "subscribe": [
            "$SRV.user-service.*",
            "$SRV.user-service.* spies",
            "$SRV.math.> q",
            "$SRV.*.* q",
            "$SRV.>",
            "$SRV.PING.math",
            "events.>",
            "events.user.x",
            *INBOXES,
        ],
    },
    "web": {
        "publish": ["other.subject", "file.transfer", "_INBOX.user-service.x", "$SRV.PING", *JETSTREAM, *COMMANDING],
        "subscribe": ["events.a", "events.>", "$SRV.math.> q", "$SRV.PING", *(set(INBOXES) - {"_INBOX.web.>"})],
    },
    "web.eu": {
        "publish": ["$SRV.other.x", "events.a", "events.eu.a.b", "_INBOX.web.x.y", *JETSTREAM, *COMMANDING],
        "subscribe": ["events.>", "events.other", *(set(INBOXES) - {"_INBOX.web_eu.>"})],
    },
    "keeper": {
        "publish": [
            "$JS.API.STREAM.PURGE.KV_light_link_state",
            "$JS.API.STREAM.DELETE.KV_light_link_state",
            "$JS.API.STREAM.DELETE.OBJ_light_link_files",
            "$JS.API.STREAM.UPDATE.KV_light_link_state",
            "$JS.API.STREAM.MSG.DELETE.KV_light_link_state",
            "$JS.API.STREAM.CREATE.other",
            "$JS.API.STREAM.INFO.KV_other",
            "$KV.other.k",
            "$O.other.C.x",
            *COMMANDING,
        ],
        "subscribe": ["$KV.light_link_state.>", "$O.>", "file.transfer", *INBOXES],
    },
    "mute": {
        "publish": ["a", "events.a", "$SRV.math.add", "_INBOX.mute.x", *JETSTREAM, *COMMANDING],
        "subscribe": INBOXES,
    },
    "agent-a": {
        "publish": [
            "$KV.lightlink_command_status.agent-b.1",
            "$KV.lightlink_command_status.agent-a",
            "$KV.lightlink_agents.agent-b",
            "ll.progress.agent-b.1",
            "ll.acks.agent-b.1",
            # Tokens added: whoever read the last ones would take them for another's.
            "ll.progress.agent-a.agent-b.1",
            "ll.acks.agent-a.agent-b.1",
            "$KV.lightlink_command_status.agent-a.agent-b.1",
            f"{DIRECT}.agent-a.agent-b.1",
            "ll.messages.agent-a",
            "ll.messages.agent-b",
            "ll.broadcast",
            f"$JS.API.DIRECT.GET.{AGENTS}.$KV.lightlink_agents.agent-b",
            "ll.commands.agent-a.1",
            "ll.commands.agent-b.1",
            "ll.status.agent-a.1",
            f"{NEXT}.agent-agent-b",
            f"$JS.ACK.{COMMANDS}.agent-agent-b.1.1.1.1.0",
            f"{DIRECT}.agent-b.1",
            f"$JS.API.DIRECT.GET.{STATUS}",
            f"$JS.API.DIRECT.GET.{COMMANDS}.ll.commands.agent-b.1",
            f"$JS.API.STREAM.MSG.GET.{STATUS}",
            f"$JS.API.CONSUMER.CREATE.{COMMANDS}",
            f"$JS.API.CONSUMER.CREATE.{COMMANDS}.x.ll.commands.agent-a.*",
            f"$JS.API.CONSUMER.CREATE.{STATUS}.x",
            f"$JS.API.CONSUMER.DURABLE.CREATE.{COMMANDS}.agent-agent-a",
            f"$JS.API.CONSUMER.DELETE.{COMMANDS}.agent-agent-a",
            f"$JS.API.CONSUMER.INFO.{COMMANDS}.agent-agent-a",
            "$SRV.math.add",
            "events.a",
            *JETSTREAM,
            *OTHERS,
        ],
        "subscribe": [
            "ll.status.>",
            "ll.status.agent-b.>",
            "ll.commands.>",
            "ll.messages.agent-b",
            "ll.acks.>",
            *(set(INBOXES) - {"_INBOX.agent-a.>"}),
        ],
    },
    "caller": {"publish": ["$SRV.math.add", "events.a"], "subscribe": ["$SRV.user-service.> q", *INBOXES]},
    "manager": {
        "publish": ["$SRV.math.add", "events.a", "$KV.light_link_state.k", *OTHERS, "$JS.API.STREAM.CREATE.other"],
        "subscribe": ["ll.commands.>", "ll.>", "events.>", *INBOXES],
    },
}


@pytest.mark.parametrize("name", MAY)
def test_each_role_may_do_what_it_is_for(connect_as: ConnectAs, name: str) -> None:
    peer = connect_as(name)
    for operation, subjects in MAY[name].items():
        assert [subject for subject in subjects if is_refused(peer, operation, subject)] == [], operation


@pytest.mark.parametrize("name", MAY_NOT)
def test_each_role_is_refused_everything_else(connect_as: ConnectAs, name: str) -> None:
    peer = connect_as(name)
    for operation, subjects in MAY_NOT[name].items():
        assert [subject for subject in subjects if not is_refused(peer, operation, subject)] == [], operation


def test_every_role_is_tried_both_ways(identities: Path) -> None:
    roles = {info.name: info.role for info in CertificateAuthority.load(identities).list()}
    assert {roles[name] for name in MAY} == set(ROLES)
    assert {roles[name] for name in MAY_NOT} == set(ROLES) - {"admin"}


# Calls --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["web", "caller", "ops"])
def test_a_service_answers_every_identity_that_may_call_it(connect_as: ConnectAs, name: str) -> None:
    service, caller = connect_as("user-service"), connect_as(name)
    service.run(lambda nc: serve(nc, "user-service"))
    reply = caller.run(lambda nc: nc.request("$SRV.user-service.get", b"1", timeout=30))
    assert reply.data == b"answer to 1"
    assert reply.subject.startswith(inbox_prefix(name) + ".")


def test_plain_tools_discover_services_as_admin(connect_as: ConnectAs) -> None:
    connect_as("user-service").run(lambda nc: serve(nc, "user-service"))
    plain = connect_as("ops", inbox_prefix="_INBOX")
    assert plain.run(lambda nc: nc.request("$SRV.PING", b"ping", timeout=30)).data == b"answer to ping"


def test_a_caller_cannot_make_a_service_publish_for_it(connect_as: ConnectAs) -> None:
    service, web, ops = connect_as("user-service"), connect_as("web"), connect_as("ops")

    async def attack(nc: Client) -> None:
        await nc.publish("$SRV.user-service.get", b"x", reply="$KV.light_link_state.stolen")
        # The answer to a call made after shows that the first one was answered too.
        await nc.request("$SRV.user-service.get", b"y", timeout=30)

    service.run(lambda nc: serve(nc, "user-service"))
    seen = ops.run(lambda nc: nc.subscribe("$KV.light_link_state.>"))
    ops.run(ops.nc.flush())
    web.run(attack)
    service.run(service.nc.flush())
    assert ["permissions violation for publish" in str(error) for error in service.errors] == [True]
    ops.run(ops.nc.flush())
    assert seen.pending_msgs == 0


def test_the_certificate_alone_decides_who_one_is(
    connect_as: ConnectAs, secured: EmbeddedServer, identities: Path
) -> None:
    with pytest.raises(nats.errors.Error, match=r"(?i)authorization violation"):
        connect_to(secured, identities, "web", user="ops", password="whatever", allow_reconnect=False)
    assert is_refused(connect_as("web", token="ops"), "subscribe", ">")


# State and files ----------------------------------------------------------------------------------------------------


def remove_stream(connect_as: ConnectAs, name: str) -> None:
    """Begin anew: other tests on this server use the same buckets."""

    async def remove(nc: Client) -> None:
        with contextlib.suppress(NotFoundError):
            await nc.jetstream().delete_stream(name)

    connect_as("ops").run(remove)


@pytest.mark.parametrize("name", ["keeper", "store"])
def test_an_identity_with_state_can_do_all_of_nats_py_s_bucket(connect_as: ConnectAs, name: str) -> None:
    remove_stream(connect_as, f"KV_{STATE_BUCKET}")
    peer = connect_as(name)

    async def use(nc: Client) -> None:
        js = nc.jetstream()
        await js.create_key_value(bucket=STATE_BUCKET, history=5, direct=True)
        bucket = await js.key_value(STATE_BUCKET)
        first = await bucket.put(f"{name}.a", b"1")
        assert await bucket.update(f"{name}.a", b"2", last=first) > first
        entry = await bucket.get(f"{name}.a")
        assert entry.value == b"2"
        assert (await bucket.get(f"{name}.a", revision=first)).value == b"1"
        assert [each.value for each in await some(bucket.history, f"{name}.a")] == [b"1", b"2"]
        watch = await bucket.watch(f"{name}.*")
        # Its sign that what was stored has come, None, may come before what was stored.
        came = [await watch.updates(timeout=30) for _ in range(2)]
        assert [each.value for each in came if each] == [b"2"]
        await bucket.delete(f"{name}.a")
        assert (await watch.updates(timeout=30)).operation == "DEL"
        await watch.stop()
        await bucket.put(f"{name}.b", b"3")
        assert await some(bucket.keys) == [f"{name}.b"]
        await bucket.purge(f"{name}.a")
        await bucket.purge(f"{name}.b")
        pull = await js.pull_subscribe("$KV.light_link_state.>", stream="KV_light_link_state")
        assert len(await pull.fetch(2, timeout=30)) == 2
        await pull.unsubscribe()

    peer.run(use)
    assert peer.errors == []


@pytest.mark.parametrize("name", ["keeper", "store"])
def test_an_identity_with_files_can_do_all_of_nats_py_s_store(connect_as: ConnectAs, name: str) -> None:
    remove_stream(connect_as, f"OBJ_{FILES_BUCKET}")
    peer = connect_as(name)
    data = bytes(range(256)) * 1024

    async def use(nc: Client) -> None:
        js = nc.jetstream()
        await js.create_object_store(bucket=FILES_BUCKET)
        store = await js.object_store(FILES_BUCKET)
        await store.put("report", data)
        await store.put("report", data + b"!")
        target = io.BytesIO()
        await store.get("report", writeinto=target)
        assert target.getvalue() == data + b"!"
        assert [info.name for info in await store.list()] == ["report"]
        await store.delete("report")
        assert (await store.status()).size > 0

    peer.run(use)
    assert peer.errors == []


def test_other_buckets_are_granted_by_name(tmp_path: Path) -> None:
    authority = CertificateAuthority.create(tmp_path / "certs")
    authority.issue_server(["127.0.0.1"])
    authority.issue("web", state=["sessions"])
    with (
        EmbeddedServer(config=server_config(authority.directory, store_dir=None)) as server,
        connect_to(server, authority.directory, "web") as peer,
    ):

        async def use(nc: Client) -> None:
            bucket = await nc.jetstream().create_key_value(bucket="sessions")
            await bucket.put("a", b"1")
            assert (await bucket.get("a")).value == b"1"

        peer.run(use)
        assert is_refused(peer, "publish", "$KV.light_link_state.a")
