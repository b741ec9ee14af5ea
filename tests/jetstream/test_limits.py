"""A server that allows small pull requests only: everything works, in few requests, and what cannot be is said once."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import pytest
from helpers.waiting import eventually

import lightlink
from lightlink.commands import Agent, CommandManager
from lightlink.errors import LinkError
from lightlink.jetstream import api, read

if TYPE_CHECKING:
    from conftest import StartServer

    from lightlink.server import EmbeddedServer

_CONFIG = "http: '127.0.0.1:-1', jetstream { limits { max_request_batch: 50 } }"


@pytest.fixture
def strict(fresh_server: StartServer) -> EmbeddedServer:
    return fresh_server(config=_CONFIG)


def test_all_that_reads_streams_honours_the_limit(strict: EmbeddedServer) -> None:
    errors: list[Exception] = []
    with lightlink.connect(strict.url, on_error=errors.append) as client:
        bucket = client.state("many", history=5)
        for number in range(300):
            bucket.set(f"k{number}", number)
        assert len(bucket.keys()) == 300
        assert [each.value for each in bucket.history("k7")] == [7]
        seen: list[Any] = []
        watch = bucket.watch(">", lambda change: seen.append(change.value))
        eventually(lambda: len(seen) == 300)
        watch.stop()
        content = b"x" * 2_000_000
        info = client.file_store("small").upload(io.BytesIO(content), chunk_size=4096)
        copy = io.BytesIO()
        client.file_store("small").download(info.id, copy)
        assert copy.getvalue() == content
        client.stream("ORDERS", ["orders.>"])
        events: list[int] = []
        client.consume("orders.>", name="billing", workers=8)(events.append)
        for number in range(200):
            client.publish_stored("orders.new", number)
        eventually(lambda: sorted(events) == list(range(200)))
        agent = Agent("press", client)
        agent.command("double")(lambda n: 2 * n)
        with CommandManager(client) as manager, agent:
            batch = manager.send_many(["press"], "double", {"n": 1}, repeat=200)
            assert batch.wait(60)
            assert len(manager.list(limit=1000)) == 200
    assert errors == []
    assert "Exceeded" not in strict.log_file.read_text()


def test_what_is_never_allowed_is_reported_once(url: str, prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where another limit is in force, which is not in the consumer's configuration as we know it."""
    errors: list[Exception] = []
    with lightlink.connect(url, on_error=errors.append) as client:
        connection = client._connection
        api.create_stream(connection, {"name": prefix, "subjects": [f"{prefix}.>"]}, 5)
        asked = client.subscribe(f"$JS.API.CONSUMER.CREATE.{prefix}.>", raw=True)
        request = read.OrderedReader(connection, prefix, [f"{prefix}.>"], lambda _: None)
        plain = request._position.consumer_request

        def limited() -> Any:
            name, subject, body = plain()
            body["config"]["max_expires"] = 1_000_000_000
            return name, subject, body

        monkeypatch.setattr(request._position, "consumer_request", limited)
        request.start(10)
        eventually(lambda: errors)
        request.stop()
        assert isinstance(errors[0], LinkError)
        assert "Exceeded" in str(errors[0])
        assert asked.pending <= 3
