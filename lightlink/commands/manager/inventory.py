"""Every agent that was ever seen: what it last said of itself, and the labels that somebody gave it.

A bucket of its own, ``lightlink_fleet``, written by managers. Presences tell who is online and go with them; what
is here stays. One manager at a time looks who is there; the others find that it has just been done.
"""

from __future__ import annotations

import logging
from datetime import datetime
from typing import TYPE_CHECKING

import msgspec

from lightlink.commands.store import schema
from lightlink.connection.session import Status
from lightlink.errors import LightLinkError, RevisionConflict, StateNotFound
from lightlink.protocol import subjects

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from lightlink.client import Client
    from lightlink.commands.store.presence import Presence
    from lightlink.state import StateBucket

_log = logging.getLogger("lightlink")

UPKEEP_SECONDS = 30.0
# A last sign of life may be so much older than it is said to be, of who is online.
_STALE_SECONDS = 600.0
_LOOKED = "looked"
_ATTEMPTS = 20


class AgentRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is kept of an agent; times RFC 3339. ``assigned`` labels count before those that it says it has.

    An assigned label without a value takes one away. ``online`` is as of the moment it was asked for.
    """

    client_id: str
    reported: dict[str, str] = {}
    assigned: dict[str, str] = {}
    version: str = ""
    platform: str = ""
    command_types: list[str] = []
    first_seen: str = ""
    last_seen: str = ""
    online: bool = False

    @property
    def labels(self) -> dict[str, str]:
        """The labels that count."""
        return {name: value for name, value in {**self.reported, **self.assigned}.items() if value}

    def as_said(self, presence: Presence) -> AgentRecord:
        """Return it with what the agent says of itself now."""
        return msgspec.structs.replace(
            self,
            reported=presence.labels,
            version=presence.version,
            platform=presence.platform,
            command_types=presence.command_types,
            first_seen=self.first_seen or presence.connected_at,
            last_seen=presence.last_heartbeat,
            online=True,
        )


class _Looked(msgspec.Struct):
    at: float


class Inventory:
    """The records of agents; ``presences()`` returns who is online."""

    def __init__(self, client: Client, presences: Callable[[], Iterable[Presence]], replicas: int) -> None:
        self._connection = client.connection
        self._presences = presences
        settings = {"replicas": replicas, "purgeable": False, "max_value_size": 256 * 1024}
        self._bucket: StateBucket[AgentRecord] = client.state(subjects.FLEET_BUCKET, value_type=AgentRecord, **settings)
        self._looked: StateBucket[_Looked] = client.state(subjects.FLEET_BUCKET, value_type=_Looked, **settings)

    def agents(self) -> list[AgentRecord]:
        """Return every agent that was seen or is online, by client id; raises StateError, PermissionDenied."""
        found = self._records()
        for presence in self._presences():
            known = found.get(presence.client_id) or AgentRecord(client_id=presence.client_id)
            found[presence.client_id] = known.as_said(presence)
        return [found[each] for each in sorted(found)]

    def online(self) -> list[AgentRecord]:
        """Return who is online, with the labels that were assigned where those can be read."""
        try:
            return [agent for agent in self.agents() if agent.online]
        except LightLinkError as exc:
            # An identity from before there was an inventory may not read it.
            _log.debug("lightlink: assigned labels do not count: %s", exc)
            return [AgentRecord(client_id=each.client_id).as_said(each) for each in self._presences()]

    def assign(self, client_id: str, labels: Mapping[str, str]) -> AgentRecord:
        """Give an agent labels that count before its own; one without a value takes the agent's away."""
        schema.client_id(client_id)
        wanted = schema.labels(labels)
        return self._change(
            client_id, lambda known: msgspec.structs.replace(known, assigned={**known.assigned, **wanted})
        )

    def forget(self, client_id: str) -> None:
        """Remove the record of an agent that does not come back."""
        self._bucket.delete(_key(schema.client_id(client_id)))

    def look(self) -> int:
        """Write down who is there, unless another manager has just done so; return how many records that changed."""
        if self._connection.status is not Status.CONNECTED or not self._is_our_turn():
            return 0
        changed = 0
        found = self._records()
        for presence in self._presences():
            known = found.get(presence.client_id)
            if known is None or self._is_news(known, presence):
                self._change(presence.client_id, lambda stored, said=presence: stored.as_said(said))  # type: ignore[misc]
                changed += 1
        return changed

    def try_to_look(self) -> None:
        """Do what `look` does; what fails is done next time."""
        try:
            self.look()
        except LightLinkError as exc:
            _log.debug("lightlink: the inventory is put off: %s", exc)

    # ----------------------------------------------------------------------------------------------------------------

    def _records(self) -> dict[str, AgentRecord]:
        with self._bucket.watch(_key("*")) as watch:
            found = [change.value for change in watch.current() if change.value is not None]
        return {record.client_id: msgspec.structs.replace(record, online=False) for record in found}

    def _is_our_turn(self) -> bool:
        now = self._now().timestamp()
        try:
            entry = self._looked.entry(_LOOKED)
        except StateNotFound:
            revision = 0
        else:
            if 0 <= now - entry.value.at < UPKEEP_SECONDS * 0.9:
                return False
            revision = entry.revision
        try:
            self._looked.update(_LOOKED, _Looked(now), revision=revision)
        except RevisionConflict:
            return False
        return True

    def _is_news(self, known: AgentRecord, presence: Presence) -> bool:
        said = known.as_said(presence)
        old = msgspec.structs.replace(known, last_seen=said.last_seen, online=True)
        return said != old or _seconds_between(known.last_seen, said.last_seen) > _STALE_SECONDS

    def _change(self, client_id: str, function: Callable[[AgentRecord], AgentRecord]) -> AgentRecord:
        for _ in range(_ATTEMPTS):
            try:
                entry = self._bucket.entry(_key(client_id))
                known, revision = entry.value, entry.revision
            except StateNotFound:
                known, revision = AgentRecord(client_id=client_id), 0
            changed = msgspec.structs.replace(function(known), online=False)
            try:
                if revision:
                    self._bucket.update(_key(client_id), changed, revision=revision)
                else:
                    self._bucket.create(_key(client_id), changed)
            except RevisionConflict:
                continue  # another manager was quicker
            return changed
        raise RevisionConflict(subjects.FLEET_BUCKET, client_id, revision)

    def _now(self) -> datetime:
        return self._connection.clock.now()


def _key(client_id: str) -> str:
    return f"agent.{client_id}"


def _seconds_between(earlier: str, later: str) -> float:
    try:
        return (datetime.fromisoformat(later) - datetime.fromisoformat(earlier)).total_seconds()
    except ValueError:
        return float("inf")
