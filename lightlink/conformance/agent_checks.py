"""Checks of an agent: the judge writes what a manager writes, and looks at what the agent makes of it.

The agent has the commands ``add``, ``fail``, ``count`` and ``wait``, as docs/conformance.md describes them.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Collection, Iterator
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

from lightlink.commands.store import schema
from lightlink.conformance import command_wire as commands
from lightlink.conformance.checks import Checks, Fault, Wire, expected_of, fresh, need, read_object, same, shown
from lightlink.conformance.vectors import Verdict
from lightlink.errors import LightLinkError
from lightlink.jetstream import api
from lightlink.protocol import subjects

if TYPE_CHECKING:
    from lightlink.client import Client

_PRESENCE = "A presence is JSON: `client_id`, `instance`, `connected_at`, `last_heartbeat`,"
_RENEWED = "bucket `lightlink_agents`, key `<client_id>`, claimed by create, renewed with each heartbeat"
_DELIVERY = "durable pull consumer `agent-<client_id>`, filter `ll.commands.<client_id>.*`, explicit acknowledgement"
_CAS = "every write is a compare-and-set"
_MOVES = "It moves `pending -> executing -> completed | failed | timeout`, or from `pending` to `failed` or `timeout`."
_FIRST_CLAIM = "An agent creates `executing` and waits for that acknowledgement before the handler runs,"
_ACK = "acknowledges the delivery only after the terminal status is stored."
_REJECTED = (
    "A type that the agent does not know, or a payload that does not fit it, is `failed` with the `status_detail` "
    "`rejected`."
)
_END = "Nothing but a `late_result` is added to an end."
_OTHER = "else the agent ends it as `failed`, `status_detail` `interrupted`, `outcome_unknown: true`."
_CANCEL = "with `cancel_requested: true`; the agent then ends the command."
_OVER = "an agent does not begin it then,"
_NOT_BELIEVED = "is not believed: then the time counts from when it was stored."
_UNREADABLE = "An agent goes on behind a request that it cannot read."
_UNKNOWN = "Unknown fields are ignored."
_STATUS = "A status is JSON: `status`, `at` (when it was written), `by` (who wrote it),"
_MESSAGES = "`ll.messages.<client_id>`, `ll.broadcast`, acknowledged on `ll.acks.<client_id>.<message_id>`"
_ACKED = "Its acknowledgement is an object, with `error` where the agent could not handle it;"
_DESCRIBE = "An agent answers the message type `_describe` with an acknowledgement that holds `commands`:"
_PROGRESS = "A progress is JSON: `fraction`, from 0 to 1, and `note`."


def _prepare(wire: Wire) -> None:
    commands.store_of(wire).ensure_streams()


AGENT: Checks[Callable[[Wire, str], None]] = Checks(_prepare)


def judge_agent(
    client: Client, client_id: str = "conformance", timeout: float = 5.0, only: Collection[str] | None = None
) -> Iterator[Verdict]:
    """Send an agent what it may be sent, and yield what became of it.

    ``timeout`` is how many seconds each thing may take; ``only`` names the checks that are wanted. The streams and the
    agent's consumer are made where they are not there. Raises StoreUnavailable, PermissionDenied, InvalidName and
    InvalidOption; what the agent does wrong are verdicts.
    """
    schema.client_id(client_id)
    wanted = AGENT.named(only)
    wire = Wire(client, timeout)
    AGENT.prepare(wire)
    commands.store_of(wire).ensure_consumers([client_id])
    for check in wanted:
        fault = ""
        try:
            check.run(wire, client_id)
        except (Fault, LightLinkError) as exc:
            fault = str(exc)
        yield Verdict(check.name, check.level, check.sentence, fault)


# Presence -----------------------------------------------------------------------------------------------------------


@AGENT("tells that it is online", _PRESENCE)
def tells_presence(wire: Wire, client_id: str) -> None:
    """Read its presence."""
    subject = subjects.agent_presence(client_id)
    message = wire.until(lambda: wire.last(subjects.AGENTS_STREAM, subject), f"nothing is stored on {subject}")
    commands.check_presence(read_object(message.data, "the presence"), client_id)


@AGENT("renews its presence over the last", _RENEWED)
def renews_presence(wire: Wire, client_id: str) -> None:
    """Wait for its next heartbeat."""
    subject = subjects.agent_presence(client_id)
    first = wire.stored(subjects.AGENTS_STREAM, subject)
    bucket = api.stream_info(wire.client.connection, subjects.AGENTS_STREAM, wire.timeout)
    longest = wire.timeout if bucket is None else bucket.config.max_age / 1e9

    def look() -> Any:
        last = wire.last(subjects.AGENTS_STREAM, subject)
        return last if last is not None and last.seq != first.seq else None

    second = wire.until(look, "it gives no further sign of life", longest)
    same(expected_of(second), str(first.seq), "the header Nats-Expected-Last-Subject-Sequence of the second")


# Running ------------------------------------------------------------------------------------------------------------


@AGENT("completes a command", _STATUS)
def completes(wire: Wire, client_id: str) -> None:
    """Have it add two numbers."""
    end = commands.ended(wire, client_id, commands.send(wire, client_id, "add", {"a": 1, "b": 2}))
    need(end.status == "completed", f"the status is {shown(end.body)}, not completed")
    same(end.body.get("result"), {"sum": 3}, "result")
    need(isinstance(end.body.get("by"), str), "by is missing")
    for name in ("at", "completed_at"):
        commands.check_time(end.body, name, "the status")


@AGENT("takes its work from its consumer", _DELIVERY)
def takes_from_consumer(wire: Wire, client_id: str) -> None:
    """Count what the consumer has delivered."""

    def delivered() -> int:
        found = commands.consumer(wire, client_id).get("delivered") or {}
        return int(found.get("consumer_seq", 0))

    before = delivered()
    commands.ended(wire, client_id, commands.send(wire, client_id, "add", {"a": 1, "b": 2}))
    need(delivered() > before, f"the consumer agent-{client_id} has delivered nothing")


@AGENT("claims a command by creating its status", _FIRST_CLAIM)
def claims(wire: Wire, client_id: str) -> None:
    """Look at the first status."""
    command_id = commands.send(wire, client_id, "add", {"a": 1, "b": 2})
    commands.ended(wire, client_id, command_id)
    first = commands.statuses(wire, client_id, command_id)[0]
    need(first.status == "executing", f"the first status is {first.status!r}")
    need(first.body.get("instance"), "the first status names no instance")
    same(first.body.get("attempt"), 1, "attempt")
    same(expected_of(first.message), "0", "the header Nats-Expected-Last-Subject-Sequence of the first status")


@AGENT("writes each status over the one before", _CAS)
def writes_over(wire: Wire, client_id: str) -> None:
    """Look at all statuses of a command."""
    command_id = commands.send(wire, client_id, "add", {"a": 1, "b": 2})
    commands.ended(wire, client_id, command_id)
    found = commands.statuses(wire, client_id, command_id)
    for before, after in itertools.pairwise(found):
        same(expected_of(after.message), str(before.message.seq), f"over which sequence {after.status!r} is written")


@AGENT("says executing while it runs", _MOVES)
def says_executing(wire: Wire, client_id: str) -> None:
    """Look at a command that takes a moment."""
    command_id = commands.send(wire, client_id, "wait", {"seconds": 0.5})
    commands.until_status(wire, client_id, command_id, "executing")
    commands.until_status(wire, client_id, command_id, "completed")
    moves = [each.status for each in commands.statuses(wire, client_id, command_id)]
    need(set(moves[:-1]) == {"executing"}, f"the statuses are {shown(moves)}")


@AGENT("holds the delivery until the end is stored", _ACK)
def holds_delivery(wire: Wire, client_id: str) -> None:
    """Ask the consumer while a command runs."""
    command_id = commands.send(wire, client_id, "wait", {"seconds": 1})
    commands.until_status(wire, client_id, command_id, "executing")
    pending = commands.consumer(wire, client_id).get("num_ack_pending")
    running = commands.statuses(wire, client_id, command_id)[-1].status == "executing"
    commands.ended(wire, client_id, command_id)
    need(pending or not running, "the delivery is acknowledged while the command runs")


@AGENT("acknowledges the delivery when the end is stored", _ACK)
def acknowledges(wire: Wire, client_id: str) -> None:
    """Wait until the consumer is through."""
    commands.ended(wire, client_id, commands.send(wire, client_id, "add", {"a": 1, "b": 2}))
    wire.until(
        lambda: not commands.consumer(wire, client_id).get("num_ack_pending"), "the delivery is not acknowledged"
    )


@AGENT("tells how a command failed", _STATUS)
def tells_failure(wire: Wire, client_id: str) -> None:
    """Have a command fail."""
    end = commands.ended(wire, client_id, commands.send(wire, client_id, "fail", {"text": "the pump is dry"}))
    need(end.status == "failed", f"the status is {shown(end.body)}, not failed")
    need("the pump is dry" in str(end.body.get("error")), f"error is {shown(end.body.get('error'))}")


@AGENT("rejects a type that it does not know", _REJECTED)
def rejects(wire: Wire, client_id: str) -> None:
    """Send a type that there is not."""
    end = commands.ended(wire, client_id, commands.send(wire, client_id, fresh("unknown")))
    need(end.status == "failed", f"the status is {shown(end.body)}, not failed")
    same(end.body.get("status_detail"), "rejected", "status_detail")


@AGENT("ignores fields that it does not know", _UNKNOWN)
def ignores_fields(wire: Wire, client_id: str) -> None:
    """Send a request of a later version."""
    command_id = commands.send(wire, client_id, "add", {"a": 1, "b": 2}, later={"version": 9})
    same(commands.ended(wire, client_id, command_id).body.get("result"), {"sum": 3}, "result")


@AGENT("goes on behind a request that it cannot read", _UNREADABLE)
def goes_on(wire: Wire, client_id: str) -> None:
    """Store a request that is not JSON before one that is."""
    wire.put(subjects.COMMANDS_STREAM, subjects.command_request(client_id, fresh("broken")), b"{no json", expected=0)
    command_id = commands.send(wire, client_id, "add", {"a": 1, "b": 2})
    same(commands.ended(wire, client_id, command_id).body.get("result"), {"sum": 3}, "result")


# What it must not run -----------------------------------------------------------------------------------------------


@AGENT("does not run what was ended before", _END)
def leaves_ended(wire: Wire, client_id: str) -> None:
    """Cancel a command before it is sent, which is what a quick manager does."""
    before = _count(wire, client_id)
    command_id = fresh("command")
    end = {"status": "failed", "status_detail": "cancelled", "completed_at": commands.now()}
    sequence = commands.set_status(wire, client_id, command_id, 0, **end)
    commands.send(wire, client_id, "count", command_id=command_id)
    _until_through(wire, client_id, command_id)
    same(_count(wire, client_id), before + 1, "how often the handler has run")
    same(commands.statuses(wire, client_id, command_id)[-1].message.seq, sequence, "the last status")


@AGENT("does not run what another instance has begun", _OTHER)
def leaves_others(wire: Wire, client_id: str) -> None:
    """Claim a command in the name of an instance that is gone, before it is sent."""
    before = _count(wire, client_id)
    command_id = fresh("command")
    claim = {"status": "executing", "instance": "gone", "attempt": 1, "started_at": commands.now()}
    commands.set_status(wire, client_id, command_id, 0, **claim)
    commands.send(wire, client_id, "count", command_id=command_id)
    end = commands.ended(wire, client_id, command_id)
    same(_count(wire, client_id), before + 1, "how often the handler has run")
    told = {name: end.body.get(name) for name in ("status", "status_detail", "outcome_unknown")}
    same(told, {"status": "failed", "status_detail": "interrupted", "outcome_unknown": True}, "the end")


@AGENT("does not run what is over", _OVER)
def leaves_overdue(wire: Wire, client_id: str) -> None:
    """Send a command whose time is up."""
    before = _count(wire, client_id)
    command_id = commands.send(wire, client_id, "count", created_at=_ago(30), timeout=10)
    _until_through(wire, client_id, command_id)
    same(_count(wire, client_id), before + 1, "how often the handler has run")
    end = commands.statuses(wire, client_id, command_id)
    need(not end or end[-1].status == "timeout", f"the status is {shown(end[-1].body) if end else ''}, not timeout")


@AGENT("does not believe a time of an hour ago", _NOT_BELIEVED)
def believes_storage(wire: Wire, client_id: str) -> None:
    """Send a command whose sender's clock is wrong."""
    command_id = commands.send(wire, client_id, "add", {"a": 1, "b": 2}, created_at=_ago(3600), timeout=60)
    end = commands.ended(wire, client_id, command_id)
    need(end.status == "completed", f"the status is {shown(end.body)}, not completed")


