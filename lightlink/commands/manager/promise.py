"""The promise of a command's result."""

from __future__ import annotations

import logging
import os
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from lightlink.commands import model
from lightlink.commands.model import Command, Progress, RequestRecord, StatusRecord
from lightlink.concurrency.deadline import instant_after
from lightlink.concurrency.mailbox import Closed, MessageQueue
from lightlink.concurrency.threads import has_ended
from lightlink.errors import ClosedError, CommandCancelled, CommandFailed, CommandTimeout
from lightlink.progress import ProgressBar, is_wanted
from lightlink.validators import wait_limit

if TYPE_CHECKING:
    from collections.abc import Callable

    from lightlink.concurrency.threads import Condition
    from lightlink.concurrency.workers import WorkerPool
    from lightlink.connection.clock import ServerClock

_log = logging.getLogger("lightlink")

# Of a handler that tells faster than its caller listens, what is beyond is lost.
_PROGRESS_KEPT = 1024


class CommandPromise:
    """The result a command will have. Made by `CommandManager.send`; safe to share between threads.

    It belongs to the process that made it. ``lock`` guards the promises of a manager, whose ``callbacks`` thread runs
    what users want done at an end; ``on_end`` is for the manager itself.
    """

    # A batch makes thousands of them, each of which the garbage collector walks through: few objects, and small ones.
    __slots__ = (
        "__weakref__",
        "_callbacks",
        "_clock",
        "_future",
        "_last",
        "_lock",
        "_on_end",
        "_outcome",
        "_pid",
        "_progress",
        "_watchers",
        "client_id",
        "command_id",
        "overdue_at",
        "request",
    )

    def __init__(
        self,
        request: RequestRecord,
        clock: ServerClock,
        lock: Condition,
        callbacks: WorkerPool,
        on_end: Callable[[CommandPromise], object],
    ) -> None:
        self.command_id = request.command_id
        self.client_id = request.client_id
        self.request = request
        # When nobody needs to wait for its agent any more, by the server's clock.
        self.overdue_at = request.overdue_at
        self._clock = clock
        self._lock = lock
        self._callbacks = callbacks
        self._last: tuple[StatusRecord | None, int] = (None, 0)
        self._progress: Progress | None = None
        self._watchers: tuple[MessageQueue, ...] = ()
        self._on_end: tuple[Callable[[CommandPromise], object], ...] = (on_end,)
        self._outcome: Command | Exception | None = None
        self._future: Future[None] | None = None  # done with the outcome; made when somebody waits
        self._pid = os.getpid()

    def command(self) -> Command:
        """Return the command as far as is known here."""
        return model.fold(self.request, self._last[0], self._clock.now(), self._progress)

    @property
    def status(self) -> str:
        """The command's status as far as is known here."""
        return model.status_at(self.request, self._last[0], self._clock.now())

    def done(self) -> bool:
        """Tell whether the command has ended, or nothing more can be learnt of it."""
        return self._outcome is not None

    def result(
        self, timeout: float | None = None, *, progress: Callable[[Progress], object] | bool | None = None
    ) -> Any:
        """Wait until the command has ended, at most ``timeout`` seconds, and return its result.

        ``progress`` is called meanwhile, in this thread, with each `Progress` that the handler tells; what it raises
        ends the wait. ``progress=True`` shows a bar (tqdm, if it is installed).

        Raises CommandFailed, CommandCancelled, CommandTimeout (the command timed out, or the wait did: then the error's
        ``waited`` says how long that was), ClosedError when the manager is closed.
        """
        if is_wanted(progress):
            command = self._wait_showing(timeout)
        else:
            command = self._wait_telling(timeout, progress) if callable(progress) else self.wait(timeout)
        if command is None:
            raise CommandTimeout(self.command(), timeout)
        return result_of(command)

    def wait(self, timeout: float | None = None) -> Command | None:
        """Wait until the command has ended and return it; None after ``timeout`` seconds."""
        if self._pid != os.getpid():
            raise ClosedError("the promise", "belongs to the parent process")
        limit = None if timeout is None else wait_limit(timeout)
        if self._outcome is None:
            has_ended(self._made_future(), limit)
        if isinstance(self._outcome, Exception):
            raise self._outcome
        return self._outcome

    def _wait_showing(self, timeout: float | None) -> Command | None:
        with ProgressBar(f"{self.request.command_type} on {self.client_id}", 1.0, "") as bar:
            command = self._wait_telling(timeout, lambda told: bar.show(told.fraction, 1.0, told.note))
            if command is not None and command.status == model.COMPLETED:
                bar.show(1.0, 1.0, command.status)
            return command

    def _repr_html_(self) -> str:
        """Return how a notebook shows it."""
        return self.command()._repr_html_()

    def _wait_telling(self, timeout: float | None, tell: Callable[[Progress], object]) -> Command | None:
        deadline = instant_after(None if timeout is None else wait_limit(timeout))
        queue = MessageQueue(_PROGRESS_KEPT, _PROGRESS_KEPT)
        self._watchers += (queue,)
        self.on_end(lambda _: queue.close())
        try:
            if self._progress is not None:
                tell(self._progress)
            while True:
                tell(queue.get(deadline))
        except Closed:
            return self.wait(0)
        except TimeoutError:
            return None
        finally:
            self._watchers = tuple(each for each in self._watchers if each is not queue)

    def add_done_callback(self, function: Callable[[CommandPromise], object]) -> None:
        """Call ``function(promise)`` once the command has ended, on a thread of the manager; at once if it has.

        One after the other: a function that takes long delays the next. What it raises is logged.
        """
        if self.done():
            try:
                function(self)
            except Exception:
                _log.exception("lightlink: a callback of command %s failed", self.command_id)
        else:
            self._made_future().add_done_callback(lambda _: self._callbacks.put(function, self))

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
            if self._outcome is None:
                self._on_end += (function,)
                return
        function(self)

    def hear(self, status: StatusRecord | None, revision: int) -> None:
        """Take note of a status revision; an older one than is known is passed over.

        An end is believed whatever its revision: no move leads out of it, and a store that went back to an older copy
        counts anew.
        """
        with self._lock:
            if self._outcome is not None or status is None or (revision <= self._last[1] and not status.ended):
                return
            self._last = status, revision
            if status.ended:
                self._outcome = self.command()
        if status.ended:
            self._tell()

    def hear_progress(self, progress: Progress) -> None:
        """Take note of how far the handler has come."""
        self._progress = progress
        for queue in self._watchers:
            queue.put(progress, 0)

    def learn_progress(self, progress: Progress | None) -> None:
        """Take note of what the store has, unless more was heard."""
        self._progress = self._progress or progress

    def fail(self, error: Exception) -> None:
        """Give up: nothing more can be learnt of the command."""
        with self._lock:
            if self._outcome is not None:
                return
            self._outcome = error
        self._tell()

    def _made_future(self) -> Future[None]:
        with self._lock:
            if self._future is None:
                self._future = Future()
                if self._outcome is not None:
                    self._future.set_result(None)
            return self._future

    def _tell(self) -> None:
        with self._lock:
            future, functions, self._on_end = self._future, self._on_end, ()
        # One that is made from here on is done at once.
        if future is not None and not future.done():
            future.set_result(None)
        for function in functions:
            function(self)

    @property
    def error(self) -> Exception | None:
        """Why nothing more can be learnt of the command, None if that is not so."""
        return self._outcome if isinstance(self._outcome, Exception) else None


def result_of(command: Command) -> Any:
    """Return an ended command's result or raise how it failed."""
    if command.status == model.COMPLETED:
        return command.result
    if command.status == model.TIMEOUT:
        raise CommandTimeout(command)
    raise (CommandCancelled if command.status_detail == model.CANCELLED else CommandFailed)(command)
