"""What goes wrong with a connection, and with what is published on it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lightlink.errors.base import LightLinkError

if TYPE_CHECKING:
    from collections.abc import Sequence


class ConnectError(LightLinkError):
    """No server could be reached within the limit.

    ``tried`` holds one (server, reason) pair for each attempt, ``timeout`` the limit in seconds.
    """

    tried: Sequence[tuple[str, str]]
    timeout: float

    def __str__(self) -> str:
        attempts = "; ".join(f"{server}: {reason}" for server, reason in self.tried) or "no server was tried"
        return f"could not connect to NATS within {self.timeout:g} s ({attempts})"

    @property
    def servers(self) -> list[str]:
        """The servers tried, in order."""
        return [server for server, _ in self.tried]


class AuthenticationError(ConnectError):
    """The server refused this identity, TLS failed, or our certificate or key is not fit."""

    def __str__(self) -> str:
        attempts = "; ".join(f"{server}: {reason}" for server, reason in self.tried)
        return f"could not authenticate with NATS ({attempts})"


class ClosedError(LightLinkError, RuntimeError):
    """The object was used after close, or a blocking method was called from the loop's own thread."""

    what: str
    reason: str = "is closed"

    def __str__(self) -> str:
        return f"{self.what} {self.reason}"


class ResourceExhausted(LightLinkError):
    """This process may have no more threads, open files or memory; ``reason`` is what the system said."""

    operation: str
    reason: str

    def __str__(self) -> str:
        return f"{self.operation} failed: {self.reason} (see the limits of this process: ulimit -a)"


class NotReady(LightLinkError, RuntimeError):
    """Something was asked for at a stage of a lifecycle at which it cannot be done."""

    what: str
    reason: str

    def __str__(self) -> str:
        return f"{self.what} {self.reason}"


class PermissionDenied(LightLinkError):
    """The server's permissions refuse this identity a subject; ``operation`` is publish or subscribe.

    ``identity`` is its name, and ``grant`` what `lightlink certs issue` would allow it by, where these are known.
    """

    operation: str
    subject: str
    identity: str = ""
    grant: str = ""

    def __str__(self) -> str:
        who = f"{self.identity!r}" if self.identity else "this identity"
        how = f" (lightlink certs issue {self.grant})" if self.grant else ""
        return f"permission denied: {who} may not {self.operation} to {self.subject!r}{how}"


class OutboxFull(LightLinkError, TimeoutError):
    """Messages were published faster than the server takes them, for longer than the publisher would wait."""

    messages: int
    size: int
    timeout: float

    def __str__(self) -> str:
        return (
            f"the outbox is full ({self.messages} messages, {self.size} bytes wait for the server) "
            f"and did not drain within {self.timeout:g} s; the message was not published"
        )


class FlushTimeout(LightLinkError, TimeoutError):
    """The server did not confirm within ``timeout`` seconds that it has everything published so far."""

    timeout: float
    status: str

    def __str__(self) -> str:
        return f"flush was not confirmed within {self.timeout:g} s (connection is {self.status})"


class DeliveryUnknown(LightLinkError):
    """The connection was lost with messages on it that no flush had confirmed: the server may not have had them.

    It is raised once, by the next flush; what was published after the loss has arrived.
    """

    messages: int

    def __str__(self) -> str:
        return (
            f"the connection was lost meanwhile; {self.messages} messages that had left and that no flush had "
            "confirmed may not have arrived"
        )


class NoMessage(LightLinkError, TimeoutError):
    """No message came on a subscription within ``timeout`` seconds."""

    subject: str
    timeout: float

    def __str__(self) -> str:
        return f"no message on {self.subject!r} within {self.timeout:g} s"


class LinkError(LightLinkError):
    """NATS refused or failed an operation; ``reason`` is what it said."""

    operation: str
    reason: str

    def __str__(self) -> str:
        return f"{self.operation} failed: {self.reason}"


class ServerError(LightLinkError):
    """The embedded nats-server could not be found, started or used."""

    reason: str

    def __str__(self) -> str:
        return self.reason
