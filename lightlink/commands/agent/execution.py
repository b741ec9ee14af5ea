"""Run one delivered command: claim it, run its handler, write down how it ended."""

from __future__ import annotations

import itertools
import logging
import math
import time
from datetime import timedelta
from typing import TYPE_CHECKING

import attrs
import msgspec

from lightlink import logs
from lightlink.commands import model
from lightlink.commands.agent.context import CommandContext
from lightlink.commands.agent.handlers import CANCELLED_TEXT, Rejected
from lightlink.commands.store.access import Conflict
from lightlink.errors import ClosedError, LightLinkError, PayloadTooLarge, StoreUnavailable
from lightlink.jetstream.retry import pauses

if TYPE_CHECKING:
    from collections.abc import Callable

    from lightlink.commands.agent.delivery import Delivery
    from lightlink.commands.agent.handlers import Handlers, Job, Outcome
    from lightlink.commands.agent.ports import AgentLink, Held
    from lightlink.commands.model import RequestRecord, StatusRecord
    from lightlink.concurrency.scheduler import Lane
    from lightlink.concurrency.threads import Event

_log = logging.getLogger("lightlink")

_RETRY_FIRST, _RETRY_MOST = 0.1, 5.0
# How often, in about twelve seconds, a replica is asked that answers with less than is known.
_STALE_TRIES = 8
_LONG_OVER = timedelta(minutes=1)


@attrs.define(eq=False)
class Running:
    """A command that is claimed or run here. ``last`` is our last status of it with its revision, in one value.

    Two threads write: the worker that runs it and the one that reports that it has overrun.
    """

    delivery: Delivery
    context: CommandContext
    job: Job | None = None  # once it is known that it can be run
    last: tuple[StatusRecord, int] | None = None
    unwanted: bool = False  # it was cancelled
    overrun: bool = False  # it is past its deadline, and that is being reported


