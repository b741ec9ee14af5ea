"""Who may do what: tokens and their scopes, over real HTTP."""

from __future__ import annotations

import hashlib
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from helpers.http import Events, Http, HttpProcess, tokens_file
from helpers.waiting import eventually

import lightlink
from lightlink.commands import Agent, AgentMessage, CommandManager, Undoable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lightlink.commands import AuditEntry
    from lightlink.server import EmbeddedServer

OPS, READER, SENDER, BERLIN, SLOW = (
    f"{name}-secret-0123456789" for name in ("ops", "reader", "sender", "berlin", "slow")
)
ALL = {"scope": ["read", "send"]}
TOKENS: tuple[dict[str, Any], ...] = (
    {"name": "ops", "token": OPS, **ALL},
    {"name": "dashboard", "sha256": hashlib.sha256(READER.encode()).hexdigest(), "scope": ["read"]},
    {"name": "sender", "token": SENDER, "scope": ["send"]},
    {"name": "berlin", "token": BERLIN, **ALL, "clients": ["berlin-*"], "command_types": ["restart", "log.*"]},
    {"name": "slow", "token": SLOW, **ALL, "rate": 1},
)


@pytest.fixture(scope="module")
def running(server: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[HttpProcess]:
    path = tokens_file(tmp_path_factory.mktemp("tokens") / "tokens.json", *TOKENS)
    with HttpProcess(server.url, f"--tokens={path}") as process:
        yield process


def as_(running: HttpProcess, token: str | None) -> Http:
    return Http(running.url, token)


def send(http: Http, client_id: str, command_type: str = "restart") -> Any:
    return http.post("/api/command", {"client_id": client_id, "command_type": command_type})


# Without a good token -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path", ["/api/commands", "/api/clients", "/api/command/x", "/api/commands/stream", "/metrics"]
)
@pytest.mark.parametrize(
    "authorization", [None, "", "Bearer", "Bearer ", "Bearer wrong", f"Basic {OPS}", OPS, f"Bearer {OPS}x", "Bearer é"]
)
def test_without_a_good_token_nothing_is_told(running: HttpProcess, path: str, authorization: str | None) -> None:
    headers = {} if authorization is None else {"Authorization": authorization.encode("latin-1").decode("latin-1")}

    answer = running.http.get(path, headers=headers)

    assert answer.status == 401
    assert answer.error == "a good bearer token is needed: Authorization: Bearer <token>"
    assert answer.headers["WWW-Authenticate"] == 'Bearer realm="lightlink"'


def test_without_a_good_token_nothing_is_sent(running: HttpProcess, prefix: str) -> None:
    assert send(running.http, prefix).status == 401

    assert as_(running, OPS).get(f"/api/commands?client_id={prefix}").json["commands"] == []


def test_health_and_the_api_s_description_need_no_token(running: HttpProcess) -> None:
    assert running.http.get("/health").status == 200
    assert running.http.get("/openapi.json").json["security"] == [{"token": []}]


def test_the_word_bearer_may_be_written_in_any_case(running: HttpProcess) -> None:
    assert running.http.get("/api/commands", headers={"Authorization": f"bearer  {OPS}"}).status == 200


# Scopes ---------------------------------------------------------------------------------------------------------------


def test_the_token_s_name_is_recorded_as_who_issued_a_command(running: HttpProcess, prefix: str) -> None:
    ops = as_(running, OPS)
    command_id = send(ops, prefix).json["command_id"]
    body = {"client_ids": [prefix], "command_type": "restart", "wait": False}
    batch = ops.post("/api/command/multi", body).json
    member = ops.get(f"/api/batch/{batch['batch_id']}").json["results"][0]["command_id"]

    for each in (command_id, member):
        assert ops.get(f"/api/command/{each}").json["command"]["issued_by"] == "ops"


def test_the_token_s_name_is_recorded_as_who_cancelled(running: HttpProcess, url: str, prefix: str) -> None:
    ops = as_(running, OPS)
    command_id = send(ops, prefix).json["command_id"]
    ops.post(f"/api/command/{command_id}/cancel", {})

    with lightlink.connect(url) as client, CommandManager(client) as manager:
        # The audit hears of requests and of statuses on two ways, and in no order.
        entries = eventually(lambda: _two(list(manager.audit(command_id))))

    assert sorted((entry.status, entry.by) for entry in entries) == [("failed", "ops"), ("pending", "ops")]


def _two(entries: list[AuditEntry]) -> list[AuditEntry]:
    return entries if len(entries) == 2 else []