@AGENT("ends a command that is cancelled while it runs", _CANCEL)
def heeds_cancel(wire: Wire, client_id: str) -> None:
    """Write over its claim that the command is not wanted any more."""
    command_id = commands.send(wire, client_id, "wait", {"seconds": 50})
    claim = commands.until_status(wire, client_id, command_id, "executing")[-1]
    wish = {**claim.body, "at": commands.now(), "cancel_requested": True, "cancel_reason": "no longer needed"}
    sequence = commands.set_status(wire, client_id, command_id, claim.message.seq, **wish)
    end = commands.ended(wire, client_id, command_id)
    need(end.status == "failed", f"the status is {shown(end.body)}, not failed")
    same(end.body.get("status_detail"), "cancelled", "status_detail")
    same(expected_of(end.message), str(sequence), "over which sequence the end is written")


# Messages and progress ----------------------------------------------------------------------------------------------


@AGENT("acknowledges a message", _MESSAGES)
def acknowledges_message(wire: Wire, client_id: str) -> None:
    """Send it a message."""
    _acknowledged(wire, client_id, f"ll.messages.{client_id}", "note")


@AGENT("acknowledges a broadcast", _MESSAGES)
def acknowledges_broadcast(wire: Wire, client_id: str) -> None:
    """Send a message to all."""
    _acknowledged(wire, client_id, "ll.broadcast", "note")


