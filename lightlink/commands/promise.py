"""Follow commands to their end: promises, and the one subscription that wakes them."""

from __future__ import annotations

import logging
import time
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from typing import TYPE_CHECKING, Any

from lightlink import codec
from lightlink.commands import model, schema
from lightlink.commands.model import Command, Progress, RequestRecord, StatusRecord
from lightlink.commands.store import Conflict, read_status
from lightlink.errors import (
    CommandCancelled,
    CommandFailed,
    CommandTimeout,
    DecodeError,
    LightLinkError,
    StoreUnavailable,
)
from lightlink.runtime.connection import NoReply
from lightlink.runtime.session import Status

if TYPE_CHECKING:
    from collections.abc import Callable

    from lightlink.commands.store import CommandStore
    from lightlink.runtime.workers import WorkerPool

_log = logging.getLogger("lightlink")

_RECHECK_SECONDS = 1.0
# How long past a command's deadline its promise goes on asking a store that does not answer.
_GIVE_UP_SECONDS = 30.0


class CommandPromise:
    """The result a command will have. Made by `CommandManager.send`; safe to share between threads."""

    def __init__(self, request: RequestRecord) -> None:
        self.command_id = request.command_id
        self.client_id = request.client_id
        self.request = request
        self._status: StatusRecord | None = None
        self._revision = 0
        self._progress: Progress | None = None
        self._ended: Future[Command] = Future()

    def command(self) -> Command:
        """Return the command as far as is known here."""
        return model.fold(self.request, self._status, model.now(), self._progress)

    def done(self) -> bool:
        """Tell whether the command has ended."""
        return self._ended.done()

    def result(self, timeout: float | None = None) -> Any:
        """Wait until the command has ended, at most ``timeout`` seconds, and return its result.

        Raises CommandFailed, CommandCancelled, CommandTimeout (the command timed out, or the wait did: then the error's
        ``waited`` says how long that was).
        """
        command = self.wait(timeout)
        if command is None:
            raise CommandTimeout(self.command(), timeout)
        return result_of(command)

    def wait(self, timeout: float | None = None) -> Command | None:
        """Wait until the command has ended and return it; None after ``timeout`` seconds."""
        try:
            return self._ended.result(timeout)
        except FutureTimeout:
            if self._ended.done():
                raise
            return None

    def add_done_callback(self, function: Callable[[CommandPromise], object]) -> None:
        """Call ``function(promise)`` once the command has ended, on a thread of the library; it must not block."""
        self._ended.add_done_callback(lambda _: function(self))

    def __repr__(self) -> str:
        return f"<CommandPromise {self.command_id} {self.command().status}>"

    def hear(self, status: StatusRecord | None, revision: int) -> None:
        """Take note of a status revision; an older one than is known is passed over."""
        if status is None or revision <= self._revision or self._ended.done():
            return
        self._status, self._revision = status, revision
        if status.ended:
            self._ended.set_result(self.command())

    def hear_progress(self, progress: Progress) -> None:
        """Take note of how far the handler has come."""
        self._progress = progress

    def fail(self, error: Exception) -> None:
        """Give up: nothing more can be learnt of the command."""
        if not self._ended.done():
            self._ended.set_exception(error)


def result_of(command: Command) -> Any:
    """Return an ended command's result or raise how it failed."""
    if command.status == model.COMPLETED:
        return command.result
    if command.status == model.TIMEOUT:
        raise CommandTimeout(command)
    raise (CommandCancelled if command.status_detail == model.CANCELLED else CommandFailed)(command)