class Execution:
    """Runs the commands of one agent instance. ``stopped`` ends its waiting for a store that does not answer."""

    def __init__(
        self,
        link: AgentLink,
        deliveries: Held,
        handlers: Handlers,
        reporter: Lane,
        stopped: Event,
    ) -> None:
        self.running: dict[str, Running] = {}
        self._connection = link.connection
        self._statuses = link.statuses
        self._clock = link.statuses.clock
        self._instance = link.instance
        self._deliveries = deliveries
        self._handlers = handlers
        self._reporter = reporter
        self._stopped = stopped
        self._interrupted = False
        # Commands that were run here and whose end is not stored by us: they must not run again as if they never had.
        self._begun: set[str] = set()
        self._next_look = math.inf  # at the deadlines, an instant of `time.monotonic`

    def process(self, delivery: Delivery) -> None:
        """Do with a delivered command what its status says; runs on a worker."""
        request = delivery.request
        running = Running(delivery, CommandContext(request, self._connection))
        # Known from before the claim on: a wish to cancel may come as soon as others can see the claim.
        self.running[request.command_id] = running
        try:
            if self._claim(running):
                self._run(running)
        except Exception as exc:
            # What is not acknowledged is delivered again, and then the status decides anew.
            unexpected = None if isinstance(exc, LightLinkError) else exc
            _log.error("lightlink: command %s is left for later: %s", request.command_id, exc, exc_info=unexpected)
            self._deliveries.forget(delivery)
        finally:
            running.context.forget_progress()
            # One that overran, and was acknowledged in vain, may have been delivered here once more.
            if self.running.get(request.command_id) is running:
                del self.running[request.command_id]

    # What others want of commands that run --------------------------------------------------------------------------

    def cancel(self, command_id: str) -> None:
        """Tell a handler that its command is no longer wanted."""
        running = self.running.get(command_id)
        if running is not None:
            running.unwanted = True
            running.context.cancelled.set()

    def look_for_cancels(self) -> None:
        """Read whether any command that runs was cancelled while nothing could be heard; raises StoreUnavailable."""
        running = [(each, each.last[1]) for each in list(self.running.values()) if each.last is not None]
        ids = [(each.delivery.request.client_id, each.delivery.request.command_id) for each, _ in running]
        for (each, known), (status, revision) in zip(running, self._statuses.read_statuses(ids), strict=True):
            if status is None or revision <= known:
                continue  # nothing new; a replica that is behind may tell of an earlier instance
            if status.cancel_requested or status.ended or status.instance != self._instance:
                self.cancel(each.delivery.request.command_id)

    def interrupt(self) -> None:
        """Tell every handler to end, as the agent leaves: those that heed it end as interrupted, or run again."""
        self._interrupted = True
        for running in list(self.running.values()):
            running.context.cancelled.set()

    def _look_by(self, deadline: float) -> None:
        """Have the deadlines looked at by an instant; on the notifier's thread, as is what follows."""
        if deadline < self._next_look:
            self._next_look = deadline
            self._connection.session.notifier.post_at(deadline, self._look_at_deadlines)

    def _look_at_deadlines(self) -> None:
        instant = time.monotonic()
        self._next_look = math.inf
        for running in list(self.running.values()):
            if running.overrun:
                continue
            if running.context.deadline > instant:
                self._look_by(running.context.deadline)
            elif running.last is not None:
                running.overrun = True
                running.context.cancelled.set()
                self._reporter.put(self._report_overrun, running)

    def _report_overrun(self, running: Running) -> None:
        """Write down that a command has overrun; without effect if it has ended."""
        request = running.delivery.request

        def following(current: StatusRecord) -> StatusRecord | None:
            at = self._clock.now()
            return None if current.ended else model.expired(request, current, at, by=self._instance)

        try:
            self._write_over(running, following, persistent=False)
        except LightLinkError as exc:
            # Nobody depends on it: the handler's end, or a manager's sweep, does the same.
            _log.warning("lightlink: command %s has overrun: %s", request.command_id, exc)
            return
        _log.warning("lightlink: command %s (%r) has overrun", request.command_id, request.command_type)
        # It has ended for everybody but its handler.
        self._deliveries.ack(running.delivery)

    # Claiming -------------------------------------------------------------------------------------------------------

    def _claim(self, running: Running) -> bool:
        """Store our claim, or whatever end the command has; tell whether it is to be run."""
        request = running.delivery.request
        # Most commands are new, so the first attempt does without reading the status.
        current: StatusRecord | None = None
        revision = 0
        for pause in pauses(_RETRY_FIRST, _RETRY_MOST):
            decision = self._decide(running, current)
            if isinstance(decision, model.Ignore):
                self._deliveries.ack(running.delivery)
                return False
            record = decision.claim if isinstance(decision, model.Run) else decision.status
            try:
                try:
                    stored = self._statuses.write_status(request.client_id, request.command_id, record, revision)
                except Conflict:
                    current, revision = self._read_after(request, current, revision)
                    continue
            except StoreUnavailable as exc:
                # It may have been stored; the next attempt then meets our own claim.
                _log.warning("lightlink: command %s is not claimed yet: %s", request.command_id, exc)
                if self._stopped.wait(pause):
                    raise
                continue
            running.last = record, stored
            if isinstance(decision, model.Run):
                return True
            self._deliveries.ack(running.delivery)
            return False
        return False

    def _decide(self, running: Running, current: StatusRecord | None) -> model.Run | model.Settle | model.Ignore:
        request = running.delivery.request
        idempotent = self._handlers.is_idempotent(request.command_type)
        begun = request.command_id in self._begun
        decision = model.on_delivery(request, current, self._instance, idempotent, begun, self._clock.now())
        if isinstance(decision, model.Run) and running.job is None:
            try:
                running.job = self._handlers.bind(request)
            except Rejected as exc:
                return model.Settle(model.rejected(current, self._clock.now(), self._instance, str(exc)))
        return decision

    # Running --------------------------------------------------------------------------------------------------------

    def _run(self, running: Running) -> None:
        assert running.last is not None
        assert running.job is not None
        request, context = running.delivery.request, running.context
        context.attempt = running.last[0].attempt
        facts = {"client_id": request.client_id, "command_id": request.command_id, "attempt": context.attempt}
        logs.enter(facts, context.headers)
        self._begun.add(request.command_id)
        self._connection.session.notifier.post(self._look_by, context.deadline)
        outcome = self._handlers.run(request, running.job, context)
        in_time = not model.is_overdue(request, self._clock.now(), grace=timedelta(0))
        if self._interrupted and not running.unwanted and outcome.status_detail == model.CANCELLED and in_time:
            if self._handlers.is_idempotent(request.command_type):
                self._deliveries.hand_back(running.delivery)
                return
            outcome = self._handlers.interrupted()
        try:
            self._finish(running, outcome, in_time)
        except Conflict:
            # Its end, and the acknowledgement, are the other's business now.
            _log.warning("lightlink: command %s was taken over by another instance, or is gone", request.command_id)
            self._deliveries.forget(running.delivery)
        else:
            self._deliveries.ack(running.delivery)
            self._begun.discard(request.command_id)

    def _finish(self, running: Running, outcome: Outcome, in_time: bool) -> None:
        """Store how the command ended; raises what `_write_over` raises."""
        try:
            self._write_over(running, self._following(running, outcome, in_time))
        except PayloadTooLarge as exc:
            smaller = self._handlers.failed(f"the result is too large: {exc}")
            self._write_over(running, self._following(running, smaller, in_time))

    def _following(
        self, running: Running, outcome: Outcome, in_time: bool
    ) -> Callable[[StatusRecord], StatusRecord | None]:
        """Return the function that makes the end of a command from its last status; None if there is nothing to add."""
        request = running.delivery.request
        completed = outcome.status == model.COMPLETED

        def following(current: StatusRecord) -> StatusRecord | None:
            at = self._clock.now()
            if current.ended:
                # What others have seen stays, and a result is put beside it; unless this is what we have written.
                news = completed and current.status != model.COMPLETED and not current.late
                return model.with_late_result(current, outcome.result, at) if news else None
            # What could not be stored until everybody else had given the command up is late, too.
            if not in_time or model.is_overdue(request, at):
                status = model.expired(request, current, at, by=self._instance)
                return msgspec.structs.replace(status, late_result=outcome.result) if completed else status
            facts = attrs.asdict(outcome, recurse=False)
            if outcome.status_detail == model.CANCELLED and outcome.error == CANCELLED_TEXT:
                facts["error"] = model.with_reason(CANCELLED_TEXT, current.cancel_reason)
            return model.ended(current, at=at, by=self._instance, **facts)

        return following

    # Storing --------------------------------------------------------------------------------------------------------

    def _write_over(
        self,
        running: Running,
        following: Callable[[StatusRecord], StatusRecord | None],
        persistent: bool = True,
    ) -> None:
        """Store what follows our claim, over whatever revision of it is the last; None stores nothing.

        Raises Conflict when another instance has taken the command or its status is gone, PayloadTooLarge, ClosedError.
        While the store does not answer, and ``persistent``, it tries again until the agent stops, and then raises what
        the last attempt did.
        """
        request = running.delivery.request
        for pause in pauses(_RETRY_FIRST, _RETRY_MOST):
            assert running.last is not None
            current, revision = running.last
            record = following(current)
            if record is None:
                return
            try:
                try:
                    stored = self._statuses.write_status(request.client_id, request.command_id, record, revision)
                except Conflict:
                    self._catch_up(running, current, revision)
                    continue
            except (PayloadTooLarge, ClosedError, Conflict):
                raise
            except LightLinkError as exc:
                if not persistent or self._stopped.wait(pause):
                    raise
                _log.warning("lightlink: command %s: %s; trying again", request.command_id, exc)
                continue
            running.last = record, stored
            return

    def _catch_up(self, running: Running, last: StatusRecord, known: int) -> None:
        """Read the revision of our claim that came after a known one; raises Conflict when it is ours no longer."""
        current, revision = self._read_after(running.delivery.request, last, known)
        if current is None or current.instance != self._instance:
            raise Conflict(running.delivery.request.command_id)
        running.last = current, revision

    def _read_after(
        self, request: RequestRecord, last: StatusRecord | None, known: int
    ) -> tuple[StatusRecord | None, int]:
        """Return the last status, which is known to be another than one with its revision, and its revision.

        A replica that answers may be behind, and is asked again. Raises StoreUnavailable while it is, and Conflict when
        that lasts and there is no status any more or the command is long over: the server has lost what it stored.
        """
        stale = StoreUnavailable("reading a status", "what was answered is older than what was written")
        for pause in itertools.islice(pauses(_RETRY_FIRST, _RETRY_MOST), _STALE_TRIES):
            current, revision = self._statuses.read_status(request.client_id, request.command_id)
            if revision > known:
                return current, revision
            if current is not None and not model.may_precede(current, last):
                # No replica can have been at that: the server has lost what it stored, and counts anew.
                return current, revision
            if self._stopped.wait(pause):
                raise stale
        if (current is None and known) or model.is_overdue(request, self._clock.now(), grace=_LONG_OVER):
            raise Conflict(request.command_id)
        raise stale