def test_an_agent_is_told_who_sent_a_message(running: HttpProcess, url: str, prefix: str) -> None:
    heard: list[AgentMessage] = []
    with lightlink.connect(url) as client:
        agent = Agent(prefix, client)
        agent.on_message(heard.append)
        with agent:
            as_(running, OPS).post("/api/send", {"client_id": prefix, "type": "x", "wait_ack": True})

    assert [message.issued_by for message in heard] == ["ops"]


def test_keys_of_different_tokens_do_not_meet(running: HttpProcess, prefix: str) -> None:
    body = {"client_id": prefix, "command_type": "restart", "idempotency_key": prefix}
    ids = [as_(running, token).post("/api/command", body).json["command_id"] for token in (OPS, SENDER, OPS)]

    assert ids[0] == ids[2] != ids[1]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/command", {"client_id": "a1", "command_type": "restart"}),
        ("/api/command/multi", {"client_ids": ["a1"], "command_type": "restart"}),
        ("/api/command/some-id/cancel", {}),
        ("/api/send", {"client_id": "a1", "type": "x"}),
        ("/api/broadcast", {"type": "x"}),
    ],
)
def test_a_token_to_read_does_not_send(running: HttpProcess, path: str, body: Any) -> None:
    answer = as_(running, READER).post(path, body)

    assert (answer.status, answer.error) == (403, "token 'dashboard' may not send")


@pytest.mark.parametrize(
    "path", ["/api/commands", "/api/command/x", "/api/clients", "/api/batch/x", "/api/commands/stream", "/metrics"]
)
def test_a_token_to_send_does_not_read(running: HttpProcess, path: str) -> None:
    answer = as_(running, SENDER).get(path)

    assert (answer.status, answer.error) == (403, "token 'sender' may not read")


def test_a_token_is_good_for_its_clients_only(running: HttpProcess) -> None:
    berlin = as_(running, BERLIN)
    multi = {"client_ids": ["berlin-1", "paris-1"], "command_type": "restart"}

    assert send(berlin, "berlin-1").status == 200
    for answer in (
        send(berlin, "paris-1"),
        berlin.post("/api/command/multi", multi),
        berlin.post("/api/send", {"client_id": "paris-1", "type": "restart"}),
        berlin.get("/api/commands?client_id=paris-1"),
        berlin.get("/api/commands/stream?client_id=paris-1"),
    ):
        assert (answer.status, answer.error) == (403, "token 'berlin' is not good for client 'paris-1'")


def test_a_token_is_good_for_its_types_only(running: HttpProcess) -> None:
    berlin = as_(running, BERLIN)

    assert send(berlin, "berlin-1", "log.rotate").status == 200
    for answer in (
        send(berlin, "berlin-1", "exec_shell"),
        berlin.post("/api/command/multi", {"client_ids": ["berlin-1"], "command_type": "exec_shell"}),
        berlin.post("/api/send", {"client_id": "berlin-1", "type": "exec_shell"}),
        berlin.get("/api/commands?command_type=exec_shell"),
    ):
        assert (answer.status, answer.error) == (403, "token 'berlin' is not good for type 'exec_shell'")


def test_a_token_takes_back_by_types_it_is_good_for_only(running: HttpProcess, url: str, prefix: str) -> None:
    ops, berlin, ran = as_(running, OPS), as_(running, BERLIN), list[str]()
    with lightlink.connect(url) as client:
        agent = Agent(f"berlin-{prefix}", client)
        for kind, undo in (("restart", "exec_shell"), ("log.on", "log.off")):
            agent.register(kind, lambda: Undoable(None, undo={}), undo=undo)
            agent.register(undo, partial(ran.append, undo))
        with agent:
            restart, log = (send(berlin, agent.client_id, each).json["command_id"] for each in ("restart", "log.on"))
            for each in (restart, log):
                assert berlin.get(f"/api/command/{each}?wait=20").json["command"]["status"] == "completed"
            refused = berlin.post(f"/api/command/{restart}/undo")
            undo = berlin.post(f"/api/command/{log}/undo").json["command_id"]
            assert berlin.get(f"/api/command/{undo}?wait=20").json["command"]["command_type"] == "log.off"
            assert ran == ["log.off"]
            assert ops.post(f"/api/command/{restart}/undo").status == 200

    assert (refused.status, refused.error) == (403, "token 'berlin' is not good for type 'exec_shell'")


def test_a_token_for_some_clients_does_not_broadcast(running: HttpProcess) -> None:
    answer = as_(running, BERLIN).post("/api/broadcast", {"type": "restart"})

    assert (answer.status, answer.error) == (403, "token 'berlin' is not good for all clients")


