"""Commands in JetStream: the streams, and each record written once."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest
from helpers.commands import FAST, World
from helpers.waiting import eventually

import lightlink
from lightlink.commands import StoreOptions, model
from lightlink.commands.model import RequestRecord
from lightlink.commands.store.access import Conflict
from lightlink.commands.store.presence import read_presence
from lightlink.commands.store.store import CommandStore, StatusWrite
from lightlink.errors import DecodeError, InvalidName, InvalidOption, StoreUnavailable
from lightlink.jetstream import api
from lightlink.protocol import codec, subjects
from lightlink.protocol.ids import new_id

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import StartProxy, StartServer


@pytest.fixture
def client(url: str) -> Iterator[lightlink.Client]:
    with lightlink.connect(url) as client:
        yield client


@pytest.fixture
def store(client: lightlink.Client) -> CommandStore:
    store = CommandStore(client._connection, StoreOptions(), 5.0)
    store.ensure_streams()
    return store


def request(client_id: str, **facts: object) -> RequestRecord:
    named = {"command_id": new_id(), "client_id": client_id, "command_type": "t", "created_at": model.now()}
    return RequestRecord(timeout=30.0, **{**named, **facts})  # type: ignore[arg-type]


# Streams --------------------------------------------------------------------------------------------------------------


def config(client: lightlink.Client, stream: str) -> dict[str, Any]:
    found = api.stream_config(client._connection, stream, 5.0)
    assert found is not None
    return found


def test_nothing_stored_can_be_removed_by_who_may_only_write(client: lightlink.Client, store: CommandStore) -> None:
    for stream in (
        subjects.COMMANDS_STREAM,
        subjects.STATUS_STREAM,
        subjects.AGENTS_STREAM,
        subjects.AUDIT_STREAM,
    ):
        made = config(client, stream)
        assert (made["deny_delete"], made["deny_purge"], made["allow_rollup_hdrs"]) == (True, True, False), stream
        assert made["allow_direct"], stream
        assert not made.get("allow_msg_ttl"), stream
    assert config(client, subjects.COMMANDS_STREAM)["consumer_limits"] == {}
    assert config(client, subjects.COMMANDS_STREAM)["max_consumers"] == 100_000
    assert [source["name"] for source in config(client, subjects.AUDIT_STREAM)["sources"]] == [
        subjects.COMMANDS_STREAM,
        subjects.STATUS_STREAM,
    ]


def test_many_make_the_streams_at_once(fresh_server: StartServer) -> None:
    server = fresh_server()
    with World(server.url) as world:
        errors: list[BaseException] = []
        barrier = threading.Barrier(6)

        def start() -> None:
            try:
                client = world.client()
                barrier.wait(20)
                CommandStore(client._connection, StoreOptions(), 5.0).ensure_streams()
            except BaseException as exc:
                errors.append(exc)

        threads = [threading.Thread(target=start) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == []


def test_streams_that_exist_stay_as_they_are_and_are_gone_by(fresh_server: StartServer) -> None:
    with lightlink.connect(fresh_server().url) as client:
        first = CommandStore(client._connection, FAST, 5.0)
        first.ensure_streams()
        before = config(client, subjects.AGENTS_STREAM)
        second = CommandStore(client._connection, StoreOptions(heartbeat=10, retention=60), 5.0)
        second.ensure_streams()
        assert config(client, subjects.AGENTS_STREAM) == before
        assert second.options.heartbeat == pytest.approx(FAST.heartbeat)
        assert second.options.retention == FAST.retention
        first.ensure_consumers(["a"])
        second.ensure_consumers(["a"])
        assert second.consumer_ack_wait("a") == FAST.ack_wait


def test_a_server_without_jetstream_is_named_as_the_reason(fresh_server: StartServer) -> None:
    with lightlink.connect(fresh_server(jetstream=False).url) as client:
        with pytest.raises(StoreUnavailable, match="no JetStream on this server"):
            lightlink.CommandManager(client)
        with pytest.raises(StoreUnavailable, match="no JetStream on this server"):
            lightlink.Agent("a", client).start()


@pytest.mark.parametrize(
    "options",
    [
        {"retention": 0},
        {"retention": float("inf")},
        {"retention": 1e20},
        {"audit_retention": "7"},
        {"ack_wait": -1},
        {"ack_wait": True},
        {"heartbeat": 1e-9},
        {"replicas": 2},
        {"storage": "tape"},
    ],
)
def test_options_are_checked(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidOption):
        StoreOptions(**options)


# Requests -------------------------------------------------------------------------------------------------------------


def test_a_request_is_written_once(store: CommandStore, prefix: str) -> None:
    first = request(prefix, idempotency_key="k")
    assert store.put_request(first) is first
    second = request(prefix, command_id=first.command_id, priority=5, idempotency_key="k")
    assert store.put_request(second) == first
    assert store.get_request(prefix, first.command_id) == first
    assert store.find_request(first.command_id) == first
    assert store.find_request("nonesuch") is None
    with pytest.raises(InvalidName):
        store.find_request("*")


def test_a_request_whose_answer_is_lost_is_stored_once(
    client: lightlink.Client, store: CommandStore, proxy: StartProxy, prefix: str
) -> None:
    link = proxy()
    record = request(prefix)
    with lightlink.connect(link.url, timeout=2.0) as remote:
        distant = CommandStore(remote._connection, StoreOptions(), 2.0)
        # Everything goes out, nothing comes back; then the connection is lost, and made again.
        link.pause()
        results: list[RequestRecord] = []
        sender = threading.Thread(target=lambda: results.append(distant.put_request(record)))
        sender.start()
        sender.join(0.2)
        link.cut()
        link.resume()
        sender.join(30)
        assert results == [record]
    assert (
        api.count_messages(
            client._connection, subjects.COMMANDS_STREAM, subjects.command_request(prefix, record.command_id), 5.0
        )
        == 1
    )


def test_a_request_under_other_ids_than_its_own_is_not_believed(store: CommandStore, prefix: str) -> None:
    record = request(prefix)
    subject = subjects.command_request(prefix, "another")
    store.put(subjects.COMMANDS_STREAM, subject, codec.encode_json(record), {}, "lying")
    with pytest.raises(DecodeError, match="other ids than its subject"):
        store.get_request(prefix, "another")


# Statuses -------------------------------------------------------------------------------------------------------------


def test_of_two_writers_one_succeeds(store: CommandStore, prefix: str) -> None:
    claim = model.claimed(None, model.now(), "one")
    revision = store.write_status(prefix, "c", claim, 0)
    with pytest.raises(Conflict):
        store.write_status(prefix, "c", claim, 0)
    assert store.read_status(prefix, "c") == (claim, revision)
    assert store.read_status(prefix, "d") == (None, 0)
    later = store.write_status(prefix, "c", claim, revision)
    assert later > revision


def test_many_are_written_and_read_at_once(store: CommandStore, prefix: str) -> None:
    claim = model.claimed(None, model.now(), "one")
    store.write_status(prefix, "2", claim, 0)
    writes = [StatusWrite(prefix, str(number), claim, 0) for number in range(5)]
    revisions = store.write_statuses(writes)
    assert [number for number, revision in enumerate(revisions) if revision is None] == [2]
    read = store.read_statuses([(prefix, str(number)) for number in range(6)])
    assert [status for status, _ in read] == [claim] * 5 + [None]
    assert [revision for _, revision in read[:2]] == revisions[:2]
    assert store.read_statuses([]) == []
    assert store.write_statuses([]) == []


def test_a_status_that_cannot_be_read_is_an_end_of_its_own_kind(store: CommandStore, prefix: str) -> None:
    store.put(subjects.STATUS_STREAM, subjects.command_status(prefix, "c"), b"garbage", {}, "lying")
    status, revision = store.read_status(prefix, "c")
    assert status is not None
    assert (status.status, status.status_detail, status.outcome_unknown) == ("failed", "unreadable", True)
    assert revision > 0


def test_without_a_connection_every_operation_says_so(store: CommandStore, proxy: StartProxy, prefix: str) -> None:
    link = proxy()
    with lightlink.connect(link.url, timeout=0.2) as remote:
        distant = CommandStore(remote._connection, StoreOptions(), 0.2)
        link.refuse()
        link.cut()
        eventually(lambda: remote.status is not lightlink.Status.CONNECTED)
        claim = model.claimed(None, model.now(), "one")
        operations = [
            distant.ensure_streams,
            lambda: distant.ensure_consumers(["a"]),
            lambda: distant.consumer_ack_wait("a"),
            lambda: distant.put_request(request(prefix)),
            lambda: distant.get_request(prefix, "c"),
            lambda: distant.find_request("c"),
            lambda: distant.read_status(prefix, "c"),
            lambda: distant.read_statuses([(prefix, "c")]),
            lambda: distant.write_status(prefix, "c", claim, 0),
            lambda: distant.write_statuses([StatusWrite(prefix, "c", claim, 0)]),
            lambda: read_presence(distant, prefix),
        ]
        for operation in operations:
            with pytest.raises(StoreUnavailable) as caught:
                operation()
            assert not caught.value.unknown
        errors: list[Exception | None] = []
        distant.put_requests([request(prefix)], lambda _, error: errors.append(error))
        eventually(lambda: errors)
        assert isinstance(errors[0], StoreUnavailable)
        link.accept()
        remote.wait_connected(20)
    # And nothing was sent later.
    assert store.read_status(prefix, "c") == (None, 0)


def test_of_many_agents_only_missing_consumers_are_made(client: lightlink.Client, store: CommandStore) -> None:
    ids = [f"many{number}" for number in range(120)]
    store.ensure_consumers(ids)
    made: list[bytes] = []
    connection = client._connection
    connection.subscribe(
        f"$JS.API.CONSUMER.CREATE.{subjects.COMMANDS_STREAM}.>", "", lambda subject, *_: made.append(subject)
    )
    other = CommandStore(connection, StoreOptions(), 5.0)
    other.ensure_consumers([*ids, "late"])
    other.ensure_consumers(["later"])
    eventually(lambda: len(made) >= 2)
    assert [subject.split(b".")[5] for subject in made] == [b"agent-late", b"agent-later"]
    names = api.consumer_names(connection, subjects.COMMANDS_STREAM, 5.0)
    assert {subjects.agent_consumer(each) for each in (*ids, "late", "later")} <= names
