"""The promise of a command's result."""

from __future__ import annotations

import os
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from typing import TYPE_CHECKING, Any

from lightlink.commands import model
from lightlink.commands.model import Command, Progress, RequestRecord, StatusRecord
from lightlink.errors import ClosedError, CommandCancelled, CommandFailed, CommandTimeout, InvalidOption

if TYPE_CHECKING:
    from collections.abc import Callable

    from lightlink.runtime.threads import Condition
    from lightlink.runtime.workers import WorkerPool


class CommandPromise:
    """The result a command will have. Made by `CommandManager.send`; safe to share between threads.

    It belongs to the process that made it. ``lock`` guards the promises of a manager, whose ``callbacks`` thread runs
    what users want done at an end; ``on_end`` is for the manager itself.
    """

    def __init__(
        self,
        request: RequestRecord,
        lock: Condition,
        callbacks: WorkerPool,
        on_end: Callable[[CommandPromise], object],
    ) -> None:
        self.command_id = request.command_id
        self.client_id = request.client_id
        self.request = request
        # When nobody needs to wait for its agent any more, as `time.time` counts.
        self.overdue_at = (request.deadline + model.GRACE).timestamp()
        self._lock = lock
        self._callbacks = callbacks
        self._last: tuple[StatusRecord | None, int] = (None, 0)
        self._progress: Progress | None = None
        self._settled = False
        self._on_end = [on_end]
        self._ended: Future[Command] = Future()
        self._pid = os.getpid()

    def command(self) -> Command:
        """Return the command as far as is known here."""
        return model.fold(self.request, self._last[0], model.now(), self._progress)

    @property
    def status(self) -> str:
        """The command's status as far as is known here."""
        return model.status_at(self.request, self._last[0], model.now())

    def done(self) -> bool:
        """Tell whether the command has ended, or nothing more can be learnt of it."""
        return self._ended.done()

    def result(self, timeout: float | None = None) -> Any:
        """Wait until the command has ended, at most ``timeout`` seconds, and return its result.

        Raises CommandFailed, CommandCancelled, CommandTimeout (the command timed out, or the wait did: then the error's
        ``waited`` says how long that was), ClosedError when the manager is closed.
        """
        command = self.wait(timeout)
        if command is None:
            raise CommandTimeout(self.command(), timeout)
        return result_of(command)

    def wait(self, timeout: float | None = None) -> Command | None:
        """Wait until the command has ended and return it; None after ``timeout`` seconds."""
        if self._pid != os.getpid():
            raise ClosedError("the promise", "belongs to the parent process")
        if timeout is not None and not isinstance(timeout, (int, float)):
            raise InvalidOption("timeout", "must be a number of seconds, or None", timeout)
        try:
            return self._ended.result(timeout)
        except FutureTimeout:
            if self._ended.done():
                raise
            return None

    def add_done_callback(self, function: Callable[[CommandPromise], object]) -> None:
        """Call ``function(promise)`` once the command has ended, on a thread of the manager; at once if it has.

        One after the other: a function that takes long delays the next.
        """
        if self._ended.done():
            function(self)
        else:
            self._ended.add_done_callback(lambda _: self._callbacks.put(function, self))

    def __repr__(self) -> str:
        return f"<CommandPromise {self.command_id} {self.status}>"

    # For the manager ------------------------------------------------------------------------------------------------

    @property
    def last(self) -> tuple[StatusRecord | None, int]:
        """The last status known here and its revision."""
        return self._last

    def on_end(self, function: Callable[[CommandPromise], object]) -> None:
        """Call ``function(promise)`` on whichever thread learns of the end; it must not block."""
        with self._lock:
            if not self._settled:
                self._on_end.append(function)
                return
        self._ended.exception()  # whoever settles it is just about to say so
        function(self)

    def hear(self, status: StatusRecord | None, revision: int) -> None:
        """Take note of a status revision; an older one than is known is passed over."""
        with self._lock:
            if self._settled or status is None or revision <= self._last[1]:
                return
            self._last = status, revision
            if not status.ended:
                return
            self._settled = True
        self._ended.set_result(self.command())
        self._tell()

    def hear_progress(self, progress: Progress) -> None:
        """Take note of how far the handler has come."""
        self._progress = progress

    def fail(self, error: Exception) -> None:
        """Give up: nothing more can be learnt of the command."""
        with self._lock:
            if self._settled:
                return
            self._settled = True
        self._ended.set_exception(error)
        self._tell()

    def _tell(self) -> None:
        for function in self._on_end:
            function(self)
        self._on_end.clear()

    @property
    def error(self) -> BaseException | None:
        """Why nothing more can be learnt of the command, None if that is not so."""
        return self._ended.exception() if self._ended.done() else None


def result_of(command: Command) -> Any:
    """Return an ended command's result or raise how it failed."""
    if command.status == model.COMPLETED:
        return command.result
    if command.status == model.TIMEOUT:
        raise CommandTimeout(command)
    raise (CommandCancelled if command.status_detail == model.CANCELLED else CommandFailed)(command)
