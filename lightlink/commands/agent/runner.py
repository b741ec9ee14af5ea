"""An agent at work: from the claim to its client id to its last acknowledgement."""

from __future__ import annotations

import logging
from contextvars import Context
from typing import TYPE_CHECKING

from lightlink.commands.agent.execution import Execution
from lightlink.concurrency.deadline import Deadline
from lightlink.concurrency.queues import Ranks
from lightlink.concurrency.scheduler import Lane, every
from lightlink.concurrency.threads import Event
from lightlink.concurrency.workers import WorkerPool
from lightlink.connection.session import Status
from lightlink.errors import AgentInUse, ClosedError, StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from lightlink.commands.agent.delivery import Delivery
    from lightlink.commands.agent.handlers import Handlers
    from lightlink.commands.agent.ports import AgentLink
    from lightlink.commands.messages import MessageHandlers
    from lightlink.concurrency.scheduler import PeriodicJob
    from lightlink.errors import LightLinkError

_log = logging.getLogger("lightlink")

# How long a handler that is told to end, because the agent leaves, has for it.
_LAST_CHANCE_SECONDS = 1.0


class Runner:
    """One run of an agent. ``on_lost`` is called, on a thread that must not be blocked, when it cannot go on."""

    def __init__(
        self,
        link: AgentLink,
        labels: Mapping[str, str],
        handlers: Handlers,
        messages: MessageHandlers,
        workers: int,
        prefetch: int,
        describes: bool,
        on_lost: Callable[[LightLinkError], object],
    ) -> None:
        self._link = link
        self._client_id = link.client_id
        self._on_lost = on_lost
        self._stopping = Event()  # what still tries to reach the store is to give up
        self.pool = WorkerPool(f"lightlink-{link.client_id}", workers)
        # Deadlines are enforced on threads of the process: every worker may be busy with an overdue command.
        self.steward = Lane()
        self._waiting: Ranks[Delivery] = Ranks()
        self._periodic: list[PeriodicJob] = []
        self._missed_cancels = False
        self._deliveries = link.deliveries(prefetch, self._take, self.steward.put)
        self._execution = Execution(link, self._deliveries, handlers, self.steward, self._stopping)
        self._claim = link.claim(labels, handlers.announced_types, self._load)
        self._inbox = link.inbox(messages, handlers.describe() if describes else None)

    # Starting -------------------------------------------------------------------------------------------------------

    def start(self, is_leaving_after: Callable[[float], bool], wait: float | None) -> None:
        """Claim the client id, as `Claim.acquire` does, and begin to take commands.

        Raises AgentInUse, ClosedError when it is to leave while it waits, StoreUnavailable, PermissionDenied.
        """
        self.pool.start()
        self.steward.start()
        if not self._claim.acquire(is_leaving_after, wait):
            raise ClosedError(f"agent {self._client_id!r}", "was stopped while it waited for its client id")
        self._link.follow(self._execution.cancel, self._on_connection)
        self._inbox.start()
        self._deliveries.start()
        self._periodic = [
            every(min(1.0, self._link.ack_wait / 4), self._tick),
            every(self._link.heartbeat, self._beat),
        ]

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
        if not self.pool.stop(deadline.remaining(0.1)):
            _log.warning("lightlink: agent %s stops with commands running; they are told to end", self._client_id)
            self._execution.interrupt()
            self.pool.join(_LAST_CHANCE_SECONDS)
        self._stopping.set()
        for each in self._periodic:
            each.stop(deadline.remaining(0.5))
        self._hand_back()  # what came from the last round, after the workers had been told to end
        self.steward.stop(deadline.remaining(0.1))
        # The id is free from here on.
        self._claim.release()
        self._link.unfollow()

    def leave_at_exit(self, timeout: float) -> None:
        """Give commands that wait here, and the client id, back as the interpreter ends without a `stop`."""
        if not self._link.is_connected:
            return
        self._deliveries.stop(timeout)
        self._hand_back()
        self._claim.release(timeout)

    def _hand_back(self) -> None:
        while (delivery := self._waiting.take()) is not None:
            self._deliveries.hand_back(delivery)

    # Running --------------------------------------------------------------------------------------------------------

    def _take(self, deliveries: list[Delivery]) -> None:
        """Queue delivered commands for the workers: higher priority first, then the older one."""
        for delivery in deliveries:
            self._waiting.put((-delivery.request.priority, delivery.sequence), delivery)
        for _ in deliveries:
            self.pool.put(self._run_next)

    def _run_next(self) -> None:
        delivery = self._waiting.take()
        if delivery is None:
            return  # it was handed back
        # A context of its own: nothing that a handler sets there is seen by the next one.
        Context().run(self._execution.process, delivery)

    def _load(self) -> tuple[int, int]:
        return len(self._execution.running), len(self._waiting)

    def _tick(self) -> None:
        self._deliveries.tick()
        if self._missed_cancels and self._link.is_connected:
            self._missed_cancels = False
            self.steward.put(self._look_for_cancels)

    def _beat(self) -> None:
        if not self._link.is_connected:
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
        elif status is Status.CLOSED:
            self._on_lost(self._link.failure())

    def _look_for_cancels(self) -> None:
        try:
            self._execution.look_for_cancels()
        except StoreUnavailable as exc:
            _log.debug("lightlink: agent %s after an outage: %s", self._client_id, exc)
            self._missed_cancels = True
