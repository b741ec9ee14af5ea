"""Each row of the table of calls, over real HTTP, to the server in a process of its own."""

from __future__ import annotations

import re
import threading
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import pytest
from helpers.http import HttpProcess
from helpers.waiting import eventually

import lightlink
from lightlink.commands import Agent, AgentMessage, CommandContext, CommandManager, Undoable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from helpers.http import Http

    from lightlink.server import EmbeddedServer

RFC3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")


@pytest.fixture(scope="module")
def running(server: EmbeddedServer) -> Iterator[HttpProcess]:
    with HttpProcess(server.url) as process:
        yield process


@pytest.fixture
def http(running: HttpProcess) -> Http:
    return running.http


@pytest.fixture
def client(url: str) -> Iterator[lightlink.Client]:
    with lightlink.connect(url) as connected:
        yield connected


@pytest.fixture
def agent(client: lightlink.Client, prefix: str) -> Iterator[Agent]:
    """An agent that is online, with a command of each outcome."""
    made = Agent(prefix, client, labels={"site": prefix})

    @made.command("add")
    def add(a: int, b: int) -> int:
        return a + b

    @made.command("nothing")
    def nothing() -> None:
        return None

    @made.command("fail")
    def fail() -> None:
        raise ValueError("no such disk")

    @made.command("heed")
    def heed(context: CommandContext) -> str:
        context.cancelled.wait(20)
        context.check()
        return "never cancelled"

    with made:
        yield made


def send(http: Http, client_id: str, command_type: str, payload: Any = None, **more: Any) -> str:
    body = {"client_id": client_id, "command_type": command_type, "payload": payload, **more}
    answer = http.post("/api/command", body)
    assert answer.status == 200, answer
    return str(answer.json["command_id"])


# POST /api/command, GET /api/command/ID -------------------------------------------------------------------------------


def test_a_command_is_sent_and_its_id_returned(http: Http, prefix: str) -> None:
    answer = http.post("/api/command", {"client_id": prefix, "command_type": "add", "payload": {"a": 1, "b": 2}})

    assert answer.status == 200
    assert answer.json == {
        "success": True,
        "command_id": answer.json["command_id"],
        "message": "Command sent successfully",
    }


def test_a_command_waits_for_an_agent_that_is_offline(http: Http, prefix: str) -> None:
    command_id = send(http, prefix, "add", {"a": [1, None, {"deep": 1.5}]}, timeout=12.5, priority=3)

    answer = http.get(f"/api/command/{command_id}")

    assert answer.status == 200
    command = answer.json["command"]
    assert answer.json == {"success": True, "command": command}
    created_at = command.pop("created_at")
    assert RFC3339.fullmatch(created_at)
    assert command == {
        "command_id": command_id,
        "client_id": prefix,
        "command_type": "add",
        "payload": {"a": [1, None, {"deep": 1.5}]},
        "status": "pending",
        "status_detail": "",
        "timeout": 12.5,
        "priority": 3,
        "attempt": 0,
        "issued_by": "http",
        "cancel_requested": False,
        "outcome_unknown": False,
    }


def test_waiting_brings_the_result(http: Http, agent: Agent) -> None:
    command_id = send(http, agent.client_id, "add", {"a": 1, "b": 2})

    command = http.get(f"/api/command/{command_id}?wait=20").json["command"]

    assert command["status"] == "completed"
    assert command["result"] == 3
    assert command["attempt"] == 1
    assert command["timeout"] == 30
    assert command["instance"] == agent.instance
    times = [command[name] for name in ("created_at", "sent_at", "completed_at")]
    assert all(RFC3339.fullmatch(text) for text in times)
    assert times == sorted(times)
    assert "error" not in command


def test_a_result_that_is_null_is_told_from_none_at_all(http: Http, agent: Agent) -> None:
    command_id = send(http, agent.client_id, "nothing")

    command = http.get(f"/api/command/{command_id}?wait=20").json["command"]

    assert command["status"] == "completed"
    assert command["result"] is None


