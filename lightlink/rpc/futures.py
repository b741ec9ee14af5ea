"""The future of a call, and calls that need a thread because middleware waits around them."""

from __future__ import annotations

import copy
from concurrent.futures import Future
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

from lightlink.concurrency.deadline import Deadline
from lightlink.concurrency.threads import has_ended
from lightlink.errors import ClosedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from lightlink.connection.connection import Connection


class CallFuture(Future[Any]):
    """What a call will return, or where an event is stored."""

    def __init__(self, connection: Connection) -> None:
        super().__init__()
        self._connection = connection

    def result(self, timeout: float | None = None) -> Any:
        """Return the result, or raise the error of the call; see `concurrent.futures.Future`."""
        self._refuse_callbacks()
        has_ended(self, timeout)
        return super().result(0)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Return the error of the call; see `concurrent.futures.Future`."""
        self._refuse_callbacks()
        has_ended(self, timeout)
        return super().exception(0)

    def _refuse_callbacks(self) -> None:
        if not self.done():
            refuse_callbacks(self._connection)


def refuse_callbacks(connection: Connection) -> None:
    """Raise ClosedError where waiting for a future would never end: this thread is the one that settles it."""
    if connection.is_callback_thread:
        raise ClosedError("a future", "cannot be waited for in a callback of another; use call(), or your own thread")


def as_given(value: Any) -> Any:
    """Return a copy of what is sent by a thread of its own, whose owner may use it for the next one meanwhile.

    What cannot be copied is sent as it is by then.
    """
    try:
        return copy.deepcopy(value)
    except Exception:
        return value


def call_on_thread(connection: Connection, limit: float, call: Callable[[float], Any]) -> CallFuture:
    """Run ``call(seconds left)`` on a thread of the connection's, in a copy of this context; return its future.

    Of many calls some wait for a thread, and of that the ``limit`` in seconds counts, too. One that is given up before
    its turn is not made. Raises ResourceExhausted, ClosedError.
    """
    future = CallFuture(connection)
    session = connection.session
    context = copy_context()
    deadline = Deadline(limit)
    unsettled = [future]

    def settle(result: Any, error: BaseException | None) -> None:
        try:
            unsettled.pop()
        except IndexError:
            return  # by another thread, as the client is closed
        if not future.set_running_or_notify_cancel():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)

    def work() -> None:
        result, error = None, None
        if not future.cancelled():
            try:
                result = context.run(call, deadline.remaining())
            except BaseException as exc:
                error = exc
        if not session.callbacks.post(settle, result, error):
            settle(result, error)

    session.callers.put(work)
    return future
