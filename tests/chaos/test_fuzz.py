"""Whatever a peer writes, with a real server behind: errors of ours, nothing said for it, and the good goes on."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import queue
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from helpers.commands import World
from helpers.mutation import TEXTS, mutated
from helpers.raw import RawPeer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import lightlink
from lightlink.commands import CommandManager
from lightlink.commands.manager.expiry import Expiry
from lightlink.commands.manager.sweep import Sweeper
from lightlink.errors import InvalidOption, LightLinkError
from lightlink.options import ConnectOptions
from lightlink.server import EmbeddedServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from conftest import StartServer
    from nats.aio.msg import Msg

fuzz = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)


@pytest.fixture
def server(fresh_server: StartServer) -> EmbeddedServer:
    return fresh_server()


@pytest.fixture
def peer(server: EmbeddedServer) -> Iterator[RawPeer]:
    """The one who writes; it also hears whatever is said by others that they should not."""
    with RawPeer(server.url) as connected:
        evil: list[str] = []

        async def note(message: Msg) -> None:
            evil.append(message.subject)

        for subject in ("evil.>", "foo"):
            connected.run(connected.nc.subscribe(subject, cb=note))
        yield connected
        connected.run(connected.nc.flush())
        assert evil == []


def store(peer: RawPeer, subject: str, body: Any) -> None:
    """Store what a stream takes; what it refuses does not matter."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    with contextlib.suppress(Exception):
        peer.run(peer.nc.jetstream().publish(subject, data))


def bear(*uses: Any) -> None:
    """Use each; only errors of ours may come."""
    for use in uses:
        with contextlib.suppress(LightLinkError):
            use()


DESCRIPTION = {
    "name": "bait",
    "description": "a",
    "bucket": "files",
    "nuid": "x",
    "size": 3,
    "chunks": 1,
    "digest": "SHA-256=abc",
    "mtime": "2026-01-01T00:00:00Z",
    "deleted": False,
    "headers": {"a": ["b"]},
    "metadata": {"file_name": "a", "content_type": "b"},
    "options": {"link": {"bucket": "files", "name": "bait"}, "max_chunk_size": 3},
}


def test_no_description_of_an_object_does_harm(server: EmbeddedServer, peer: RawPeer, tmp_path: Path) -> None:
    with lightlink.connect(server.url, on_error=lambda _: None) as client:
        files = client.file_store("files")
        kept = files.upload(io.BytesIO(b"kept"))
        subject = f"$O.files.M.{base64.urlsafe_b64encode(b'bait').decode()}"

        @fuzz
        @given(mutated(DESCRIPTION))
        def check(body: Any) -> None:
            store(peer, subject, body)
            bear(
                lambda: files.info("bait"),
                lambda: files.download("bait", io.BytesIO(), stall_timeout=0.2),
                lambda: files.download("bait", tmp_path / "copy", stall_timeout=0.2),
                lambda: files.delete("bait"),
            )
            assert kept.id in [info.id for info in files.files()]

        check()
        copy = io.BytesIO()
        files.download(kept.id, copy)
        assert copy.getvalue() == b"kept"
        assert client.status is lightlink.Status.CONNECTED
        assert client._connection.session.losses == 0


ANNOUNCEMENT = {"file_id": "x", "file_name": "a", "file_size": 1, "chunk_num": 1, "from": "a", "to": "reports"}


def test_no_announcement_keeps_a_good_one_from_its_handler(server: EmbeddedServer, peer: RawPeer) -> None:
    arrived: queue.SimpleQueue[str] = queue.SimpleQueue()
    service = lightlink.Service("reports", server.url, on_error=lambda _: None)
    service.on_file(lambda info: arrived.put(info.id))
    with service, lightlink.connect(server.url) as client:

        @fuzz
        @given(mutated(ANNOUNCEMENT))
        def check(body: Any) -> None:
            peer.run(peer.nc.publish("file.transfer", json.dumps(body).encode()))

        check()
        peer.run(peer.nc.flush())
        info = client.send_file(io.BytesIO(b"x"), to="reports", name="a")
        assert arrived.get(timeout=30) == info.id


