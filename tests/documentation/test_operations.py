"""What docs/operations.md says of a backup, of sizes and of symptoms is so."""

from __future__ import annotations

import re
import shutil
import threading
from typing import TYPE_CHECKING, Any

import pytest
from helpers.docs import ROOT

import lightlink
from lightlink.jetstream import api
from lightlink.protocol import subjects

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

PAGE = (ROOT / "docs/operations.md").read_text()
FAST = lightlink.StoreOptions(heartbeat=1.0)


def symptoms() -> list[str]:
    """Return what the table has in its first column."""
    table = PAGE.partition("## Troubleshooting")[2]
    return [line.split(" | ")[0].removeprefix("| ") for line in table.splitlines() if line.startswith("| ")][1:]


@pytest.fixture
def client() -> Iterator[lightlink.Client]:
    with lightlink.EmbeddedServer() as server, lightlink.connect(server.url, name="web") as connected:
        yield connected


def nobody_there(_: lightlink.Client) -> None:
    lightlink.connect("nats://127.0.0.1:1", connect_timeout=30)


def nobody_serves(client: lightlink.Client) -> None:
    client.call("nobody", "add", {})


def too_late(client: lightlink.Client) -> None:
    with slow_service(client):
        client.call("slow", "wait", timeout=0.1)


def too_many(client: lightlink.Client) -> None:
    with slow_service(client):
        for future in [client.submit("slow", "wait", timeout=60) for _ in range(8)]:
            future.result(60)


def slow_service(client: lightlink.Client) -> lightlink.Service:
    """Return a service that serves one request a third of a second, and lets one wait."""
    service = lightlink.Service("slow", client, workers=1, max_pending=1)
    service.register("wait", lambda: threading.Event().wait(0.3))
    return service


def no_jetstream(_: lightlink.Client) -> None:
    with lightlink.EmbeddedServer(jetstream=False) as server, lightlink.connect(server.url) as client:
        client.set_state("key", 1)


def stranger_s_stream(client: lightlink.Client) -> None:
    config = {"name": subjects.COMMANDS_STREAM, "subjects": ["ll.commands.*.*"], "max_msgs": 3}
    api.create_stream(client.connection, config, 30)
    with lightlink.CommandManager(client) as manager:
        manager.send("pump", "restart")


def no_stream(client: lightlink.Client) -> None:
    client.publish_stored("orders.new", 1)


def second_agent(client: lightlink.Client) -> None:
    with lightlink.Agent("pump", client, store=FAST), lightlink.Agent("pump", client, store=FAST):
        pytest.fail("both have started")


def nobody_takes_it(client: lightlink.Client) -> None:
    with lightlink.CommandManager(client) as manager:
        manager.send("away", "restart", timeout=0.1).result(60)


TRIGGERS: dict[str, Callable[[lightlink.Client], object]] = {
    "`ConnectError ... connection refused`": nobody_there,
    "`ServiceUnavailable ... no responders`": nobody_serves,
    "`CallTimeout ... it may have run`": too_late,
    "`ServiceBusy ... requests wait already`": too_many,
    "`no JetStream on this server or for this account`": no_jetstream,
    "`StoreUnavailable ... its configuration differs`": stranger_s_stream,
    "`NotStored ... no stream captures this subject`": no_stream,
    "`AgentInUse ... is in use by a live agent`": second_agent,
    "`CommandTimeout ... delivery_timeout`": nobody_takes_it,
}
ELSEWHERE = {
    "`ConnectError` with a TLS reason": "tests/connection/test_tls.py",
    "`PermissionDenied` on a subject": "tests/protocol/test_permissions.py",
    "a command stays pending": "tests/commands/manager/test_manager.py",
    "a command is `failed / interrupted`": "tests/commands/test_crash.py",
    "`OutboxFull`": "tests/chaos/test_overload.py",
    "`too slow: ... messages wait, more are dropped`": "tests/chaos/test_overload.py",
}


def test_every_symptom_has_a_test() -> None:
    assert set(symptoms()) == {*TRIGGERS, *ELSEWHERE}
    assert [path for path in ELSEWHERE.values() if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("symptom", TRIGGERS)
def test_a_symptom_looks_as_printed(symptom: str, client: lightlink.Client) -> None:
    with pytest.raises(lightlink.LightLinkError) as told:
        TRIGGERS[symptom](client)
    said = f"{type(told.value).__name__} {told.value}"
    assert all(part in said for part in symptom.strip("`").split(" ... "))


def test_a_server_on_a_copy_of_the_folder_has_all(tmp_path: Path) -> None:
    with (
        lightlink.EmbeddedServer(store_dir=tmp_path / "store") as server,
        lightlink.connect(server.url) as client,
        lightlink.CommandManager(client) as manager,
    ):
        client.set_state("key", 1)
        (tmp_path / "data.csv").write_text("apple,3")
        file_id = client.upload(tmp_path / "data.csv").id
        waits = manager.send("away", "restart", timeout=600).command_id
    shutil.copytree(tmp_path / "store", tmp_path / "copy")
    with (
        lightlink.EmbeddedServer(store_dir=tmp_path / "copy") as server,
        lightlink.connect(server.url) as client,
        lightlink.CommandManager(client) as manager,
    ):
        assert client.get_state("key") == 1
        client.download(file_id, tmp_path / "copy.csv")
        assert manager.get(waits).status == "pending"
    assert (tmp_path / "copy.csv").read_text() == "apple,3"


def test_a_command_takes_as_much_as_is_told(client: lightlink.Client) -> None:
    streams = {
        "request": subjects.COMMANDS_STREAM,
        "statuses": subjects.STATUS_STREAM,
        "audit": subjects.AUDIT_STREAM,
    }

    def sizes() -> dict[str, int]:
        found: dict[str, Any] = {
            name: api.stream_info(client.connection, stream, 30) for name, stream in streams.items()
        }
        return {name: info.state.bytes for name, info in found.items()}

    agent = lightlink.Agent("pump", client)
    agent.register("work", lambda n: n)
    with agent, lightlink.CommandManager(client) as manager:
        manager.send("pump", "work", {"n": 0}).result(60)
        before = sizes()
        for promise in [manager.send("pump", "work", {"n": n}) for n in range(50)]:
            promise.result(60)
        each = {name: (size - before[name]) / 50_000 for name, size in sizes().items()}
    told = dict(re.findall(r"(request|statuses|audit) (\d\.\d)", PAGE))
    for name in ("request", "statuses"):  # the audit follows a moment later
        assert each[name] == pytest.approx(float(told[name]), abs=0.1)