def test_a_failed_command_has_its_error_and_no_result(http: Http, agent: Agent) -> None:
    command_id = send(http, agent.client_id, "fail")

    command = http.get(f"/api/command/{command_id}?wait=20").json["command"]

    assert command["status"] == "failed"
    assert command["error"] == "ValueError: no such disk"
    assert "result" not in command


def test_waiting_ends_with_the_command_as_it_stands(http: Http, prefix: str) -> None:
    command_id = send(http, prefix, "add")

    answer = http.get(f"/api/command/{command_id}?wait=0.05")

    assert answer.status == 200
    assert answer.json["command"]["status"] == "pending"


def test_the_timeout_is_30_seconds_unless_given(http: Http, prefix: str) -> None:
    assert http.get(f"/api/command/{send(http, prefix, 'add')}").json["command"]["timeout"] == 30


def test_what_is_not_to_be_queued_is_refused_when_offline(http: Http, prefix: str) -> None:
    answer = http.post("/api/command", {"client_id": prefix, "command_type": "add", "queue": False})

    assert answer.status == 503
    assert answer.json == {"success": False, "error": f"client not connected: {prefix}"}
    assert http.get(f"/api/commands?client_id={prefix}").json["commands"] == []


def test_what_is_not_to_be_queued_is_sent_when_online(http: Http, agent: Agent) -> None:
    command_id = send(http, agent.client_id, "add", {"a": 2, "b": 2}, queue=False)

    assert http.get(f"/api/command/{command_id}?wait=20").json["command"]["result"] == 4


def test_the_same_key_again_brings_the_first_command(http: Http, prefix: str) -> None:
    first = send(http, prefix, "add", {"a": 1}, idempotency_key=f"{prefix}-1")

    assert send(http, prefix, "add", {"a": 2}, idempotency_key=f"{prefix}-1") == first
    assert send(http, prefix, "add", {"a": 2}, idempotency_key=f"{prefix}-2") != first
    assert http.get(f"/api/command/{first}").json["command"]["payload"] == {"a": 1}


def test_a_key_that_was_used_for_another_command_is_a_conflict(http: Http, prefix: str) -> None:
    send(http, prefix, "add", idempotency_key=f"{prefix}-1")

    answer = http.post("/api/command", {"client_id": prefix, "command_type": "other", "idempotency_key": f"{prefix}-1"})

    assert answer.status == 409
    assert "was used for the command 'add'" in answer.error


@pytest.mark.parametrize("command_id", ["11111111-2222-4333-8444-555555555555", "no.such.id", "%20"])
def test_a_command_that_does_not_exist_is_not_found(http: Http, command_id: str) -> None:
    answer = http.get(f"/api/command/{command_id}")

    assert answer.status == 404
    shown = command_id.replace("%20", " ")
    assert answer.json == {"success": False, "error": f"Command not found: {shown}"}


# POST /api/command/ID/cancel ------------------------------------------------------------------------------------------


def test_a_pending_command_is_cancelled(http: Http, prefix: str) -> None:
    command_id = send(http, prefix, "add")

    answer = http.post(f"/api/command/{command_id}/cancel", {"reason": "a mistake"})

    assert answer.status == 200
    command = answer.json["command"]
    assert (command["status"], command["status_detail"]) == ("failed", "cancelled")
    assert "a mistake" in command["error"]


def test_a_command_that_runs_is_told_to_stop(http: Http, agent: Agent) -> None:
    command_id = send(http, agent.client_id, "heed")
    eventually(lambda: http.get(f"/api/command/{command_id}").json["command"]["status"] == "executing")

    headers = {"Content-Type": "application/json"}
    answer = http.request("POST", f"/api/command/{command_id}/cancel", headers=headers)

    assert answer.status == 200
    assert answer.json["command"]["cancel_requested"] is True
    command = http.get(f"/api/command/{command_id}?wait=20").json["command"]
    assert (command["status"], command["status_detail"]) == ("failed", "cancelled")


