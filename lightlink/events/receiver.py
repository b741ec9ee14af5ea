"""What subscriptions and watches have in common: what comes waits for a handler, or for the thread that asks for it."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from lightlink.concurrency.deadline import instant_after
from lightlink.concurrency.mailbox import Closed, Mailbox, MessageQueue
from lightlink.errors import ClosedError, InvalidOption, NoMessage
from lightlink.validators import wait_limit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from typing_extensions import Self

    from lightlink.concurrency.workers import WorkerPool
    from lightlink.connection.connection import Connection

T = TypeVar("T")


class Receiver(ABC, Generic[T]):
    """Receives on a connection: a handler is given what comes, or a thread gets it, iterates or selects.

    It belongs to the process that it was made in. ``name`` is what the user asked for, ``title`` what errors call the
    receiver, ``subject`` what is waited for.
    """

    _kind: ClassVar[str]  # "subscription"
    _content: ClassVar[str]  # "the messages"
    _box: Mailbox | MessageQueue

    def __init__(self, connection: Connection, name: str, title: str, subject: str) -> None:
        self.pid = os.getpid()
        self._connection = connection
        self._name = name
        self._title = title
        self._awaited = subject
        self._closed = False

    @property
    def pending(self) -> int:
        """How much has come and waits for the handler or reader."""
        return len(self._box)

    @property
    def closed(self) -> bool:
        """Whether it has been stopped."""
        return self._closed

    def get(self, timeout: float | None = None) -> T:
        """Return the next that comes; wait at most ``timeout`` seconds, or until there is one.

        One that cannot be decoded goes to the error hook and is skipped. Raises NoMessage at the timeout and
        ClosedError when this has ended and nothing is left.
        """
        deadline = instant_after(None if timeout is None else wait_limit(timeout))
        try:
            while (found := self._next(deadline)) is None:
                pass
        except TimeoutError:
            raise NoMessage(self._awaited, timeout or 0.0) from None
        return found

    def __iter__(self) -> Iterator[T]:
        """Yield what comes, until this or the client is closed."""
        while True:
            try:
                found = self.get()
            except ClosedError:
                self._refuse_other_process()
                return
            yield found

    def fileno(self) -> int:
        """Return a file descriptor that is readable while something waits, for `select`, poll or Tk's main loop.

        Then ``get(timeout=0)`` does not wait. It is readable, too, once nothing will come any more. It belongs to this
        object: read nothing from it. Raises InvalidOption where there is a handler.
        """
        return self._queue("fileno").fileno()

    @abstractmethod
    def stop(self, timeout: float = ...) -> None:
        """Receive no more."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    # For subclasses ---------------------------------------------------------------------------------------------------

    @abstractmethod
    def _read(self, item: Any) -> T | None:
        """Return what an item from the box stands for, None for nothing that a reader is to have."""

    def _next(self, deadline: float | None) -> T | None:
        """Return what the next item stands for; raises TimeoutError at an instant of `time.monotonic`, ClosedError."""
        queue = self._queue("get")
        self._refuse_other_process()
        self._connection.session.loop.refuse_own_thread()
        try:
            item = queue.get(deadline)
        except Closed:
            raise ClosedError(self._title) from None
        return self._read(item)

    def _queue(self, operation: str) -> MessageQueue:
        if not isinstance(self._box, MessageQueue):
            raise InvalidOption(operation, f"this {self._kind} has a handler, which gets {self._content}", self._name)
        return self._box

    def _refuse_other_process(self) -> None:
        if self.pid != os.getpid():
            raise ClosedError(self._title, "belongs to the parent process")


def open_box(
    handle: Callable[[Any], object] | None,
    max_messages: int,
    max_bytes: int,
    concurrency: int,
    pool: WorkerPool,
) -> Mailbox | MessageQueue:
    """Return where things wait: for ``handle``, which runs on the pool, or for a reader."""
    if handle is None:
        return MessageQueue(max_messages, max_bytes)
    pool.start()
    return Mailbox(pool, handle, max_messages, max_bytes, concurrency)
