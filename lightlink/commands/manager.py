"""The managing side: send commands to agents, follow them, cancel them, look at them."""

from __future__ import annotations

import builtins
import os
import uuid
from typing import TYPE_CHECKING, Any

import msgspec

from lightlink import codec, subjects
from lightlink.commands import history, model, schema
from lightlink.commands.batch import Batch, Rollout
from lightlink.commands.messages import Messenger
from lightlink.commands.model import Command, RequestRecord
from lightlink.commands.promise import CommandPromise, Follower
from lightlink.commands.schema import StoreOptions
from lightlink.commands.store import CommandStore, Conflict, unavailable
from lightlink.commands.sweep import Sweeper
from lightlink.errors import AgentOffline, ClosedError, CommandEnded, CommandNotFound, InvalidOption
from lightlink.options import seconds
from lightlink.runtime.connection import NoReply
from lightlink.runtime.ticker import Ticker
from lightlink.runtime.workers import WorkerPool

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from datetime import datetime

    from lightlink.client import Client
    from lightlink.commands.history import AuditEntry, Page
    from lightlink.commands.messages import Receipt
    from lightlink.commands.store import Presence

DEFAULT_TIMEOUT = 30.0
# With a caller's key, the command's id is a UUIDv5 in this namespace: sending twice brings the same command.
_NAMESPACE = uuid.UUID("6f0c1f0e-6a2f-5c59-9d3b-8f1d6f8f5a11")


