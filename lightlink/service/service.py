"""A service: functions that others call, and events shared among its instances."""

from __future__ import annotations

import logging
import os
import re
import sys
from typing import TYPE_CHECKING, Any, TypeVar, overload

from lightlink.binding import handler_name
from lightlink.client import Client
from lightlink.concurrency.deadline import Deadline
from lightlink.concurrency.lifecycle import Stage
from lightlink.concurrency.threads import Condition, Event, start_thread, wait_in_parts
from lightlink.concurrency.workers import WorkerPool
from lightlink.connected import Connected
from lightlink.connection.connection import Status
from lightlink.describe import DESCRIBE_METHOD
from lightlink.errors import ClosedError, InvalidOption, LightLinkError, NotReady
from lightlink.events.message import EventHandler
from lightlink.events.subscription import Subscription, stop_all
from lightlink.files import FileInfo, FileReceiver
from lightlink.interactive import is_interactive, replace
from lightlink.middleware import Stack
from lightlink.protocol import html, subjects
from lightlink.protocol.ids import new_token
from lightlink.service.discovery import Discovery
from lightlink.service.dispatch import Dispatcher, ServiceStats
from lightlink.service.registry import RegistryEntry
from lightlink.validators import functions, integer, seconds, string, string_map

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from lightlink.middleware import Middleware
    from lightlink.service.testing import ServiceTestClient
    from lightlink.streams.consumption import Consumption
    from lightlink.streams.job import Settings

Handler = TypeVar("Handler", bound="Callable[..., Any]")

_log = logging.getLogger("lightlink")
_QUEUE = "q"  # fixed by the wire format: the instances of a service share this queue group
_SEMVER = re.compile(r"\d+\.\d+\.\d+([-+][0-9A-Za-z.+-]+)?")


_AT_WORK = (Stage.STARTING, Stage.RUNNING)


def _group_token(handler: Callable[..., Any]) -> str:
    """Return what stands for a handler in the name of its queue group."""
    name = getattr(handler, "__name__", None) or type(handler).__name__
    return re.sub(r"[^\w-]", "_", name)


def _inbox_prefix(prefix: Any) -> bytes:
    """Return a prefix of callers' inboxes, ending in a dot; raises InvalidName."""
    return subjects.publish_subject(prefix.removesuffix(".") if isinstance(prefix, str) else prefix) + b"."


