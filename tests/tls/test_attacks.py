"""The attacks that were seen in use, over mutual TLS and as every role: what is refused, and what does no harm."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import re
import threading
from typing import TYPE_CHECKING, Any

import pytest
from helpers.pki import connect_to, tls_of
from helpers.waiting import eventually
from nats.js.errors import APIError

import lightlink
from lightlink.certs import server_config
from lightlink.cli import main
from lightlink.commands import Agent, CommandManager, StoreOptions
from lightlink.errors import DecodeError, StoredFileNotFound
from lightlink.protocol import subjects
from lightlink.protocol.subjects import FILES_BUCKET
from lightlink.server import EmbeddedServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from conftest import StartServer
    from helpers.pki import ConnectAs, LinkAs
    from helpers.raw import RawPeer
    from nats.aio.client import Client

    from lightlink.certs import CertificateAuthority

# One or more identities of each role; see `helpers.pki.issue_all`.
EVERYONE = ["user-service", "store", "web", "web.eu", "keeper", "mute", "agent-a", "manager", "caller", "ops"]
MAY_WRITE_FILES = {"store", "keeper", "ops"}
MAY_CALL = {"web", "keeper", "caller", "ops"}
MAY_COMMAND = {"manager", "caller", "ops"}

INJECTION = "a 0\r\n\r\nPUB evil.x 2\r\nhi\r\nPUB foo"
EVIL = "\x1b]0;owned\x07\x1b[2J\n\r\x9b31m\u202egnp.exe"
UNSAFE = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def say(peer: RawPeer, *messages: tuple[str, bytes] | tuple[str, bytes, str]) -> bool:
    """Publish messages (subject, body, reply), and tell whether the server refused any."""
    peer.errors.clear()

    async def publish(nc: Client) -> None:
        for subject, body, *reply in messages:
            await nc.publish(subject, body, reply=reply[0] if reply else "")
        await nc.flush()

    peer.run(publish)
    return bool(peer.errors)


# A1: text from the wire becomes protocol ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def secured(identities: Path) -> Iterator[EmbeddedServer]:
    """A server of these tests' own: others leave streams behind that are no real ones."""
    with EmbeddedServer(tls=identities) as running:
        yield running


@pytest.fixture
def ops(connect_as: ConnectAs) -> RawPeer:
    return connect_as("ops")


@pytest.mark.parametrize("name", EVERYONE)
@pytest.mark.parametrize("nuid", [INJECTION, "a b", ">", "*"])
def test_a_description_makes_its_reader_say_nothing(
    connect_as: ConnectAs, link_as: LinkAs, ops: RawPeer, name: str, nuid: str, prefix: str
) -> None:
    reader = link_as("keeper")
    kept = reader.upload(io.BytesIO(b"kept"))
    evil = ops.run(ops.nc.subscribe("evil.>"))
    subject = f"$O.{FILES_BUCKET}.M.{base64.urlsafe_b64encode(prefix.encode()).decode()}"
    body = {"name": prefix, "bucket": FILES_BUCKET, "nuid": nuid, "size": 3, "chunks": 1}
    refused = say(connect_as(name), (subject, json.dumps(body).encode()))
    try:
        assert refused == (name not in MAY_WRITE_FILES)
        expected = StoredFileNotFound if refused else DecodeError
        for use in (lambda: reader.download(prefix, io.BytesIO()), lambda: reader.delete_file(prefix)):
            with pytest.raises(expected):
                use()
        copy = io.BytesIO()
        reader.download(kept.id, copy)
        assert copy.getvalue() == b"kept"
        ops.run(ops.nc.flush())
        assert evil.pending_msgs == 0
    finally:
        ops.run(ops.nc.jetstream().purge_stream(f"OBJ_{FILES_BUCKET}", subject=subject))
        reader.delete_file(kept.id)


# A2: longer subjects, others' names ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EVERYONE)
def test_nobody_settles_a_command_by_a_subject_not_its_own(connect_as: ConnectAs, link_as: LinkAs, name: str) -> None:
    client = link_as("ops")
    with CommandManager(client, sweep_interval=None) as manager:
        victim = manager.send("agent-b", "work", timeout=600)
        forged = b'{"status":"completed","result":"forged"}'
        says = [
            (f"$KV.lightlink_command_status.agent-a.agent-b.{victim.command_id}", forged),
            (f"$KV.lightlink_command_status.agent-a.{victim.command_id}", forged),
            (f"ll.status.agent-a.agent-b.{victim.command_id}", forged),
            (f"ll.status.agent-a.{victim.command_id}", forged),
            (f"ll.acks.agent-a.agent-b.{victim.command_id}", b'{"error":"forged"}'),
            (f"ll.progress.agent-a.agent-b.{victim.command_id}", b'{"fraction":1.0,"note":"forged"}'),
            (f"ll.progress.agent-a.{victim.command_id}", b'{"fraction":1.0,"note":"forged"}'),
        ]
        if name not in MAY_COMMAND:  # they write statuses by their office
            says.append((f"$KV.lightlink_command_status.agent-b.{victim.command_id}", forged))
            says.append((f"ll.status.agent-b.{victim.command_id}", forged))
        assert say(connect_as(name), *says) == (name != "ops")
        client.flush()  # what was said has come
        assert (victim.status, victim.command().progress) == ("pending", None)
        assert manager.get(victim.command_id).status == "pending"
        manager.cancel(victim.command_id)


