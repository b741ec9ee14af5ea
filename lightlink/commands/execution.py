"""Run one delivered command: claim it, run its handler, write down how it ended."""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import attrs
import msgspec

from lightlink import codec
from lightlink.binding import Binder, BindError
from lightlink.commands import model
from lightlink.commands.context import Cancelled, CommandContext
from lightlink.commands.store import Conflict
from lightlink.errors import EncodeError, LightLinkError, PayloadTooLarge, StoreUnavailable
from lightlink.runtime.connection import NoReply
from lightlink.runtime.threads import Event

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lightlink.commands.delivery import Deliveries, Delivery
    from lightlink.commands.model import StatusRecord
    from lightlink.commands.store import CommandStore
    from lightlink.runtime.workers import WorkerPool

_log = logging.getLogger("lightlink")

_RETRY_FIRST, _RETRY_MOST = 0.1, 5.0


@runtime_checkable
class CommandExecutor(Protocol):
    """Runs commands of any type; raise UnknownCommand for one it does not know."""

    def execute(self, command_type: str, payload: Any) -> Any:
        """Run a command and return its result."""


class UnknownCommand(LightLinkError):
    """Raised by an executor for a command type it does not know: the command ends as rejected."""


@attrs.frozen
class Handler:
    """A registered function; ``idempotent`` says that running it twice does no harm."""

    binder: Binder
    idempotent: bool


@attrs.define(eq=False)
class Running:
    """A command whose handler runs here."""

    delivery: Delivery
    context: CommandContext
    status: StatusRecord
    revision: int


