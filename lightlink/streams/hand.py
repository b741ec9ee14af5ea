"""A durable consumer with explicit fetch and acknowledgement."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import attrs

from lightlink.concurrency.deadline import instant_after
from lightlink.concurrency.mailbox import Closed, MessageQueue
from lightlink.concurrency.scheduler import every
from lightlink.errors import ClosedError, DecodeError, NoMessage, StreamError
from lightlink.jetstream.pull import PullConsumer
from lightlink.streams.durable import ACK_WAIT, Durable, Lag
from lightlink.streams.graveyard import Graveyard
from lightlink.streams.message import StoredMessage, decoder_of, read_stored
from lightlink.validators import wait_limit

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from typing_extensions import Self

    from lightlink.connection.connection import Connection
    from lightlink.jetstream.pull import Pulled

_HELD = 256
_UNBOUNDED = 2**62
_TICK_SECONDS = 1.0
# How long to wait for an event that the server has announced; another process may get it instead.
_ON_WAY_SECONDS = 0.1


@attrs.frozen
class HeldMessage(StoredMessage):
    """A stored event that is held until it is settled: `done`, `retry` or `reject`."""

    _pulled: Any = attrs.field(default=None, eq=False, repr=False, kw_only=True)
    _consumer: Any = attrs.field(default=None, eq=False, repr=False, kw_only=True)

    def done(self) -> None:
        """Acknowledge it as handled; no effect if it is settled already."""
        self._consumer.settle(self._pulled, None)

    def retry(self, delay: float = 0.0) -> None:
        """Have it redelivered, to any consumer process, after ``delay`` seconds."""
        self._consumer.settle(self._pulled, delay)

    def reject(self, reason: str) -> None:
        """Make it a dead letter; raises StreamError when that cannot be stored."""
        self._consumer.bury(self, self._pulled, reason)


class Consumer:
    """An existing durable consumer with explicit acknowledgement; made by `Client.consumer`, a context manager.

    Fetched events are held, kept from other processes, until they are settled or this is closed.
    """

    def __init__(self, connection: Connection, durable: Durable, timeout: float, raw: bool) -> None:
        self.stream = durable.stream
        self.name = durable.name
        self._connection = connection
        self._durable = durable
        self._graveyard = Graveyard(connection, self.stream, self.name, timeout)
        self._decode = decoder_of(raw)
        self._queue = MessageQueue(_UNBOUNDED, _UNBOUNDED)
        self._pulls: PullConsumer | None = None
        self._periodic: Any = None
        self._pid = os.getpid()
        self._put_off: DecodeError | None = None  # for the next fetch: of an event behind those that one returned
        self._has_more = False  # whether the server had more when it sent the last one
        self._closed = False

    def __repr__(self) -> str:
        return f"<Consumer {self.stream}/{self.name}>"

    # Management -------------------------------------------------------------------------------------------------------

    def lag(self) -> Lag:
        """Return the lag: waiting, in flight, retried; raises StreamError, StreamNotFound."""
        return self._durable.lag()

    def pause(self, until: datetime) -> None:
        """Pause delivery to all processes until an aware datetime; needs nats-server 2.11 or later."""
        self._durable.pause(until)

    def resume(self) -> None:
        """Resume delivery."""
        self._durable.resume()

    def reset(self, since: Any) -> None:
        """Restart from ``first``, ``new``, a sequence, an aware datetime or a timedelta ago.

        Raises InvalidOption, and StreamError, which tells whether the consumer is gone.
        """
        self._durable.reset(since)

    def delete(self) -> None:
        """Delete the consumer; the stream stays."""
        self.close()
        self._durable.delete()

    # Events -----------------------------------------------------------------------------------------------------------

    def fetch(self, count: int = 1, timeout: float = 5.0) -> list[HeldMessage]:
        """Return up to ``count`` events: as many as there are, at least one unless none comes within ``timeout`` s.

        Raises DecodeError for one that cannot be decoded, after those before it were returned; it is redelivered after
        ``ack_wait``.
        """
        until = instant_after(wait_limit(timeout))
        put_off, self._put_off = self._put_off, None
        if put_off is not None:
            raise put_off
        found: list[HeldMessage] = []
        try:
            while len(found) < count:
                found.append(self._next(until))
                until = instant_after(_ON_WAY_SECONDS if self._has_more else 0.0)
        except NoMessage:
            pass
        except DecodeError as exc:
            if not found:
                raise
            self._put_off = exc
        except BaseException:  # Ctrl-C: nobody else could settle them
            for message in found:
                message.retry()
            raise
        return found

    def __iter__(self) -> Iterator[HeldMessage]:
        """Yield events as they arrive, until it is closed."""
        while True:
            try:
                yield self._next(None)
            except ClosedError:
                self._refuse_other_process()
                return

    def _next(self, deadline: float | None) -> HeldMessage:
        self._begin()
        try:
            pulled: Pulled = self._queue.get(deadline)
        except Closed:
            raise ClosedError(f"the consumer {self.name!r}") from None
        except TimeoutError:
            raise NoMessage(f"{self.stream}/{self.name}", 0.0) from None
        self._has_more = pulled.message.pending > 0
        try:
            read = read_stored(pulled.message, self.stream, pulled.first, self._decode)
        except DecodeError:
            self._begun().forget(pulled)
            raise
        facts = {field.name: getattr(read, field.name) for field in attrs.fields(StoredMessage)}
        return HeldMessage(**facts, pulled=pulled, consumer=self)

    def settle(self, pulled: Pulled, delay: float | None) -> None:
        """Acknowledge an event (delay None) or NAK it with a delay. For `HeldMessage`."""
        if delay is None:
            self._begun().ack(pulled)
        else:
            self._begun().hand_back(pulled, delay)

    def bury(self, message: StoredMessage, pulled: Pulled, reason: str) -> None:
        """Make an event a dead letter; raises StreamError. For `HeldMessage`."""
        pulls = self._begun()
        self._graveyard.prepare()
        self._graveyard.bury(message, pulled.message, message.attempt, reason, is_retry=False)
        pulls.end(pulled)

    def close(self) -> None:
        """Release what is held: unsettled events are redelivered. Idempotent."""
        if self._pid != os.getpid():
            return
        # Each step may be taken again: what Ctrl-C has ended the next close does.
        self._closed = True
        self._queue.close()
        if self._pulls is not None:
            self._periodic.stop(0.0)
            self._pulls.stop(1.0)
            self._pulls.hand_back_all()

    def stop(self, _timeout: float = 0.0) -> None:
        """Close; the timeout is not used."""
        self.close()

    def connection_closed(self) -> None:
        """End: the connection is closed for good."""
        self._closed = True
        if self._pid == os.getpid():  # in a forked child a thread of the parent may hold the queue's lock
            self._queue.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _refuse_other_process(self) -> None:
        """Raise ClosedError in a child forked since the first fetch: only threads of the parent fill the queue."""
        if self._pulls is not None and self._pid != os.getpid():
            raise ClosedError(f"the consumer {self.name!r}", "belongs to the parent process")

    def _begun(self) -> PullConsumer:
        self._refuse_other_process()
        assert self._pulls is not None
        return self._pulls

    def _begin(self) -> None:
        if self._closed:
            raise ClosedError(f"the consumer {self.name!r}")
        self._refuse_other_process()
        if self._pulls is not None:
            return
        self._pid = os.getpid()
        info = self._durable.info()
        if info.config.ack_policy != "explicit" or info.config.deliver_subject:
            raise StreamError(
                f"{self.stream}/{self.name}", "read", "it is not a pull consumer with explicit acknowledgements"
            )
        ack_wait = info.config.ack_wait / 1e9 or ACK_WAIT
        pulls = PullConsumer(self._connection, self.stream, self.name, _HELD, ack_wait, self._on_messages, lambda: None)
        self._periodic = every(min(_TICK_SECONDS, ack_wait / 4), pulls.tick)
        try:
            pulls.start()
        except BaseException:
            self._periodic.stop(0.0)
            raise
        self._pulls = pulls

    def _on_messages(self, burst: list[Pulled]) -> None:
        for pulled in burst:
            self._queue.put(pulled, 0)