REQUEST = {
    "command_id": "bait",
    "client_id": "press",
    "command_type": "work",
    "created_at": "2026-01-01T00:00:00Z",
    "timeout": 600,
    "payload": {"a": 1},
    "priority": 1,
    "batch_id": "a",
    "issued_by": "a",
    "idempotency_key": "a",
}
STATUS = {
    "status": "executing",
    "at": "2026-01-01T00:00:00Z",
    "by": "a",
    "status_detail": "a",
    "instance": "a",
    "attempt": 1,
    "started_at": "2026-01-01T00:00:00Z",
    "completed_at": "2026-01-01T00:00:00Z",
    "result": 1,
    "error": "a",
    "cancel_requested": True,
    "cancel_reason": "a",
    "outcome_unknown": True,
    "late_result": 1,
}
PRESENCE = {
    "client_id": "press",
    "instance": "a",
    "connected_at": "2026-01-01T00:00:00Z",
    "last_heartbeat": "2026-01-01T00:00:00Z",
    "labels": {"a": "b"},
    "state": "online",
    "remote_addr": "a",
    "in_flight": 1,
    "queued": 1,
}


def test_no_request_status_or_presence_hides_the_good_ones(server: EmbeddedServer, peer: RawPeer) -> None:
    with World(server.url) as world:
        manager = world.manager(sweep_interval=None)
        good = manager.send("good", "work", timeout=6000)
        numbers = iter(range(100_000))
        sweeper = Sweeper(manager._store, Expiry(manager._store, "sweeper"))

        @fuzz
        @given(mutated(REQUEST), mutated(STATUS), mutated(PRESENCE), mutated({"fraction": 0.5, "note": "a"}))
        def check(request: Any, status: Any, presence: Any, progress: Any) -> None:
            number = f"c{next(numbers)}"
            for member, value in (("command_id", number), ("client_id", "press")):
                if isinstance(request, dict) and request.get(member) == REQUEST[member]:
                    request[member] = value
            store(peer, f"ll.commands.press.{number}", request)
            store(peer, f"$KV.lightlink_command_status.press.{number}", status)
            store(peer, "$KV.lightlink_agents.press", presence)
            store(peer, f"ll.progress.press.{number}", progress)
            bear(
                lambda: manager.get(number), lambda: manager.promise(number).wait(0.01), lambda: manager.cancel(number)
            )

        check()
        assert manager.get(good.command_id).status == "pending"
        assert good.command_id in [command.command_id for command in manager.list(limit=1000)]
        assert [entry.client_id for entry in manager.audit(good.command_id)] in ([], ["good"])
        list(manager.audit())
        assert isinstance(manager.clients(), list)
        sweeper.sweep()
        agent = world.agent("good")
        agent.register("work", lambda: "done")
        agent.start()
        assert good.result(30) == "done"
        # The one it was all written about runs what can be run.
        press = world.agent("press")
        press.register("work", lambda **_: "done")
        press.register("sure", lambda: "done")
        press.start(timeout=60)
        assert manager.send("press", "sure", timeout=100).result(60) == "done"


REPLY = {
    "id": "ID",
    "success": False,
    "result": {"type": "validation_error"},
    "error": "a",
    "code": "busy",
    "type": "x",
}


def test_no_reply_of_a_service_is_more_than_an_error(server: EmbeddedServer, peer: RawPeer) -> None:
    bodies: list[Any] = []

    async def answer(request: Msg) -> None:
        wanted = msgspec.json.decode(request.data)["id"]
        text = json.dumps(bodies[-1]).replace('"ID"', json.dumps(wanted))
        await request.respond(text.encode())

    peer.run(peer.nc.subscribe("$SRV.theirs.*", cb=answer))
    peer.run(peer.nc.flush())
    with lightlink.connect(server.url) as client:

        @fuzz
        @given(mutated(REPLY))
        def check(body: Any) -> None:
            bodies.append(body)
            bear(lambda: client.call("theirs", "m", timeout=30))

        check()
        assert client._connection.session.losses == 0


