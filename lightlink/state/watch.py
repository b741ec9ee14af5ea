"""Follow the values of a bucket: first as they are, then every change."""

from __future__ import annotations

import logging
import os
import sys
from typing import TYPE_CHECKING, Generic, TypeVar

from lightlink import logs
from lightlink.binding import only_parameter
from lightlink.concurrency.deadline import instant_after
from lightlink.concurrency.forks import run_handler
from lightlink.concurrency.mailbox import Mailbox
from lightlink.concurrency.threads import Event, wait_in_parts
from lightlink.errors import ClosedError, DecodeError, NoMessage
from lightlink.events.receiver import Receiver, open_box
from lightlink.jetstream.read import EVERYTHING, LAST_OF_EACH, OrderedReader
from lightlink.middleware import Call
from lightlink.validators import seconds, wait_limit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lightlink.connection.connection import Connection
    from lightlink.jetstream.read import Delivery
    from lightlink.state.entry import StateChange, ValueCodec
    from lightlink.state.stream import BucketStream

T = TypeVar("T")
_log = logging.getLogger("lightlink")

# How many changes wait, or are on their way, at most. A slow handler slows the stream down; nothing is dropped.
_WINDOW = 256
# The consumer of a watch may be on another server than the client is, and is lost with it.
_HEARTBEAT_SECONDS = 2.0
_WINDOW_BYTES = 8 * 1024 * 1024


class StateWatch(Receiver["StateChange[T]"], Generic[T]):
    """The values whose keys match a pattern, made by `StateBucket.watch` and `Client.watch_state`.

    First come the values as they are, then every change in order, deletes included. An outage or a restart of the
    server delays changes; it neither loses the last one of any key nor repeats one. Of a key that changes faster than
    its changes are read, as many come as the bucket keeps (``history``), always the last. A value that cannot be
    decoded goes to the error hook, and the watch goes on. It belongs to the process that made it.
    """

    _kind, _content = "watch", "the changes"

    def __init__(
        self,
        connection: Connection,
        pattern: str,
        handler: Callable[[StateChange[T]], object] | None,
        values: ValueCodec[T],
        stream: BucketStream,
        first: int | None = None,
    ) -> None:
        super().__init__(connection, pattern, f"the watch on {pattern!r}", stream.prefix + pattern)
        self.bucket = stream.bucket
        self.pattern = pattern
        self._handler = handler
        self._values = values
        self._prefix = stream.prefix
        self._revisions = stream.revisions
        self._is_current = False
        self._brings_changes = first is not None
        self._first_keys: set[str] = set()
        self._settled = Event()
        if handler is not None:
            only_parameter(handler, "the change")
        # The reader's window is what bounds them.
        handle = self._handle if handler is not None else None
        self._box = open_box(handle, sys.maxsize, sys.maxsize, 1, connection.session.workers)
        self._reader = OrderedReader(
            connection,
            stream.name,
            [self._prefix + pattern],
            lambda delivery: self._box.put(delivery, delivery.size),
            on_current=lambda: self._box.put(None, 0),
            policy=LAST_OF_EACH if first is None else EVERYTHING,
            first=first or 0,
            window=_WINDOW,
            window_bytes=_WINDOW_BYTES,
            heartbeat=_HEARTBEAT_SECONDS,
            make_stream=stream.config,
        )

    def start(self, timeout: float) -> None:
        """Begin to follow; called once, by the bucket. Raises the errors of `OrderedReader.start`."""
        self._reader.start(timeout)

    def wait_current(self, timeout: float | None = None) -> bool:
        """Wait until the handler or reader has had every value there was at the start; tell whether it has.

        Waits at most ``timeout`` seconds (default: the client's), and not beyond the end of the watch.
        """
        self._refuse_other_process()
        limit = self._connection.options.timeout if timeout is None else seconds("timeout", timeout)
        wait_in_parts(self._settled.wait, limit)
        return self._is_current

    def current(self, timeout: float | None = None) -> Iterator[StateChange[T]]:
        """Yield the values there were at the start, and end; for a watch without a handler that was not read before.

        Raises NoMessage when they have not all come within ``timeout`` seconds.
        """
        deadline = instant_after(None if timeout is None else wait_limit(timeout))
        while not self._is_current:
            try:
                change = self._next(deadline)
            except ClosedError:
                self._refuse_other_process()
                return
            except TimeoutError:
                raise NoMessage(self._awaited, timeout or 0.0) from None
            if change is not None:
                yield change

    def stop(self, timeout: float = 0.0) -> None:
        """Follow no more; changes that wait are forgotten. Idempotent, and safe to call from the handler.

        The handler may be at its last change still: it is waited for ``timeout`` seconds at most.
        """
        timeout = wait_limit(timeout)
        if self.pid != os.getpid():
            return
        # Each step may be taken again: what Ctrl-C has ended the next stop does.
        self._closed = True
        self._reader.stop()
        self._box.close()
        self._settled.set()
        if isinstance(self._box, Mailbox) and not self._box.drain(timeout) and timeout:
            _log.warning("lightlink: the handler of the watch on %r did not finish", self.pattern)

    close = stop

    def connection_closed(self) -> None:
        """Wake the threads that read: the connection is closed for good."""
        self.stop()

    def __repr__(self) -> str:
        state = "closed" if self._closed else f"{self.pending} pending"
        return f"<StateWatch {self.pattern!r} in {self.bucket!r} {state}>"

    def _read(self, item: Delivery | None) -> StateChange[T] | None:
        if self._closed:  # what waits is forgotten
            raise ClosedError(self._title)
        return self._change(item)

    def _handle(self, delivery: Delivery | None) -> None:
        """Hand a change to the handler; on a worker."""
        change = self._change(delivery)
        if change is None or self._handler is None:
            return
        handler = self._handler
        logs.enter({}, None, delivery.subject if delivery is not None else b"")
        call = Call(kind="watch", name=change.key, args=change)
        try:
            run_handler(self._connection.middleware.run, call, lambda given: handler(given.args))
        except Exception as exc:
            _log.exception("lightlink: the handler of the watch on %r failed", self.pattern)
            self._connection.tell_hook(exc)

    def _change(self, delivery: Delivery | None) -> StateChange[T] | None:
        """Return a change; None for what is none: the end of the current values, a value not decoded."""
        if delivery is None:
            self._is_current = True
            self._first_keys.clear()
            self._settled.set()
            return None
        self._reader.release(delivery)
        try:
            change = self._values.change(self._prefix, delivery)
        except DecodeError as exc:
            self._connection.report(exc)
            return None
        self._revisions.note(change.key, change.revision)
        return None if self._is_old_delete(change) else change

    def _is_old_delete(self, change: StateChange[T]) -> bool:
        """Tell whether a change removed, before the start, a value that the handler or reader never had."""
        if self._is_current or self._brings_changes:
            return False
        if change.operation == "put":
            self._first_keys.add(change.key)
        return change.key not in self._first_keys
