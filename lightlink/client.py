"""The client: the one object a program holds to talk to others. It delegates, and holds no logic of its own."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any, Literal, NoReturn, overload

from msgspec import UNSET

from lightlink.concurrency.registry import Registry
from lightlink.concurrency.threads import Lock, refuse_at_exit
from lightlink.connection.connection import Connection, Status
from lightlink.errors import InvalidOption
from lightlink.events.subscription import DEFAULT_MAX_PENDING, Subscription, stop_all
from lightlink.interactive import replace, typed_name
from lightlink.logs import in_handler, outgoing
from lightlink.middleware import Call
from lightlink.options import ConnectOptions
from lightlink.protocol import codec, html, subjects
from lightlink.rpc.caller import Caller
from lightlink.rpc.futures import call_on_thread
from lightlink.validators import seconds, wait_limit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from concurrent.futures import Future
    from typing import Literal, TypeVar

    from lightlink.connection.outbox import Unsent
    from lightlink.files import FileInfo, FileSource, FileStore, FileTarget, Progress
    from lightlink.middleware import Middleware, Observer
    from lightlink.options import TLS, Key, Secret
    from lightlink.protocol.codec import HeaderMap
    from lightlink.rpc.discovery import RunningService
    from lightlink.rpc.mapping import Errors
    from lightlink.rpc.proxy import ServiceProxy
    from lightlink.rpc.retry import Retry
    from lightlink.state import BucketInfo, StateBucket, StateChange, StateWatch
    from lightlink.state.lock import Leader
    from lightlink.state.lock import Lock as NamedLock
    from lightlink.streams.consumption import Consumption
    from lightlink.streams.dead import DeadLetters
    from lightlink.streams.hand import Consumer
    from lightlink.streams.message import StoredMessage
    from lightlink.streams.publish import Stored, Storing
    from lightlink.streams.stream import Stream

    T = TypeVar("T")
    Handler = TypeVar("Handler", bound=Callable[[Any], object])


# For what has waited for a thread until its time was over.
_LEAST_SECONDS = 0.001


def connect(
    url: str | Sequence[str] | None = None,
    *,
    context: str | None = None,
    name: str | None = None,
    user: str | None = None,
    password: Secret | None = None,
    token: Secret | None = None,
    creds: Key | None = None,
    nkey: Key | None = None,
    tls: TLS | None = None,
    inbox_prefix: str | None = None,
    jetstream_domain: str | None = None,
    jetstream_prefix: str | None = None,
    timeout: float | None = None,
    connect_timeout: float | None = None,
    reconnect_wait: float | None = None,
    reconnect_wait_max: float | None = None,
    ping_interval: float | None = None,
    outbox_messages: int | None = None,
    outbox_bytes: int | None = None,
    outbox_timeout: float | None = None,
    workers: int | None = None,
    wait: float | None = None,
    discover: bool | None = None,
    tls_first: bool | None = None,
    refusal_timeout: float | None = None,
    lazy: bool | None = None,
    bulk_connection: bool | None = None,
    on_error: Callable[[Exception], object] | None = None,
    middleware: Sequence[Middleware] | None = None,
) -> Client:
    """Connect to NATS and return a client.

    ``url`` is one server, several separated by commas, or a list; without it ``LIGHTLINK_URL``, ``NATS_URL``, the
    selected NATS context (or the one named by ``context``) and ``nats://127.0.0.1:4222`` are looked at in this order.
    The other settings are those of `ConnectOptions`, times in seconds and sizes in bytes; None leaves each at its
    default. ``middleware`` are functions around what the client does, outermost first; see `lightlink.middleware`.
    ``wait`` is for how long no server need be there yet, as at boot. With ``lazy`` the connection is made when
    it is first used, and its errors are raised there. With ``bulk_connection`` files have a connection of their own.

    Raises ConnectError when no server can be reached within ``connect_timeout`` and ``wait`` seconds,
    AuthenticationError when it refuses us, InvalidOption.
    """
    settings = {key: value for key, value in locals().items() if key not in ("url", "context")}
    refuse_at_exit()
    return Client(ConnectOptions.resolve(url, context=context, **settings))


def _publishing(subject: str, data: Any, headers: HeaderMap | None) -> Call:
    """Return what middleware sees of an event that is published."""
    return Call(kind="publish", name=subject, args=data, headers=dict(outgoing(headers) or {}))


class Client:
    """A connection to NATS, safe to share between threads. Made by `connect`; a context manager."""

    def __init__(self, options: ConnectOptions) -> None:
        if not isinstance(options, ConnectOptions):
            raise InvalidOption("options", "must be ConnectOptions(...); with a URL use lightlink.connect")
        self._connection = Connection(options)
        self._bulk: Connection | None = None
        self._bulk_lock = Lock()
        self._middleware = self._connection.middleware
        self._caller = Caller(self._connection, options.timeout)
        # Weak, because the connection holds each one for as long as it receives.
        self._subscriptions: Registry[Subscription | StateWatch[Any] | Consumption | Consumer] = Registry()
        self._default_bucket: StateBucket[Any] | None = None
        self._default_store: FileStore | None = None
        self._connection.on_status(self._end_subscriptions)
        if not options.lazy:
            self._connection.open()

    # Lifetime -------------------------------------------------------------------------------------------------------

    @property
    def connection(self) -> Connection:
        """What is underneath, for the library's own parts; its methods may change with any release."""
        return self._connection

    @property
    def status(self) -> Status:
        """The state of the connection."""
        return self._connection.status

    @property
    def options(self) -> ConnectOptions:
        """What the connection was made with."""
        return self._connection.options

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection at this moment; looking connects nothing."""
        return self._connection.status is Status.CONNECTED

    @property
    def server(self) -> str | None:
        """The server that the client is connected to, as a URL; None while it is not."""
        return self._connection.server

    def is_responsive(self, timeout: float = 5.0) -> bool:
        """Tell whether the client's own thread answers within ``timeout`` seconds, server or not.

        If it does not, something blocks it, or the machine is overloaded: a watchdog may start the process again.
        """
        return self._connection.loop_answers(seconds("timeout", timeout))

    def ping(self, timeout: float | None = None) -> float:
        """Ask the server for a sign of life and return the seconds that it took; connects a ``lazy`` client.

        It says nothing of what was published before: that is `flush`. Raises FlushTimeout, the errors of `connect`,
        ClosedError.
        """
        session = self._connection.session
        started = time.monotonic()
        session.round_trip(self._limit(timeout))
        return time.monotonic() - started

    def open(self) -> None:
        """Connect now, where ``lazy`` left it to the first use; raises the errors of `connect`."""
        self._connection.open()

    def on_status_change(self, listener: Callable[[Status], object]) -> None:
        """Call ``listener(status)`` at each change, in order, on the client's thread for callbacks."""
        if not callable(listener):
            raise InvalidOption("listener", "is not callable", type(listener).__name__)
        self._connection.on_status_for_user(listener)

    def add_middleware(self, middleware: Middleware) -> None:
        """Have one more function around what the client does from now on, innermost; see `lightlink.middleware`.

        Services and agents take a client's middleware along as they start. Raises InvalidOption.
        """
        self._middleware.add(middleware)

    def add_observer(self, observer: Observer) -> None:
        """Tell ``observer(kind, name, seconds, error)`` of whatever the client has done: calls, events, commands.

        ``kind`` and ``name`` are those of `Call`; ``error`` is None where there was none. It is called where that ended
        and must not wait. Unlike middleware it costs submitted calls no thread. Raises InvalidOption.
        """
        self._middleware.observe(observer)

    @property
    def unsent(self) -> Unsent:
        """What waits for the server, because the connection is lost or slow."""
        return self._connection.unsent

    @property
    def subscriptions(self) -> list[Subscription | StateWatch[Any] | Consumption | Consumer]:
        """Subscriptions, watches and consumers that somebody has still."""
        return list(self._subscriptions)

    def after_fork(self, function: Callable[[Client], object]) -> None:
        """Call ``function(client)`` in each process that is forked later, on a thread of its own.

        The client works there by itself; what receives (services, agents, subscriptions) is in the parent only, unless
        it was made with ``after_fork=True`` or is started here. Raises InvalidOption.
        """
        if not callable(function):
            raise InvalidOption("after_fork", "is not callable", type(function).__name__)
        self._connection.after_fork(lambda: function(self))

    def wait_connected(self, timeout: float | None = None) -> bool:
        """Wait until connected, at most ``timeout`` seconds; tell whether it is."""
        return self._connection.wait_connected(self._limit(timeout))

    def close(self, timeout: float = 5.0) -> None:
        """Stop receiving, let handlers finish, flush what was published and disconnect, within ``timeout`` seconds.

        Idempotent. Calls that still wait in other threads end with ClosedError.
        """
        deadline = time.monotonic() + wait_limit(timeout)
        received = list(self._subscriptions)
        stop_all([each for each in received if isinstance(each, Subscription)], timeout)
        for watch in received:
            if not isinstance(watch, Subscription):
                watch.stop(max(deadline - time.monotonic(), 0.0))
        with self._bulk_lock:
            bulk, self._bulk = self._bulk, None
        if bulk is not None:
            bulk.close(max(deadline - time.monotonic(), 0.1))
        self._connection.close(max(deadline - time.monotonic(), 0.1))

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Client cannot be pickled: each process makes its own with lightlink.connect, or forks")

    def __repr__(self) -> str:
        return f"<Client {self.options.name!r} {self.status.value} {','.join(self.options.servers)}>"

    def _repr_html_(self) -> str:
        """Return how a notebook shows it."""
        told = {"status": self.status.value, "server": self.server, "servers": ", ".join(self.options.servers)}
        return html.facts(f"Client {self.options.name}", told)

    # RPC ------------------------------------------------------------------------------------------------------------

    @overload
    def call(
        self,
        service: str,
        method: str,
        args: Any = ...,
        *,
        timeout: float | None = ...,
        returns: type[T],
        retry: Retry | None = ...,
        headers: HeaderMap | None = ...,
    ) -> T: ...
    @overload
    def call(
        self,
        service: str,
        method: str,
        args: Any = ...,
        *,
        timeout: float | None = ...,
        returns: Any = ...,
        retry: Retry | None = ...,
        headers: HeaderMap | None = ...,
    ) -> Any: ...
    def call(
        self,
        service: str,
        method: str,
        args: Any = None,
        *,
        timeout: float | None = None,
        returns: Any = Any,
        retry: Retry | None = None,
        headers: HeaderMap | None = None,
    ) -> Any:
        """Call a method of a service and return its result.

        ``args`` maps argument names to values (a dict, or an attrs or dataclass instance). ``timeout`` is in seconds.
        ``returns`` is a type to convert the result to. ``retry`` says when the call is made again, each time with the
        full timeout; by default it is not. ``headers`` reach the handler as `Request.headers`; a name may have several
        values, in a list.

        Raises ServiceUnavailable, CallTimeout, RemoteError (MethodNotFound, InvalidArguments, ServiceBusy,
        DeadlineExceeded, HandlerError), DecodeError, EncodeError, PayloadTooLarge, InvalidName, ClosedError.
        """
        return self._caller.call(service, method, args, timeout, returns, retry, headers)

    @overload
    def submit(
        self,
        service: str,
        method: str,
        args: Any = ...,
        *,
        timeout: float | None = ...,
        returns: type[T],
        headers: HeaderMap | None = ...,
    ) -> Future[T]: ...
    @overload
    def submit(
        self,
        service: str,
        method: str,
        args: Any = ...,
        *,
        timeout: float | None = ...,
        returns: Any = ...,
        headers: HeaderMap | None = ...,
    ) -> Future[Any]: ...
    def submit(
        self,
        service: str,
        method: str,
        args: Any = None,
        *,
        timeout: float | None = None,
        returns: Any = Any,
        headers: HeaderMap | None = None,
    ) -> Future[Any]:
        """Call a method without waiting; the future brings the result or the errors of `call`.

        Its callbacks run one after the other on the client's thread for callbacks: they may call and publish, and one
        that takes long delays the next. Waiting there for another future would never end, and raises ClosedError. Bad
        arguments raise here.
        """
        return self._caller.submit(service, method, args, timeout, returns, headers)

    @overload
    def map(
        self,
        service: str,
        method: str,
        arguments: Iterable[Any],
        *,
        concurrency: int = ...,
        timeout: float | None = ...,
        returns: Any = ...,
        headers: HeaderMap | None = ...,
        errors: Errors = ...,
        as_completed: Literal[False] = ...,
    ) -> Iterator[Any]: ...
    @overload
    def map(
        self,
        service: str,
        method: str,
        arguments: Iterable[Any],
        *,
        concurrency: int = ...,
        timeout: float | None = ...,
        returns: Any = ...,
        headers: HeaderMap | None = ...,
        errors: Errors = ...,
        as_completed: Literal[True],
    ) -> Iterator[tuple[int, Any]]: ...
    def map(
        self,
        service: str,
        method: str,
        arguments: Iterable[Any],
        *,
        concurrency: int = 256,
        timeout: float | None = None,
        returns: Any = Any,
        headers: HeaderMap | None = None,
        errors: Errors = "raise",
        as_completed: bool = False,
    ) -> Iterator[Any]:
        """Call a method once for each of ``arguments``, and yield the results in their order, as they are asked for.

        Up to ``concurrency`` calls are under way at a time, from this one thread; arguments are taken as there is room,
        so they may come from a generator that never ends. ``timeout`` is each call's own. An error ends it, or with
        ``errors="return"`` stands in the place of the result. With ``as_completed`` what is yielded are pairs (place
        among the arguments, result), each as soon as it is there. What is under way when it ends early, or is
        interrupted, is not waited for, and may run.

        Raises InvalidOption here, and as results are asked for the errors of `call`.
        """
        from lightlink.rpc.mapping import CallMap  # noqa: PLC0415 - not every program maps

        calls = CallMap(
            caller=self._caller,
            service=service,
            method=method,
            concurrency=concurrency,
            limit=self._limit(timeout),
            returns=returns,
            headers=headers,
            errors=errors,
        )
        return calls.as_completed(arguments) if as_completed else calls.in_order(arguments)

    def service(
        self,
        name: str,
        *,
        timeout: float | None = None,
        retry: Retry | None = None,
        headers: HeaderMap | None = None,
    ) -> ServiceProxy:
        """Return a service whose methods are called like functions: ``client.service("math").add(a=1, b=2)``.

        ``timeout``, ``retry`` and ``headers`` are those of `call`.
        """
        from lightlink.rpc.proxy import ServiceProxy  # noqa: PLC0415 - not every program has proxies

        return ServiceProxy(self._caller, self._connection, name, timeout, retry, headers)

    def services(
        self, name: str | None = None, *, expect: int | None = None, timeout: float | None = None
    ) -> list[RunningService]:
        """Return the services that run, or the one of a name, as any NATS service discovery finds them (ADR-32).

        Answers are gathered until a quarter of a second has brought none, or until ``expect`` instances have answered;
        for ``timeout`` seconds at most. Raises InvalidName, InvalidOption, PermissionDenied, ClosedError.
        """
        from lightlink.rpc.discovery import find_services  # noqa: PLC0415 - not every program asks

        return find_services(self._connection, name, self._limit(timeout), expect)

    def wait_for(
        self,
        service: str,
        *methods: str,
        version: str = "",
        instances: int = 1,
        timeout: float = 30.0,
    ) -> RunningService:
        """Wait until a service, with these methods, is there, and return what runs.

        ``version`` says which versions count, such as ``">=1.2,<2"``; so many ``instances`` of them have to be there.
        Raises ServiceUnavailable after ``timeout`` seconds, which says what was missing; InvalidName, InvalidOption,
        PermissionDenied, ClosedError.
        """
        from lightlink.rpc.waiting import wait_for_service  # noqa: PLC0415 - not every program waits

        return wait_for_service(self._connection, service, methods, version, instances, seconds("timeout", timeout))

    # Events ---------------------------------------------------------------------------------------------------------

    def publish(self, subject: str, data: Any = None, *, headers: HeaderMap | None = None) -> None:
        """Publish data on a subject: bytes as they are, everything else as JSON.

        ``headers`` reach the handler as `Message.headers`; a name may have several values, in a list.

        Returns at once; one thread's messages keep their order. Raises InvalidName, EncodeError and PayloadTooLarge
        before anything is sent, OutboxFull when the server takes no more, ClosedError.
        """
        if self._middleware.is_used:
            call = _publishing(subject, data, headers)
            self._middleware.run(call, lambda given: self._publish(subject, given.args, given.headers))
        elif headers or in_handler() is not None:
            self._publish(subject, data, headers)
        else:
            # As `_publish` does it, without what most messages do not need: a microsecond is all that one costs.
            payload = data if data.__class__ is bytes else codec.encode(data, f"the message for {subject!r}")
            self._connection.publish(subjects.publish_subject(subject), payload)

    def _publish(self, subject: str, data: Any, headers: HeaderMap | None) -> None:
        given = outgoing(headers)
        block = codec.encode_headers(codec.checked_headers(given)) if given else None
        payload = data if data.__class__ is bytes else codec.encode(data, f"the message for {subject!r}")
        self._connection.publish(subjects.publish_subject(subject), payload, headers=block)

    def flush(self, timeout: float | None = None) -> None:
        """Return when the server has everything published so far.

        Raises FlushTimeout after ``timeout`` seconds, PermissionDenied when the server refused a publish since the last
        flush, DeliveryUnknown (once) when a connection was lost meanwhile with messages that no flush had confirmed.
        """
        self._connection.flush(self._limit(timeout))

    def subscribe(
        self,
        subject: str,
        handler: Callable[[Any], object] | None = None,
        *,
        queue: str = "",
        raw: bool = False,
        max_pending: int = DEFAULT_MAX_PENDING,
        concurrency: int = 1,
        after_fork: bool = False,
    ) -> Subscription:
        """Subscribe to a subject, which may hold the wildcards ``*`` and ``>``.

        ``handler(data)`` runs on a worker thread; annotated with `Message` it gets the whole message, annotated with
        another type the data as that type. Without a handler, iterate over the subscription or `get` from it.
        Members of one ``queue`` group share the messages. ``raw`` leaves the data as bytes. With ``after_fork`` each
        process that is forked later, say a web server's worker, receives too; otherwise this one alone does.

        Raises InvalidName, InvalidOption, PermissionDenied, ClosedError.
        """
        subscription = Subscription(
            self._connection,
            self._connection.session.workers,
            subject,
            handler,
            queue=queue,
            raw=raw,
            max_pending=max_pending,
            concurrency=concurrency,
            after_fork=after_fork,
        )
        self._subscriptions.add(subscription)
        return subscription

    def on(
        self, subject: str, *, queue: str = "", raw: bool = False, after_fork: bool = False
    ) -> Callable[[Handler], Handler]:
        """Subscribe the decorated function, which is returned; see `subscribe`.

        ``function.subscription`` is what to stop. In a notebook, or at Python's prompt, a function of the same name for
        the same subject takes the place of the one before: a cell may be run again.
        """
        if callable(subject):
            raise InvalidOption("on", "name the subject: @client.on('events.>')")

        def decorate(handler: Handler) -> Handler:
            subscription = self.subscribe(subject, handler, queue=queue, raw=raw, after_fork=after_fork)
            with contextlib.suppress(AttributeError, TypeError):  # a method, or what takes no attributes
                handler.subscription = subscription  # type: ignore[attr-defined]
            name = typed_name(handler)
            if name is not None:
                replace((id(self), name, subject, queue), f"the handler {name} of {subject!r}", subscription)
            return handler

        return decorate

    # Durable events ---------------------------------------------------------------------------------------------------

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
        update: bool = False,
    ) -> Stream:
        """Return a stream, made to store what is published on ``subjects`` unless it exists.

        Without ``subjects`` it has to exist. ``max_age`` and ``deduplication`` (for how long ids are remembered) in
        seconds. In a ``work_queue`` each event goes to one consumer and is gone when handled. One that was made
        otherwise is an error, or with ``update`` is changed. Raises StreamError, StreamNotFound, InvalidName,
        InvalidOption.
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

        stored: Stored = self._middleware.run(_publishing(subject, data, headers), store)
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
        later = self.publish_stored

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
        (``dead_letters=False``: again for ever). `Reject` makes it one at once, `Later` is no failure. Bound like
        `subscribe`'s handlers; annotated `StoredMessage` it gets place and attempt too. ``workers`` handle side by
        side; with one of them, or a ``key`` (a function of the message), order is kept. After ``timeout`` seconds an
        attempt has failed. With ``batch=n`` it gets lists of messages, of what came ``within`` seconds. ``since`` is
        where a new consumer begins: first, new, a sequence, an aware datetime or a timedelta ago. What a process that
        died had held is handed out again after ``ack_wait`` seconds (30). The function is returned unchanged.

        Raises StreamError where no stream captures the subjects, or another program has changed the consumer.
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
        outages. Raises StreamError, StreamNotFound, InvalidOption.
        """
        from lightlink.streams.replay import replay  # noqa: PLC0415
        from lightlink.streams.stream import stream_of  # noqa: PLC0415

        timeout = self.options.timeout
        found = stream or stream_of(self._connection, subject, timeout)
        return replay(self._connection, found, subjects.subscribe_subject(subject), since, follow, raw, timeout)

    def dead_letters(self, stream: str, consumer: str) -> DeadLetters:
        """Return the events that a consumer could not handle: to look at, redeliver or drop."""
        from lightlink.streams.dead import DeadLetters  # noqa: PLC0415
        from lightlink.streams.stream import stream_name  # noqa: PLC0415

        return DeadLetters(self._connection, stream_name(stream), stream_name(consumer), self.options.timeout)

    # State ----------------------------------------------------------------------------------------------------------

    @overload
    def state(self, bucket: str = ..., *, value_type: type[T], **options: Any) -> StateBucket[T]: ...
    @overload
    def state(self, bucket: str = ..., *, value_type: Any = ..., **options: Any) -> StateBucket[Any]: ...
    def state(self, bucket: str = subjects.STATE_BUCKET, *, value_type: Any = Any, **options: Any) -> StateBucket[Any]:
        """Return a bucket of values, which is made at the first write if it is not there.

        Values are read as ``value_type``; with ``bytes`` they are bytes as they are. ``options`` are those of
        `BucketOptions` and count only when the bucket is made: history, ttl, storage, replicas, max_value_size, ...
        Raises InvalidName, InvalidOption.
        """
        refuse_at_exit()
        from lightlink.state import BucketOptions, StateBucket  # noqa: PLC0415 - not every program has state

        made_with = BucketOptions.from_settings(options)
        return StateBucket(self._connection, bucket, value_type, made_with, self._subscriptions.add)

    @property
    def _state(self) -> StateBucket[Any]:
        if self._default_bucket is None:
            self._default_bucket = self.state()
        return self._default_bucket

    def set_state(self, key: str, value: Any, *, ttl: float | None = None, timeout: float | None = None) -> int:
        """Store a value in the default bucket and return its revision; see `StateBucket.set`."""
        return self._state.set(key, value, ttl=ttl, timeout=timeout)

    def create_state(self, key: str, value: Any, *, ttl: float | None = None, timeout: float | None = None) -> int:
        """Store a value if the key has none; see `StateBucket.create`."""
        return self._state.create(key, value, ttl=ttl, timeout=timeout)

    def update_state(
        self, key: str, value: Any, *, revision: int, ttl: float | None = None, timeout: float | None = None
    ) -> int:
        """Store a value if the key still has the revision it is based on; see `StateBucket.update`."""
        return self._state.update(key, value, revision=revision, ttl=ttl, timeout=timeout)

    def get_state(self, key: str, default: Any = UNSET, *, timeout: float | None = None) -> Any:
        """Return the value of a key, or ``default``, or raise StateNotFound; see `StateBucket.get`."""
        return self._state.get(key, default, timeout=timeout)

    def delete_state(self, key: str, *, revision: int | None = None, timeout: float | None = None) -> None:
        """Remove the value of a key; see `StateBucket.delete`."""
        self._state.delete(key, revision=revision, timeout=timeout)

    def watch_state(
        self,
        pattern: str = ">",
        handler: Callable[[StateChange[Any]], object] | None = None,
        *,
        since: int | Literal["now"] | None = None,
        timeout: float | None = None,
    ) -> StateWatch[Any]:
        """Follow keys of the default bucket: first their values, then every change; see `StateBucket.watch`."""
        return self._state.watch(pattern, handler, since=since, timeout=timeout)

    def buckets(self, *, timeout: float | None = None) -> list[BucketInfo]:
        """Return all buckets of state that this identity may see, by name; raises StateError, PermissionDenied."""
        from lightlink.jetstream import api  # noqa: PLC0415 - not every program has state
        from lightlink.state.failures import Failures  # noqa: PLC0415
        from lightlink.state.options import BucketInfo  # noqa: PLC0415

        with Failures("*", "buckets"):
            found = api.streams_on(self._connection, "$KV.>", self._limit(timeout))
        return sorted((BucketInfo.of(each) for each in found if each.config.name.startswith("KV_")), key=_name_of)

    # One of many ------------------------------------------------------------------------------------------------------

    def lock(self, name: str, *, ttl: float = 30.0, wait: float = 0.0, **options: Any) -> NamedLock:
        """Return a lock that one process at a time has, on whatever host: ``with client.lock("nightly") as lock:``.

        It ends ``ttl`` seconds (at least 1) after its holder died. Entering waits up to ``wait`` seconds, then raises
        LockHeld. ``options`` are those of `BucketOptions`, for the bucket ``light_link_locks`` when it is made: say
        ``replicas=3`` in a cluster. Raises InvalidName, InvalidOption; needs nats-server 2.11 or later.
        """
        from lightlink.state.lock import BUCKET, Lock  # noqa: PLC0415 - not every program has locks

        subjects.stored_key(name)
        return Lock(self.state(BUCKET, **options), name, ttl, wait, self.options.name)

    def leader(
        self,
        name: str,
        *,
        on_elected: Callable[[NamedLock], object] | None = None,
        on_lost: Callable[[], object] | None = None,
        ttl: float = 30.0,
        **options: Any,
    ) -> Leader:
        """Take part in the election of one among many processes, from now on until `Leader.stop`.

        ``on_elected(lock)`` is called when this one leads, ``on_lost()`` when it does so no more; another leads at most
        ``ttl`` seconds after the leader died. Raises the errors of `lock`.
        """
        from lightlink.state.lock import Leader  # noqa: PLC0415 - not every program elects

        return Leader(self.lock(name, ttl=ttl, **options), on_elected, on_lost)

    # Files ----------------------------------------------------------------------------------------------------------

    def file_store(self, bucket: str = subjects.FILES_BUCKET, **options: Any) -> FileStore:
        """Return a store of files, whose bucket is made at the first upload if it is not there.

        ``options`` count only then: ttl, max_bytes, replicas, storage; see `FileStore`. Raises InvalidName,
        InvalidOption.
        """
        refuse_at_exit()
        from lightlink.files import FileStore  # noqa: PLC0415 - not every program has files

        return FileStore(self._connection_for_files(), bucket, **options)

    def _connection_for_files(self) -> Connection:
        if not self.options.bulk_connection or self.status is Status.CLOSED:
            return self._connection
        from lightlink.connection.bulk import BulkConnection  # noqa: PLC0415 - not every program has files

        with self._bulk_lock:
            if self._bulk is None:
                self._bulk = BulkConnection(self._connection)
            return self._bulk

    @property
    def _files(self) -> FileStore:
        if self._default_store is None:
            self._default_store = self.file_store()
        return self._default_store

    def upload(
        self, source: FileSource, *, name: str | None = None, progress: Progress | None = None, **options: Any
    ) -> FileInfo:
        """Store a path or binary file object, and return what is known of it; see `FileStore.upload`."""
        return self._files.upload(source, name=name, progress=progress, **options)

    def download(
        self, file_id: str, target: FileTarget, *, progress: Progress | None = None, **options: Any
    ) -> FileInfo:
        """Fetch a file to a path or binary file object, checked; see `FileStore.download`."""
        return self._files.download(file_id, target, progress=progress, **options)

    def send_file(
        self, source: FileSource, to: str = "", *, headers: HeaderMap | None = None, **options: Any
    ) -> FileInfo:
        """Upload a file and announce it, with ``headers``, to a service, or to every one; see `FileStore.send`."""
        return self._files.send(source, to, headers=headers, **options)

    def files(self) -> list[FileInfo]:
        """Return what is known of all files, newest first; see `FileStore.files`."""
        return self._files.files()

    def file_info(self, file_id: str) -> FileInfo:
        """Return what is known of a file; raises StoredFileNotFound; see `FileStore.info`."""
        return self._files.info(file_id)

    def delete_file(self, file_id: str) -> None:
        """Remove a file; raises StoredFileNotFound; see `FileStore.delete`."""
        self._files.delete(file_id)

    # ----------------------------------------------------------------------------------------------------------------

    def _limit(self, timeout: float | None) -> float:
        return self.options.timeout if timeout is None else seconds("timeout", timeout)

    def _end_subscriptions(self, status: Status) -> None:
        if status is Status.CLOSED:
            for subscription in list(self._subscriptions):
                subscription.connection_closed()


def _name_of(bucket: BucketInfo) -> str:
    return bucket.name
