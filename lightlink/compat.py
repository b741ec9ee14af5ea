"""Events for programs with threads of their own: their queue, their executor, and not a thread of ours in sight.

::

    client.subscribe("jobs.>", queue_consumer(jobs))
    client.subscribe("alarms.>", executor_consumer(executor, handle))
"""

from __future__ import annotations

import logging
import queue
from typing import TYPE_CHECKING

from lightlink.errors import InvalidOption
from lightlink.events.message import Message
from lightlink.validators import integer, seconds

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Executor, Future

_log = logging.getLogger("lightlink")


def queue_consumer(jobs: queue.Queue[Message], *, timeout: float = 30.0) -> Callable[[Message], None]:
    """Return a handler that puts each message into a queue, from which worker threads take it.

    While the queue is full it waits, and the subscription holds what comes, as for any slow handler; a message for
    which there is no room within ``timeout`` seconds is dropped, and logged with `queue.Full`. As the handler is
    done when the message is in the queue, a durable consumer would take it for handled: this is for subscriptions.
    Raises InvalidOption.
    """
    if not callable(getattr(jobs, "put", None)):
        raise InvalidOption("jobs", "must be a queue.Queue", jobs)
    limit = seconds("timeout", timeout)

    def put(message: Message) -> None:
        try:
            jobs.put(message, timeout=limit)
        except queue.Full:
            raise queue.Full(f"there was no room for {message.subject!r} within {limit:g} s") from None

    return put


def executor_consumer(
    executor: Executor, handle: Callable[[Message], object], *, backlog: int = 100, timeout: float = 30.0
) -> Callable[[Message], None]:
    """Return a handler that has an executor call ``handle(message)``: on its threads, in its order.

    At most ``backlog`` messages are with the executor at a time; what is said of `queue_consumer` holds for more. What
    ``handle`` raises is logged. Raises InvalidOption.
    """
    if not callable(getattr(executor, "submit", None)):
        raise InvalidOption("executor", "must be an Executor", executor)
    if not callable(handle):
        raise InvalidOption("handle", "is not callable", type(handle).__name__)
    room: queue.Queue[Message] = queue.Queue(integer("backlog", backlog))
    enter = queue_consumer(room, timeout=timeout)

    def leave(future: Future[object]) -> None:
        room.get_nowait()
        if not future.cancelled() and (error := future.exception()) is not None:
            _log.error("lightlink: the handler failed in its executor", exc_info=error)

    def submit(message: Message) -> None:
        enter(message)
        try:
            future = executor.submit(handle, message)
        except BaseException:
            room.get_nowait()
            raise
        future.add_done_callback(leave)

    return submit