class Follower:
    """Wakes the promises of one manager, from stored revisions only; what an outage swallowed is read again.

    ``pool`` runs what may block.
    """

    def __init__(self, store: CommandStore, pool: WorkerPool, name: str) -> None:
        self._store = store
        self._pool = pool
        self._name = name
        self._open: dict[str, CommandPromise] = {}
        self._routes: list[Any] = []
        self._forget_status: Callable[[], object] = lambda: None

    def start(self) -> None:
        """Subscribe; on return no revision is missed any more."""
        connection = self._store.connection
        self._routes = [
            connection.subscribe(schema.STATUS_EVENTS, "", self._on_status),
            connection.subscribe(schema.PROGRESS_EVENTS, "", self._on_progress),
        ]
        connection.on_status(self._on_connection)

    def stop(self) -> None:
        """Unsubscribe and end every wait."""
        session = self._store.connection.session
        for route in self._routes:
            try:
                session.run(session.nc.unroute, route, timeout=1.0)
            except (TimeoutError, LightLinkError) as exc:
                _log.debug("lightlink: a manager unsubscribing: %r", exc)

    def __len__(self) -> int:
        return len(self._open)

    def request(self, command_id: str) -> RequestRecord | None:
        """Return the request of a command that is followed."""
        promise = self._open.get(command_id)
        return None if promise is None else promise.request

    def open(self, request: RequestRecord) -> CommandPromise:
        """Return a promise for a command; it hears of revisions from now on."""
        promise = self._open.get(request.command_id)
        if promise is None:
            promise = self._open[request.command_id] = CommandPromise(request)
            promise._ended.add_done_callback(lambda _: self._open.pop(request.command_id, None))
            left = (request.deadline + model.GRACE - model.now()).total_seconds()
            self._check_at(promise, time.monotonic() + left + 0.1)
        return promise

    def discard(self, promise: CommandPromise, error: Exception) -> None:
        """Forget a promise whose command was never stored."""
        promise.fail(error)

    def check(self, promise: CommandPromise) -> None:
        """Read a promise's status from the store; write down that it is overdue if it is."""
        if promise.done():
            return
        request = promise.request
        try:
            status, revision = self._store.read_status(request.client_id, request.command_id)
            if (status is None or not status.ended) and model.is_overdue(request, model.now()):
                status, revision = self.expire(request, status, revision)
            promise.hear(status, revision)
        except (StoreUnavailable, NoReply, DecodeError) as exc:
            overdue = (model.now() - request.deadline).total_seconds()
            if overdue > _GIVE_UP_SECONDS:
                promise.fail(exc)
                return
        if not promise.done() and model.is_overdue(request, model.now()):
            self._check_at(promise, time.monotonic() + _RECHECK_SECONDS)

    def expire(
        self, request: RequestRecord, status: StatusRecord | None, revision: int
    ) -> tuple[StatusRecord | None, int]:
        """Write down that a command is overdue, over the revision given; return what is stored in the end."""
        record = model.expired(request, status, model.now(), by=self._name)
        try:
            return record, self._store.write_status(request.client_id, request.command_id, record, revision)
        except Conflict:
            return self._store.read_status(request.client_id, request.command_id)

    def _check_at(self, promise: CommandPromise, instant: float) -> None:
        self._store.connection.session.notifier.post_at(instant, self._pool.put, self.check, promise)

    def _on_status(self, subject: bytes, _reply: bytes, data: bytes, headers: bytes | None) -> None:
        promise = self._open.get(subject.rpartition(b".")[2].decode())
        if promise is not None:
            self._store.connection.session.notifier.post(self._wake, promise, subject, data, headers)

    def _wake(self, promise: CommandPromise, subject: bytes, data: bytes, headers: bytes | None) -> None:
        # The server says which stored message it republishes.
        revision = int(codec.decode_headers(headers).get("Nats-Sequence", "0"))
        try:
            promise.hear(read_status(data, subject.decode()), revision)
        except DecodeError as exc:
            self._store.connection.report(exc)

    def _on_progress(self, subject: bytes, _reply: bytes, data: bytes, _headers: bytes | None) -> None:
        promise = self._open.get(subject.rpartition(b".")[2].decode())
        if promise is not None:
            self._store.connection.session.notifier.post(self._note_progress, promise, subject, data)

    def _note_progress(self, promise: CommandPromise, subject: bytes, data: bytes) -> None:
        try:
            promise.hear_progress(codec.decode(data, subject.decode(), Progress))
        except DecodeError as exc:
            self._store.connection.report(exc)

    def _on_connection(self, status: Status) -> None:
        if status is Status.CONNECTED:
            for promise in list(self._open.values()):
                self._pool.put(self.check, promise)
        elif status is Status.CLOSED:
            for promise in list(self._open.values()):
                promise.fail(StoreUnavailable("following a command", "the connection is closed"))