@AGENT("tells of its commands", _DESCRIBE, level="should")
def describes(wire: Wire, client_id: str) -> None:
    """Ask for them."""
    told = _acknowledged(wire, client_id, f"ll.messages.{client_id}", "_describe").get("commands")
    need(isinstance(told, dict) and "add" in told, f"commands is {shown(told)}, without add")


@AGENT("tells how far a command has come", _PROGRESS, level="should")
def tells_progress(wire: Wire, client_id: str) -> None:
    """Listen while a command runs."""
    command_id = fresh("command")
    with wire.hear(subjects.command_progress(client_id, command_id)) as heard:
        commands.send(wire, client_id, "wait", {"seconds": 0.5}, command_id=command_id)
        data = wire.heard(heard, "a progress").data
    fraction = read_object(data, "the progress").get("fraction")
    is_fit = isinstance(fraction, (int, float)) and not isinstance(fraction, bool) and 0 <= fraction <= 1
    need(is_fit, f"fraction is {shown(fraction)}, not from 0 to 1")


def _count(wire: Wire, client_id: str) -> int:
    """Have it say how often its handler of ``count`` has run, this time included."""
    end = commands.ended(wire, client_id, commands.send(wire, client_id, "count"))
    result = end.body.get("result")
    count = result.get("count") if isinstance(result, dict) else None
    if not isinstance(count, int):
        raise Fault(f"the command count ends as {shown(end.body)}")
    return count


