"""The managing side: send commands to agents, follow them, cancel them, look at them."""

from __future__ import annotations

import builtins
import os
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from lightlink import describe
from lightlink.client import Client
from lightlink.commands import model
from lightlink.commands.manager.batch import Batch, Limits
from lightlink.commands.manager.cancel import Canceller
from lightlink.commands.manager.expiry import Expiry
from lightlink.commands.manager.fanout import Fanout
from lightlink.commands.manager.follower import Follower
from lightlink.commands.manager.inventory import UPKEEP_SECONDS, Inventory
from lightlink.commands.manager.lease import SweepLease
from lightlink.commands.manager.sender import Sender
from lightlink.commands.manager.sweep import Sweeper
from lightlink.commands.manager.undo import undo_of, undone_by
from lightlink.commands.messages import DESCRIBE, Messenger
from lightlink.commands.model import Command, RequestRecord
from lightlink.commands.store import audit, checks, history, schema
from lightlink.commands.store.filter import Filter
from lightlink.commands.store.index import CommandIndex
from lightlink.commands.store.presence import list_presences
from lightlink.commands.store.schema import StoreOptions
from lightlink.commands.store.store import CommandStore
from lightlink.concurrency import forks
from lightlink.concurrency.scheduler import every
from lightlink.concurrency.workers import WorkerPool
from lightlink.errors import ClosedError, CommandNotFound, DecodeError, InvalidOption
from lightlink.validators import seconds

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
    from datetime import datetime

    from typing_extensions import Self

    from lightlink.commands.manager.fanout import Watcher
    from lightlink.commands.manager.inventory import AgentRecord
    from lightlink.commands.manager.promise import CommandPromise
    from lightlink.commands.messages import Receipt
    from lightlink.commands.store.audit import AuditEntry
    from lightlink.commands.store.history import Page
    from lightlink.commands.store.presence import Presence
    from lightlink.concurrency.scheduler import PeriodicJob
    from lightlink.connection.connection import Connection
    from lightlink.describe import Description
    from lightlink.middleware import Call
    from lightlink.protocol.codec import HeaderMap

