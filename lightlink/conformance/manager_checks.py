"""Checks of who manages agents: what it stores, and what it makes of what an agent stores, which is the judge here."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

from lightlink.conformance import command_wire as commands
from lightlink.conformance.checks import (
    Checks,
    Fault,
    Script,
    Step,
    Wire,
    error_of,
    expected_of,
    fresh,
    need,
    read_object,
    result_of,
    same,
    shown,
)
from lightlink.events.message import Message
from lightlink.jetstream.errors import JetStreamError
from lightlink.protocol import subjects

if TYPE_CHECKING:
    from collections.abc import Generator

    Steps = Generator[Step, dict[str, Any], Any]

_REQUEST = "A request is JSON: `command_id`, `client_id`, `command_type`, `created_at`, `timeout` in seconds,"
_ONCE = "subject `ll.commands.<client_id>.<command_id>`, written once with expected last sequence 0"
_CONSUMER = "A manager makes the streams, and an agent's consumer before the first request to it."
_PENDING = "no entry means pending;"
_MOVES = "It moves `pending -> executing -> completed | failed | timeout`, or from `pending` to `failed` or `timeout`."
_STATUS = "A status is JSON: `status`, `at` (when it was written), `by` (who wrote it),"
_CANCEL = "A pending command is cancelled by creating its end: `failed`, `status_detail` `cancelled`."
_CANCEL_RUNNING = "Over `executing` the same status is written again, with `cancel_requested: true`;"
_END = "Nothing but a `late_result` is added to an end."
_OVER = "whoever finds it shows `timeout`."
_PRESENCE = "An agent that leaves deletes it, as the key of a bucket is."
_MESSAGE = "A message is JSON: `msg_id` (one token of a subject), `type`, `sent_at`,"
_ACKED = "`ll.messages.<client_id>`, `ll.broadcast`, acknowledged on `ll.acks.<client_id>.<message_id>`"
_SECONDS_APART = 2


def _prepare(wire: Wire) -> None:
    commands.store_of(wire).ensure_streams()


MANAGER: Checks[Script] = Checks(_prepare)


def _send(client_id: str, **more: Any) -> Steps:
    """Have a command sent; returns its id."""
    args = {"client_id": client_id, "command_type": "add", "payload": {"a": 1, "b": 2}, "timeout": 60, **more}
    command_id = result_of((yield Step("send", args)), "send")
    if not isinstance(command_id, str) or not subjects.is_plain_token(command_id):
        raise Fault(f"the command's id is {shown(command_id)}, not one token of a subject")
    return command_id


def _claim(wire: Wire, client_id: str, command_id: str) -> int:
    claim = {"status": "executing", "instance": "judge", "attempt": 1, "started_at": commands.now()}
    return commands.set_status(wire, client_id, command_id, 0, **claim)


def _finish(wire: Wire, client_id: str, command_id: str, **end: Any) -> int:
    sequence = _claim(wire, client_id, command_id)
    facts = {"instance": "judge", "attempt": 1, "completed_at": commands.now(), **end}
    return commands.set_status(wire, client_id, command_id, sequence, **facts)


@MANAGER("sends a command", _REQUEST)
def sends(wire: Wire) -> Steps:
    """Read the request."""
    client_id = fresh("agent")
    command_id = yield from _send(client_id)
    message = wire.stored(subjects.COMMANDS_STREAM, subjects.command_request(client_id, command_id))
    request = read_object(message.data, "the request")
    expected = {"command_id": command_id, "client_id": client_id, "command_type": "add", "payload": {"a": 1, "b": 2}}
    for name, value in expected.items():
        same(request.get(name), value, name)
    timeout = request.get("timeout")
    need(timeout == 60 and not isinstance(timeout, bool), f"timeout is {shown(timeout)}, not 60")
    late = abs((commands.check_time(request, "created_at", "the request") - message.created).total_seconds())
    need(late < wire.timeout + _SECONDS_APART, f"created_at is {late:g} s apart from when it was stored")


@MANAGER("writes a request where there is none", _ONCE)
def writes_once(wire: Wire) -> Steps:
    """Look at the condition on which it was stored."""
    client_id = fresh("agent")
    command_id = yield from _send(client_id)
    message = wire.stored(subjects.COMMANDS_STREAM, subjects.command_request(client_id, command_id))
    same(expected_of(message), "0", "the header Nats-Expected-Last-Subject-Sequence")


@MANAGER("makes the agent's consumer", _CONSUMER)
def makes_consumer(wire: Wire) -> Steps:
    """Ask for it after a command to an agent that nobody has heard of."""
    client_id = fresh("agent")
    yield from _send(client_id)
    try:
        config = commands.consumer(wire, client_id).get("config") or {}
    except JetStreamError as exc:
        raise Fault(f"there is no consumer agent-{client_id}: {exc}") from None
    same(config.get("filter_subject"), f"ll.commands.{client_id}.*", "its filter")
    same(config.get("ack_policy"), "explicit", "its ack_policy")
    need(not config.get("deliver_subject"), "it pushes")


@MANAGER("shows a command without a status as pending", _PENDING)
def shows_pending(wire: Wire) -> Steps:  # noqa: ARG001 - all checks are called alike
    """Have a command shown that nobody has taken."""
    command_id = yield from _send(fresh("agent"))
    same(result_of((yield Step("status", {"command_id": command_id})), "status"), "pending", "what it shows")


@MANAGER("shows what the agent has stored", _MOVES)
def shows_executing(wire: Wire) -> Steps:
    """Have a command shown that is claimed."""
    client_id = fresh("agent")
    command_id = yield from _send(client_id)
    _claim(wire, client_id, command_id)
    same(result_of((yield Step("status", {"command_id": command_id})), "status"), "executing", "what it shows")


@MANAGER("hands on the result", _STATUS)
def hands_on_result(wire: Wire) -> Steps:
    """Complete a command."""
    client_id = fresh("agent")
    command_id = yield from _send(client_id)
    _finish(wire, client_id, command_id, status="completed", result={"sum": 3})
    same(result_of((yield Step("result", {"command_id": command_id})), "result"), {"sum": 3}, "the result")


@MANAGER("hands on the error", _STATUS)
def hands_on_error(wire: Wire) -> Steps:
    """Let a command fail."""
    client_id = fresh("agent")
    command_id = yield from _send(client_id)
    _finish(wire, client_id, command_id, status="failed", error="the pump is dry")
    error = error_of((yield Step("result", {"command_id": command_id})), "the result of a command that failed")
    need("the pump is dry" in error, f"the error is {shown(error)}")


@MANAGER("shows what is over as timeout", _OVER)
def shows_timeout(wire: Wire) -> Steps:
    """Store a command whose time is up, and have it shown."""
    client_id = fresh("agent")
    yield from _send(client_id)
    ago = datetime.now(timezone.utc) - timedelta(seconds=30)
    command_id = commands.send(wire, client_id, "add", created_at=ago.isoformat(), timeout=5)
    same(result_of((yield Step("status", {"command_id": command_id})), "status"), "timeout", "what it shows")


@MANAGER("cancels a pending command by creating its end", _CANCEL)
def cancels_pending(wire: Wire) -> Steps:
    """Have a command cancelled that nobody has taken."""
    client_id = fresh("agent")
    command_id = yield from _send(client_id)
    result_of((yield Step("cancel", {"command_id": command_id, "reason": "no longer needed"})), "cancel")
    found = commands.statuses(wire, client_id, command_id)
    need(found, "no status is stored")
    same(found[-1].status, "failed", "the status")
    same(found[-1].body.get("status_detail"), "cancelled", "status_detail")
    same(expected_of(found[-1].message), "0", "the header Nats-Expected-Last-Subject-Sequence")


@MANAGER("asks the agent to cancel what runs", _CANCEL_RUNNING)
def cancels_running(wire: Wire) -> Steps:
    """Have a command cancelled that is claimed."""
    client_id = fresh("agent")
    command_id = yield from _send(client_id)
    sequence = _claim(wire, client_id, command_id)
    result_of((yield Step("cancel", {"command_id": command_id, "reason": "no longer needed"})), "cancel")
    last = commands.statuses(wire, client_id, command_id)[-1]
    told = {name: last.body.get(name) for name in ("status", "instance", "attempt", "cancel_requested")}
    same(told, {"status": "executing", "instance": "judge", "attempt": 1, "cancel_requested": True}, "the status")
    same(expected_of(last.message), str(sequence), "the header Nats-Expected-Last-Subject-Sequence")


@MANAGER("adds nothing to what has ended", _END)
def leaves_ended(wire: Wire) -> Steps:
    """Have a command cancelled that is completed."""
    client_id = fresh("agent")
    command_id = yield from _send(client_id)
    sequence = _finish(wire, client_id, command_id, status="completed", result={"sum": 3})
    yield Step("cancel", {"command_id": command_id, "reason": "no longer needed"})
    same(commands.statuses(wire, client_id, command_id)[-1].message.seq, sequence, "the last status")


@MANAGER("shows who is online", _PRESENCE)
def shows_online(wire: Wire) -> Steps:
    """Claim two ids, and leave with one."""
    here, gone = fresh("agent"), fresh("agent")
    for client_id in (here, gone):
        presence = {"client_id": client_id, "instance": "judge"}
        times = {"connected_at": commands.now(), "last_heartbeat": commands.now()}
        wire.put(subjects.AGENTS_STREAM, subjects.agent_presence(client_id), {**presence, **times}, expected=0)
    wire.put(subjects.AGENTS_STREAM, subjects.agent_presence(gone), b"", headers={"KV-Operation": "DEL"})
    shown_online = result_of((yield Step("clients", {})), "clients")
    need(isinstance(shown_online, list), f"clients is {shown(shown_online)}, not a list")
    need(here in shown_online, f"{here} is online and not shown")
    need(gone not in shown_online, f"{gone} has left and is shown")


@MANAGER("sends a message, and takes the acknowledgement", _MESSAGE)
def sends_message(wire: Wire) -> Steps:
    """Hear the message, and acknowledge it."""
    client_id = fresh("agent")
    answered: list[dict[str, Any]] = []

    def acknowledge(message: Message) -> None:
        body = read_object(message.data, "the message")
        answered.append(body)
        wire.publish(f"ll.acks.{client_id}.{body.get('msg_id')}", {})

    with wire.client.subscribe(f"ll.messages.{client_id}", acknowledge, raw=True):
        wire.client.flush(wire.timeout)
        outcome = yield Step("message", {"client_id": client_id, "message_type": "note", "payload": {"n": 1}})
    need(answered, f"no message came on ll.messages.{client_id}")
    need(subjects.is_plain_token(str(answered[0].get("msg_id") or "")), "msg_id is not one token of a subject")
    same(answered[0].get("type"), "note", "type")
    same(answered[0].get("payload"), {"n": 1}, "payload")
    commands.check_time(answered[0], "sent_at", "the message")
    same(result_of(outcome, "message"), [client_id], "who has it")


@MANAGER("tells that nobody has acknowledged a message", _ACKED)
def hears_silence(wire: Wire) -> Steps:  # noqa: ARG001 - all checks are called alike
    """Have a message sent to an agent that is not there."""
    outcome = yield Step("message", {"client_id": fresh("agent"), "message_type": "note", "payload": {"n": 1}})
    need(outcome.get("result") in (None, []), f"it says that {shown(outcome.get('result'))} have it")
