"""Follow commands to their end: the one subscription of a manager that wakes all its promises."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

from lightlink.commands.manager.losses import Losses, revision_of
from lightlink.commands.manager.promise import CommandPromise
from lightlink.commands.store.store import read_progress, read_status
from lightlink.concurrency.scheduler import every
from lightlink.concurrency.threads import Condition
from lightlink.connection.session import Status
from lightlink.errors import ClosedError, DecodeError, LightLinkError, StoreUnavailable
from lightlink.protocol import subjects
from lightlink.protocol.subjects import as_text

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lightlink.commands.manager.expiry import Expiry
    from lightlink.commands.model import RequestRecord
    from lightlink.commands.store.store import CommandStore
    from lightlink.concurrency.scheduler import PeriodicJob
    from lightlink.concurrency.workers import WorkerPool

_log = logging.getLogger("lightlink")

_TICK_SECONDS = 0.5
# How many statuses are asked for at a time.
_BLOCK = 1000
# How long after a reconnect, or a loss, all statuses are read again.
_CHECK_SECONDS = (0.0, 2.0, 10.0)
_SMALL = 16 * 1024
# How long past a command's deadline its promise goes on asking a store that does not answer.
_GIVE_UP_SECONDS = 30.0


class Follower:
    """Wakes the promises of one manager, from stored revisions only; what an outage swallowed is read again.

    A promise whose command is overdue has that written down. ``callbacks`` runs what users want done at an end.
    """

    def __init__(self, store: CommandStore, expiry: Expiry, callbacks: WorkerPool) -> None:
        self._store = store
        self._expiry = expiry
        self._callbacks = callbacks
        self._lock = Condition()
        self._open: dict[str, CommandPromise] = {}
        self._losses = Losses()
        self._reconnected = False
        # When to read all statuses again, as `time.monotonic` counts.
        self._checks: list[float] = []
        self._closed = False
        self._routes: list[Any] = []
        self._periodic: PeriodicJob | None = None
        self._forget_status: Callable[[], None] = lambda: None

    def start(self) -> None:
        """Subscribe; on return no revision is missed any more."""
        connection = self._store.connection
        self._forget_status = connection.on_status(self._on_connection)
        self._routes = [
            connection.subscribe(subjects.command_status_event("*", "*"), "", self._on_status),
            connection.subscribe(subjects.command_progress("*", "*"), "", self._on_progress),
        ]
        self._periodic = every(_TICK_SECONDS, self._tick)

    def stop(self) -> None:
        """Unsubscribe and end every wait."""
        with self._lock:
            self._closed = True
        self._forget_status()
        if self._periodic is not None:
            self._periodic.stop(1.0)
        for route in self._routes:
            self._store.connection.session.unroute(route, 1.0)
        self._fail_all(ClosedError("the command manager"))

    def __len__(self) -> int:
        return len(self._open)

    def request(self, command_id: str) -> RequestRecord | None:
        """Return the request of a command that is followed."""
        promise = self._open.get(command_id)
        return None if promise is None else promise.request

    def open(self, request: RequestRecord) -> CommandPromise:
        """Return a promise for a command; it hears of revisions from now on. Raises ClosedError."""
        (promise,) = self.open_all([request])
        return promise

    def open_all(self, requests: Sequence[RequestRecord]) -> list[CommandPromise]:
        """Return a promise for each of some commands, as `open` does."""
        promises = []
        with self._lock:
            if self._closed:
                raise ClosedError("the command manager")
            for request in requests:
                promise = self._open.get(request.command_id)
                if promise is None:
                    promise = CommandPromise(request, self._store.clock, self._lock, self._callbacks, self._forget)
                    self._open[request.command_id] = promise
                promises.append(promise)
        return promises

    def check(self, promise: CommandPromise) -> None:
        """Read a promise's status from the store; raises StoreUnavailable."""
        request = promise.request
        promise.hear(*self._store.read_written_status(request.client_id, request.command_id))

    # ----------------------------------------------------------------------------------------------------------------

    def _forget(self, promise: CommandPromise) -> None:
        with self._lock:
            if self._open.get(promise.command_id) is promise:
                del self._open[promise.command_id]

    def _promises(self) -> list[CommandPromise]:
        with self._lock:
            return list(self._open.values())

    def _tick(self) -> None:
        if self._store.connection.status is not Status.CONNECTED:
            return
        instant = self._store.clock.timestamp()
        try:
            self._look_for_losses()
            if self._checks and self._checks[0] <= time.monotonic():
                del self._checks[0]
                self._check_all()
            overdue = [promise for promise in self._promises() if promise.overdue_at < instant]
            for start in range(0, len(overdue), _BLOCK):
                block = overdue[start : start + _BLOCK]
                settled = self._expiry.settle([each.request for each in block], [each.last[0] for each in block])
                for promise, last in zip(block, settled, strict=True):
                    promise.hear(*last)
        except StoreUnavailable as exc:
            _log.debug("lightlink: following commands: %s", exc)
            self._check_soon()
            for promise in self._promises():
                if promise.overdue_at + _GIVE_UP_SECONDS < instant:
                    promise.fail(exc)
        if self._reconnected:
            self._make_streams_again()

    def _look_for_losses(self) -> None:
        """Re-read statuses if updates were lost although the connection held."""
        if self._losses.found():
            self._plan_checks()
        if self._losses.is_time_to_ask():
            last = self._store.last_status_revision()
            if last is None:
                self._reconnected = True  # somebody deleted the bucket: it is made again
            elif self._open:
                self._losses.tell(last)

    def _make_streams_again(self) -> None:
        """Make what a server without its disk has lost; agents may not."""
        try:
            self._store.forget_consumers()
            self._store.ensure_streams()
            self._store.ensure_consumers(promise.client_id for promise in self._promises())
        except StoreUnavailable as exc:
            _log.debug("lightlink: streams after an outage: %s", exc)
            return  # the next tick tries again
        except LightLinkError as exc:
            _log.warning("lightlink: the streams of commands were not looked after: %s", exc)
        self._reconnected = False

    def _check_soon(self) -> None:
        self._checks = [0.0, *(instant for instant in self._checks if instant)]

    def _plan_checks(self) -> None:
        # More than once: a replica that answers may be behind.
        instant = time.monotonic()
        self._checks = [instant + seconds for seconds in _CHECK_SECONDS]

    def _check_all(self) -> None:
        promises = self._promises()
        for start in range(0, len(promises), _BLOCK):
            block = promises[start : start + _BLOCK]
            statuses = self._store.read_statuses([(promise.client_id, promise.command_id) for promise in block])
            for promise, last in zip(block, statuses, strict=True):
                promise.hear(*last)

    def _on_status(self, subject: bytes, _reply: bytes, data: bytes, headers: bytes | None) -> None:
        self._losses.heard(headers)
        self._hear(self._wake, subjects.command_status_event, subject, data, headers)

    def _on_progress(self, subject: bytes, _reply: bytes, data: bytes, headers: bytes | None) -> None:
        self._hear(self._note_progress, subjects.command_progress, subject, data, headers)

    def _hear(
        self,
        take: Callable[..., None],
        expected: Callable[[str, str], str],
        subject: bytes,
        data: bytes,
        headers: bytes | None,
    ) -> None:
        text = as_text(subject)
        promise = self._open.get(text.rpartition(".")[2])
        # The whole subject counts: an agent may write under its own client id only, but there what it likes.
        if promise is None or text != expected(promise.client_id, promise.command_id):
            return
        if len(data) < _SMALL:
            take(promise, data, headers)
        else:
            # Decoding it would hold up everything else on the loop's thread.
            self._store.connection.session.notifier.post(take, promise, data, headers)

    def _wake(self, promise: CommandPromise, data: bytes, headers: bytes | None) -> None:
        try:
            promise.hear(read_status(data, promise.command_id), revision_of(headers))
        except DecodeError as exc:
            self._store.connection.session.report(exc)
            self._check_soon()

    def _note_progress(self, promise: CommandPromise, data: bytes, _headers: bytes | None) -> None:
        try:
            progress = read_progress(data, promise.command_id)
            if progress is not None:
                promise.hear_progress(progress)
        except DecodeError as exc:
            self._store.connection.session.report(exc)

    def _on_connection(self, status: Status) -> None:
        if status is Status.CONNECTED:
            self._reconnected = True
            self._plan_checks()
        elif status is Status.CLOSED:
            self._fail_all(StoreUnavailable("following a command", "the connection is closed"))

    def _fail_all(self, error: Exception) -> None:
        for promise in self._promises():
            promise.fail(error)