class Service(Connected):
    """A named service; ``workers`` threads run its handlers.

    ``target`` is a URL, or several, as for `connect`, with its ``options``; or a `Client`, whose connection is then
    shared. At most ``max_pending`` requests wait for a worker; what comes beyond is answered ``busy``. ``version`` is a
    semantic version; name, version, ``description`` and ``metadata`` are what service discovery shows (ADR-32).

    ``middleware`` are functions around its handlers, outermost first, and with a URL around all that its client does;
    that of a client which is given goes before it. See `lightlink.middleware`.

    Service discovery tells of each method its docstring and JSON Schemas of arguments and result, and of each instance
    its host; not with ``describe=False``, which also keeps from callers which method they may have meant.

    With ``after_fork`` each process that is forked later serves too, as an instance of its own.

    ``registry=True`` also tells platforms of peers that it is there: ``$LL.register.<name>`` at its start, and every
    30 seconds ``$LL.heartbeat.<name>``.

    Answers go to inboxes only: below ``_INBOX``, to those of identities, and below the prefixes in ``inboxes``, for
    callers that have others.
    """

    def __init__(
        self,
        name: str,
        target: str | Sequence[str] | Client | None = None,
        *,
        version: str = "0.0.0",
        workers: int = 8,
        max_pending: int = 1024,
        description: str = "",
        metadata: Mapping[str, str] | None = None,
        inboxes: Sequence[str] = (),
        after_fork: bool = False,
        middleware: Sequence[Middleware] = (),
        describe: bool = True,
        registry: bool = False,
        **options: Any,
    ) -> None:
        self.name = subjects.service_name(name)
        self.instance = new_token()
        if not isinstance(version, str) or not _SEMVER.fullmatch(version):
            raise InvalidOption("version", "must be a semantic version such as 1.0.0", version)
        for option, value in (("workers", workers), ("max_pending", max_pending)):
            integer(option, value)
        own_options = ("workers", "max_pending", "version", "description", "metadata")
        super().__init__(f"service {name!r}", name, target, options, own_options, middleware)
        self._inboxes = tuple(map(_inbox_prefix, [inboxes] if isinstance(inboxes, str) else inboxes))
        self.version = version
        self._pool = WorkerPool(f"lightlink-{name}", workers)
        self._calls = Dispatcher(name, self._pool, max_pending)
        self._discovery = Discovery(
            name, self.instance, version, description, metadata, self._calls, describes=describe
        )
        self._calls.suggests = describe
        if describe:
            self._calls.add(DESCRIBE_METHOD, self._discovery.describe, {}, hidden=True)
        # Subject, handler, queue group (None: one of its own), raw.
        self._events: list[tuple[str, Callable[[Any], object], str | None, bool]] = []
        self._consumers: list[tuple[str | Sequence[str], Callable[[Any], object], str, dict[str, Any], Settings]] = []
        self._consumptions: list[Consumption] = []
        self._on_file: tuple[Callable[[FileInfo], object], int] | None = None
        self._subscriptions: list[Subscription] = []
        self._routes: list[Any] = []
        self._lent: Client | None = None  # by a test, whose it stays
        self._registers = registry
        self._registry_entry: RegistryEntry | None = None
        self._guard = Condition()
        self._gone = Event()
        self._is_cut_short = False  # a stop was, by Ctrl-C or a second signal
        self._after_fork = after_fork
        self._follows = False
        self._is_wanted = False  # started, and not stopped
        self._forget_status: Callable[[], None] = lambda: None

    # Registering ----------------------------------------------------------------------------------------------------

    @overload
    def rpc(self, name: Handler) -> Handler: ...
    @overload
    def rpc(
        self,
        name: str | None = None,
        *,
        idempotent: bool = False,
        metadata: Mapping[str, str] | None = None,
        middleware: Sequence[Middleware] = (),
        wrap: str | None = None,
    ) -> Callable[[Handler], Handler]: ...
    def rpc(
        self,
        name: Any = None,
        *,
        idempotent: bool = False,
        metadata: Mapping[str, str] | None = None,
        middleware: Sequence[Middleware] = (),
        wrap: str | None = None,
    ) -> Any:
        """Register the decorated function as a method: ``@service.rpc`` or ``@service.rpc("getUser")``.

        Without a name the function's own is used. Arguments are bound by name and checked against the annotations. The
        function is returned unchanged.
        """
        if callable(name):
            return self.rpc()(name)

        def decorate(handler: Handler) -> Handler:
            chosen = name or getattr(handler, "__name__", None)
            if chosen is None:
                raise InvalidOption("rpc", "give the method a name: this handler has none", repr(handler))
            self.register(chosen, handler, idempotent=idempotent, metadata=metadata, middleware=middleware, wrap=wrap)
            return handler

        return decorate

    def register(
        self,
        name: str,
        handler: Callable[..., Any],
        *,
        idempotent: bool = False,
        metadata: Mapping[str, str] | None = None,
        middleware: Sequence[Middleware] = (),
        wrap: str | None = None,
    ) -> None:
        """Register a function as a method; raises NotReady after the start, InvalidOption when the name is taken.

        ``idempotent`` announces that running it twice does no harm, so that callers may repeat a call whose outcome
        they do not know. ``middleware`` goes around this method alone, inside that of the service. ``wrap="value"``
        answers ``{"value": result}``, for peers in Go and C#, which take objects only.
        """
        self._refuse_after_start(f"method {name!r}")
        subjects.method_name(name)
        if name in self._calls.methods:
            raise InvalidOption("method", f"is registered already with service {self.name!r}", name)
        announced = {"idempotent": "true"} if idempotent else {}
        around = functions("middleware", middleware)
        if wrap is not None:
            string("wrap", wrap)
        told = {**announced, **string_map("metadata", metadata or {})}
        self._calls.add(name, handler, told, around, wrap=wrap)

    def has_rpc(self, name: str) -> bool:
        """Tell whether a method of this name is registered."""
        return name in self._calls.methods

    def on(self, subject: str, *, queue: str | None = None, raw: bool = False) -> Callable[[Handler], Handler]:
        """Register the decorated function for events; of each, one instance of the service gets it.

        ``queue`` is the queue group; an empty one gives every instance every event. By default each function has a
        group of its own, ``<service>.<function>``: members of one group share what comes, also where their subjects
        overlap, so two functions in one group would each miss what the other gets. What the function is given is as
        with `Client.subscribe`.
        """
        if callable(subject):
            raise InvalidOption("on", "name the subject: @service.on('events.user')")
        subjects.subscribe_subject(subject)
        group = None if queue is None else subjects.queue_group(queue)

        def decorate(handler: Handler) -> Handler:
            self._refuse_after_start(f"the handler of {subject!r}")
            EventHandler(handler, raw)  # raises InvalidOption for what cannot take the data
            if any(taken == subject and fn is handler for taken, fn, *_ in self._events):
                raise InvalidOption("handler", f"is registered already for {subject!r}", handler_name(handler))
            self._events.append((subject, handler, group, raw))
            return handler

        return decorate

    def consume(
        self,
        subjects: str | Sequence[str],
        *,
        name: str | None = None,
        stream: str | None = None,
        since: Any = "first",
        **options: Any,
    ) -> Callable[[Handler], Handler]:
        """Register the decorated function for stored events, as `Client.consume` does.

        They are handled from the start of the service on, and finished at its stop; all its instances share them.
        ``name`` is the durable consumer, by default ``<service>-<function>``.
        """
        from lightlink.streams.facade import settings_of  # noqa: PLC0415 - not every service has streams

        settings = settings_of(options)

        def decorate(handler: Handler) -> Handler:
            self._refuse_after_start(f"the consumer of {subjects!r}")
            consumer = name or f"{self.name}-{handler_name(handler).rpartition('.')[2]}"
            self._consumers.append((subjects, handler, consumer, {"stream": stream, "since": since}, settings))
            return handler

        return decorate

    @overload
    def on_file(self, handler: Handler, *, concurrency: int = 1) -> Handler: ...
    @overload
    def on_file(self, handler: None = None, *, concurrency: int = 1) -> Callable[[Handler], Handler]: ...
    def on_file(self, handler: Any = None, *, concurrency: int = 1) -> Any:
        """Register the decorated function for files sent to this service: ``@service.on_file``.

        It is called with a `FileInfo`, and fetches the content by ``service.client.download(info.id, ...)``. One
        instance of the service gets each file, and handles ``concurrency`` of them at a time.
        """
        if handler is None:
            return lambda decorated: self.on_file(decorated, concurrency=concurrency)
        self._refuse_after_start("the handler of files")
        if self._on_file is not None:
            raise InvalidOption("on_file", f"is registered already with service {self.name!r}")
        EventHandler(handler, raw=True)  # raises InvalidOption for what cannot take one argument
        self._on_file = (handler, concurrency)
        return handler

    # Lifetime -------------------------------------------------------------------------------------------------------

    @property
    def client(self) -> Client:
        """The client that it talks through; raises NotReady before the start."""
        return self._lent or super().client

    @property
    def stats(self) -> ServiceStats:
        """What it has done since its start, and what it holds now."""
        return self._calls.told()

    @property
    def subscriptions(self) -> list[Subscription | Consumption]:
        """Through what it hears events, while it runs."""
        return [*self._subscriptions, *self._consumptions]

    def test_client(self, client: Client | None = None) -> ServiceTestClient:
        """Return what calls the methods of this service in the caller's own thread, without a server; for tests.

        The service is not started, and what runs is what would run: binding, errors, middleware and log context.
        ``client`` is what handlers get as theirs (`Request.client`, `Service.client`); without one its use raises
        NotReady. Raises NotReady for a service that was started.
        """
        from lightlink.service.testing import ServiceTestClient, no_client  # noqa: PLC0415 - for tests alone

        self._refuse_after_start("a test client")
        stack = Stack((*self._options.get("middleware", ()), *self._middleware))

        def lend() -> None:
            if self._stage is Stage.NEW:
                self._lent = client
                self._calls.surround(client or self._client or no_client(self.name), stack.entries)

        lend()
        return ServiceTestClient(self.name, self._calls, self._events, stack.entries, lend)

    def start(self) -> Service:
        """Connect, subscribe and serve, on threads of the library; returns self. Raises the errors of `connect`.

        In a forked child it starts there, beside its parent's.
        """
        if self._is_in_parent:
            self._begin_anew()
        if is_interactive():
            # The cell that made it was run again: without this every request would be answered by either of the two.
            replace((Service, self.name), f"the service {self.name}", self)
        client = self._prepare()
        # A stop from another thread, or from a handler that runs already, waits until all is subscribed.
        with self._guard:
            self._refuse_second_start()
            self._pid = os.getpid()
            self._stage = Stage.STARTING
            self._forget_status = client.connection.on_status(self._on_connection)
            try:
                client.connection.add_receiver(self)
                self._subscribe(client)
                if self._registers:
                    self._registry_entry = RegistryEntry(client.connection, self._discovery)
            except BaseException:
                self.stop(1.0)
                raise
            if self._stage is Stage.STARTING:
                self._stage = Stage.RUNNING
        self._is_wanted = True
        if self._after_fork and not self._follows:
            self._follows = True
            client.connection.after_fork(self._follow)
        _log.info("lightlink: service %s is running (instance %s)", self.name, self.instance)
        return self

    def _begin_anew(self) -> None:
        """Forget, in a forked child, what belongs to the parent: threads, locks and subscriptions."""
        super()._begin_anew()
        self.instance = new_token()
        self._pool = WorkerPool(f"lightlink-{self.name}", self._pool.size)
        self._calls.begin_anew(self._pool)
        self._discovery.begin_anew(self.instance)
        self._subscriptions, self._routes, self._consumptions = [], [], []
        self._registry_entry = None
        self._guard, self._gone = Condition(), Event()
        self._is_cut_short = False

    def _follow(self) -> None:
        """Serve in a forked child, though the process that it was forked from may have been about to, like this one."""
        if self._is_wanted and self._pid != os.getpid():
            self._begin_anew()
            self.start()

    def stop(self, timeout: float = 10.0) -> None:
        """Stop taking requests and events, finish what is held, reply and leave, within ``timeout`` seconds.

        Idempotent: a later caller waits until the first stop is done; what Ctrl-C has ended it finishes, and waits for
        no handler. Called by one of the service's own handlers it returns at once, and the service stops when the
        handler has returned and its reply is sent.
        """
        timeout = 0.0 if self._is_cut_short else seconds("timeout", timeout)
        if self._is_in_parent or sys.is_finalizing():
            return  # it is the parent process's, or gone with all threads
        if self._stage in _AT_WORK:
            self.client.connection.session.loop.refuse_own_thread()
        self._is_wanted = False
        was = self._stage
        try:
            with self._guard:
                was, self._stage = self._stage, Stage.STOPPED
            self._stop(was, timeout)
        except BaseException as exc:
            self._stage, self._is_cut_short = was, not isinstance(exc, LightLinkError)
            raise

    def _stop(self, was: Stage, timeout: float) -> None:
        self._stop_signal.set()
        if was is Stage.NEW:
            if self._client is not None and self._has_own_client:
                self._client.close(timeout)  # connected, and stopped before it was started
            self._gone.set()
        elif self._pool.is_own_thread:
            if was in _AT_WORK:
                start_thread(self._leave, f"lightlink-{self.name}-stop", timeout)
        elif was in _AT_WORK:
            self._leave(timeout)
        else:
            wait_in_parts(self._gone.wait, timeout)

    def _leave(self, timeout: float) -> None:
        try:
            self._drain(timeout)
        finally:
            # Also when a second signal ends it half-way: nobody waits for what does not come any more.
            self._gone.set()

    def _drain(self, timeout: float) -> None:
        deadline = Deadline(timeout)
        client = self.client
        session = client.connection.session
        self._forget_status()
        if self._registry_entry is not None:
            self._registry_entry.stop(timeout)
        # First the door: from here on the server gives new requests to the other instances.
        session.stop_routes(self._routes, timeout)
        stop_all(self._subscriptions, deadline.remaining(0.1))
        for consumption in self._consumptions:
            consumption.stop(deadline.remaining(0.1))
        # Then what was taken: each request held is answered.
        if not self._calls.drain(deadline.remaining()):
            _log.warning("lightlink: service %s stops with requests unanswered", self.name)
        session.cut_routes(self._routes)
        # The replies are in the outbox; closing, or this flush, brings them to the server.
        if client is self._target:
            self._flush(deadline)
        else:
            client.close(deadline.remaining(0.5))
        self._pool.stop(deadline.remaining())
        _log.info("lightlink: service %s has stopped", self.name)

    def __repr__(self) -> str:
        return f"<Service {self.name!r} {self.version} {self._shown_stage}, {len(self._calls.methods)} methods>"

    def _repr_html_(self) -> str:
        """Return how a notebook shows it."""
        methods = ", ".join(sorted(self._calls.methods))
        told = {"version": self.version, "stage": self._stage.value, "instance": self.instance, "methods": methods}
        return html.facts(f"Service {self.name}", told)

    def _refuse_second_start(self) -> None:
        if self._stage in _AT_WORK:
            raise NotReady(f"service {self.name!r}", "is running already")
        if self._stage is Stage.STOPPED:
            raise ClosedError(f"service {self.name!r}")

    def _prepare(self) -> Client:
        self._refuse_second_start()
        self._lent = None
        return super()._prepare()

    def _subscribe(self, client: Client) -> None:
        self._pool.start()
        connection = client.connection
        own = connection.options.inbox_prefix
        # A client of our own has our middleware already.
        around = connection.middleware.entries + (self._middleware if client is self._target else ())
        stack = Stack(around, everywhere=False)
        self._calls.attach(connection, (*self._inboxes, *([f"{own}.".encode()] if own else [])))
        self._calls.surround(client, around)
        for (subject, handler, _, raw), group in zip(self._events, self._groups(), strict=True):
            shared: dict[str, Any] = {"queue": group, "raw": raw, "middleware": stack, "service": self.name}
            self._subscriptions.append(Subscription(connection, self._pool, subject, handler, **shared))
        self._consume(client, stack)
        if self._on_file is not None:
            file_handler, concurrency = self._on_file
            receiver = FileReceiver(client.file_store().info, self.name, file_handler, stack)
            settings: dict[str, Any] = {"queue": f"{self.name}.on_file", "raw": True, "concurrency": concurrency}
            # Around the handler, and not around announcements that are for others.
            settings |= {"middleware": Stack(everywhere=False), "service": self.name}
            self._subscriptions.append(
                Subscription(connection, self._pool, subjects.FILE_TRANSFER, receiver, **settings)
            )
        self._routes = [connection.subscribe(subjects.service_subject(self.name), _QUEUE, self._calls.arrive)]
        self._routes += self._discovery.subscribe(connection)

    def _consume(self, client: Client, stack: Stack) -> None:
        if not self._consumers:
            return
        from lightlink.streams.facade import consume  # noqa: PLC0415 - not every service has streams

        for subjects_, handler, name, where, settings in self._consumers:
            timeout = client.options.timeout
            made = consume(client.connection, subjects_, handler, name, settings, stack, timeout=timeout, **where)
            self._consumptions.append(made)

    def _groups(self) -> list[str]:
        """Return the queue group of each event handler; every instance comes to the same ones."""
        groups: list[str] = []
        owners: dict[str, Callable[[Any], object]] = {}
        for _, handler, group, _ in self._events:
            name = plain = f"{self.name}.{_group_token(handler)}"
            number = 1
            while group is None and owners.setdefault(name, handler) is not handler:
                number += 1
                name = f"{plain}-{number}"  # as two lambdas, or functions of two modules
            groups.append(name if group is None else group)
        return groups

    def _on_connection(self, status: Status) -> None:
        if status is Status.CLOSED and self._stage in _AT_WORK:
            self._lost = self.client.connection.failure or ClosedError("the client", "was closed under the service")
            self._stop_signal.set()

    def _flush(self, deadline: Deadline) -> None:
        try:
            # Not `flush`: what became of the events of whoever else uses the client is theirs to hear.
            self.client.connection.session.round_trip(deadline.remaining(0.1))
        except LightLinkError as exc:
            _log.warning("lightlink: service %s stops with replies not delivered: %s", self.name, exc)
