"""A stream that was restored from an older copy gives out its places again."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from helpers.waiting import eventually

import lightlink
from lightlink.jetstream import api, pull
from lightlink.jetstream.pull import PullConsumer

if TYPE_CHECKING:
    from pathlib import Path

    import pytest
    from conftest import StartServer

    from lightlink.jetstream.pull import Pulled


def test_a_place_that_is_given_out_again_is_another_message(fresh_server: StartServer, tmp_path: Path) -> None:
    folder, copy = tmp_path / "store", tmp_path / "copy"
    server = fresh_server(store_dir=folder)
    with lightlink.connect(server.url) as client:
        stream = client.stream("ORDERS", ["orders.>"])
        config = {"name": "c", "durable_name": "c", "ack_policy": "explicit", "ack_wait": 600_000_000_000}
        api.api(client._connection, "CONSUMER.CREATE.ORDERS.c", {"stream_name": "ORDERS", "config": config}, 5.0)
        server.stop()
        shutil.copytree(folder, copy)
        server.start()
        eventually(lambda: client.is_connected)
        seen: list[Pulled] = []
        pulls = PullConsumer(client._connection, "ORDERS", "c", 8, 600.0, seen.extend, lambda: None)
        pulls.start()
        client.publish_stored("orders.new", "held")
        eventually(lambda: len(seen) == 1)
        server.stop()
        shutil.rmtree(folder)
        shutil.copytree(copy, folder)
        server.start()
        eventually(lambda: client.is_connected)
        client.publish_stored("orders.new", "another")
        assert stream.info().last_sequence == 1
        eventually(lambda: pulls.tick() or len(seen) == 2)
        assert [each.message.data for each in seen] == [b'"held"', b'"another"']
        pulls.stop(1.0)


def test_the_word_on_a_message_settles_no_other_at_its_place(fresh_server: StartServer) -> None:
    with lightlink.connect(fresh_server().url) as client:
        connection = client._connection
        config = {"name": "c", "durable_name": "c", "ack_policy": "explicit", "ack_wait": 600_000_000_000}
        seen: list[Pulled] = []
        pulls = PullConsumer(connection, "ORDERS", "c", 8, 600.0, seen.extend, lambda: None)
        for data in ("old", "new"):
            stream = client.stream("ORDERS", ["orders.>"])
            api.api(connection, "CONSUMER.CREATE.ORDERS.c", {"stream_name": "ORDERS", "config": config}, 5.0)
            if data == "old":
                pulls.start()
            client.publish_stored("orders.new", data)
            eventually(lambda: pulls.tick() or (seen and seen[-1].message.data == f'"{data}"'.encode()))  # noqa: B023
            if data == "old":
                stream.delete()
        old, new = seen
        assert (old.message.seq, len(pulls)) == (new.message.seq, 1)
        pulls.ack(old)
        pulls.forget(old)
        assert len(pulls) == 1
        consumer = client.consumer("ORDERS", "c")
        assert consumer.lag().in_flight == 1
        pulls.ack(new)
        eventually(lambda: consumer.lag().in_flight == 0)
        pulls.stop(1.0)


def test_a_pull_that_the_server_has_forgotten_is_made_again(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As after the death of the server that leads the consumer, while ours lives."""
    monkeypatch.setattr(pull, "_FIRST_PULL_SECONDS", 0.02)
    with lightlink.connect(url) as client:
        asked = client.subscribe("$JS.API.CONSUMER.MSG.NEXT.NONE.c")  # in place of the server
        client.flush()
        pulls = PullConsumer(client._connection, "NONE", "c", 4, 30.0, lambda _: None, lambda: None, heartbeat=0.1)
        pulls.start()
        first = asked.get(30)
        assert "idle_heartbeat" not in first.data  # who has not answered yet is asked for a moment only
        client._connection.publish(first.reply.encode(), b"", b"", b"NATS/1.0 404 No Messages\r\n\r\n")

        def next_pull() -> lightlink.Message:
            eventually(lambda: pulls.tick() or asked.pending)
            return asked.get(30)

        second = next_pull()
        assert (second.data["idle_heartbeat"], second.data["expires"]) == (100_000_000, 30_000_000_000)
        assert "idle_heartbeat" not in next_pull().data  # long before those 30 s are over
        pulls.stop(1.0)


def test_what_has_come_is_handed_over_while_others_get_the_rest(
    fresh_server: StartServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others' share never comes, and so not the end of the pull."""
    monkeypatch.setattr(pull, "_FIRST_PULL_SECONDS", 300.0)
    with lightlink.connect(fresh_server().url) as client:
        client.stream("ORDERS", ["orders.>"])
        config = {"name": "c", "durable_name": "c", "ack_policy": "explicit"}
        api.api(client._connection, "CONSUMER.CREATE.ORDERS.c", {"stream_name": "ORDERS", "config": config}, 5.0)
        seen: list[Pulled] = []
        sharers = [
            PullConsumer(client._connection, "ORDERS", "c", 64, 30.0, seen.extend, lambda: None) for _ in range(2)
        ]
        for each in sharers:
            each.start()
        client.flush()
        with client.storing() as batch:
            for number in range(9):
                batch.publish("orders.new", number)
        eventually(lambda: len(seen) == 9)  # without a tick
        for each in sharers:
            each.stop(1.0)
