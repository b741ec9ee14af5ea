"""A remote service as an object: its methods are called like functions, and explain themselves when they are asked."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import attrs

from lightlink import describe
from lightlink.connection.connection import NoReply
from lightlink.describe import Description
from lightlink.errors import CallTimeout, LightLinkError, ServiceUnavailable
from lightlink.protocol import codec, subjects
from lightlink.rpc.discovery import MethodInfo, MethodStats, RunningService, find_services
from lightlink.validators import seconds

if TYPE_CHECKING:
    import inspect

    from lightlink.connection.connection import Connection
    from lightlink.protocol.codec import HeaderMap
    from lightlink.rpc.caller import Caller
    from lightlink.rpc.retry import Retry

_OWN = ("info", "ping", "stats")
# How long completion and help wait for a service to tell of its methods.
_LEARN_SECONDS = 1.0


class ServiceProxy:
    """A remote service whose methods are called like functions: ``client.service("math").add(a=1, b=2)``.

    `dir`, completion and `help` know its methods: they ask the service, once. `info`, `stats` and `ping` are the
    proxy's own; a method that is called so is ``proxy["info"]``.
    """

    def __init__(
        self,
        caller: Caller,
        connection: Connection,
        service: str,
        timeout: float | None = None,
        retry: Retry | None = None,
        headers: HeaderMap | None = None,
    ) -> None:
        # One attribute and three methods: every other name is the service's.
        self._remote = RemoteService(caller, connection, service, timeout, retry, headers)

    def __getattr__(self, method: str) -> RemoteMethod:
        if method.startswith("__"):
            raise AttributeError(method)
        return self[method]

    def __getitem__(self, method: str) -> RemoteMethod:
        return RemoteMethod(self._remote, subjects.method_name(method))

    def __dir__(self) -> list[str]:
        return sorted({*_OWN, *self._remote.methods()})

    def __repr__(self) -> str:
        return f"ServiceProxy({self._remote.name!r})"

    def info(self, *, timeout: float | None = None) -> RunningService:
        """Return what runs under this name: instances, methods with signature and docstring, request counts.

        Raises ServiceUnavailable when nothing has answered within ``timeout`` seconds, and the errors of `Client.call`.
        """
        return self._remote.info(timeout)

    def stats(self, *, timeout: float | None = None) -> dict[str, MethodStats]:
        """Return what each method has done, on all instances together; raises the errors of `info`."""
        return {name: method.stats for name, method in self._remote.info(timeout).methods.items()}

    def ping(self, *, timeout: float | None = None) -> float:
        """Return the seconds that one instance took to give a sign of life.

        Raises CallTimeout, ServiceUnavailable, ClosedError.
        """
        return self._remote.ping(timeout)


class RemoteService:
    """What a proxy and its methods share: how calls are made, and what is known of the service."""

    def __init__(
        self,
        caller: Caller,
        connection: Connection,
        service: str,
        timeout: float | None,
        retry: Retry | None,
        headers: HeaderMap | None,
    ) -> None:
        self.name = subjects.service_name(service)
        self._caller = caller
        self._connection = connection
        self._timeout = timeout
        self._retry = retry
        self._headers = headers
        self._known: dict[str, MethodInfo] | None = None

    def call(self, method: str, arguments: dict[str, Any]) -> Any:
        """Call a method; see `Client.call`."""
        return self._caller.call(self.name, method, arguments, self._timeout, Any, self._retry, self._headers)

    def methods(self) -> dict[str, MethodInfo]:
        """Return what is known of the methods; it is asked once, and nothing is known while the service is not there.

        It is for those who look: on the way of a call nothing is asked.
        """
        if self._known is None:
            try:
                self._known = self.info(_LEARN_SECONDS).methods
            except LightLinkError:
                return {}
        return self._known

    def info(self, timeout: float | None) -> RunningService:
        """Return what runs under this name; see `ServiceProxy.info`."""
        limit = self._limit(timeout)
        found = find_services(self._connection, self.name, limit)
        if not found:
            raise ServiceUnavailable(self.name, "info", "no instance tells of itself")
        return completed(self._caller, found[0], limit)

    def ping(self, timeout: float | None) -> float:
        """Ask one instance for a sign of life; see `ServiceProxy.ping`."""
        limit = self._limit(timeout)
        started = time.monotonic()
        try:
            waiter = self._connection.request(subjects.discovery_subject("PING", self.name).encode(), b"", limit)
        except NoReply:
            raise CallTimeout(self.name, "ping", limit) from None
        if codec.is_no_responders(waiter.data, waiter.headers):
            raise ServiceUnavailable(self.name, "ping")
        return time.monotonic() - started

    def _limit(self, timeout: float | None) -> float:
        chosen = self._timeout if timeout is None else timeout
        return self._connection.options.timeout if chosen is None else seconds("timeout", chosen)


class RemoteMethod:
    """A method of a remote service; calling it calls the service. Its docstring and signature are the service's."""

    __slots__ = ("__name__", "_remote")

    def __init__(self, remote: RemoteService, name: str) -> None:
        self._remote = remote
        self.__name__ = name

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the method; each argument has a name."""
        if args:
            raise TypeError(f"{self._remote.name}.{self.__name__}: give each argument by name")
        return self._remote.call(self.__name__, kwargs)

    def __getattr__(self, name: str) -> RemoteMethod:
        """Return the method of a dotted name: ``proxy.backup.create()`` calls ``backup.create``."""
        if name.startswith("_"):
            raise AttributeError(name)
        return RemoteMethod(self._remote, subjects.method_name(f"{self.__name__}.{name}"))

    @property
    def __doc__(self) -> str:  # type: ignore[override]
        """What the service says of it."""
        told = self._description
        return f"{self._remote.name}.{self.__name__}{told.signature()}\n\n{told.text}".rstrip()

    @property
    def __signature__(self) -> inspect.Signature:
        return self._description.signature()

    @property
    def _description(self) -> Description:
        known = self._remote.methods().get(self.__name__)
        return Description() if known is None else known.description

    def __repr__(self) -> str:
        return f"<remote method {self._remote.name}.{self.__name__}>"


def completed(caller: Caller, service: RunningService, timeout: float) -> RunningService:
    """Return a service with what its INFO had no room for: there it tells digests alone."""
    if not any(each.description.digest and not each.description.arguments for each in service.methods.values()):
        return service
    try:
        told = caller.call(service.name, describe.DESCRIBE_METHOD, {}, timeout, dict[str, dict[str, Any]])
    except LightLinkError:
        return service  # what is known is worth more than an error
    methods = {
        name: attrs.evolve(each, description=describe.read(told[name])) if name in told else each
        for name, each in service.methods.items()
    }
    return attrs.evolve(service, methods=methods)
