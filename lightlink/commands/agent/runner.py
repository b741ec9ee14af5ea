"""An agent at work: from the claim to its client id to its last acknowledgement."""

from __future__ import annotations

import itertools
import logging
import queue
from contextvars import Context
from typing import TYPE_CHECKING, Any

from lightlink.commands.agent.delivery import Deliveries
from lightlink.commands.agent.execution import Execution
from lightlink.commands.messages import Inbox
from lightlink.commands.store import schema
from lightlink.commands.store.presence import Claim
from lightlink.commands.store.store import CommandStore, read_status
from lightlink.concurrency.deadline import Deadline
from lightlink.concurrency.scheduler import Lane, every
from lightlink.concurrency.threads import Event
from lightlink.concurrency.workers import WorkerPool
from lightlink.connection.session import Status
from lightlink.errors import (
    AgentInUse,
    ClosedError,
    DecodeError,
    LightLinkError,
    PermissionDenied,
    StoreUnavailable,
)
from lightlink.protocol.subjects import as_text

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from lightlink.client import Client
    from lightlink.commands.agent.delivery import Delivery
    from lightlink.commands.agent.handlers import Handlers
    from lightlink.commands.messages import MessageHandlers
    from lightlink.commands.store.schema import StoreOptions
    from lightlink.concurrency.scheduler import PeriodicJob

_log = logging.getLogger("lightlink")

# How long a handler that is told to end, because the agent leaves, has for it.
_LAST_CHANCE_SECONDS = 1.0