# A4: a service publishes for its caller -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", EVERYONE)
def test_a_service_answers_nowhere_but_in_inboxes(
    connect_as: ConnectAs, link_as: LinkAs, ops: RawPeer, name: str
) -> None:
    service = lightlink.Service("user-service", link_as("user-service"))

    @service.rpc
    def get(key: str) -> str:
        return key

    places = ["events.user.forged", "$KV.light_link_state.forged", "ll.commands.agent-b.forged", "$SRV.math.add"]
    request = b'{"id":"1","method":"get","args":{"key":"forged"}}'
    with service:
        heard = [ops.run(ops.nc.subscribe(place)) for place in places]
        ops.run(ops.nc.flush())
        refused = say(connect_as(name), *(("$SRV.user-service.get", request, place) for place in places))
        assert refused == (name not in MAY_CALL)
        # The answer to a call made after shows that those before were taken.
        assert link_as("caller").call("user-service", "get", {"key": "a"}, timeout=30) == "a"
        ops.run(ops.nc.flush())
        assert [each.pending_msgs for each in heard] == [0] * len(places)


# A5: terminals ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["user-service", "web", "web.eu", "ops"])
def test_an_event_does_nothing_to_the_terminal(
    link_as: LinkAs, secured: EmbeddedServer, identities: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    subject = {"user-service": "events.user.x", "web.eu": "events.eu.x"}.get(name, "events.a.x")
    sender = link_as(name)
    stop = _repeat(lambda: sender.publish(subject, {"text": EVIL}, headers={"Evil": "\x1b[2J"}))
    try:
        main(["sub", subject, "--count=1", "--timeout=30", *_as_ops(secured, identities)])
    finally:
        stop()
    printed = "".join(capsys.readouterr())
    assert "owned" in printed
    assert UNSAFE.search(printed) is None


@pytest.mark.parametrize("name", ["agent-a", "manager", "keeper"])
def test_what_is_stored_does_nothing_to_the_terminal(
    link_as: LinkAs, secured: EmbeddedServer, identities: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    to_ops = _as_ops(secured, identities)
    with contextlib.ExitStack() as stack:
        manager = stack.enter_context(CommandManager(link_as("manager")))
        if name == "agent-a":
            agent = Agent("agent-a", secured.url, tls=tls_of(identities, "agent-a"), labels={"evil": EVIL})
            stack.enter_context(agent)
            commands: list[list[str]] = [["clients"]]
        elif name == "manager":
            promise = manager.send("agent-b", EVIL, issued_by=EVIL)
            stack.callback(manager.cancel, promise.command_id)
            eventually(lambda: next(manager.audit(promise.command_id), None))
            commands = [["command", "list"], ["command", "audit", promise.command_id]]
        else:
            keeper = link_as("keeper")
            info = keeper.upload(io.BytesIO(b"x"), name=EVIL.replace("\n", ""))
            stack.callback(keeper.delete_file, info.id)
            commands = [["file", "list"]]
        for command in commands:
            main([*command, *to_ops])
    printed = "".join(capsys.readouterr())
    assert "owned" in printed
    assert UNSAFE.search(printed) is None


def _as_ops(server: EmbeddedServer, folder: Path) -> list[str]:
    files = {"ca": folder / "ca.pem", "cert": folder / "ops.pem", "key": folder / "ops.key"}
    return [f"--url={server.url}", *(f"--tls-{option}={path}" for option, path in files.items())]


def _repeat(function: Any) -> Any:
    """Call a function again and again in a thread, until what is returned is called."""
    stopped = threading.Event()

    def run() -> None:
        while not stopped.wait(0.05):
            function()

    thread = threading.Thread(target=run)
    thread.start()

    def stop() -> None:
        stopped.set()
        thread.join(30)

    return stop


# A6: one uses up the store for all ----------------------------------------------------------------------------------


@pytest.fixture
def small(fresh_server: StartServer, authority: CertificateAuthority) -> EmbeddedServer:
    """A server with 64 MiB for all streams."""
    authority.issue_server(["127.0.0.1"])
    for name, role in (("manager", "manager"), ("ops", "admin"), ("greedy", "agent"), ("other", "agent")):
        authority.issue(name, role)
    return fresh_server(config=server_config(authority.directory, store_dir=None, port=-1, max_disk=64 * 1024 * 1024))


@pytest.fixture
def admin(small: EmbeddedServer, authority: CertificateAuthority) -> Iterator[lightlink.Client]:
    with lightlink.connect(small.url.replace("nats://", "tls://"), tls=tls_of(authority.directory, "ops")) as client:
        yield client


def test_an_agent_that_fills_its_share_takes_nobody_else_along(
    small: EmbeddedServer, authority: CertificateAuthority, admin: lightlink.Client
) -> None:
    url = small.url.replace("nats://", "tls://")
    folder = authority.directory
    store = StoreOptions(heartbeat=0.3, ack_wait=1.0)
    with (
        lightlink.connect(url, tls=tls_of(folder, "manager")) as client,
        CommandManager(client, store=store, sweep_interval=None) as manager,
        CommandManager(admin, store=store, sweep_interval=None) as cleaner,
        Agent("other", url, tls=tls_of(folder, "other"), store=store) as other,
        connect_to(small, folder, "greedy") as greedy,
    ):
        stored = 0
        for size in (900_000, 50_000, 3_000, 100):
            body = b'{"status":"executing","result":"%b"}' % (b"x" * size)
            with contextlib.suppress(APIError):
                while stored < 10_000:
                    greedy.run(greedy.nc.jetstream().publish(subjects.command_status("greedy", str(stored)), body))
                    stored += 1
        assert 2 < stored < 10_000
        seen = {each.client_id: each.last_heartbeat for each in manager.clients()}
        eventually(lambda: {each.client_id: each.last_heartbeat for each in manager.clients()} != seen)
        assert other.stage.name == "RUNNING"
        assert manager.send("other", "work", timeout=600).status == "pending"
        assert cleaner.prune(older_than=0.1) > 2
        other_command = manager.send("other", "ping", timeout=30).wait(30)
        assert other_command is not None
        assert other_command.ended
