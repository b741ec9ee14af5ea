"""An agent: runs the commands sent to one client id, whenever it is there."""

from __future__ import annotations

import enum
import logging
import queue
import time
from typing import TYPE_CHECKING, Any, TypeVar

from lightlink import codec, subjects
from lightlink.binding import Binder
from lightlink.client import Client, connect
from lightlink.commands.context import CommandContext
from lightlink.commands.delivery import Deliveries
from lightlink.commands.execution import CommandExecutor, Execution, Handler
from lightlink.commands.messages import Inbox, MessageHandlers
from lightlink.commands.presence import Claim
from lightlink.commands.schema import StoreOptions
from lightlink.commands.store import CommandStore, read_status
from lightlink.errors import (
    AgentInUse,
    ClosedError,
    DecodeError,
    InvalidOption,
    LightLinkError,
    NotReady,
    PermissionDenied,
    StoreUnavailable,
)
from lightlink.options import seconds
from lightlink.runtime.signals import StopSignal
from lightlink.runtime.threads import Event
from lightlink.runtime.ticker import Ticker
from lightlink.runtime.workers import WorkerPool

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from lightlink.commands.delivery import Delivery

Function = TypeVar("Function", bound="Callable[..., Any]")

_log = logging.getLogger("lightlink")


class Stage(enum.Enum):
    """How far an agent has come."""

    NEW = "not started"  # handlers are registered
    RUNNING = "running"
    STOPPED = "stopped"  # drained, or being drained; it does not start again


