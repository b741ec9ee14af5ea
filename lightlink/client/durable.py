"""Events that are stored, and the streams that they are stored in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from lightlink.client.base import ClientBase, publishing
from lightlink.logs import outgoing
from lightlink.middleware import Call
from lightlink.protocol import subjects
from lightlink.rpc.futures import as_given, call_on_thread

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from concurrent.futures import Future
    from typing import Literal, TypeVar

    from lightlink.protocol.codec import HeaderMap
    from lightlink.streams.dead import DeadLetters
    from lightlink.streams.hand import Consumer
    from lightlink.streams.message import StoredMessage
    from lightlink.streams.publish import Stored, Storing
    from lightlink.streams.stream import Stream

    Handler = TypeVar("Handler", bound=Callable[[Any], object])


# For what has waited for a thread until its time was over.
_LEAST_SECONDS = 0.001


class DurableEvents(ClientBase):
    """A client's durable events."""

    def stream(
        self,
        name: str,
        subjects: Sequence[str] | None = None,
        *,
        max_age: float | None = None,
        max_bytes: int | None = None,
        max_messages: int | None = None,
        replicas: int = 1,
        storage: Literal["file", "memory"] = "file",
        work_queue: bool = False,
        deduplication: float = 120.0,
        description: str = "",
        partitions: int | None = None,
        update: bool = False,
    ) -> Stream:
        """Return a stream, made to store what is published on ``subjects`` unless it exists.

        Without ``subjects`` it has to exist. ``max_age`` and ``deduplication`` (for how long ids are remembered) in
        seconds. In a ``work_queue`` each event goes to one consumer and is gone when handled. With ``partitions``
        events that agree in the tokens that its one subject has ``*`` for are kept in order by
        ``consume(partitions=)``. One whose configuration differs is an error, or with ``update`` is changed, but for
        its partitions. Raises StreamError, StreamNotFound, InvalidName, InvalidOption.
        """
        from lightlink.streams.stream import Stream, config_of  # noqa: PLC0415 - not every program has streams

        found = Stream(self._connection, name, self.options.timeout)
        if subjects is None:
            found.info()
            return found
        config = config_of(
            name,
            subjects,
            max_age=max_age,
            max_bytes=max_bytes,
            max_messages=max_messages,
            replicas=replicas,
            storage=storage,
            work_queue=work_queue,
            deduplication=deduplication,
            description=description,
            partitions=partitions,
        )
        found.ensure(config, update)
        return found

    def streams(self) -> list[str]:
        """Return the names of all streams that this identity may see, sorted."""
        from lightlink.streams.stream import streams_on  # noqa: PLC0415

        return streams_on(self._connection, "", self.options.timeout)

    def publish_stored(
        self,
        subject: str,
        data: Any = None,
        *,
        id: str | None = None,  # noqa: A002 - what everybody calls it
        headers: HeaderMap | None = None,
        timeout: float | None = None,
        stream: str | None = None,
    ) -> Stored:
        """Publish an event, and return where it is stored once it is.

        Of events with one ``id`` on a subject the first is stored, as long as its stream remembers ids. ``stream``
        names the one that has to store it. Raises NotStored (its ``unknown`` tells whether it may be), and what
        `publish` does.
        """
        from lightlink.streams.publish import Event, publish_stored  # noqa: PLC0415

        limit = self._limit(timeout)

        def store(given: Call) -> Stored:
            event = Event.of(subject, given.args, id, given.headers, stream)
            return publish_stored(self._connection, event, limit)

        stored: Stored = self._middleware.run(publishing(subject, data, headers), store)
        return stored

    def submit_stored(
        self,
        subject: str,
        data: Any = None,
        *,
        id: str | None = None,  # noqa: A002 - what everybody calls it
        headers: HeaderMap | None = None,
        timeout: float | None = None,
        stream: str | None = None,
    ) -> Future[Stored]:
        """Publish an event, and return a future for where it is stored; see `publish_stored`."""
        from lightlink.streams.publish import Event, submit_stored  # noqa: PLC0415

        limit = self._limit(timeout)
        event = Event.of(subject, data, id, outgoing(headers), stream)
        if not self._middleware.is_used:
            return submit_stored(self._connection, event, limit)
        later, data, headers = self.publish_stored, as_given(data), as_given(headers)

        def store(left: float) -> Stored:
            return later(subject, data, id=id, headers=headers, timeout=max(left, _LEAST_SECONDS), stream=stream)

        return call_on_thread(self._connection, limit, store)

    def storing(self, *, timeout: float | None = None) -> Storing:
        """Return a block whose events are stored many at a time: ``with client.storing() as batch``.

        What is given to ``batch.publish`` is pipelined. At its end all of it is stored, or it raises NotStored for the
        first that was not within ``timeout`` seconds.
        """
        from lightlink.streams.publish import Storing  # noqa: PLC0415

        return Storing(self._connection, self._limit(timeout))

    def consume(
        self,
        subjects: str | Sequence[str],
        *,
        name: str,
        stream: str | None = None,
        since: Any = "first",
        **options: Any,
    ) -> Callable[[Handler], Handler]:
        """Hand the stored events on some subjects to the decorated function, as the durable consumer ``name``.

        It returns: done. It raises: again, after each of ``retries`` seconds, then the event is a dead letter
        (``dead_letters=False``: again for ever); ``on_dead_letter(message, error)`` is told of each that is stored,
        at least once. `Reject` makes it one at once, `Later` is no failure. Bound like
        `subscribe`'s handlers; annotated `StoredMessage` it gets place and attempt too. ``workers`` handle side by
        side; with one of them, or a ``key`` (a function of the message), order is kept in this process, and with
        ``partitions`` (as many as the stream has) across all processes. After ``timeout`` seconds an
        attempt has failed. With ``batch=n`` it gets lists of messages, of what came ``within`` seconds. ``since`` is
        where a new consumer begins: first, new, a sequence, an aware datetime or a timedelta ago. What a process that
        died had held is handed out again after ``ack_wait`` seconds (30). The function is returned unchanged.

        Raises StreamError where no stream captures the subjects, or another program has changed the consumer so that
        this cannot be kept; ``update=True`` changes it to what is asked for, other differences are logged.
        """
        from lightlink.streams.facade import consume, settings_of  # noqa: PLC0415

        settings = settings_of(options)

        def decorate(handler: Handler) -> Handler:
            made = consume(
                self._connection,
                subjects,
                handler,
                name,
                settings,
                self._middleware,
                stream=stream,
                since=since,
                timeout=self.options.timeout,
            )
            self._subscriptions.add(made)
            return handler

        return decorate

    def consumer(self, stream: str, name: str, *, raw: bool = False) -> Consumer:
        """Return a durable consumer by hand: to fetch from, to look at, to pause; raises InvalidName."""
        from lightlink.streams.durable import Durable  # noqa: PLC0415
        from lightlink.streams.hand import Consumer  # noqa: PLC0415

        timeout = self.options.timeout
        made = Consumer(self._connection, Durable(self._connection, stream, name, timeout), timeout, raw)
        self._subscriptions.add(made)
        return made

    def replay(
        self,
        subject: str,
        *,
        since: Any = "first",
        follow: bool = False,
        stream: str | None = None,
        raw: bool = False,
    ) -> Iterator[StoredMessage]:
        """Yield the stored events on a subject in order, to the last there is, or with ``follow`` without end.

        ``since`` is first, a sequence, an aware datetime or a timedelta ago. Nothing is acknowledged; it goes on across
        outages. Raises StreamError, StreamNotFound (also when the stream is deleted meanwhile; with ``follow`` one that
        is made anew is read), InvalidOption, and ClosedError as the client is closed.
        """
        from lightlink.streams.replay import replay  # noqa: PLC0415
        from lightlink.streams.stream import Stream, stream_of  # noqa: PLC0415

        timeout = self.options.timeout
        found = Stream(self._connection, stream or stream_of(self._connection, subject, timeout), timeout)
        stored = found.stored(subjects.subscribe_subject(subject))
        return replay(self._connection, found.name, stored, since, follow, raw, timeout)

    def dead_letters(self, stream: str, consumer: str) -> DeadLetters:
        """Return the events that a consumer could not handle: to look at, redeliver or drop."""
        from lightlink.streams.dead import DeadLetters  # noqa: PLC0415
        from lightlink.streams.stream import stream_name  # noqa: PLC0415

        return DeadLetters(self._connection, stream_name(stream), stream_name(consumer), self.options.timeout)