DEFAULT_TIMEOUT = 30.0


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
        if not isinstance(client, Client):
            raise InvalidOption("client", "must be a lightlink.Client: lightlink.connect(url)", client)
        self.name = checks.text("name", client.options.name if name is None else name)
        self._client = client
        self._connection = client.connection
        self._sweep_interval = None if sweep_interval is None else seconds("sweep_interval", sweep_interval)
        self._wanted = store or StoreOptions()
        self._closed = False
        self._is_ended = False  # or somebody is about it
        self._open()

    def _open(self) -> None:
        """Begin to follow, in this process."""
        client, connection = self._client, self._connection
        self._pid = os.getpid()
        self._store = CommandStore(connection, self._wanted, client.options.timeout)
        self._pool = WorkerPool(f"lightlink-manager-{self.name}", 2)
        self._callbacks = WorkerPool(f"lightlink-callbacks-{self.name}", 1)
        expiry = Expiry(self._store, self.name)
        self._follower = Follower(self._store, expiry, self._callbacks)
        self._canceller = Canceller(self._store, self.name)
        self._sender = Sender(self.name, self._store, self._follower, self._canceller, self._pool)
        self._messenger = Messenger(connection, self.name)
        self._store.ensure_streams()
        self._inventory = Inventory(client, partial(list_presences, self._store), self._store.options.replicas)
        self._fanout = Fanout(self._store, self.name)
        self._index = CommandIndex(self._store)
        self._periodic: builtins.list[PeriodicJob] = []
        self._sweeper: Sweeper | None = None
        try:
            self._pool.start()
            self._callbacks.start()
            self._follower.start()
            if self._sweep_interval is not None:
                lease = SweepLease(self._store, self._sweep_interval)
                self._sweeper = Sweeper(self._store, expiry, lease, self._index)
                self._periodic = [
                    every(self._sweep_interval, self._sweeper.sweep),
                    every(UPKEEP_SECONDS, self._inventory.try_to_look),
                ]
        except BaseException:
            self.close()
            raise

    @property
    def connection(self) -> Connection:
        """What it talks through, for the library's own parts."""
        return self._connection

    @property
    def store(self) -> CommandStore:
        """Where its commands are, for the library's own parts."""
        return self._store

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
        headers: HeaderMap | None = None,
    ) -> CommandPromise:
        """Send a command to an agent, which may be offline, and return a promise once the request is stored.

        ``payload`` is what the agent's handler is given, by name. The command is over ``timeout`` seconds from now at
        the latest. Of those waiting, a higher ``priority`` goes first. With an ``idempotency_key``, sending again
        returns the first command. ``queue=False`` refuses a client that is not online. ``issued_by`` is who asked for
        it, by default this manager. ``headers`` are stored with the request, and reach the handler as
        `CommandContext.headers`; a name may have several values, in a list.

        Raises InvalidName, InvalidOption, EncodeError, PayloadTooLarge, AgentOffline, StoreUnavailable,
        PermissionDenied, ClosedError.
        """
        self._refuse_closed()

        def last(call: Call) -> CommandPromise:
            limit = timeout if call.timeout is None else call.timeout
            template = self._sender.template(command_type, call.args, limit, priority, issued_by, call.headers)
            return self._sender.send(template.to(client_id, idempotency_key), queue)

        promise: CommandPromise = self._sender.around(command_type, payload, timeout, headers, [client_id], last)
        return promise

    def send_many(
        self,
        client_ids: Iterable[str] | None,
        command_type: str,
        payload: Any = None,
        *,
        labels: Mapping[str, str] | None = None,
        offline: bool = False,
        timeout: float = DEFAULT_TIMEOUT,
        priority: int = 0,
        max_concurrency: int | None = None,
        max_failures: int | None = None,
        repeat: int = 1,
        issued_by: str | None = None,
        headers: HeaderMap | None = None,
    ) -> Batch:
        """Send a command to many agents: to ``client_ids``, or to those online that carry all ``labels``.

        With ``offline`` labels mean every agent that was ever seen (`agents`), online or not. Each gets one, in the
        order given, also if it is named twice; or ``repeat`` of them, round by round. At most ``max_concurrency`` run
        at a time (None: all at once); after more than ``max_failures`` failures no further one is sent (None: all are).
        The ``timeout`` of each counts from when it is sent. ``headers`` are those of `send`. Raises the errors of
        `send`, and with ``offline`` those of `agents`; of what fails for some only, the batch tells.
        """
        self._refuse_closed()
        limits = Limits(max_concurrency=max_concurrency, max_failures=max_failures, repeat=repeat)
        targets = self._targets(client_ids, labels, offline)

        def last(call: Call) -> Batch:
            limit = timeout if call.timeout is None else call.timeout
            batch_id, sender = schema.new_batch_id(self.now()), self._sender
            template = sender.template(command_type, call.args, limit, priority, issued_by, call.headers, batch_id)
            return sender.send_batch(batch_id, template.to_each(targets * repeat), limits)

        batch: Batch = self._sender.around(command_type, payload, timeout, headers, targets, last)
        return batch

    def promise(self, command_id: str) -> CommandPromise:
        """Return a promise for a command sent before, by this manager or another; raises CommandNotFound."""
        return self._sender.follow(self._find(command_id))

    # Looking --------------------------------------------------------------------------------------------------------

    def get(self, command_id: str) -> Command:
        """Return a command as it stands now; raises CommandNotFound, StoreUnavailable.

        One whose request cannot be read is shown as ``failed`` with the detail ``unreadable``.
        """
        try:
            request = self._find(command_id)
        except DecodeError as exc:
            return self._store.unreadable(command_id, exc.reason)
        status, _ = self._store.read_written_status(request.client_id, request.command_id)
        progress = None
        if status is not None and not status.ended:
            (progress,) = self._store.read_progress([(request.client_id, request.command_id)])
        return model.fold(request, status, self.now(), progress)

    def list(
        self,
        client_id: str | Collection[str] | None = None,
        status: str | None = None,
        *,
        command_type: str | None = None,
        batch_id: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int = 100,
        after: str | None = None,
        brief: bool = False,
    ) -> Page:
        """Return stored commands, newest first: a page of ``limit`` (at most 1,000), with its `next` for ``after``.

        ``client_id`` names one agent, or several in a list: those of `agents(labels)`, say.
        A page ends early when payloads and results together are more than 32 MiB; ``brief`` leaves them out.
        Raises InvalidName, InvalidOption, StoreUnavailable.
        """
        one = client_id if isinstance(client_id, str) else None
        several = None if client_id is None or isinstance(client_id, str) else frozenset(client_id)
        for each in (one,) if one is not None else several or ():
            schema.client_id(each)
        wanted = Filter(
            client_id=one,
            clients=several,
            status=status,
            command_type=command_type,
            batch_id=batch_id,
            since=since,
            until=until,
        )
        self._refuse_closed()
        return history.list_commands(self._store, wanted, limit, after, brief, self._index)

    def audit(self, command_id: str | None = None, since: datetime | None = None) -> Iterator[AuditEntry]:
        """Yield every request and transition kept, oldest first: when, of which command, by whom.

        Of one command, or of all; ``since`` is an aware datetime. What has just happened may take a moment to appear.
        Raises InvalidName, InvalidOption, StoreUnavailable.
        """
        self._refuse_closed()
        if command_id is not None:
            schema.command_id(command_id)
        return audit.read_audit(self._store, command_id, checks.aware("since", since))

    @property
    def client(self) -> Client:
        """The client it talks through."""
        return self._client

    def now(self) -> datetime:
        """Return the time, in UTC, that counts for commands: the server's."""
        return self._connection.clock.now()

    def clients(self, labels: Mapping[str, str] | None = None) -> builtins.list[Presence]:
        """Return who is online, by client id: of all agents, or of those that carry all ``labels``."""
        self._refuse_closed()
        wanted = schema.labels(labels).items()
        return [presence for presence in list_presences(self._store) if wanted <= presence.labels.items()]

    def agents(
        self, labels: Mapping[str, str] | None = None, *, online: bool | None = None
    ) -> builtins.list[AgentRecord]:
        """Return every agent that was ever seen, by client id: those that carry all ``labels``, or all.

        ``online`` True or False leaves out the others. A record may be half a minute behind its agent. Raises
        StateError, StoreUnavailable, PermissionDenied.
        """
        self._refuse_closed()
        wanted = schema.labels(labels).items()
        found = self._inventory.online() if online else self._inventory.agents()
        return [agent for agent in found if wanted <= agent.labels.items() and online in (None, agent.online)]

    def describe(self, client_id: str, *, timeout: float = 5.0) -> dict[str, Description]:
        """Return what an agent that is online tells of its commands, by type: docstring, schemas, digest.

        Commands of an executor are not among them. Raises AgentOffline, MessageTimeout after ``timeout`` seconds,
        NotReady for an agent that tells nothing, and the errors of `message`.
        """
        self._refuse_closed()
        question = self._messenger.compose(DESCRIBE, None, False, None)
        told = self._messenger.describe(client_id, question, seconds("timeout", timeout))
        return {name: describe.read(metadata) for name, metadata in told.items()}

    def assign_labels(self, client_id: str, labels: Mapping[str, str]) -> AgentRecord:
        """Give an agent, which need not be online, labels that count before its own; "" takes one away.

        Raises InvalidName, InvalidOption, StateError, PermissionDenied.
        """
        self._refuse_closed()
        return self._inventory.assign(client_id, labels)

    def forget_agent(self, client_id: str) -> None:
        """Remove the record of an agent that does not come back, with the labels it was given."""
        self._refuse_closed()
        self._inventory.forget(client_id)

    def never_seen(self, client_ids: Iterable[str]) -> builtins.list[str]:
        """Return those ids of agents to which nobody has sent anything, and of which none is online.

        Raises InvalidName, StoreUnavailable.
        """
        self._refuse_closed()
        online = {presence.client_id for presence in self.clients()}
        return self._store.never_seen([each for each in checks.client_ids(client_ids) if each not in online])

    def watch(self, client_id: str | None = None) -> Watcher:
        """Follow every change of the commands of one client, or of all, from now on; close it when done.

        However many watch, the changes are read once. Raises InvalidName, StoreUnavailable.
        """
        self._refuse_closed()
        return self._fanout.watch(client_id)

    # Cancelling -----------------------------------------------------------------------------------------------------

    def cancel(self, command_id: str, reason: str = "", *, issued_by: str | None = None) -> Command:
        """Cancel a command: a pending one ends as failed / cancelled; one that runs is told, and may heed it.

        ``issued_by`` is who asked for it, by default this manager. Returns the command as it stands then. Raises
        CommandNotFound, CommandEnded, InvalidOption, StoreUnavailable.
        """
        checks.text("reason", reason, may_be_empty=True)
        checks.text_or_none("issued_by", issued_by)
        return self._canceller.cancel(self._find(command_id), reason, issued_by)

    def undo(
        self,
        command_id: str,
        *,
        timeout: float = DEFAULT_TIMEOUT,
        issued_by: str | None = None,
        check: Callable[[str], object] | None = None,
    ) -> CommandPromise:
        """Take back a command that is completed, by what its agent said takes it back; return a promise for that.

        The agent says of which type that is: ``check(command_type)``, where given, may raise before anything is sent.

        Raises UndoRefused for one that did not complete, that cannot be taken back, that was already, or after which
        another has changed the same resource; and the errors of `send`.
        """
        self._refuse_closed()
        request = self._find(command_id)
        undo_id, told = undo_of(self._store, request)
        if check is not None:
            check(told.command)
        template = self._sender.template(told.command, told.payload, timeout, 0, issued_by, None)
        record = msgspec.structs.replace(
            template.to(request.client_id), command_id=undo_id, idempotency_key=f"undo {command_id}"
        )
        return self._sender.send_under(record)

    def undone_by(self, command_id: str) -> str | None:
        """Return the id of the command that takes another back, or has done so; None when none does.

        Raises CommandNotFound, StoreUnavailable.
        """
        self._refuse_closed()
        return undone_by(self._store, self._find(command_id))

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
        headers: HeaderMap | None = None,
    ) -> Receipt:
        """Send a message, which is not stored, to an agent that is online; see `Agent.on_message`.

        Returns once the agent has it or, with ``wait_ack``, once it has handled it. ``headers`` reach it as
        `AgentMessage.headers`. Raises AgentOffline, MessageTimeout
        after ``timeout`` seconds, InvalidName, InvalidOption, EncodeError, PayloadTooLarge, PermissionDenied,
        StoreUnavailable.
        """
        self._refuse_closed()
        message = self._messenger.compose(message_type, payload, wait_ack, issued_by)
        return self._messenger.send(client_id, message, seconds("timeout", timeout), headers)

    def broadcast(
        self,
        message_type: str,
        payload: Any = None,
        *,
        timeout: float = 2.0,
        issued_by: str | None = None,
        headers: HeaderMap | None = None,
    ) -> Receipt:
        """Send a message, which is not stored, to all agents; returns which have it, after ``timeout`` seconds at most.

        Raises the errors of `message`, but for AgentOffline and MessageTimeout.
        """
        self._refuse_closed()
        online = [presence.client_id for presence in self.clients()]
        message = self._messenger.compose(message_type, payload, False, issued_by)
        return self._messenger.broadcast(message, online, seconds("timeout", timeout), headers)

    # Room -----------------------------------------------------------------------------------------------------------

    def prune(self, older_than: float) -> int:
        """Free room: remove commands asked for more than ``older_than`` seconds ago, ended or not, and old revisions.

        Returns how many stored messages that were. The audit stays. For an administrator: it needs the right to update
        the streams. Raises InvalidOption, PermissionDenied, StoreUnavailable.
        """
        self._refuse_closed()
        return self._store.prune(seconds("older_than", older_than))

    # Lifetime -------------------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Follow in this process too, which was forked from the one it was made in; its first use does so otherwise.

        Raises ClosedError, and the errors of making one.
        """
        self._refuse_closed()

    def close(self) -> None:
        """Stop following; commands go on, and other managers see them. Idempotent.

        Promises of commands that have not ended raise ClosedError.
        """
        if self._is_ended or not self._is_own_process():
            return
        self._closed = self._is_ended = True
        try:
            self._end()
        except BaseException:
            self._is_ended = False  # what Ctrl-C has ended is done by the next call
            raise

    def _end(self) -> None:
        for each in self._periodic:
            each.stop(1.0)
        if self._sweeper is not None:
            self._sweeper.stop()
        self._fanout.close()
        self._index.stop()
        self._messenger.stop()
        self._follower.stop()
        self._pool.stop(2.0)
        self._callbacks.stop(2.0)

    def _is_own_process(self) -> bool:
        return self._pid == os.getpid()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<CommandManager {self.name!r} follows {len(self._follower)} commands>"

    # ----------------------------------------------------------------------------------------------------------------

    def _targets(
        self, client_ids: Iterable[str] | None, labels: Mapping[str, str] | None, offline: bool
    ) -> builtins.list[str]:
        if (client_ids is None) == (labels is None):
            raise InvalidOption("client_ids", "give either client ids or labels")
        if client_ids is None:
            client_ids = [agent.client_id for agent in self.agents(labels, online=None if offline else True)]
        return checks.client_ids(client_ids)

    def _find(self, command_id: str) -> RequestRecord:
        self._refuse_closed()
        schema.command_id(command_id)
        request = self._follower.request(command_id) or self._store.find_request(command_id)
        if request is None:
            raise CommandNotFound(command_id)
        return request

    def _refuse_closed(self) -> None:
        if self._pid != os.getpid():
            with forks.lock():  # the first of the threads that come here in a forked child
                if self._pid != os.getpid() and not self._closed:
                    self._open()
        if self._closed:
            raise ClosedError("the command manager")