def test_a_command_that_has_ended_cannot_be_cancelled(http: Http, agent: Agent) -> None:
    command_id = send(http, agent.client_id, "nothing")
    http.get(f"/api/command/{command_id}?wait=20")

    answer = http.post(f"/api/command/{command_id}/cancel", {})

    assert answer.status == 409
    assert answer.error == f"command {command_id} has ended already: completed"


def test_cancelling_a_command_that_does_not_exist_is_not_found(http: Http) -> None:
    answer = http.post("/api/command/nosuch/cancel", {})

    assert (answer.status, answer.error) == (404, "Command not found: nosuch")


# POST /api/command/multi, GET /api/batch/ID ---------------------------------------------------------------------------


def test_many_clients_answer_together(http: Http, agent: Agent, client: lightlink.Client) -> None:
    other = Agent(f"{agent.client_id}_2", client)

    @other.command("add")
    def add(a: int, b: int) -> int:
        raise ValueError("this one is broken")

    with other:
        answer = http.post(
            "/api/command/multi",
            {
                "client_ids": [agent.client_id, other.client_id],
                "command_type": "add",
                "payload": {"a": 1, "b": 1},
                "timeout": 20,
            },
        )

    assert answer.status == 200
    body = answer.json
    assert body["success"] is False
    assert (body["total"], body["success_count"], body["failed_count"]) == (2, 1, 1)
    assert body["message"] == "Command sent to 2 clients: 1 completed, 1 failed"
    ids = [result.pop("command_id") for result in body["results"]]
    assert len(set(ids)) == 2
    assert body["results"] == [
        {"client_id": agent.client_id, "status": "completed", "result": 2},
        {"client_id": other.client_id, "status": "failed", "error": "ValueError: this one is broken"},
    ]


def test_clients_are_addressed_by_their_labels(http: Http, agent: Agent) -> None:
    body = {"labels": {"site": agent.client_id}, "command_type": "add", "payload": {"a": 3, "b": 4}}

    answer = http.post("/api/command/multi", body)

    assert answer.json["success"] is True
    assert [(each["client_id"], each["result"]) for each in answer.json["results"]] == [(agent.client_id, 7)]


def test_labels_that_nobody_carries_reach_nobody(http: Http, prefix: str) -> None:
    answer = http.post("/api/command/multi", {"labels": {"site": f"{prefix}-no"}, "command_type": "add"})

    assert answer.status == 200
    assert (answer.json["total"], answer.json["results"]) == (0, [])


def test_what_one_of_many_never_takes_ends_as_timeout(http: Http, prefix: str) -> None:
    answer = http.post("/api/command/multi", {"client_ids": [prefix], "command_type": "add", "timeout": 0.1})

    assert answer.json["success"] is False
    assert answer.json["failed_count"] == 1
    assert answer.json["results"][0]["status"] == "timeout"


def test_a_batch_is_asked_for_later(http: Http, agent: Agent, prefix: str) -> None:
    ids = [agent.client_id, f"{prefix}_offline"]
    body = {"client_ids": ids, "command_type": "add", "payload": {"a": 1, "b": 1}, "wait": False}
    started = http.post("/api/command/multi", body)
    assert started.status == 200
    batch_id = started.json["batch_id"]
    assert started.json == {
        "success": True,
        "batch_id": batch_id,
        "total": 2,
        "message": "Command sent to 2 clients",
    }

    batch = eventually(lambda: _with_one_completed(http.get(f"/api/batch/{batch_id}").json))

    assert batch["success"] is True
    assert (batch["total"], batch["success_count"], batch["failed_count"]) == (2, 1, 0)
    assert http.get(f"/api/batch/{batch_id}?results=none").json == batch | {"results": []}
    listed = http.get(f"/api/commands?batch_id={batch_id}&status=completed").json["commands"]
    assert [(each["client_id"], each["batch_id"]) for each in listed] == [(agent.client_id, batch_id)]
    assert [(each["client_id"], each["status"]) for each in batch["results"]] == [
        (agent.client_id, "completed"),
        (f"{prefix}_offline", "pending"),
    ]


