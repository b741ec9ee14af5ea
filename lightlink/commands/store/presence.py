"""Who is online: an agent's claim to its client id is held by one live instance, and renewed with each heartbeat."""

from __future__ import annotations

import logging
import math
import platform
import time
from datetime import datetime
from typing import TYPE_CHECKING

import msgspec

from lightlink.commands.store import records
from lightlink.commands.store.access import FAILURES, Conflict, unavailable
from lightlink.concurrency.deadline import Deadline
from lightlink.errors import AgentInUse, DecodeError, LightLinkError, StoreUnavailable
from lightlink.jetstream.api import EXPECTED_LAST_SUBJECT_SEQUENCE
from lightlink.jetstream.errors import STREAM_NOT_FOUND, JetStreamError
from lightlink.jetstream.read import LAST_OF_EACH, read_current
from lightlink.jetstream.retry import is_leaderless
from lightlink.protocol import codec, subjects
from lightlink.protocol.subjects import as_text, is_plain_token
from lightlink.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from lightlink.commands.store.store import CommandStore

_log = logging.getLogger("lightlink")

_DELETED = "KV-Operation"
# How long past the end of a claim its key may still be there: the server removes what has aged now and then.
_AGING_SECONDS = 2.0
_TRIES = 20
MOST_TYPES = 100
_STALE_SECONDS = 0.05
_RETRY_SECONDS = 0.5
_CLOCK_SECONDS = 600.0