class Agent:
    """Runs the commands sent to ``client_id``, on ``workers`` threads, higher priorities first.

    ``target`` is a `Client`, whose connection is then shared, or a URL as for `connect`, with its ``options``.
    ``executor`` is asked for commands that no function is registered for. ``labels`` let managers address many
    agents at once. ``prefetch`` commands are fetched ahead. ``store`` tells how the
    streams are made if this agent comes first.
    """

    def __init__(
        self,
        client_id: str,
        target: Client | str | Sequence[str] | None = None,
        *,
        executor: CommandExecutor | None = None,
        workers: int = 4,
        labels: Mapping[str, str] | None = None,
        prefetch: int = 256,
        store: StoreOptions | None = None,
        **options: Any,
    ) -> None:
        self.client_id = subjects.client_id(client_id)
        self.instance = codec.new_id().replace("-", "")
        self.labels = dict(labels or {})
        if isinstance(target, Client) and options:
            raise InvalidOption(", ".join(options), "belongs to the client, which is given")
        if executor is not None and not isinstance(executor, CommandExecutor):
            raise InvalidOption("executor", "has no method execute(command_type, payload)", type(executor).__name__)
        for option, value in (("workers", workers), ("prefetch", prefetch)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise InvalidOption(option, "must be a whole number above 0", value)
        self._target = target
        self._options = {"name": client_id, **options}
        self._store_options = store or StoreOptions()
        self._prefetch = prefetch
        self._client: Client | None = target if isinstance(target, Client) else None
        self._stage = Stage.NEW
        self._lost: AgentInUse | None = None
        self._stopping = Event()
        self._stop_signal = StopSignal()
        self._pool = WorkerPool(f"lightlink-{client_id}", workers)
        # Deadlines are written down by a thread of their own: every worker may be busy overrunning.
        self._reporter = WorkerPool(f"lightlink-{client_id}-reporter", 1)
        self._waiting: queue.PriorityQueue[tuple[int, int, Delivery]] = queue.PriorityQueue()
        self._handlers: dict[str, Handler] = {}
        self._messages = MessageHandlers()
        self._executor = executor

    # Registering ----------------------------------------------------------------------------------------------------

    def command(self, command_type: str, *, idempotent: bool = False) -> Callable[[Function], Function]:
        """Register the decorated function for a type of command, and return it unchanged.

        The payload is bound to its parameters by name and checked against the annotations; a parameter annotated with
        `CommandContext` gets the context. An ``idempotent`` command is run again when an agent died while running it;
        another one then ends as failed / interrupted.
        """
        if callable(command_type):
            raise InvalidOption("command", "name the type: @agent.command('restart')")

        def decorate(function: Function) -> Function:
            self.register(command_type, function, idempotent=idempotent)
            return function

        return decorate

    def register(self, command_type: str, function: Callable[..., Any], *, idempotent: bool = False) -> None:
        """Register a function for a type of command; raises NotReady after the start."""
        if self._stage is not Stage.NEW:
            raise NotReady(f"command {command_type!r}", f"cannot be registered: the agent is {self._stage.value}")
        if not isinstance(command_type, str) or not command_type:
            raise InvalidOption("command type", "must be text", command_type)
        if command_type in self._handlers:
            raise InvalidOption("command type", "is registered already", command_type)
        self._handlers[command_type] = Handler(Binder(function, {CommandContext: "context"}), idempotent)

    def on_message(self, message_type: Any = None) -> Any:
        """Register the decorated function for messages: ``@agent.on_message`` or ``@agent.on_message("notice")``.

        It is given an `AgentMessage`. Messages are not stored; they are handled in order, one at a time, beside the
        commands. The function is returned unchanged.
        """
        if callable(message_type):
            return self.on_message()(message_type)
        if message_type is not None and (not isinstance(message_type, str) or not message_type):
            raise InvalidOption("message type", "must be text", message_type)

        def decorate(function: Function) -> Function:
            if self._stage is not Stage.NEW:
                raise NotReady("on_message", f"cannot be registered: the agent is {self._stage.value}")
            self._messages.add(message_type, function)
            return function

        return decorate

    # Lifetime -------------------------------------------------------------------------------------------------------

    def start(self) -> Agent:
        """Connect, claim the client id and begin to take commands; returns self.

        Raises AgentInUse when a live agent holds the id, and the errors of `connect`.
        """
        if self._stage is Stage.RUNNING:
            raise NotReady(f"agent {self.client_id!r}", "is running already")
        if self._stage is Stage.STOPPED:
            raise ClosedError(f"agent {self.client_id!r}")
        if self._client is None:
            self._client = connect(self._target, **self._options)  # type: ignore[arg-type]
        connection = self._client._connection
        self._store = CommandStore(connection, self._store_options, self._client.options.timeout)
        self._deliveries = Deliveries(
            connection, self.client_id, self._prefetch, self._store_options.ack_wait, self._take
        )
        self._execution = Execution(
            self._store, self._deliveries, self.instance, self._handlers, self._executor, self._reporter, self._stopping
        )
        self._claim = Claim(self._store, self.client_id, self.instance, self.labels, self._load)
        self._inbox = Inbox(connection, self.client_id, self._messages)
        self._prepare_streams()
        try:
            self._claim.acquire(self._stopping)
        except BaseException:
            self._stage = Stage.STOPPED
            self._close_client()
            raise
        self._stage = Stage.RUNNING
        self._status_route = connection.subscribe(f"ll.status.{self.client_id}.>", "", self._on_status_revision)
        self._inbox.start()
        self._deliveries.start()
        name = f"lightlink-{self.client_id}"
        self._tickers = [
            Ticker(f"{name}-deliveries", min(1.0, self._store_options.ack_wait / 4), self._deliveries.tick),
            Ticker(f"{name}-heartbeat", self._store_options.heartbeat, self._beat),
        ]
        _log.info("lightlink: agent %s is running (instance %s)", self.client_id, self.instance)
        return self

    def stop(self, timeout: float = 10.0) -> None:
        """Take no more commands, hand back what was not begun, finish what runs within ``timeout`` seconds, and leave.

        Idempotent.
        """
        seconds("timeout", timeout)
        was, self._stage = self._stage, Stage.STOPPED
        self._stop_signal.set()
        if was is not Stage.RUNNING:
            self._stopping.set()
            return
        deadline = time.monotonic() + timeout
        # First no new commands; those that wait here go back to the stream, for the next instance.
        self._deliveries.stop(min(timeout, 2.0))
        self._hand_back()
        self._inbox.stop(max(min(1.0, deadline - time.monotonic()), 0.1))
        # Then those that run. They are kept alive meanwhile, and what they say at their end is stored.
        if not self._pool.stop(deadline - time.monotonic()):
            _log.warning("lightlink: agent %s stops with commands running; they end as interrupted", self.client_id)
        self._stopping.set()
        for ticker in self._tickers:
            ticker.stop(max(deadline - time.monotonic(), 0.5))
        self._reporter.stop(max(deadline - time.monotonic(), 0.1))
        # The id is free from here on.
        self._claim.release()
        self._leave()
        self._close_client(max(deadline - time.monotonic(), 0.5))
        _log.info("lightlink: agent %s has stopped", self.client_id)

    def run(self, stop_timeout: float = 10.0) -> None:
        """Start, wait for SIGINT, SIGTERM or `stop`, then drain within ``stop_timeout`` seconds and stop."""
        if self._stage is not Stage.RUNNING:
            self.start()
        try:
            self._stop_signal.wait()
        finally:
            self.stop(stop_timeout)
        if self._lost is not None:
            raise self._lost

    def __enter__(self) -> Agent:
        return self if self._stage is Stage.RUNNING else self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def __repr__(self) -> str:
        return f"<Agent {self.client_id!r} {self._stage.value}>"

    @property
    def client(self) -> Client:
        """The client the agent talks through; raises NotReady before the start."""
        if self._client is None:
            raise NotReady(f"agent {self.client_id!r}", "has no client before it is started")
        return self._client

    # ----------------------------------------------------------------------------------------------------------------

    def _prepare_streams(self) -> None:
        """Make streams and consumer if this identity may; else a manager makes them before its first command."""
        try:
            self._store.ensure_streams()
            self._store.ensure_consumer(self.client_id)
        except PermissionDenied as exc:
            _log.debug("lightlink: agent %s leaves the streams to a manager: %s", self.client_id, exc)

    def _take(self, delivery: Delivery) -> None:
        """Queue a delivered command for a worker: higher priority first, then the older one."""
        self._waiting.put((-delivery.request.priority, delivery.sequence, delivery))
        self._pool.put(self._run_next)

    def _run_next(self) -> None:
        try:
            delivery = self._waiting.get_nowait()[2]
        except queue.Empty:
            return  # it was handed back
        self._execution.process(delivery)

    def _hand_back(self) -> None:
        while True:
            try:
                delivery = self._waiting.get_nowait()[2]
            except queue.Empty:
                return
            self._deliveries.hand_back(delivery)

    def _load(self) -> tuple[int, int]:
        return len(self._execution.running), self._waiting.qsize()

    def _beat(self) -> None:
        try:
            self._claim.renew()
        except AgentInUse as exc:
            _log.error("lightlink: %s; this one stops", exc)
            self._lost = exc
            self.client._connection.report(exc)
            self._stop_signal.set()
            self._deliveries.stop(1.0)
            self._hand_back()

    def _on_status_revision(self, subject: bytes, _reply: bytes, data: bytes, _headers: bytes | None) -> None:
        if b'"cancel_requested":true' in data:
            self.client._connection.session.notifier.post(self._hear_of_cancel, subject.decode(), data)

    def _hear_of_cancel(self, subject: str, data: bytes) -> None:
        try:
            status = read_status(data, subject)
        except DecodeError as exc:
            self.client._connection.report(exc)
            return
        if status.cancel_requested and status.instance == self.instance:
            self._execution.cancel(subject.rpartition(".")[2])

    def _leave(self) -> None:
        session = self.client._connection.session
        try:
            session.run(session.nc.unroute, self._status_route, timeout=1.0)
        except (TimeoutError, LightLinkError, StoreUnavailable) as exc:
            _log.debug("lightlink: agent %s unsubscribing: %r", self.client_id, exc)

    def _close_client(self, timeout: float = 1.0) -> None:
        if self._client is not None and self._client is not self._target:
            self._client.close(timeout)