INFO = {
    "type": "io.nats.jetstream.api.v1.stream_info_response",
    "config": {
        "name": "KV_b",
        "subjects": ["$KV.b.>"],
        "max_age": 0,
        "allow_msg_ttl": True,
        "max_msgs_per_subject": 1,
        "mirror": {"name": "KV_a", "external": {"api": "x"}},
        "num_replicas": 1,
        "ack_wait": 1,
        "duplicate_window": 1,
    },
    "created": "2026-01-01T00:00:00Z",
    "state": {"messages": 1, "first_seq": 1, "last_seq": 1, "subjects": {"$KV.b.a": 1}},
    "message": {"subject": "$KV.b.a", "seq": 1, "time": "2026-01-01T00:00:00Z", "data": "eA==", "hdrs": "eA=="},
    "error": {"code": 404, "err_code": 10059, "description": "a"},
    "stream": "KV_b",
    "seq": 1,
    "domain": "a",
    "num_pending": 1,
    "name": "a",
    "total": 1,
    "offset": 0,
    "purged": 1,
    "ts": "2026-01-01T00:00:00Z",
}


def test_no_forged_jetstream_answer_is_more_than_an_error(fresh_server: StartServer) -> None:
    """Where there is no JetStream, whoever may subscribe to its subjects answers for it."""
    server = fresh_server(jetstream=False)
    bodies: list[Any] = [{}]

    async def answer(request: Msg) -> None:
        if request.reply:
            await request.respond(json.dumps(bodies[-1]).encode())

    with RawPeer(server.url) as peer, lightlink.connect(server.url, timeout=0.3, on_error=lambda _: None) as client:
        evil = peer.run(peer.nc.subscribe("evil.>"))
        for subject in ("$JS.API.>", "$KV.>", "$O.>"):
            peer.run(peer.nc.subscribe(subject, cb=answer))
        peer.run(peer.nc.flush())
        bucket, files = client.state("b"), client.file_store("b")

        @settings(fuzz, max_examples=25)
        @given(mutated(INFO))
        def check(body: Any) -> None:
            bodies.append(body)
            bear(
                lambda: bucket.get("a"),
                lambda: bucket.set("a", 1),
                lambda: bucket.set("a", 1, ttl=5),
                lambda: bucket.delete("a"),
                lambda: files.info("x"),
                lambda: client.state("b").keys(),
                bucket.purge_deletes,
                lambda: CommandManager(client, sweep_interval=None).close(),
            )

        check()
        peer.run(peer.nc.flush())
        assert evil.pending_msgs == 0
        assert client._connection.session.losses == 0


def test_no_text_for_an_id_or_a_page_is_more_than_refused(server: EmbeddedServer) -> None:
    with World(server.url) as world:
        manager = world.manager(sweep_interval=None)
        manager.send("good", "work", timeout=6000)

        @fuzz
        @given(st.sampled_from(TEXTS) | st.text(max_size=30))
        def check(text: str) -> None:
            bear(
                lambda: manager.list(after=text),
                lambda: manager.list(text),
                lambda: manager.list(batch_id=text),
                lambda: manager.get(text),
                lambda: manager.promise(text),
                lambda: list(manager.audit(text)),
                lambda: manager.send("good", "work", idempotency_key=text),
            )
            assert len(manager.list("good")) >= 1

        check()


CONTEXT = {
    "description": "a",
    "url": "nats://127.0.0.1:4222",
    "token": "a",
    "user": "a",
    "password": "a",
    "creds": "a",
    "nkey": "a",
    "cert": "a",
    "key": "a",
    "ca": "a",
    "inbox_prefix": "_INBOX",
    "jetstream_domain": "a",
    "jetstream_api_prefix": "a",
}


def test_no_context_is_more_than_an_option_that_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    folder = tmp_path / "nats" / "context"
    folder.mkdir(parents=True)

    @settings(fuzz, max_examples=300)
    @given(mutated(CONTEXT))
    def check(body: Any) -> None:
        (folder / "bad.json").write_text(json.dumps(body))
        with contextlib.suppress(InvalidOption):
            ConnectOptions.resolve(context="bad")

    check()