class Presence(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What an agent says of itself with each heartbeat; times RFC 3339.

    ``remote_addr`` is the address from which its server sees it, ``in_flight`` how many commands run, ``queued`` how
    many wait there; ``version`` is LightLink's.
    """

    client_id: str
    instance: str
    connected_at: str
    last_heartbeat: str
    labels: dict[str, str] = {}
    state: str = "online"
    remote_addr: str = ""
    in_flight: int = 0
    queued: int = 0
    version: str = ""
    platform: str = ""
    command_types: list[str] = []


def read_presence(store: CommandStore, client_id: str) -> tuple[Presence | None, int]:
    """Return an agent's presence and its revision; None when it is not online. Raises StoreUnavailable.

    One that cannot be read is reported, and counts for nothing: so does `list_presences`.
    """
    message = store.read(subjects.AGENTS_STREAM, subjects.agent_presence(client_id))
    if message is None:
        return None, 0
    if _DELETED in message.headers:
        return None, message.seq
    try:
        return _decoded(message.data, message.subject), message.seq
    except DecodeError as exc:
        store.connection.report(exc)
        return None, message.seq


def list_presences(store: CommandStore) -> list[Presence]:
    """Return every agent that is online, by client id; raises StoreUnavailable."""
    pattern = subjects.agent_presence(">")
    try:
        found = read_current(store.connection, subjects.AGENTS_STREAM, pattern, store.timeout, policy=LAST_OF_EACH)
    except FAILURES as exc:
        if isinstance(exc, JetStreamError) and exc.err_code == STREAM_NOT_FOUND:
            return []
        raise unavailable("reading who is online", exc) from exc
    presences = []
    for delivery in found:
        if _DELETED in codec.decode_headers(delivery.headers):
            continue
        try:
            presences.append(_decoded(delivery.data, as_text(delivery.subject)))
        except DecodeError as exc:
            store.connection.report(exc)  # any agent may write what it likes about itself
    return sorted(presences, key=lambda presence: presence.client_id)


def _decoded(data: bytes, subject: str) -> Presence:
    presence = records.read(data, subject, Presence)
    if subjects.agent_presence(presence.client_id) != subject:
        raise DecodeError(subject, f"an agent that says it is {presence.client_id!r}", data[:64])
    if not is_plain_token(presence.client_id):
        raise DecodeError(subject, "a client id that is not one token of a subject", data[:64])
    times = {name: _time(getattr(presence, name), data, subject) for name in ("connected_at", "last_heartbeat")}
    return msgspec.structs.replace(presence, **times)


def _time(text: str, data: bytes, subject: str) -> str:
    try:
        instant = msgspec.convert(text, datetime)
    except msgspec.ValidationError:
        raise DecodeError(subject, f"a malformed time: {text[:64]!r}", data[:64]) from None
    return records.in_utc(instant, data, subject).isoformat()


class Claim:
    """The presence of one instance. ``load`` returns (commands running, commands waiting) for each heartbeat."""

    def __init__(
        self,
        store: CommandStore,
        client_id: str,
        instance: str,
        labels: Mapping[str, str],
        command_types: Sequence[str],
        load: Callable[[], tuple[int, int]],
    ) -> None:
        self._store = store
        self._load = load
        self._revision = 0
        self._written = (0.0, 0.0)  # when the last sign of life was sent, and acknowledged
        self._has_complained = False
        self._clock_read_at = -math.inf
        started = store.clock.now().isoformat()
        self._presence = Presence(
            client_id=client_id,
            instance=instance,
            labels=dict(labels),
            connected_at=started,
            last_heartbeat=started,
            version=__version__,
            platform=f"{platform.system()} {platform.machine()} Python {platform.python_version()}",
            command_types=list(command_types)[:MOST_TYPES],
        )

    def acquire(self, is_leaving_after: Callable[[float], bool], wait: float | None) -> bool:
        """Claim the client id, waiting out a dead agent's claim; False says that the agent is to leave instead.

        ``is_leaving_after(seconds)`` waits and tells whether it is. A store that takes no claims yet is waited for
        ``wait`` seconds, None: for as long as it takes. Raises AgentInUse as soon as the holder gives a sign of
        life, or when it has not gone in the time a claim lasts, StoreUnavailable, PermissionDenied.
        """
        give_up = Deadline(wait)
        gone_by: Deadline | None = None
        seen = 0
        pause = 0.0
        while not is_leaving_after(pause):
            try:
                holder, revision = self._hold()
            except StoreUnavailable as exc:
                self._bear(exc, give_up)
                pause = _RETRY_SECONDS
                continue
            if holder is None:
                self._read_clock()
                return True
            gone_by = gone_by or Deadline(self._store.options.presence_age + _AGING_SECONDS)
            if (seen and revision > seen) or gone_by.is_over:
                raise AgentInUse(holder.client_id, holder.instance)
            seen = max(seen, revision)
            pause = min(0.25, self._store.options.heartbeat / 4)
        return False

    def _bear(self, exc: StoreUnavailable, give_up: Deadline) -> None:
        """Say, once, why the id cannot be claimed yet; raise that when it is time to give up."""
        if is_leaderless(exc):
            reason = "the streams of commands are not there yet (a manager makes them), or have no leader"
            exc = StoreUnavailable(exc.operation, f"{reason}: {exc.reason}", exc.unknown)
        if give_up.is_over:
            raise exc
        if not self._has_complained:
            _log.warning("lightlink: agent %s has to wait: %s", self._presence.client_id, exc)
        self._has_complained = True

    def renew(self) -> None:
        """Give a sign of life; raises AgentInUse when another instance has taken the id, PermissionDenied."""
        try:
            try:
                self._revision = self._write(self._revision)
                self._read_clock()
            except Conflict:
                # Our claim has run out, or was renewed by a write whose answer never came.
                holder, _ = self._hold()
                if holder is not None:
                    raise AgentInUse(holder.client_id, holder.instance) from None
        except StoreUnavailable as exc:
            _log.warning("lightlink: agent %s could not say that it lives: %s", self._presence.client_id, exc)

    def doubt_clock(self) -> None:
        """Have the server's time read again with the next sign of life: this machine may have slept."""
        self._clock_read_at = -math.inf

    def _read_clock(self) -> None:
        """Learn, now and then, the server's time: that is when it stored what was just written.

        An agent's identity may ask for nothing else that tells.
        """
        if time.monotonic() - self._clock_read_at < _CLOCK_SECONDS:
            return
        message = self._store.read(subjects.AGENTS_STREAM, subjects.agent_presence(self._presence.client_id))
        if message is not None and message.seq == self._revision:  # else a replica answered that is behind
            self._store.clock.learn(message.created, *self._written)
            self._clock_read_at = time.monotonic()

    def release(self, timeout: float | None = None) -> None:
        """Say that the agent has left, within ``timeout`` seconds if they are given."""
        if not self._revision:
            return
        headers = {_DELETED: "DEL", EXPECTED_LAST_SUBJECT_SEQUENCE: str(self._revision)}
        subject = subjects.agent_presence(self._presence.client_id)
        try:
            self._store.put(subjects.AGENTS_STREAM, subject, b"", headers, "leaving", timeout)
        except Conflict:
            pass  # said already, by a release that Ctrl-C ended; or the id is another's by now
        except LightLinkError as exc:
            _log.warning("lightlink: agent %s left without saying so: %s", self._presence.client_id, exc)
        self._revision = 0  # not before: Ctrl-C leaves it to the next release

    def _hold(self) -> tuple[Presence | None, int]:
        """Claim the id if it is free or ours; return who else holds it, and by which revision."""
        holder, basis = None, 0
        for _ in range(_TRIES):
            if holder is None or holder.instance == self._presence.instance:
                try:
                    self._revision = self._write(basis)
                except Conflict:
                    pass  # it is not, or somebody was quicker
                else:
                    return None, self._revision
            holder, revision = read_presence(self._store, self._presence.client_id)
            if holder is not None and revision < self._revision:
                time.sleep(_STALE_SECONDS)  # a replica that does not even know our last claim
                continue
            if holder is not None and holder.instance != self._presence.instance:
                return holder, revision
            # Free: what is written over is the farewell of the one before, if there is one.
            basis = revision
        raise StoreUnavailable("claiming a client id", "it changes faster than it can be read")

    def _write(self, basis: int) -> int:
        in_flight, queued = self._load()
        self._presence = msgspec.structs.replace(
            self._presence,
            last_heartbeat=self._store.clock.now().isoformat(),
            remote_addr=self._store.connection.session.nc.client_ip or "",
            in_flight=in_flight,
            queued=queued,
        )
        subject = subjects.agent_presence(self._presence.client_id)
        payload = codec.encode_json(self._presence)
        headers = {EXPECTED_LAST_SUBJECT_SEQUENCE: str(basis)}
        started = time.monotonic()
        revision = self._store.put(subjects.AGENTS_STREAM, subject, payload, headers, "claiming a client id")
        self._written = started, time.monotonic()
        return revision
