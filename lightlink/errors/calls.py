"""What goes wrong with a call."""

from __future__ import annotations

from lightlink.errors.base import LightLinkError


class CallError(LightLinkError):
    """A call did not bring back a result."""


class CallTimeout(CallError, TimeoutError):
    """No answer came in time. The call may have run."""

    service: str
    method: str
    timeout: float

    def __str__(self) -> str:
        return f"{self.service}.{self.method} did not answer within {self.timeout:g} s; it may have run"


class ServiceUnavailable(CallError):
    """Nobody serves the service, or there was no connection. The call did not run."""

    service: str
    method: str
    reason: str = "nobody serves it (no responders)"

    def __str__(self) -> str:
        return f"{self.service}.{self.method} is unavailable: {self.reason}"


class RemoteError(CallError):
    """The service answered with an error: ``code`` tells which, ``message`` is the service's own text."""

    service: str
    method: str
    code: str
    message: str

    def __str__(self) -> str:
        # The text a service sends names the method for whoever sees nothing else; once is enough here.
        return f"{self.service}.{self.method}: {self.message.removeprefix(f'{self.method}: ')}"


class MethodNotFound(RemoteError):
    """The service has no such method."""


class InvalidRequest(RemoteError):
    """The service could not read the request."""


class InvalidArguments(RemoteError):
    """An argument is missing, unknown or of the wrong type; the message names it."""


class ServiceBusy(RemoteError):
    """The service holds as many requests as it may. The call did not run."""


class DeadlineExceeded(RemoteError):
    """The request waited in the service's queue past the caller's deadline. The call did not run."""


class HandlerError(RemoteError):
    """The handler raised; the message is its exception's type and text."""