def _with_one_completed(batch: Any) -> Any:
    return batch if batch["success_count"] == 1 else None


@pytest.mark.parametrize("batch_id", ["01890a5d-ac96-774b-bcce-b302099a8057", "x"])
def test_a_batch_that_does_not_exist_is_not_found(http: Http, batch_id: str) -> None:
    answer = http.get(f"/api/batch/{batch_id}")

    assert (answer.status, answer.error) == (404, f"Batch not found: {batch_id}")


# GET /api/commands ----------------------------------------------------------------------------------------------------


def test_no_commands_are_an_empty_list(http: Http, prefix: str) -> None:
    answer = http.get(f"/api/commands?client_id={prefix}")

    assert answer.status == 200
    assert answer.json == {"success": True, "total": 0, "commands": []}


def test_commands_are_listed_page_by_page_newest_first(http: Http, prefix: str) -> None:
    sent = [send(http, prefix, "add", {"a": number}) for number in range(5)]

    first = http.get(f"/api/commands?client_id={prefix}&limit=3").json
    second = http.get(f"/api/commands?client_id={prefix}&limit=3&after={first['next']}").json

    assert (first["total"], second["total"]) == (3, 2)
    assert [command["command_id"] for command in first["commands"] + second["commands"]] == sent[::-1]
    assert "next" not in second


def test_commands_are_filtered_by_status_and_type(http: Http, agent: Agent) -> None:
    done = send(http, agent.client_id, "add", {"a": 1, "b": 1})
    broken = send(http, agent.client_id, "fail")
    for command_id in (done, broken):
        http.get(f"/api/command/{command_id}?wait=20")
    base = f"/api/commands?client_id={agent.client_id}"

    def listed(query: str) -> list[str]:
        return [command["command_id"] for command in http.get(base + query).json["commands"]]

    assert listed("&status=completed") == [done]
    assert listed("&status=failed") == [broken]
    assert listed("&command_type=add") == [done]
    assert listed("&command_type=add&status=failed") == []


# GET /api/clients -----------------------------------------------------------------------------------------------------


def test_clients_that_are_online_are_listed(http: Http, agent: Agent) -> None:
    answer = http.get("/api/clients")

    assert answer.status == 200
    assert answer.json.keys() == {"total", "clients"}
    assert answer.json["total"] == len(answer.json["clients"])
    assert agent.client_id in [client["client_id"] for client in answer.json["clients"]]


def test_a_client_is_looked_at(http: Http, agent: Agent) -> None:
    answer = http.get(f"/api/clients/{agent.client_id}")

    assert answer.status == 200
    client = answer.json
    connected_at, last_heartbeat, uptime = (client.pop(name) for name in ("connected_at", "last_heartbeat", "uptime"))
    assert RFC3339.fullmatch(connected_at)
    assert RFC3339.fullmatch(last_heartbeat)
    age = datetime.now(timezone.utc) - datetime.fromisoformat(connected_at.replace("Z", "+00:00"))
    assert 0 <= uptime <= age.total_seconds() + 0.001  # it is rounded to milliseconds
    assert client.pop("uptime_seconds") == uptime
    moment = datetime.fromisoformat(connected_at.replace("Z", "+00:00"))
    assert client.pop("connected_at_ms") == int(moment.timestamp() * 1000)
    assert client == {
        "client_id": agent.client_id,
        "remote_addr": "127.0.0.1",
        "labels": {"site": agent.client_id},
        "state": "online",
    }


@pytest.mark.parametrize("client_id", ["nobody", "no.body"])
def test_a_client_that_is_not_online_is_not_found(http: Http, client_id: str) -> None:
    answer = http.get(f"/api/clients/{client_id}")

    assert (answer.status, answer.error) == (404, f"Client not found: {client_id}")


# POST /api/send, POST /api/broadcast ----------------------------------------------------------------------------------


