"""A client's connection: its state, its lifetime, its middleware and observers."""

from __future__ import annotations

import os
import time
import warnings
import weakref
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

from lightlink.concurrency.deadline import Deadline
from lightlink.concurrency.registry import Registry
from lightlink.concurrency.threads import Lock
from lightlink.connection.connection import Connection, Status
from lightlink.errors import InvalidOption
from lightlink.events.subscription import Subscription, stop_all
from lightlink.logs import outgoing
from lightlink.middleware import Call
from lightlink.options import ConnectOptions
from lightlink.protocol import html
from lightlink.rpc.caller import Caller
from lightlink.validators import seconds, wait_limit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from typing_extensions import Self

    from lightlink.connection.outbox import Unsent
    from lightlink.middleware import Middleware, Observer
    from lightlink.protocol.codec import HeaderMap
    from lightlink.state import StateWatch
    from lightlink.streams.consumption import Consumption
    from lightlink.streams.hand import Consumer


def publishing(subject: str, data: Any, headers: HeaderMap | None) -> Call:
    """Return what middleware sees of an event that is published."""
    return Call(kind="publish", name=subject, args=data, headers=dict(outgoing(headers) or {}))


class ClientBase:
    """The connection of a client and its lifetime."""

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
        # Neither these two nor the connection know the client, so one that nobody has any more is told of, not kept.
        self._connection.on_status(partial(_end_subscriptions, self._subscriptions))
        self._unclosed = weakref.finalize(
            self, _warn_unclosed, weakref.ref(self._connection), self._subscriptions, options.name, os.getpid()
        )
        self._unclosed.atexit = False
        if not options.lazy:
            try:
                self._connection.open()
            except BaseException:
                self._connection.close(0.0)  # after Ctrl-C it may be open, and nobody gets this client
                raise

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

    def after_fork(self, function: Callable[[Self], object]) -> None:
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
        deadline = Deadline(wait_limit(timeout))
        received = list(self._subscriptions)
        stop_all([each for each in received if isinstance(each, Subscription)], timeout)
        for watch in received:
            if not isinstance(watch, Subscription):
                watch.stop(deadline.remaining())
        with self._bulk_lock:
            bulk = self._bulk
        if bulk is not None:
            bulk.close(deadline.remaining(0.1))
        self._connection.close(deadline.remaining(0.1))
        self._unclosed.detach()

    def __enter__(self) -> Self:
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

    # ----------------------------------------------------------------------------------------------------------------

    def _limit(self, timeout: float | None) -> float:
        return self.options.timeout if timeout is None else seconds("timeout", timeout)


def _end_subscriptions(subscriptions: Iterable[Any], status: Status) -> None:
    if status is Status.CLOSED:
        for subscription in list(subscriptions):
            subscription.connection_closed()


def _warn_unclosed(
    connection_of: Callable[[], Connection | None], subscriptions: Iterable[Any], name: str, pid: int
) -> None:
    """Warn of a client that nobody has any more, and whose connection and threads are still there for nothing.

    A forked child says nothing: what it has of it belongs to the parent. Neither does one that receives still.
    """
    connection = connection_of()
    if connection is None or pid != os.getpid() or not connection.is_in_use or list(subscriptions):
        return
    what_to_do = "close() it, use `with lightlink.connect()`, or share one client for the whole program"
    warnings.warn(f"the client {name!r} was never closed: {what_to_do}", ResourceWarning, stacklevel=2)
