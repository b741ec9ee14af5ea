"""An event loop in a thread of its own, for what in a test is easier to write with asyncio."""

from __future__ import annotations

import asyncio
import concurrent.futures
import queue
import threading
from typing import TYPE_CHECKING, Any, TypeVar

import lightlink

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

T = TypeVar("T")


class LoopThread:
    """Run coroutines for a thread that has no loop."""

    def __init__(self, name: str) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name=name, daemon=True)
        self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, T], timeout: float = 30.0) -> T:
        """Return what the coroutine returns, or raise what it raises; TimeoutError after ``timeout`` seconds."""
        future = asyncio.run_coroutine_threadsafe(coroutine, self.loop)
        try:
            return future.result(timeout)
        except concurrent.futures.TimeoutError:
            if future.done():
                raise  # it is the coroutine's own
            future.cancel()
            raise TimeoutError(f"{coroutine!r} did not end within {timeout:g} s") from None

    def stop(self) -> None:
        """Cancel what still runs and end the thread. Idempotent."""
        if self.loop.is_closed():
            return
        self.run(self._cancel_tasks())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(10)
        assert not self._thread.is_alive(), "the loop does not stop"
        self.loop.close()

    @staticmethod
    async def _cancel_tasks() -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.get_running_loop().shutdown_default_executor()


def error_on_loop(client: lightlink.Client, function: Callable[[], object]) -> lightlink.LightLinkError:
    """Call a function on the thread of a client's loop, and return the error that it raises there."""
    raised: queue.SimpleQueue[lightlink.LightLinkError] = queue.SimpleQueue()

    def call() -> None:
        try:
            function()
        except lightlink.LightLinkError as exc:
            raised.put(exc)

    client._connection.session.loop.call_soon(call)
    return raised.get(timeout=30)
