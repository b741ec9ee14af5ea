"""A stream that was restored from an older copy gives out its places again."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from helpers.waiting import eventually

import lightlink
from lightlink.jetstream import api
from lightlink.jetstream.pull import PullConsumer

if TYPE_CHECKING:
    from pathlib import Path

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
