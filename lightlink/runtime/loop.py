"""The background event-loop thread."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import sys
from threading import get_ident
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import anyio
from anyio.from_thread import BlockingPortal

from lightlink.errors import ClosedError
from lightlink.runtime.threads import join_thread, start_thread

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")


class LoopThread:
    """An asyncio event loop on a daemon thread of its own.

    ``name`` becomes part of the thread's name, ``lightlink-loop-<name>``. The thread runs once `start` returns.
    """

    def __init__(self, name: str) -> None:
        self._name = f"lightlink-loop-{name}"
        self._portal: BlockingPortal
        self.loop: asyncio.AbstractEventLoop
        self.ident = 0

    def start(self) -> None:
        """Start the thread and wait for its loop; a failure to start is raised here."""
        started: concurrent.futures.Future[None] = concurrent.futures.Future()
        self._thread = start_thread(self._run, self._name, started)
        started.result()

    def run(self, function: Callable[..., Awaitable[T]], *args: Any, timeout: float) -> T:
        """Run a coroutine function on the loop and return its result.

        Raises TimeoutError and cancels it when it takes longer than ``timeout`` seconds; an interrupt (Ctrl-C) cancels
        it too. Raises ClosedError on the loop's own thread, where waiting would never end.
        """
        self.refuse_own_thread()
        job = _Job(function, args)
        try:
            future = self._portal.start_task_soon(job.run)
        except RuntimeError as exc:
            raise ClosedError("the client") from exc
        except BaseException:  # Ctrl-C, before there is a future to cancel
            self.call_soon(job.cancel)
            raise
        try:
            return future.result(timeout)
        except (concurrent.futures.TimeoutError, asyncio.TimeoutError) as exc:
            # A TimeoutError raised inside belongs to the coroutine; ours is the one with the future not done.
            if not future.done():
                raise TimeoutError(f"no result within {timeout:g} s") from None
            if isinstance(exc, TimeoutError):
                raise
            raise TimeoutError(str(exc)) from exc  # before Python 3.11 asyncio's is a class of its own
        except concurrent.futures.CancelledError as exc:
            raise ClosedError("the client", "was closed meanwhile") from exc
        finally:
            future.cancel()

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
        if sys.is_finalizing():
            raise ClosedError("the client", "has ended with the interpreter")
        if get_ident() == self.ident:
            raise ClosedError(
                self._name, "is the thread a blocking method was called from; call it from a handler or your own thread"
            )

    def stop(self, timeout: float) -> bool:
        """Cancel what runs on the loop, end its thread and tell whether it has ended within ``timeout`` seconds."""
        with contextlib.suppress(RuntimeError):  # it has been stopped before
            self._portal.start_task_soon(self._portal.stop, True)
        return join_thread(self._thread, timeout)

    def _run(self, started: concurrent.futures.Future[None]) -> None:
        try:
            anyio.run(self._serve, started, backend_options={"use_uvloop": _has_uvloop()})
        except BaseException as exc:
            if started.done():
                raise
            started.set_exception(exc)

    async def _serve(self, started: concurrent.futures.Future[None]) -> None:
        self.ident = get_ident()
        self.loop = asyncio.get_running_loop()
        async with BlockingPortal() as self._portal:
            started.set_result(None)
            await self._portal.sleep_until_stopped()


class _Job(Generic[T]):
    """A coroutine function to be run once, that can be cancelled before anybody holds its future."""

    def __init__(self, function: Callable[..., Awaitable[T]], args: tuple[Any, ...]) -> None:
        self._function = function
        self._args = args
        self._task: asyncio.Task[Any] | None = None
        self._cancelled = False

    async def run(self) -> T:
        """Run it, on the loop's thread."""
        self._task = asyncio.current_task()
        if self._cancelled:
            raise asyncio.CancelledError
        return await self._function(*self._args)

    def cancel(self) -> None:
        """Cancel it, on the loop's thread; without effect once it has ended."""
        self._cancelled = True
        if self._task is not None:
            self._task.cancel()


def _has_uvloop() -> bool:
    try:
        import uvloop  # noqa: F401, PLC0415 - optional, and slow to import
    except ImportError:
        return False
    return True