class Execution:
    """Runs the commands of one agent instance. ``stopped`` ends its waiting for a store that does not answer."""

    def __init__(
        self,
        store: CommandStore,
        deliveries: Deliveries,
        instance: str,
        handlers: dict[str, Handler],
        executor: CommandExecutor | None,
        reporter: WorkerPool,
        stopped: Event,
    ) -> None:
        self.handlers = handlers
        self.running: dict[str, Running] = {}
        self._store = store
        self._deliveries = deliveries
        self._instance = instance
        self._executor = executor
        self._reporter = reporter
        self._stopped = stopped

    def process(self, delivery: Delivery) -> None:
        """Do with a delivered command what its status says; runs on a worker."""
        try:
            claimed = self._claim(delivery)
            if claimed is not None:
                self._run_claimed(delivery, *claimed)
        except LightLinkError as exc:
            # What is not acknowledged is delivered again, and then the status decides anew.
            _log.error("lightlink: command %s is left for later: %s", delivery.request.command_id, exc)
            self._deliveries.forget(delivery)

    def cancel(self, command_id: str) -> None:
        """Tell a handler that its command is no longer wanted."""
        running = self.running.get(command_id)
        if running is not None:
            running.context.cancelled.set()

    def overrun(self, command_id: str) -> None:
        """Tell a handler, and write down, that its command has overrun; without effect if it has ended."""
        running = self.running.get(command_id)
        if running is None:
            return
        running.context.cancelled.set()
        request = running.delivery.request

        def following(current: StatusRecord) -> StatusRecord | None:
            return None if current.ended else model.expired(request, current, model.now(), by=self._instance)

        try:
            self._write_over(running, following)
        except (Conflict, LightLinkError) as exc:
            _log.warning("lightlink: command %s has overrun: %s", command_id, exc)
        else:
            _log.warning("lightlink: command %s (%s) has overrun", command_id, request.command_type)

    def _run_claimed(self, delivery: Delivery, status: StatusRecord, revision: int) -> None:
        command_id = delivery.request.command_id
        context = CommandContext(delivery.request, status.attempt, self._store.connection)
        running = self.running[command_id] = Running(delivery, context, status, revision)
        notifier = self._store.connection.session.notifier
        notifier.post_at(context.deadline, self._reporter.put, self.overrun, command_id)
        try:
            facts = self._run(running)
            self._finish(running, facts)
        finally:
            del self.running[command_id]
        self._deliveries.ack(delivery)

    # Claiming -------------------------------------------------------------------------------------------------------

    def _claim(self, delivery: Delivery) -> tuple[StatusRecord, int] | None:
        """Return the stored claim and its revision, or None when there is nothing to run."""
        request = delivery.request
        # Most commands are new, so the first attempt does without reading the status.
        current: StatusRecord | None = None
        revision = 0
        for pause in pauses():
            decision = self._decide(request, current)
            if isinstance(decision, model.Ignore):
                return self._ignore(delivery, current, revision, decision)
            record = decision.claim if isinstance(decision, model.Run) else decision.status
            try:
                try:
                    stored = self._store.write_status(request.client_id, request.command_id, record, revision)
                except Conflict:
                    current, revision = self._store.read_status(request.client_id, request.command_id)
                    continue
            except (NoReply, StoreUnavailable) as exc:
                # It may have been stored; the next attempt then meets our own claim.
                _log.warning("lightlink: command %s is not claimed yet: %s", request.command_id, exc)
                if self._stopped.wait(pause):
                    raise
                continue
            if isinstance(decision, model.Run):
                return record, stored
            self._deliveries.ack(delivery)
            return None
        return None

    def _decide(
        self, request: model.RequestRecord, current: StatusRecord | None
    ) -> model.Run | model.Settle | model.Ignore:
        handler = self.handlers.get(request.command_type)
        idempotent = handler is not None and handler.idempotent
        decision = model.on_delivery(request, current, self._instance, idempotent, model.now())
        if isinstance(decision, model.Run) and (reason := self._refusal(request)):
            return model.Settle(model.rejected(current, model.now(), self._instance, reason))
        return decision

    def _ignore(
        self, delivery: Delivery, current: StatusRecord | None, revision: int, decision: model.Ignore
    ) -> tuple[StatusRecord, int] | None:
        if decision.finished:
            self._deliveries.ack(delivery)
            return None
        if delivery.request.command_id not in self.running and current is not None:
            return current, revision  # our own claim, whose acknowledgement never reached us
        return None

    def _refusal(self, request: model.RequestRecord) -> str | None:
        """Return why a command cannot be run at all, or None."""
        handler = self.handlers.get(request.command_type)
        if handler is None:
            return None if self._executor is not None else f"unknown command type {request.command_type!r}"
        try:
            handler.binder.bind(_arguments(request))
        except BindError as exc:
            return f"{request.command_type}: {exc}"
        return None

    # Running --------------------------------------------------------------------------------------------------------

    def _run(self, running: Running) -> dict[str, Any]:
        """Run the handler and return the facts of the command's end."""
        request = running.delivery.request
        try:
            result = self._call(request, running.context)
            codec.encode_json(result, "the result")
        except Cancelled:
            return {"status": model.FAILED, "status_detail": model.CANCELLED, "error": "cancelled"}
        except UnknownCommand as exc:
            return {"status": model.FAILED, "status_detail": model.REJECTED, "error": str(exc)}
        except EncodeError as exc:
            return {"status": model.FAILED, "error": str(exc)}
        except BaseException as exc:  # noqa: BLE001 - a handler may even call sys.exit()
            _log.exception("lightlink: command %s (%s) failed", request.command_id, request.command_type)
            detail = model.CANCELLED if running.context.cancelled.is_set() else ""
            return {"status": model.FAILED, "status_detail": detail, "error": f"{type(exc).__name__}: {exc}"[:4096]}
        return {"status": model.COMPLETED, "result": result}

    def _call(self, request: model.RequestRecord, context: CommandContext) -> Any:
        handler = self.handlers.get(request.command_type)
        if handler is not None:
            return handler.binder.call(handler.binder.bind(_arguments(request)), {"context": context})
        assert self._executor is not None
        return self._executor.execute(request.command_type, codec.decode(bytes(request.payload), request.command_id))

    # Ending ---------------------------------------------------------------------------------------------------------

    def _finish(self, running: Running, facts: dict[str, Any]) -> None:
        """Store how the command ended; raises what `_write_over` raises, but for another instance's Conflict."""
        request = running.delivery.request
        overdue = model.is_overdue(request, model.now(), grace=timedelta(0))

        def following(current: StatusRecord) -> StatusRecord | None:
            if current.ended:
                return model.with_late_result(current, facts["result"], model.now()) if "result" in facts else None
            if overdue:
                status = model.expired(request, current, model.now(), by=self._instance)
                return msgspec.structs.replace(status, late_result=facts.get("result"))
            return model.ended(current, at=model.now(), by=self._instance, **facts)

        try:
            self._write_over(running, following)
        except PayloadTooLarge as exc:
            facts = {"status": model.FAILED, "error": f"the result is too large: {exc}"}
            self._write_over(running, following)
        except Conflict:
            _log.warning("lightlink: command %s was taken over by another instance", request.command_id)

    def _write_over(self, running: Running, following: Callable[[StatusRecord], StatusRecord | None]) -> None:
        """Store what follows our claim, over whatever revision of it is the last; None stores nothing.

        Raises Conflict when another instance has taken the command; when the store does not answer, tries again until
        the agent stops, and then raises NoReply or StoreUnavailable.
        """
        request = running.delivery.request
        for pause in pauses():
            record = following(running.status)
            if record is None:
                return
            try:
                try:
                    running.revision = self._store.write_status(
                        request.client_id, request.command_id, record, running.revision
                    )
                    running.status = record
                    return
                except Conflict:
                    self._catch_up(running)
            except (NoReply, StoreUnavailable) as exc:
                _log.warning("lightlink: command %s: %s; trying again", request.command_id, exc)
                if self._stopped.wait(pause):
                    raise

    def _catch_up(self, running: Running) -> None:
        """Read the last revision of our claim; raises Conflict when it is ours no longer."""
        request = running.delivery.request
        current, revision = self._store.read_status(request.client_id, request.command_id)
        if current is None or current.instance != self._instance:
            raise Conflict(request.command_id)
        running.status, running.revision = current, revision


def _arguments(request: model.RequestRecord) -> bytes:
    payload = bytes(request.payload)
    return b"{}" if payload == b"null" else payload


def pauses() -> Iterator[float]:
    """Yield the seconds to wait before each further attempt, without end."""
    pause = _RETRY_FIRST
    while True:
        yield pause
        pause = min(pause * 2, _RETRY_MOST)
