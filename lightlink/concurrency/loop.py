"""The background event-loop thread."""

from __future__ import annotations

import asyncio
import os
from threading import Thread, current_thread, get_ident
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from lightlink.concurrency import turns
from lightlink.concurrency.threads import Promise, join_thread, not_started, refuse_at_exit, start_thread
from lightlink.errors import ClosedError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

T = TypeVar("T")

# Far less than Python takes to end.
_AWAKE_SECONDS = 0.002
_STANDARD_ERROR = 2


class LoopThread:
    """An asyncio event loop on a daemon thread of its own.

    ``name`` becomes part of the thread's name, ``lightlink-loop-<name>``. The thread runs once `start` returns.
    """

    def __init__(self, name: str) -> None:
        self._name = f"lightlink-loop-{name}"
        self._asked_to_end: asyncio.Event
        self._jobs: set[_Job[Any]] = set()
        self._has_served = False
        self._has_ended = False  # from then on another thread may have the same ident
        self._is_unwanted = False
        self._begun = Promise()  # that it runs, or has failed
        self._failure: BaseException | None = None
        self._thread: Thread
        self.loop: asyncio.AbstractEventLoop
        self.ident = 0

    def start(self) -> None:
        """Start the thread and wait for its loop; raises ResourceExhausted, ClosedError."""
        try:
            start_thread(self._run, self._name)
            self._begun.wait()
            if self._failure is not None:
                raise self._failure
        except (OSError, MemoryError, RuntimeError) as exc:
            raise not_started(f"starting the loop of {self._name!r}", exc) from exc
        except BaseException:
            # Interrupted: it may run already, or begin yet.
            self._is_unwanted = True
            if self.is_running:
                self.call_soon(self._end)
            raise

    @property
    def is_own_thread(self) -> bool:
        """Whether the caller runs on the loop's thread."""
        return get_ident() == self.ident and not self._has_ended

    @property
    def is_running(self) -> bool:
        """Whether it was started."""
        return bool(self.ident)

    def run(self, function: Callable[..., Awaitable[T]], *args: Any, timeout: float) -> T:
        """Run a coroutine function on the loop and return its result.

        Raises TimeoutError and cancels it when it takes longer than ``timeout`` seconds; an interrupt (Ctrl-C) cancels
        it too. Raises ClosedError on the loop's own thread, where waiting would never end.
        """
        self.refuse_own_thread()
        job = _Job(function, args)
        self._jobs.add(job)  # before the loop is told of it: it is either begun, given up at the end, or refused here
        try:
            self.loop.call_soon_threadsafe(self._begin, job)
            return job.result(timeout)
        except RuntimeError as exc:
            if job.started or not self.loop.is_closed():
                raise
            raise ClosedError("the client") from exc
        finally:
            self._jobs.discard(job)
            if not job.done:
                self.call_soon(job.cancel)

    def call_soon(self, callback: Callable[..., object], *args: Any) -> None:
        """Call a function on the loop's thread soon; without effect once the loop has ended."""
        try:
            self.loop.call_soon_threadsafe(callback, *args)
        except RuntimeError:
            if not self.loop.is_closed():
                raise

    def refuse_own_thread(self) -> None:
        """Raise ClosedError where waiting would never end: on the loop's own thread, and after the interpreter's exit.

        By then no thread runs but the main one, say in a destructor.
        """
        refuse_at_exit()
        if self.is_own_thread:
            raise ClosedError(
                self._name, "is the thread a blocking method was called from; call it from a handler or your own thread"
            )

    def stop(self, timeout: float) -> bool:
        """Cancel what runs on the loop, end its thread and tell whether it has ended within ``timeout`` seconds."""
        self.call_soon(self._end)
        return join_thread(self._thread, timeout)

    def keep_awake(self) -> None:
        """Have the thread wake every few milliseconds from now on, as the interpreter ends.

        A thread that wakes while Python takes itself down is ended by Python, one that wakes later crashes the process.
        """
        if self.is_running:
            self.call_soon(self._stay_awake)

    def _stay_awake(self) -> None:
        self.loop.call_later(_AWAKE_SECONDS, self._stay_awake)

    def _begin(self, job: _Job[Any]) -> None:
        if self._has_served:  # what runs was cancelled already: nothing would run or end a task begun now
            job.give_up()
        else:
            job.start()

    def _end(self) -> None:
        self._asked_to_end.set()

    def _run(self) -> None:
        turns.loop_began()
        serving = self._serve()
        try:
            # What still runs is cancelled, and waited for, as it ends.
            _runner()(serving)
        except BaseException as exc:
            if self.is_running:
                raise
            self._failure = exc
            self._begun.keep()
        finally:
            serving.close()  # it may never have begun
            turns.loop_ended()
            for job in list(self._jobs):
                job.give_up()
            self._has_ended = True

    async def _serve(self) -> None:
        self._thread = current_thread()
        self.loop = asyncio.get_running_loop()
        self._asked_to_end = asyncio.Event()
        self.ident = get_ident()  # from here on it is running, and can be stopped
        try:
            self._begun.keep()
            if not self._is_unwanted:
                await self._asked_to_end.wait()
        finally:
            self._has_served = True


