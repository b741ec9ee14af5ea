"""Commands as they are stored: what a stranger writes and reads of them."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import attrs

from lightlink.commands.store import schema
from lightlink.commands.store.store import CommandStore
from lightlink.conformance.checks import Fault, Wire, need, read_object, shown
from lightlink.jetstream import api
from lightlink.protocol import subjects
from lightlink.protocol.ids import new_id

if TYPE_CHECKING:
    from lightlink.jetstream.api import StoredMessage

ENDED = ("completed", "failed", "timeout")


@attrs.frozen
class Revision:
    """A status as it is stored."""

    message: StoredMessage
    body: dict[str, Any]

    @property
    def status(self) -> Any:
        """What it says."""
        return self.body.get("status")


def store_of(wire: Wire) -> CommandStore:
    """Return the streams of commands."""
    return CommandStore(wire.client.connection, schema.StoreOptions(), wire.timeout)


def now() -> str:
    """Return the time as the wire has it."""
    return datetime.now(timezone.utc).isoformat().replace("+00:00", "Z")


def check_time(record: dict[str, Any], name: str, what: str) -> datetime:
    """Return an instant of a record; raises Fault for one that is not RFC 3339."""
    told = record.get(name)
    try:
        instant = datetime.fromisoformat(str(told).replace("Z", "+00:00"))
    except ValueError:
        raise Fault(f"{name} of {what} is {shown(told)}, not a time of RFC 3339") from None
    return instant.replace(tzinfo=timezone.utc) if instant.tzinfo is None else instant


def send(wire: Wire, client_id: str, command_type: str, payload: Any = None, **fields: Any) -> str:
    """Store a request, and return the command's id."""
    command_id = str(fields.pop("command_id", "") or new_id())
    request = {"command_id": command_id, "client_id": client_id, "command_type": command_type, "created_at": now()}
    body = {**request, "timeout": 60, "payload": {} if payload is None else payload, **fields}
    wire.put(subjects.COMMANDS_STREAM, subjects.command_request(client_id, command_id), body, expected=0)
    return command_id


def set_status(wire: Wire, client_id: str, command_id: str, expected: int, **fields: Any) -> int:
    """Store a status over the one with a sequence, and return its own."""
    body = {"at": now(), "by": "judge", **fields}
    return wire.put(subjects.STATUS_STREAM, subjects.command_status(client_id, command_id), body, expected=expected)


def statuses(wire: Wire, client_id: str, command_id: str) -> list[Revision]:
    """Return all revisions of a status, the oldest first."""
    found = wire.history(subjects.STATUS_STREAM, subjects.command_status(client_id, command_id))
    return [Revision(message, read_object(message.data, "a status")) for message in found]


def until_status(wire: Wire, client_id: str, command_id: str, *wanted: str) -> list[Revision]:
    """Return the revisions as soon as the last says one of some statuses; raises Fault."""
    found: list[Revision] = []

    def look() -> list[Revision] | None:
        found[:] = statuses(wire, client_id, command_id)
        return found if found and found[-1].status in wanted else None

    try:
        return wire.until(look, "")
    except Fault:
        last = found[-1].status if found else "pending: no status is stored"
        raise Fault(f"after {wire.timeout:g} s the command is {last}, not {' or '.join(wanted)}") from None


def ended(wire: Wire, client_id: str, command_id: str) -> Revision:
    """Return how a command ended; raises Fault."""
    return until_status(wire, client_id, command_id, *ENDED)[-1]


def consumer(wire: Wire, client_id: str) -> dict[str, Any]:
    """Return what the server says of an agent's consumer; raises JetStreamError where there is none."""
    subject = f"CONSUMER.INFO.{subjects.COMMANDS_STREAM}.{subjects.agent_consumer(client_id)}"
    return api.api(wire.client.connection, subject, None, wire.timeout)


def check_presence(record: dict[str, Any], client_id: str) -> None:
    """Raise Fault unless a presence has what every one has."""
    need(record.get("client_id") == client_id, f"client_id is {shown(record.get('client_id'))}, not {client_id}")
    need(record.get("instance") and isinstance(record["instance"], str), "instance is missing")
    for name in ("connected_at", "last_heartbeat"):
        check_time(record, name, "the presence")