def _until_through(wire: Wire, client_id: str, command_id: str) -> None:
    """Wait until it has acknowledged a command; if it never does, that is another rule's fault."""
    subject = subjects.command_request(client_id, command_id)

    def is_through() -> bool:
        stored = wire.history(subjects.COMMANDS_STREAM, subject)
        consumer = commands.consumer(wire, client_id)
        # By its place: how many are pending is not told at once.
        delivered = consumer.get("delivered", {}).get("stream_seq", 0)
        return (not stored or delivered >= stored[-1].seq) and not consumer.get("num_ack_pending")

    with contextlib.suppress(Fault):
        wire.until(is_through, "the delivery is not acknowledged")


def _ago(seconds: float) -> str:
    instant = datetime.now(timezone.utc) - timedelta(seconds=seconds)
    return instant.isoformat().replace("+00:00", "Z")


def _acknowledged(wire: Wire, client_id: str, subject: str, message_type: str) -> dict[str, Any]:
    msg_id = fresh("message")
    body = {"msg_id": msg_id, "type": message_type, "payload": {"n": 1}, "sent_at": commands.now()}
    with wire.hear(f"ll.acks.{client_id}.{msg_id}") as heard:
        wire.publish(subject, body)
        return read_object(wire.heard(heard, "the acknowledgement").data, "the acknowledgement")