def test_a_message_reaches_its_agent(http: Http, client: lightlink.Client, prefix: str) -> None:
    heard: list[AgentMessage] = []
    listener = Agent(prefix, client)
    listener.on_message(heard.append)

    with listener:
        answer = http.post("/api/send", {"client_id": prefix, "type": "notice", "payload": {"n": 1}, "wait_ack": True})

    assert answer.status == 200
    msg_id = answer.json["msg_id"]
    assert answer.json == {"success": True, "msg_id": msg_id, "total": 1, "success_count": 1, "failed_count": 0}
    assert [(each.msg_id, each.type, each.payload, each.issued_by) for each in heard] == [
        (msg_id, "notice", {"n": 1}, "http")
    ]


def test_a_message_that_its_agent_fails_on_says_so(http: Http, client: lightlink.Client, prefix: str) -> None:
    listener = Agent(prefix, client)

    @listener.on_message
    def fail(message: AgentMessage) -> None:
        raise ValueError("cannot read this")

    with listener:
        answer = http.post("/api/send", {"client_id": prefix, "type": "notice", "wait_ack": True})

    assert answer.status == 200
    assert answer.json["success"] is False
    assert (answer.json["success_count"], answer.json["failed_count"]) == (0, 1)
    assert answer.json["errors"] == {prefix: "ValueError: cannot read this"}


def test_a_message_to_an_agent_that_is_offline_is_refused(http: Http, prefix: str) -> None:
    answer = http.post("/api/send", {"client_id": prefix, "type": "notice"})

    assert (answer.status, answer.error) == (503, f"client not connected: {prefix}")


def test_a_broadcast_reaches_every_agent(http: Http, client: lightlink.Client, prefix: str) -> None:
    heard: set[str] = set()
    both = threading.Barrier(2, timeout=30)
    listeners = [Agent(f"{prefix}_{number}", client) for number in range(2)]
    for listener in listeners:

        @listener.on_message("notice")
        def note(message: AgentMessage, who: str = listener.client_id) -> None:
            heard.add(f"{who}: {message.payload}")
            both.wait()

    with listeners[0], listeners[1]:
        answer = http.post("/api/broadcast", {"type": "notice", "payload": "hello"})
        eventually(lambda: len(heard) == 2)

    assert answer.status == 200
    body = answer.json
    assert body["msg_id"]
    assert body["success_count"] >= 2
    assert body["total"] == body["success_count"] + body["failed_count"]
    assert heard == {f"{prefix}_0: hello", f"{prefix}_1: hello"}


# GET /health ----------------------------------------------------------------------------------------------------------


def test_a_healthy_server_says_so(http: Http) -> None:
    answer = http.get("/health")

    assert answer.status == 200
    assert answer.json.keys() == {"status", "time"}
    assert answer.json["status"] == "ok"
    assert RFC3339.fullmatch(answer.json["time"])


# Several processes ----------------------------------------------------------------------------------------------------


def test_every_process_gives_the_same_answers(url: str, http: Http, prefix: str) -> None:
    command_id = send(http, prefix, "add")
    body = {"client_ids": [f"{prefix}_1", f"{prefix}_2"], "command_type": "add", "wait": False}
    batch_id = http.post("/api/command/multi", body).json["batch_id"]
    paths = [f"/api/command/{command_id}", f"/api/batch/{batch_id}", f"/api/commands?client_id={prefix}_1"]

    with HttpProcess(url) as other:
        assert [other.http.get(path).json for path in paths] == [http.get(path).json for path in paths]


def test_commands_sent_from_python_are_seen_over_http(url: str, http: Http, prefix: str) -> None:
    with lightlink.connect(url) as client, CommandManager(client, name="a-script") as manager:
        promise = manager.send(prefix, "add", {"a": 1})

    command = http.get(f"/api/command/{promise.command_id}").json["command"]

    assert (command["issued_by"], command["payload"]) == ("a-script", {"a": 1})