class Runner:
    """One run of an agent. ``on_lost`` is called, on a thread that must not be blocked, when it cannot go on."""

    def __init__(
        self,
        client: Client,
        client_id: str,
        instance: str,
        labels: Mapping[str, str],
        handlers: Handlers,
        messages: MessageHandlers,
        options: StoreOptions,
        workers: int,
        prefetch: int,
        describes: bool,
        on_lost: Callable[[LightLinkError], object],
    ) -> None:
        self._client_id = client_id
        self._instance = instance
        self._connection = connection = client.connection
        self._on_lost = on_lost
        self._stopping = Event()  # what still tries to reach the store is to give up
        self.pool = WorkerPool(f"lightlink-{client_id}", workers)
        # Deadlines are enforced on threads of the process: every worker may be busy with an overdue command.
        self.steward = Lane()
        self._waiting: queue.PriorityQueue[tuple[int, int, int, Delivery]] = queue.PriorityQueue()
        self._numbers = itertools.count()
        self._periodic: list[PeriodicJob] = []
        self._missed_cancels = False
        self._may_make_streams = True  # as far as is known
        self._status_route: Any = None
        self._forget_status: Callable[[], None] = lambda: None
        self._store = CommandStore(connection, options, client.options.timeout)
        ack_wait = self._prepare_streams()
        self._tick_every = min(1.0, ack_wait / 4)
        self._deliveries = Deliveries(connection, client_id, prefetch, ack_wait, self._take, self._on_missing_consumer)
        self._execution = Execution(self._store, self._deliveries, instance, handlers, self.steward, self._stopping)
        self._claim = Claim(self._store, client_id, instance, labels, handlers.announced_types, self._load)
        told = handlers.describe() if describes else None
        self._inbox = Inbox(connection, client_id, messages, told)

    # Starting -------------------------------------------------------------------------------------------------------

    def start(self, is_leaving_after: Callable[[float], bool], wait: float | None) -> None:
        """Claim the client id, as `Claim.acquire` does, and begin to take commands.

        Raises AgentInUse, ClosedError when it is to leave while it waits, StoreUnavailable, PermissionDenied.
        """
        self.pool.start()
        self.steward.start()
        if not self._claim.acquire(is_leaving_after, wait):
            raise ClosedError(f"agent {self._client_id!r}", "was stopped while it waited for its client id")
        self._forget_status = self._connection.on_status(self._on_connection)
        self._status_route = self._connection.subscribe(
            schema.status_event(self._client_id, "*"), "", self._on_status_revision
        )
        self._inbox.start()
        self._deliveries.start()
        self._periodic = [
            every(self._tick_every, self._tick),
            every(self._store.options.heartbeat, self._beat),
        ]

    def _prepare_streams(self) -> float:
        """Make streams and consumer if this identity may; else a manager makes them before its first command.

        Returns the seconds after which the server delivers again what an agent holds without a sign of life.
        """
        try:
            self._store.ensure_streams()
            self._store.ensure_consumers([self._client_id])
            return self._store.consumer_ack_wait(self._client_id)
        except PermissionDenied as exc:
            self._may_make_streams = False
            _log.debug("lightlink: agent %s leaves the streams to a manager: %s", self._client_id, exc)
            return self._store.options.ack_wait

    def _on_missing_consumer(self) -> None:
        if self._may_make_streams:  # else a server would log each attempt, and there is one every second
            self.steward.put(self._make_consumer)

    def _make_consumer(self) -> None:
        try:
            self._store.forget_consumers()
            self._prepare_streams()
        except LightLinkError as exc:
            _log.debug("lightlink: agent %s has no consumer yet: %s", self._client_id, exc)

    # Stopping -------------------------------------------------------------------------------------------------------

    def stop(self, timeout: float) -> None:
        """Leave within about ``timeout`` seconds, step by step; each begins what takes part in the next."""
        deadline = Deadline(timeout)
        if self._periodic:
            # First no new commands; those that wait here go back to the stream, for the next instance.
            self._deliveries.stop(max(min(timeout, 2.0), 0.1))
            self._hand_back()
        self._inbox.stop(max(min(1.0, deadline.remaining()), 0.1))
        # Then those that run. They are kept alive meanwhile, and what they say at their end is stored.
        if not self.pool.stop(deadline.remaining()):
            _log.warning("lightlink: agent %s stops with commands running; they are told to end", self._client_id)
            self._execution.interrupt()
            self.pool.join(_LAST_CHANCE_SECONDS)
        self._stopping.set()
        for each in self._periodic:
            each.stop(deadline.remaining(0.5))
        self._hand_back()  # what came from the last round, after the workers had been told to end
        self._forget_status()
        self.steward.stop(deadline.remaining(0.1))
        # The id is free from here on.
        self._claim.release()
        if self._status_route is not None:
            self._connection.session.unroute(self._status_route, 1.0)

    def leave_at_exit(self, timeout: float) -> None:
        """Give commands that wait here, and the client id, back as the interpreter ends without a `stop`."""
        if self._connection.status is not Status.CONNECTED:
            return
        self._deliveries.stop(timeout)
        self._hand_back()
        self._claim.release(timeout)

    def _hand_back(self) -> None:
        while True:
            try:
                delivery = self._waiting.get_nowait()[-1]
            except queue.Empty:
                return
            self._deliveries.hand_back(delivery)

    # Running --------------------------------------------------------------------------------------------------------

    def _take(self, deliveries: list[Delivery]) -> None:
        """Queue delivered commands for the workers: higher priority first, then the older one."""
        for delivery in deliveries:
            self._waiting.put((-delivery.request.priority, delivery.sequence, next(self._numbers), delivery))
        for _ in deliveries:
            self.pool.put(self._run_next)

    def _run_next(self) -> None:
        try:
            delivery = self._waiting.get_nowait()[-1]
        except queue.Empty:
            return  # it was handed back
        # A context of its own: nothing that a handler sets there is seen by the next one.
        Context().run(self._execution.process, delivery)

    def _load(self) -> tuple[int, int]:
        return len(self._execution.running), self._waiting.qsize()

    def _tick(self) -> None:
        self._deliveries.tick()
        if self._missed_cancels and self._connection.status is Status.CONNECTED:
            self._missed_cancels = False
            self.steward.put(self._look_for_cancels)

    def _beat(self) -> None:
        if self._connection.status is not Status.CONNECTED:
            return
        try:
            self._claim.renew()
        except AgentInUse as exc:
            _log.error("lightlink: %s; this one stops", exc)
            self._on_lost(exc)

    # What is heard --------------------------------------------------------------------------------------------------

    def _on_connection(self, status: Status) -> None:
        if status is Status.CONNECTED:
            self._missed_cancels = True
            self._claim.doubt_clock()
            self._may_make_streams = True
        elif status is Status.CLOSED:
            self._on_lost(self._connection.failure or ClosedError("the client", "was closed under the agent"))

    def _look_for_cancels(self) -> None:
        try:
            self._execution.look_for_cancels()
        except StoreUnavailable as exc:
            _log.debug("lightlink: agent %s after an outage: %s", self._client_id, exc)
            self._missed_cancels = True

    def _on_status_revision(self, subject: bytes, _reply: bytes, data: bytes, _headers: bytes | None) -> None:
        if b'"cancel_requested"' in data:  # we leave it out while it is false; peers may put spaces behind it
            self._connection.session.notifier.post(self._hear_of_cancel, as_text(subject), data)

    def _hear_of_cancel(self, subject: str, data: bytes) -> None:
        try:
            status = read_status(data, subject)
        except DecodeError as exc:
            self._connection.report(exc)
            return
        if status.cancel_requested and not status.ended and status.instance == self._instance:
            prefix = schema.status_event(self._client_id, "")
            self._execution.cancel(subject.removeprefix(prefix))