def test_labels_reach_only_clients_the_token_is_good_for(running: HttpProcess, url: str, prefix: str) -> None:
    with lightlink.connect(url) as client, Agent(prefix, client, labels={"is": prefix}):
        answer = as_(running, BERLIN).post("/api/command/multi", {"labels": {"is": prefix}, "command_type": "restart"})

        none = as_(running, BERLIN).post("/api/command/multi", {"labels": {"is": "x"}, "command_type": "restart"})
    assert (answer.status, answer.json["total"]) == (none.status, none.json["total"]) == (200, 0)


def test_a_token_sees_only_commands_it_is_good_for(running: HttpProcess, prefix: str) -> None:
    ops, berlin = as_(running, OPS), as_(running, BERLIN)
    site = f"berlin-{prefix}"
    hidden = send(ops, site, "exec_shell").json["command_id"]
    mine = [send(ops, site).json["command_id"] for _ in range(2)]
    for _ in range(3):
        send(ops, f"paris-{prefix}")

    for answer in (berlin.get(f"/api/command/{hidden}"), berlin.post(f"/api/command/{hidden}/cancel", {})):
        assert (answer.status, answer.error) == (404, f"Command not found: {hidden}")
    listed = berlin.get(f"/api/commands?client_id={site}").json["commands"]
    assert [command["command_id"] for command in listed] == mine[::-1]
    # A page is filled with what may be seen, however much lies between.
    page = berlin.get("/api/commands?limit=2").json
    assert [command["command_id"] for command in page["commands"]] == mine[::-1]
    assert {command["client_id"] for command in berlin.get("/api/commands").json["commands"]} >= {site}


def test_a_batch_shows_a_token_only_what_it_is_good_for(running: HttpProcess, prefix: str) -> None:
    ops, berlin = as_(running, OPS), as_(running, BERLIN)

    def batch(*clients: str) -> str:
        body = {"client_ids": clients, "command_type": "restart", "wait": False}
        return str(ops.post("/api/command/multi", body).json["batch_id"])

    mixed, foreign = batch(f"berlin-{prefix}", f"paris-{prefix}"), batch(f"paris-{prefix}")

    assert [each["client_id"] for each in berlin.get(f"/api/batch/{mixed}").json["results"]] == [f"berlin-{prefix}"]
    assert berlin.get(f"/api/batch/{foreign}").status == 404


def test_a_token_sees_only_clients_it_is_good_for(running: HttpProcess, url: str, prefix: str) -> None:
    with lightlink.connect(url) as client, Agent(f"berlin-{prefix}", client), Agent(f"paris-{prefix}", client):
        body = as_(running, BERLIN).get("/api/clients").json

    assert [client["client_id"] for client in body["clients"]] == [f"berlin-{prefix}"]


def test_a_stream_tells_a_token_only_what_it_is_good_for(running: HttpProcess, prefix: str) -> None:
    ops = as_(running, OPS)
    with as_(running, BERLIN).open("/api/commands/stream") as opened:
        events = iter(Events(opened))
        send(ops, f"paris-{prefix}")
        send(ops, f"berlin-{prefix}", "exec_shell")
        seen = send(ops, f"berlin-{prefix}").json["command_id"]

        assert next(events)[1]["command_id"] == seen


# Rates ----------------------------------------------------------------------------------------------------------------


def test_a_token_that_asks_too_often_is_told_to_wait(running: HttpProcess) -> None:
    slow = as_(running, SLOW)
    answers = [slow.get("/api/command/x") for _ in range(10)]
    refused = [answer for answer in answers if answer.status == 429]

    assert [answer.status for answer in answers[:2]] == [404, 404]
    assert refused
    assert refused[0].error.startswith("more than 1 requests a second; try again in ")
    assert int(refused[0].headers["Retry-After"]) >= 1
    # The others have buckets of their own.
    assert as_(running, OPS).get("/api/commands").status == 200


def test_a_limited_token_learns_nothing_of_what_it_may_not_see(running: HttpProcess, url: str, prefix: str) -> None:
    ops, berlin = as_(running, OPS), as_(running, BERLIN)
    with lightlink.connect(url) as client, Agent(f"paris-{prefix}", client):
        there, absent = berlin.get(f"/api/clients/paris-{prefix}"), berlin.get(f"/api/clients/rome-{prefix}")
    assert (there.status, absent.status) == (404, 404)
    assert berlin.get("/metrics").status == 403
    assert ops.get("/metrics").status == 200