def test_a_command_is_sent_again_as_it_was(http: Http, prefix: str) -> None:
    payload = {"serial": 2**64 + 1, "ratio": 1.0, "small": -(2**63) - 1}
    body = {"client_id": prefix, "command_type": "mark", "payload": payload, "timeout": 77.5, "priority": 3}
    first = http.post("/api/command", body).json["command_id"]
    second = http.post(f"/api/command/{first}/resend").json["command_id"]

    sent, again = (http.get(f"/api/command/{each}").json["command"] for each in (first, second))
    assert first != second
    for name in ("client_id", "command_type", "timeout", "priority"):
        assert again[name] == sent[name] == body[name]
    assert str(again["payload"]) == str(payload)
    assert http.post("/api/command/nonsense/resend").status == 404


def test_a_command_is_taken_back_once(http: Http, client: lightlink.Client, prefix: str) -> None:
    found = {"mode": "day"}
    agent = Agent(f"{prefix}-undo", client)

    @agent.command("set", undo="restore")
    def set_(mode: str) -> Undoable:
        before, found["mode"] = found["mode"], mode
        return Undoable(None, undo={"mode": before})

    agent.register("restore", lambda mode: found.update(mode=mode))
    with agent:
        body = {"client_id": agent.client_id, "command_type": "set", "payload": {"mode": "night"}}
        sent = http.post("/api/command", body).json["command_id"]
        done = http.get(f"/api/command/{sent}?wait=10").json["command"]
        assert (done["status"], done["undo"]) == ("completed", "restore")
        undo = http.post(f"/api/command/{sent}/undo").json["command_id"]
        undone = http.get(f"/api/command/{undo}?wait=10").json["command"]
        assert undone["status"] == "completed"
        assert "undone_by" not in done
        assert http.get(f"/api/command/{sent}").json["command"]["undone_by"] == undo
        assert "undo" not in undone  # nothing takes this one back
        assert found == {"mode": "day"}
        assert http.post(f"/api/command/{sent}/undo").status == 409
        assert http.post("/api/command/nonsense/undo").status == 404


def test_requests_are_taken_as_front_ends_send_them(
    http: Http, client: lightlink.Client, agent: Agent, prefix: str
) -> None:
    """Empty filters, counted pages, a timeout of 0, a type left out, and nobody waited for who is not there."""
    ids = [send(http, agent.client_id, "add", {"a": 1, "b": number}, timeout=0) for number in range(5)]
    for command_id in ids:
        assert http.get(f"/api/command/{command_id}?wait=20").json["command"]["timeout"] == 30.0
    listed = http.get(f"/api/commands?client_id={prefix}&status=&command_type=").json
    assert [each["command_id"] for each in listed["commands"]] == ids[::-1]
    found = [http.get(f"/api/commands?client_id={prefix}&page={number}&page_size=2").json for number in (1, 2, 3, 4)]
    pages = [[each["command_id"] for each in page["commands"]] for page in found]
    assert pages == [ids[4:2:-1], ids[2:0:-1], ids[:1], []]
    body = {"client_ids": [agent.client_id, f"{prefix}-away"], "command_type": "add", "payload": {"a": 1, "b": 2}}
    answer = http.post("/api/command/multi", {**body, "queue": False, "timeout": 600}).json
    statuses = {each["client_id"]: each["status"] for each in answer["results"]}
    assert statuses == {prefix: "completed", f"{prefix}-away": "failed"}
    assert (answer["success_count"], answer["failed_count"]) == (1, 1)
    nobody = http.post("/api/command/multi", {**body, "client_ids": [f"{prefix}-away"], "queue": False}).json
    assert [each["status"] for each in nobody["results"]] == ["failed"]


def test_a_message_has_a_type_if_it_names_none(http: Http, client: lightlink.Client, prefix: str) -> None:
    got: list[str] = []
    listener = Agent(prefix, client)
    listener.on_message(lambda message: got.append(message.type))
    with listener:
        assert http.post("/api/send", {"client_id": prefix, "wait_ack": True}).status == 200
        assert http.post("/api/broadcast", {}).status == 200
        eventually(lambda: got == ["command", "event"])
