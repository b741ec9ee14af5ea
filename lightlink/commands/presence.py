"""An agent's claim to its client id: held by one live instance at a time, and renewed with each heartbeat."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

import msgspec

from lightlink.commands.model import now
from lightlink.commands.store import Conflict, Presence
from lightlink.errors import AgentInUse, LightLinkError, PermissionDenied, StoreUnavailable
from lightlink.runtime.connection import NoReply
from lightlink.runtime.threads import Event

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from lightlink.commands.store import CommandStore

_log = logging.getLogger("lightlink")


class Claim:
    """The presence of one instance. ``load`` returns (commands running, commands queued) for each heartbeat."""

    def __init__(
        self,
        store: CommandStore,
        client_id: str,
        instance: str,
        labels: Mapping[str, str],
        load: Callable[[], tuple[int, int]],
    ) -> None:
        self._store = store
        self._load = load
        self._revision = 0
        started = now().isoformat()
        self._presence = Presence(
            client_id=client_id, instance=instance, labels=dict(labels), connected_at=started, last_heartbeat=started
        )

    def acquire(self, stopped: Event) -> None:
        """Claim the client id; a dead agent's claim is waited out.

        Raises AgentInUse as soon as the holder gives a sign of life, or when it has not gone in the time a claim lasts.
        """
        deadline = time.monotonic() + self._store.options.presence_age + 1
        seen: int | None = None
        basis = 0
        while True:
            try:
                self._revision = self._write(basis)
                return
            except Conflict:
                holder, revision = self._read()
            if holder is None:
                basis = revision  # it has left: its farewell is what we write over
                seen = None
            elif (seen is not None and revision != seen) or time.monotonic() > deadline:
                raise AgentInUse(holder.client_id, holder.instance)
            else:
                seen, basis = revision, 0
            stopped.wait(min(0.25, self._store.options.heartbeat / 4) if holder is not None else 0)
            if stopped.is_set():
                return

    def renew(self) -> None:
        """Give a sign of life; raises AgentInUse when another instance has taken the id meanwhile."""
        try:
            self._revision = self._write(self._revision)
        except Conflict:
            self._reclaim()
        except (NoReply, StoreUnavailable) as exc:
            _log.warning("lightlink: agent %s could not say that it lives: %s", self._presence.client_id, exc)

    def release(self) -> None:
        """Say that the agent has left."""
        if not self._revision:
            return
        try:
            self._store.remove_presence(self._presence.client_id, self._revision)
        except LightLinkError as exc:
            _log.warning("lightlink: agent %s left without saying so: %s", self._presence.client_id, exc)
        self._revision = 0

    def _reclaim(self) -> None:
        """Claim again after our own claim has run out, or was renewed by a write we heard nothing of."""
        holder, revision = self._read()
        if holder is not None and holder.instance != self._presence.instance:
            raise AgentInUse(holder.client_id, holder.instance)
        try:
            self._revision = self._write(revision)
        except Conflict:
            holder, _ = self._read()
            raise AgentInUse(self._presence.client_id, holder.instance if holder else "unknown") from None

    def _write(self, basis: int) -> int:
        in_flight, queued = self._load()
        self._presence = msgspec.structs.replace(
            self._presence,
            last_heartbeat=now().isoformat(),
            # The server tells each client from where it sees it come.
            remote_addr=self._store.connection.session.nc._server_info.get("client_ip", ""),
            in_flight=in_flight,
            queued=queued,
        )
        return self._store.write_presence(self._presence, basis)

    def _read(self) -> tuple[Presence | None, int]:
        try:
            return self._store.read_presence(self._presence.client_id)
        except PermissionDenied:
            # An identity that may not even read its own presence learns of a rival by waiting only.
            return Presence(
                client_id=self._presence.client_id, instance="unknown", connected_at="", last_heartbeat=""
            ), 0