class _Job(Generic[T]):
    """A coroutine function to be run once on the loop, that can be cancelled before it has begun.

    It does without `concurrent.futures`: Ctrl-C may leave a future's own lock taken by the thread that waits for it,
    and the loop, which has to take it too, would never come back.
    """

    def __init__(self, function: Callable[..., Awaitable[T]], args: tuple[Any, ...]) -> None:
        self._function = function
        self._args = args
        self._task: asyncio.Task[T] | None = None
        self._cancelled = False
        self._is_given_up = False
        self._ended = Promise()

    def start(self) -> None:
        """Begin, on the loop's thread."""
        self._task = asyncio.get_running_loop().create_task(self._run())
        self._task.add_done_callback(self._note_end)
        if self._cancelled:
            self._task.cancel()

    def cancel(self) -> None:
        """Cancel it, on the loop's thread; without effect once it has ended."""
        self._cancelled = True
        if self._task is not None:
            self._task.cancel()

    def give_up(self) -> None:
        """Fail a call that has not begun, because the loop ends."""
        if self._task is None and not self._is_given_up:  # told once: as it comes, or when the loop's thread ends
            self._is_given_up = True
            self._ended.keep()

    @property
    def started(self) -> bool:
        """Whether it has begun."""
        return self._task is not None

    @property
    def done(self) -> bool:
        """Whether it has ended."""
        return self._task is not None and self._task.done()

    def result(self, timeout: float) -> T:
        """Wait for the result at most ``timeout`` seconds; see `LoopThread.run`."""
        if not self._ended.wait(timeout):
            raise TimeoutError(f"no result within {timeout:g} s")
        if self._task is None:
            raise ClosedError("the client", "was closed meanwhile")
        try:
            return self._task.result()
        except asyncio.CancelledError as exc:
            raise ClosedError("the client", "was closed meanwhile") from exc
        except asyncio.TimeoutError as exc:
            if isinstance(exc, TimeoutError):
                raise
            raise TimeoutError(str(exc)) from exc  # before Python 3.11 asyncio's is a class of its own

    def _note_end(self, task: asyncio.Task[T]) -> None:
        if not task.cancelled():
            task.exception()  # asyncio reports an exception that is not retrieved, and the caller may be gone
        self._ended.keep()

    async def _run(self) -> T:
        return await self._function(*self._args)


def _runner() -> Callable[[Coroutine[Any, Any, None]], object]:
    """Return what runs a coroutine on a loop of its own."""
    try:
        import uvloop  # noqa: PLC0415 - optional, and slow to import
    except ImportError:
        return asyncio.run
    _fill_standard_descriptors()
    return uvloop.run


def _fill_standard_descriptors() -> None:
    """Open the null device where standard input, output or error is closed, as a daemon's or with ``>&-``.

    The next socket would have its number, and libuv ends the process (SIGABRT) as it closes a socket of such a number.
    """
    while (opened := os.open(os.devnull, os.O_RDWR)) <= _STANDARD_ERROR:
        pass
    os.close(opened)
