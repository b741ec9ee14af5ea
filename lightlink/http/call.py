"""One request under way, and what its view needs."""

from __future__ import annotations

import logging
import socket
import ssl
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import attrs
from werkzeug.datastructures import WWWAuthenticate
from werkzeug.exceptions import Forbidden, ServiceUnavailable, Unauthorized

from lightlink.concurrency.deadline import Deadline
from lightlink.connection.session import Status
from lightlink.errors import StoreUnavailable
from lightlink.http.limits import slices

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from werkzeug.wrappers import Request

    from lightlink.commands.manager.manager import CommandManager
    from lightlink.commands.model import Command
    from lightlink.commands.processes import Managers
    from lightlink.concurrency.threads import Event
    from lightlink.http.access import Token, TokenSource
    from lightlink.http.limits import Limits, WaitingRoom
    from lightlink.http.metrics import Metrics
    from lightlink.http.recent import Recent

T = TypeVar("T")

_log = logging.getLogger("lightlink")

# What carries the app may have in the environ a function that returns what a source of tokens runs within.
CONTEXT = "lightlink.context"
# How long a request waits for a lost connection to come back before it is refused.
_RECONNECT_SECONDS = 1.0
# How soon a wait notices that its client is gone or the server stops. A result wakes it at once.
_LOOK_SECONDS = 0.5


class Application(Protocol):
    """What the views need of the app."""

    managers: Managers
    tokens: TokenSource | None
    limits: Limits
    room: WaitingRoom
    metrics: Metrics
    recent: Recent
    stopping: Event

    def document(self, base: str) -> dict[str, Any]:
        """Return the OpenAPI document."""
        ...

    def identify(self, request: Request) -> Token | None:
        """Return whose request it is, None for a stranger's."""
        ...

    def count_stranger(self) -> None:
        """Count a request of somebody without a good token; raises TooManyRequests."""
        ...


@attrs.define
class Call:
    """A request that was let in: ``token`` says who asks, ``path`` holds the parts of the URL.

    ``query`` and ``body`` are of the types that the route names.
    """

    app: Application
    request: Request
    token: Token | None
    path: dict[str, str]
    query: Any = None
    body: Any = None
    _good_until: Deadline = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._good_until = Deadline(self.app.limits.heartbeat)

    @property
    def manager(self) -> CommandManager:
        """The manager of this process, connected; raises StoreUnavailable, ConnectError."""
        manager = self.app.managers.get()
        connection = manager.connection
        if connection.status is not Status.CONNECTED and not connection.wait_connected(_RECONNECT_SECONDS):
            raise StoreUnavailable("reaching NATS", f"the connection is {connection.status.value}")
        return manager

    @property
    def issued_by(self) -> str | None:
        """Who asks, for the record; None leaves it to the manager."""
        return None if self.token is None else self.token.name

    # What the token is good for -------------------------------------------------------------------------------------

    def may_address(self, client_id: str) -> bool:
        """Tell whether the token is good for an agent."""
        return self.token is None or self.token.may_address(client_id)

    def may_see(self, command: Command) -> bool:
        """Tell whether the token is good for a command."""
        token = self.token
        return token is None or (token.may_address(command.client_id) and token.may_use(command.command_type))

    def check(self, client_id: str | None = None, command_type: str | None = None) -> None:
        """Raise Forbidden unless the token is good for an agent and a type."""
        token = self.token
        if token is None:
            return
        if client_id is not None and not token.may_address(client_id):
            raise Forbidden(f"token {token.name!r} is not good for client {client_id!r}")
        if command_type is not None and not token.may_use(command_type):
            raise Forbidden(f"token {token.name!r} is not good for type {command_type!r}")

    def check_all(self) -> None:
        """Raise Forbidden unless the token is good for every agent."""
        if self.token is not None and not self.token.addresses_all:
            raise Forbidden(f"token {self.token.name!r} is not good for all clients")

    def check_unlimited(self, what: str) -> None:
        """Raise Forbidden unless the token is good for every agent and every type."""
        if self.token is not None and self.token.is_limited:
            raise Forbidden(f"token {self.token.name!r} is not good for all clients and types, of which {what} tell")

    def recheck(self) -> None:
        """Raise Unauthorized when the token is not what it was, or the session has ended; look once in a heartbeat."""
        if self.token is None or not self._good_until.is_over:
            return
        self._good_until = Deadline(self.app.limits.heartbeat)
        try:
            with self.request.environ.get(CONTEXT, nullcontext)():
                found = self.app.identify(self.request)
        except Exception:
            _log.exception("lightlink: whether token %r is good still cannot be told, so it is not", self.token.name)
            found = None
        if found != self.token:
            raise unauthorized(f"token {self.token.name!r} is not good any more, or has changed")

    # Waiting --------------------------------------------------------------------------------------------------------

    def take_seat(self) -> None:
        """Count this request as waiting; raises ServiceUnavailable when too many wait already."""
        if not self.app.room.enter():
            raise ServiceUnavailable(f"{self.app.room.size} requests wait already; try again later", retry_after=1)

    @contextmanager
    def seat(self) -> Iterator[None]:
        """Count this request as waiting for as long as the block runs."""
        self.take_seat()
        try:
            yield
        finally:
            self.app.room.leave()

    def wait(self, seconds: float, look: Callable[[float], T | None]) -> T | None:
        """Return what ``look(seconds)`` returns once that is not None.

        None after ``seconds``, or as soon as nobody waits any more.
        """
        with self.seat():
            return self.wait_seated(seconds, look)

    def wait_seated(self, seconds: float, look: Callable[[float], T | None]) -> T | None:
        """Wait as `wait` does, in a seat that was taken before."""
        for length in slices(seconds, _LOOK_SECONDS):
            found = look(length)
            if found is not None:
                return found
            if self.is_pointless():
                break
        return None

    def is_pointless(self) -> bool:
        """Tell whether the client is gone, as far as the WSGI server lets one know, or the server stops."""
        return self.app.stopping.is_set() or _has_hung_up(self.request.environ)


def unauthorized(reason: str) -> Unauthorized:
    """Return the HTTP error 401, with what to bring instead."""
    # A realm is in quotes, always (RFC 9110, section 11.5).
    return Unauthorized(reason, www_authenticate=WWWAuthenticate("bearer", token='realm="lightlink"'))


def _has_hung_up(environ: Mapping[str, Any]) -> bool:
    told = environ.get("waitress.client_disconnected")
    if told is not None:
        return bool(told())
    connection = environ.get("gunicorn.socket") or environ.get("werkzeug.socket")
    # Under TLS one cannot look without reading.
    if not isinstance(connection, socket.socket) or isinstance(connection, ssl.SSLSocket):
        return False
    try:
        return not connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except (BlockingIOError, InterruptedError):
        return False
    except OSError:
        return True
