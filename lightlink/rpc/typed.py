"""What a client that `lightlink stub` has written stands on."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from msgspec import UNSET, UnsetType

from lightlink.errors import LightLinkError

if TYPE_CHECKING:
    from lightlink.client import Client
    from lightlink.protocol.codec import HeaderMap
    from lightlink.rpc.retry import Retry

__all__ = ["UNSET", "StubWarning", "TypedService", "UnsetType"]

# How long the first call waits for the service to tell what it is.
_ASK_SECONDS = 1.0


class StubWarning(UserWarning):
    """A service is not the one that a typed client was written for."""


class TypedService:
    """A service as a typed client calls it; what is wrong with the client's age is said once, at its first call."""

    def __init__(
        self,
        client: Client,
        name: str,
        digest: str,
        *,
        timeout: float | None = None,
        retry: Retry | None = None,
        headers: HeaderMap | None = None,
    ) -> None:
        self._client = client
        self._name = name
        self._digest = digest
        self._timeout = timeout
        self._retry = retry
        self._headers = headers
        self._is_checked = False

    def call(self, method: str, arguments: dict[str, Any]) -> Any:
        """Call a method; arguments that are UNSET are left out. Raises the errors of `Client.call`."""
        if not self._is_checked:
            self._is_checked = True
            self._check()
        given = {name: value for name, value in arguments.items() if value is not UNSET}
        return self._client.call(
            self._name, method, given, timeout=self._timeout, retry=self._retry, headers=self._headers
        )

    def _check(self) -> None:
        """Warn when the service announces other methods, or other types, than the client was written for."""
        try:
            found = self._client.services(self._name, expect=1, timeout=_ASK_SECONDS)
        except LightLinkError:
            return  # the call itself says what is wrong
        digest = found[0].digest if found else ""
        if digest and digest != self._digest:
            warnings.warn(
                f"the service {self._name} is not the one that this client was written for (digest {digest}, not "
                f"{self._digest}): run `lightlink stub {self._name}` again",
                StubWarning,
                stacklevel=4,
            )