class CommandManager:
    """Sends commands over a client's connection and follows them; a context manager.

    ``name`` is what commands and the audit say issued them, by default the client's name. Any number of managers work
    side by side; none holds the only copy of anything. Every ``sweep_interval`` seconds a manager writes down which
    commands are overdue (None: it does not). ``store`` tells how the streams are made if this manager comes first.
    """

    def __init__(
        self,
        client: Client,
        *,
        name: str | None = None,
        store: StoreOptions | None = None,
        sweep_interval: float | None = 5.0,
    ) -> None:
        self.name = name or client.options.name
        self._client = client
        self._sweep_interval = sweep_interval
        self._pid = os.getpid()
        self._timeout = client.options.timeout
        connection = client._connection
        self._connection = connection
        self._store = CommandStore(connection, store or StoreOptions(), self._timeout)
        self._pool = WorkerPool(f"lightlink-manager-{self.name}", 2)
        self._follower = Follower(self._store, self._pool, self.name)
        self._messenger = Messenger(connection, self.name)
        self._store.ensure_streams()
        self._follower.start()
        self._closed = False
        self._ticker: Ticker | None = None
        if sweep_interval is not None:
            sweeper = Sweeper(self._store, self._follower, self._timeout)
            thread = f"lightlink-sweeper-{self.name}"
            self._ticker = Ticker(thread, seconds("sweep_interval", sweep_interval), sweeper.sweep)

    # Sending --------------------------------------------------------------------------------------------------------

    def send(
        self,
        client_id: str,
        command_type: str,
        payload: Any = None,
        *,
        timeout: float = DEFAULT_TIMEOUT,
        priority: int = 0,
        idempotency_key: str | None = None,
        queue: bool = True,
        issued_by: str | None = None,
    ) -> CommandPromise:
        """Send a command to an agent, which may be offline, and return a promise once the request is stored.

        ``payload`` is what the agent's handler is given, by name. The command is over ``timeout`` seconds from now at
        the latest. Of those waiting, a higher ``priority`` goes first. With an ``idempotency_key``, sending again
        returns the first command. ``queue=False`` refuses a client that is not online. ``issued_by`` is who asked for
        it, by default this manager.

        Raises InvalidName, InvalidOption, EncodeError, PayloadTooLarge, AgentOffline, StoreUnavailable,
        PermissionDenied, ClosedError.
        """
        record = self._record(client_id, command_type, payload, timeout, priority, None, idempotency_key, issued_by)
        self._refuse_closed()
        if not queue and self._store.read_presence(client_id)[0] is None:
            raise AgentOffline(client_id)
        self._store.ensure_consumer(client_id)
        promise = self._follower.open(record)
        try:
            stored = self._store.put_request(record)
        except BaseException as exc:
            self._follower.discard(promise, exc if isinstance(exc, Exception) else ClosedError("the wait"))
            raise
        if stored is not record:
            promise.request = stored
            self._follower.check(promise)
        return promise

    def send_many(
        self,
        client_ids: Iterable[str] | None,
        command_type: str,
        payload: Any = None,
        *,
        labels: Mapping[str, str] | None = None,
        timeout: float = DEFAULT_TIMEOUT,
        priority: int = 0,
        max_concurrency: int | None = None,
        max_failures: int | None = None,
        issued_by: str | None = None,
    ) -> Batch:
        """Send a command to many agents: to ``client_ids``, or to those online that carry all ``labels``.

        At most ``max_concurrency`` run at a time (None: all at once); after more than ``max_failures`` failures no
        further one is sent (None: all are). Raises the errors of `send`.
        """
        self._refuse_closed()
        targets = self._targets(client_ids, labels)
        for option, value, least in (("max_concurrency", max_concurrency, 1), ("max_failures", max_failures, 0)):
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < least):
                raise InvalidOption(option, f"must be a whole number from {least}", value)
        batch_id = schema.new_batch_id()
        encoded = _encoded(payload, command_type)
        records = [
            self._record(target, command_type, encoded, timeout, priority, batch_id, None, issued_by)
            for target in targets
        ]
        self._store.ensure_consumers(targets)
        batch = Batch(batch_id, records, self.cancel)
        Rollout(batch, self._store, self._follower, self._pool, max_concurrency, max_failures).start()
        return batch

    def promise(self, command_id: str) -> CommandPromise:
        """Return a promise for a command sent before, by this manager or another; raises CommandNotFound."""
        promise = self._follower.open(self._find(command_id))
        self._follower.check(promise)
        return promise

    # Looking --------------------------------------------------------------------------------------------------------

    def get(self, command_id: str) -> Command:
        """Return a command as it stands now; raises CommandNotFound, StoreUnavailable."""
        request = self._find(command_id)
        status, _ = self._store.read_status(request.client_id, request.command_id)
        return model.fold(request, status, model.now())

    def list(
        self,
        client_id: str | None = None,
        status: str | None = None,
        *,
        command_type: str | None = None,
        batch_id: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int = 100,
        after: str | None = None,
    ) -> Page:
        """Return stored commands, newest first: a page of ``limit`` (at most 1,000), with its `next` for ``after``.

        Raises InvalidName, InvalidOption, StoreUnavailable.
        """
        if client_id is not None:
            subjects.client_id(client_id)
        wanted = history.Filter(
            client_id=client_id,
            status=status,
            command_type=command_type,
            batch_id=batch_id,
            since=since,
            until=until,
        )
        return history.list_commands(self._store, wanted, limit, after, self._timeout)

    def audit(self, command_id: str | None = None, since: datetime | None = None) -> Iterator[AuditEntry]:
        """Yield every request and transition kept, oldest first: when, of which command, by whom."""
        return history.read_audit(self._store, command_id, since, self._timeout)

    def clients(self, labels: Mapping[str, str] | None = None) -> builtins.list[Presence]:
        """Return who is online, by client id: of all agents, or of those that carry all ``labels``."""
        wanted = dict(labels or {}).items()
        return [presence for presence in self._store.list_presences() if wanted <= presence.labels.items()]

    # Cancelling -----------------------------------------------------------------------------------------------------

    def cancel(self, command_id: str, reason: str = "", *, issued_by: str | None = None) -> Command:
        """Cancel a command: a pending one ends as failed / cancelled; one that runs is told, and may heed it.

        ``issued_by`` is who asked for it, by default this manager. Returns the command as it stands then. Raises
        CommandNotFound, CommandEnded.
        """
        request = self._find(command_id)
        while True:
            status, revision = self._store.read_status(request.client_id, request.command_id)
            at = model.now()
            command = model.fold(request, status, at)
            if command.ended:
                raise CommandEnded(command)
            record = model.cancelled(status, at, issued_by or self.name, reason)
            try:
                self._store.write_status(request.client_id, request.command_id, record, revision)
            except Conflict:
                continue  # it has just moved; look again
            except NoReply as exc:
                raise unavailable("cancelling a command", exc) from exc
            return model.fold(request, record, at)

    # Messages -------------------------------------------------------------------------------------------------------

    def message(
        self,
        client_id: str,
        message_type: str,
        payload: Any = None,
        *,
        wait_ack: bool = False,
        timeout: float = 5.0,
        issued_by: str | None = None,
    ) -> Receipt:
        """Send a message, which is not stored, to an agent that is online; see `Agent.on_message`.

        Returns once the agent has it or, with ``wait_ack``, once it has handled it. Raises AgentOffline, MessageTimeout
        after ``timeout`` seconds, InvalidName, InvalidOption, EncodeError, PayloadTooLarge, PermissionDenied,
        StoreUnavailable.
        """
        self._refuse_closed()
        message = self._messenger.compose(message_type, payload, wait_ack, issued_by)
        return self._messenger.send(client_id, message, seconds("timeout", timeout))

    def broadcast(
        self, message_type: str, payload: Any = None, *, timeout: float = 2.0, issued_by: str | None = None
    ) -> Receipt:
        """Send a message, which is not stored, to all agents; returns which have it, after ``timeout`` seconds at most.

        Raises the errors of `message`, but for AgentOffline and MessageTimeout.
        """
        self._refuse_closed()
        online = [presence.client_id for presence in self.clients()]
        message = self._messenger.compose(message_type, payload, False, issued_by)
        return self._messenger.broadcast(message, online, seconds("timeout", timeout))

    # Lifetime -------------------------------------------------------------------------------------------------------

    def for_this_process(self) -> CommandManager:
        """Return this manager or, in a forked child, a new one like it: a manager follows in its own process only."""
        if self._pid == os.getpid():
            return self
        return CommandManager(
            self._client, name=self.name, store=self._store.options, sweep_interval=self._sweep_interval
        )

    def close(self) -> None:
        """Stop following; commands go on, and other managers see them. Idempotent."""
        if self._closed:
            return
        self._closed = True
        if self._ticker is not None:
            self._ticker.stop(1.0)
        self._messenger.stop()
        self._follower.stop()
        self._pool.stop(2.0)

    def __enter__(self) -> CommandManager:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<CommandManager {self.name!r} follows {len(self._follower)} commands>"

    # ----------------------------------------------------------------------------------------------------------------

    def _record(
        self,
        client_id: str,
        command_type: str,
        payload: Any,
        timeout: float,
        priority: int,
        batch_id: str | None,
        key: str | None,
        issued_by: str | None,
    ) -> RequestRecord:
        subjects.client_id(client_id)
        if not isinstance(command_type, str) or not command_type:
            raise InvalidOption("command type", "must be text", command_type)
        if isinstance(priority, bool) or not isinstance(priority, int):
            raise InvalidOption("priority", "must be a whole number", priority)
        caller = issued_by or self.name
        return RequestRecord(
            command_id=codec.new_id() if key is None else str(uuid.uuid5(_NAMESPACE, f"{caller}\0{key}")),
            client_id=client_id,
            command_type=command_type,
            created_at=model.now(),
            timeout=seconds("timeout", timeout),
            payload=payload if isinstance(payload, msgspec.Raw) else _encoded(payload, command_type),
            priority=priority,
            batch_id=batch_id,
            issued_by=caller,
            idempotency_key=key,
        )

    def _targets(self, client_ids: Iterable[str] | None, labels: Mapping[str, str] | None) -> builtins.list[str]:
        if (client_ids is None) == (labels is None):
            raise InvalidOption("client_ids", "give either client ids or labels")
        if labels is not None:
            return [presence.client_id for presence in self.clients(labels)]
        assert client_ids is not None
        if isinstance(client_ids, str):
            raise InvalidOption("client_ids", "must be several ids, not one text", client_ids)
        return [subjects.client_id(client_id) for client_id in dict.fromkeys(client_ids)]

    def _find(self, command_id: str) -> RequestRecord:
        self._refuse_closed()
        known = self._follower.request(command_id)
        request = known or self._store.find_request(schema.command_id(command_id))
        if request is None:
            raise CommandNotFound(command_id)
        return request

    def _refuse_closed(self) -> None:
        if self._closed:
            raise ClosedError("the command manager")


def _encoded(payload: Any, command_type: str) -> msgspec.Raw:
    return msgspec.Raw(codec.encode_json(payload, f"the payload of {command_type!r}"))
