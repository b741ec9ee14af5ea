"""Calls of services' methods, and the services that run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, overload

from lightlink.client.base import ClientBase
from lightlink.validators import seconds

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from concurrent.futures import Future
    from typing import TypeVar

    from lightlink.protocol.codec import HeaderMap
    from lightlink.rpc.discovery import RunningService
    from lightlink.rpc.mapping import Errors
    from lightlink.rpc.proxy import ServiceProxy
    from lightlink.rpc.retry import Retry

    T = TypeVar("T")


class Calls(ClientBase):
    """A client's calls."""

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
