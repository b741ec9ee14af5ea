"""Services and agents of a Django project: connected as its settings say, at home with its databases."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from lightlink.binding import handler_name
from lightlink.commands.agent.agent import Agent as PlainAgent
from lightlink.concurrency.lifecycle import Stage
from lightlink.contrib.django import conf, signals
from lightlink.contrib.django.handlers import Wrapper, with_database
from lightlink.service.service import Service as PlainService

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from lightlink.commands.agent.handlers import CommandExecutor, ContextExecutor
    from lightlink.commands.store.schema import StoreOptions
    from lightlink.middleware import Middleware
    from lightlink.streams.message import StoredMessage

Handler = TypeVar("Handler", bound="Callable[..., Any]")


class Service(PlainService):
    """A `lightlink.Service` that connects as ``LIGHTLINK[alias]`` says, looked up when it starts.

    Its handlers run between Django's checks of the thread's database connections, and with ``atomic`` (by default
    ATOMIC_HANDLERS of the settings: True, False or names of databases) in transactions that are committed before the
    reply goes out. ``manage.py lightlink_service`` finds it in an app's ``services.py``.
    """

    def __init__(
        self,
        name: str,
        *,
        alias: str = conf.DEFAULT_ALIAS,
        atomic: bool | Sequence[str] | None = None,
        version: str = "0.0.0",
        workers: int = 8,
        max_pending: int = 1024,
        description: str = "",
        metadata: Mapping[str, str] | None = None,
        inboxes: Sequence[str] = (),
        middleware: Sequence[Middleware] = (),
        describe: bool = True,
    ) -> None:
        super().__init__(
            name,
            version=version,
            workers=workers,
            max_pending=max_pending,
            description=description,
            metadata=metadata,
            inboxes=inboxes,
            middleware=middleware,
            describe=describe,
        )
        self._alias = alias
        self._wrap = Wrapper(conf.databases(alias, atomic))

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
        """Register a function as a method; see `lightlink.Service.register`."""
        wrapped = self._wrap(handler)
        super().register(name, wrapped, idempotent=idempotent, metadata=metadata, middleware=middleware, wrap=wrap)

    def on(self, subject: str, *, queue: str | None = None, raw: bool = False) -> Callable[[Handler], Handler]:
        """Register the decorated function for events; see `lightlink.Service.on`."""
        register = super().on(subject, queue=queue, raw=raw)

        def decorate(handler: Handler) -> Handler:
            register(self._wrap(handler))
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
        """Register the decorated function for stored events; see `lightlink.Service.consume`."""

        def decorate(handler: Handler) -> Handler:
            chosen = name or f"{self.name}-{handler_name(handler).rpartition('.')[2]}"
            told = dict(options)
            if options.get("dead_letters", True):
                told["on_dead_letter"] = with_database(partial(_tell_dead, chosen, options.get("on_dead_letter")))
            super(Service, self).consume(subjects, name=chosen, stream=stream, since=since, **told)(self._wrap(handler))
            return handler

        return decorate

    def on_file(self, handler: Any = None, *, concurrency: int = 1) -> Any:
        """Register the decorated function for files; see `lightlink.Service.on_file`."""
        if handler is None:
            return lambda decorated: self.on_file(decorated, concurrency=concurrency)
        super().on_file(self._wrap(handler), concurrency=concurrency)
        return handler

    def start(self) -> Service:
        """Connect as the settings say, and serve; returns self."""
        self._follow_settings()
        super().start()
        return self

    def run(self, stop_timeout: float = 10.0) -> None:
        """Connect as the settings say, and serve until asked to stop; see `lightlink.Service.run`."""
        self._follow_settings()
        super().run(stop_timeout)

    def stop(self, timeout: float = 10.0) -> None:
        """Drain and leave; see `lightlink.Service.stop`."""
        super().stop(timeout)
        if not self._wrap.is_handling:
            self._wrap.close_connections()

    def _follow_settings(self) -> None:
        if self.stage is Stage.NEW:
            options = conf.read_cached(self._alias).options
            self.use(options.servers, **conf.connect_settings(options))


def _tell_dead(consumer: str, then: Callable[[StoredMessage, str], object] | None, message: Any, error: str) -> None:
    from lightlink.contrib.django.models import DeadLetter  # noqa: PLC0415 - not before Django's apps are ready

    signals.dead_letter_stored.send_robust(DeadLetter, message=message, consumer=consumer, error=error)
    if then is not None:
        then(message, error)


class Agent(PlainAgent):
    """A `lightlink.Agent` that connects as ``LIGHTLINK[alias]`` says; ``alias`` and ``atomic`` as for `Service`.

    ``manage.py lightlink_agent module:agent`` runs it.
    """

    def __init__(
        self,
        client_id: str,
        *,
        alias: str = conf.DEFAULT_ALIAS,
        atomic: bool | Sequence[str] | None = None,
        executor: CommandExecutor | ContextExecutor | None = None,
        workers: int = 4,
        labels: Mapping[str, str] | None = None,
        prefetch: int = 256,
        store: StoreOptions | None = None,
        middleware: Sequence[Middleware] = (),
    ) -> None:
        super().__init__(
            client_id,
            executor=executor,
            workers=workers,
            labels=labels,
            prefetch=prefetch,
            store=store,
            middleware=middleware,
        )
        self._alias = alias
        self._wrap = Wrapper(conf.databases(alias, atomic))

    def register(
        self,
        command_type: str,
        function: Callable[..., Any],
        *,
        idempotent: bool = False,
        undo: str = "",
        resource: str = "",
    ) -> None:
        """Register a function for a type of command; see `lightlink.Agent.register`."""
        wrapped = self._wrap(function)
        super().register(command_type, wrapped, idempotent=idempotent, undo=undo, resource=resource)

    def on_message(self, message_type: Any = None) -> Any:
        """Register the decorated function for messages; see `lightlink.Agent.on_message`."""
        if callable(message_type):
            return self.on_message()(message_type)
        register = super().on_message(message_type)

        def decorate(function: Handler) -> Handler:
            register(self._wrap(function))
            return function

        return decorate

    def start(self, timeout: float | None = 30.0) -> Agent:
        """Connect as the settings say, claim the client id and take commands; returns self."""
        self._follow_settings()
        super().start(timeout)
        return self

    def run(self, stop_timeout: float = 10.0) -> None:
        """Connect as the settings say, and take commands until asked to stop; see `lightlink.Agent.run`."""
        self._follow_settings()
        super().run(stop_timeout)

    def stop(self, timeout: float = 10.0) -> None:
        """Drain and leave; see `lightlink.Agent.stop`."""
        super().stop(timeout)
        if not self._wrap.is_handling:
            self._wrap.close_connections()

    def _follow_settings(self) -> None:
        if self.stage is Stage.NEW:
            options = conf.read_cached(self._alias).options
            self.use(options.servers, **conf.connect_settings(options))
