"""Run a service's handlers in the caller's own thread, without a server: for tests of what they do."""

from __future__ import annotations

from contextvars import Context
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, overload

from lightlink import logs
from lightlink.errors import InvalidOption, NotReady
from lightlink.events.message import EventHandler
from lightlink.middleware import Call, run
from lightlink.protocol import codec, subjects
from lightlink.protocol.ids import new_id
from lightlink.protocol.subjects import as_text, matches
from lightlink.rpc.results import read_result
from lightlink.validators import seconds

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lightlink.client import Client
    from lightlink.middleware import Middleware
    from lightlink.protocol.codec import HeaderMap
    from lightlink.service.dispatch import Dispatcher

    T = TypeVar("T")

_INBOX = b"_INBOX.test_client"


class ServiceTestClient:
    """Calls the methods of a service that is not started, and gives its handlers events; see `Service.test_client`.

    Arguments, results, headers, errors and middleware go the way that they go over a server: as JSON, through the same
    binding. Nothing is in between: no queue, no deadline that passes, no other thread.
    """

    def __init__(
        self,
        service: str,
        calls: Dispatcher,
        events: Sequence[tuple[str, Callable[[Any], object], str | None, bool]],
        middleware: tuple[Middleware, ...],
        lend: Callable[[], None],
    ) -> None:
        self._service = service
        self._calls = calls
        self._events = events
        self._middleware = middleware
        # What is registered later, or called by another test client before, changes nothing here.
        self._lend = lend

    @overload
    def call(
        self,
        method: str,
        args: Any = ...,
        *,
        returns: type[T],
        headers: HeaderMap | None = ...,
        timeout: float | None = ...,
    ) -> T: ...
    @overload
    def call(
        self,
        method: str,
        args: Any = ...,
        *,
        returns: Any = ...,
        headers: HeaderMap | None = ...,
        timeout: float | None = ...,
    ) -> Any: ...
    def call(
        self,
        method: str,
        args: Any = None,
        *,
        returns: Any = Any,
        headers: HeaderMap | None = None,
        timeout: float | None = None,
    ) -> Any:
        """Call a method in this thread and return its result; raises the errors that `Client.call` would.

        ``timeout`` is what `Request.remaining` begins with.
        """
        try:
            read = codec.decoder(returns)
        except TypeError as exc:
            raise InvalidOption("returns", f"cannot be converted to: {exc}", returns) from exc
        subject = subjects.call_subject(self._service, method)
        request_id = new_id()
        data = codec.encode_request(request_id, method, {} if args is None else args)
        self._lend()
        body = self._calls.answer_here(subject, _INBOX, data, _block(headers, timeout))
        return read_result(self._service, method, request_id, as_text(subject), body, None, read)

    def publish(self, subject: str, data: Any = None, *, headers: HeaderMap | None = None) -> int:
        """Give an event to every handler of the service for it, in this thread, and return how many there were.

        An exception of a handler is raised here. Raises InvalidName, EncodeError.
        """
        name = subjects.publish_subject(subject)
        arrival = (name, b"", codec.encode(data, "the message for", subject), _block(headers, None))
        found = [EventHandler(handler, raw) for pattern, handler, _, raw in self._events if matches(pattern, subject)]
        self._lend()
        for handler in found:
            Context().run(self._handle, handler, arrival)
        return len(found)

    def _handle(self, handler: EventHandler, arrival: tuple[bytes, bytes, bytes, bytes | None]) -> None:
        logs.enter({"service": self._service}, arrival[3], arrival[0])
        message = handler.read(arrival)
        call = Call(kind="event", name=message.subject, args=message.data, headers=message.headers, message=message)
        run(self._middleware, call, lambda given: handler.handle(message, given.args))

    def __repr__(self) -> str:
        return f"<ServiceTestClient of {self._service!r}>"


class NoClient:
    """Stands for the client of a service that has none: every use of it says so."""

    def __init__(self, service: str) -> None:
        self.__service = service

    def __getattr__(self, name: str) -> NoReturn:
        raise NotReady(
            f"the client of service {self.__service!r}",
            f"is not there for {name!r}: test_client(client=...) gives it one",
        )


def no_client(service: str) -> Client:
    """Return what handlers get as their client in a test without one."""
    return NoClient(service)  # type: ignore[return-value]


def _block(headers: HeaderMap | None, timeout: float | None) -> bytes | None:
    given = dict(logs.outgoing(headers) or {})
    if timeout is not None:
        given[codec.TIMEOUT_HEADER] = str(max(1, int(seconds("timeout", timeout) * 1000)))
    return codec.encode_headers(codec.checked_headers(given)) if given else None
