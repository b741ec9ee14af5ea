"""Handlers and the database: transactions, connections that are looked after, annotations that still count."""

from __future__ import annotations

import queue
import threading
from typing import TYPE_CHECKING, Any

import pytest
from django.db import connection, connections, transaction
from django.db.transaction import TransactionManagementError
from django.test import override_settings
from helpers.waiting import eventually

import lightlink
from lightlink import errors
from lightlink.contrib.django import Agent, Service, client, clients, is_new, with_database
from lightlink.contrib.django.models import InboxEvent

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lightlink.streams import StoredMessage

pytestmark = pytest.mark.usefixtures("table")


@pytest.fixture
def table(url: str) -> Iterator[None]:
    """A table, and the settings of the shared server."""
    with override_settings(LIGHTLINK={"URL": url, "ATOMIC_HANDLERS": True}):
        execute("CREATE TABLE written (word TEXT)")
        yield
        execute("DROP TABLE written")
        clients.close_all()
    connection.close()


def execute(statement: str, *parameters: Any) -> list[Any]:
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)
        return cursor.fetchall() if cursor.description else []


def write(word: str) -> None:
    execute("INSERT INTO written VALUES (%s)", word)


def words() -> list[str]:
    return [word for (word,) in execute("SELECT word FROM written ORDER BY word")]


def test_an_event_is_noted_only_in_an_open_transaction(prefix: str) -> None:
    with connection.schema_editor() as editor:
        editor.create_model(InboxEvent)  # type: ignore[arg-type]
    client.stream(f"S_{prefix}", [prefix])
    client.publish_stored(prefix, 1)
    (event,) = client.replay(prefix)
    with pytest.raises(TransactionManagementError, match=r"open transaction on 'default': use transaction\.atomic"):
        is_new(event, "billing")
    for _ in range(2):
        with transaction.atomic():
            assert is_new(event, "billing")
            transaction.set_rollback(True)
    with transaction.atomic():
        assert is_new(event, "billing")
    with transaction.atomic():
        assert not is_new(event, "billing")


def test_a_batch_of_which_one_failed_is_undone_and_comes_again(prefix: str) -> None:
    client.stream(f"S_{prefix}", [prefix])
    for word in ("a", "bad", "c"):
        client.publish_stored(prefix, word)
    service, sizes = Service(prefix), []

    @service.consume(prefix, batch=3, within=0.1)
    def keep(batch: list[StoredMessage]) -> None:
        sizes.append(len(batch))
        for message in batch:
            if message.data != "bad":
                write(message.data)
        bad = {place: lightlink.Reject("no word") for place, message in enumerate(batch) if message.data == "bad"}
        if bad:
            raise lightlink.BatchFailed(bad)

    with service:
        eventually(lambda: words() == ["a", "c"])
    assert sizes[0] == 3
    (letter,) = client.dead_letters(f"S_{prefix}", f"{prefix}-keep").list()
    assert (letter.sequence, letter.error) == (2, "no word")


def test_what_a_handler_wrote_is_committed_before_its_reply(prefix: str) -> None:
    service = Service(prefix)

    @service.rpc
    def good(word: str) -> None:
        write(word)

    @service.rpc
    def bad(word: str) -> None:
        write(word)
        raise ValueError(word)

    with service:
        client.call(prefix, "good", {"word": "kept"})
        assert words() == ["kept"]
        with pytest.raises(errors.HandlerError):
            client.call(prefix, "bad", {"word": "rolled back"})
    assert words() == ["kept"]


def test_a_service_may_be_otherwise_than_the_settings(prefix: str) -> None:
    service = Service(prefix, atomic=False)

    @service.rpc
    def bad(word: str) -> None:
        write(word)
        raise ValueError(word)

    with service, pytest.raises(errors.HandlerError):
        client.call(prefix, "bad", {"word": "kept"})
    assert words() == ["kept"]


def test_handlers_keep_names_annotations_and_the_request(prefix: str) -> None:
    service = Service(prefix)
    heard: queue.SimpleQueue[lightlink.Message] = queue.SimpleQueue()

    @service.rpc
    def double(number: int, request: lightlink.Request) -> list[Any]:
        return [2 * number, request.method]

    @service.on(f"{prefix}.said.>")
    @service.on(f"{prefix}.said.twice")
    def on_said(message: lightlink.Message) -> None:
        heard.put(message)

    with service:
        assert client.call(prefix, "double", {"number": 4}) == [8, "double"]
        with pytest.raises(errors.InvalidArguments, match="'number'"):
            client.call(prefix, "double", {"number": "x"})
        client.publish(f"{prefix}.said.twice", 1)
        client.publish(f"{prefix}.said.once", 2)
        assert sorted(heard.get(timeout=30).data for _ in range(2)) == [1, 2]
    assert heard.empty()


def test_a_stopped_service_leaves_no_connection_open(prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(connections.settings["default"], "CONN_MAX_AGE", None)
    held: list[Any] = []
    service = Service(prefix, workers=2)

    @service.rpc
    def keep() -> None:
        connection.ensure_connection()
        held.append(connections["default"])

    @service.rpc
    def end() -> None:
        connection.ensure_connection()
        service.stop()

    with service:
        client.call(prefix, "keep")
        (kept,) = held
        assert kept.connection is not None
        client.call(prefix, "end")
    assert kept.connection is None


def test_an_agent_s_commands_run_in_transactions(prefix: str, url: str) -> None:
    agent = Agent(prefix)

    @agent.command("write", idempotent=True)
    def write_(word: str, context: lightlink.CommandContext) -> int:
        write(word)
        if word == "bad":
            raise ValueError(word)
        return context.attempt

    with lightlink.connect(url) as plain, lightlink.CommandManager(plain) as manager, agent:
        assert manager.send(prefix, "write", {"word": "good"}).result(30) == 1
        with pytest.raises(errors.CommandFailed, match="bad"):
            manager.send(prefix, "write", {"word": "bad"}).result(30)
    assert words() == ["good"]


def test_other_handlers_are_decorated(prefix: str) -> None:
    done = threading.Event()

    @with_database
    def on_event(word: str) -> None:
        write(word)

    @with_database(atomic=["default"])
    def on_atomic(word: str) -> None:
        write(word)
        done.set()
        raise ValueError(word)

    with client.subscribe(f"{prefix}.plain", on_event), client.subscribe(f"{prefix}.atomic", on_atomic):
        client.publish(f"{prefix}.plain", "kept")
        client.publish(f"{prefix}.atomic", "rolled back")
        assert done.wait(30)
    assert words() == ["kept"]
