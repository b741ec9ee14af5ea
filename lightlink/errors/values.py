"""Values, names and settings that cannot be."""

from __future__ import annotations

from typing import Any

from lightlink.errors.base import LightLinkError


class DecodeError(LightLinkError):
    """Bytes that are not what they should be; ``start`` holds the first of them."""

    subject: str
    reason: str
    start: bytes = b""

    def __str__(self) -> str:
        return f"cannot decode the message on {self.subject!r}: {self.reason} (starts with {self.start[:40]!r})"


class EncodeError(LightLinkError, TypeError):
    """A value that JSON cannot carry."""

    what: str
    reason: str

    def __str__(self) -> str:
        return f"cannot encode {self.what} as JSON: {self.reason}"


class InvalidName(LightLinkError, ValueError):
    """A subject, key, service or client id that NATS would refuse; ``kind`` says which of them."""

    kind: str
    name: Any
    reason: str

    def __str__(self) -> str:
        return f"invalid {self.kind} {self.name!r}: {self.reason}"


class InvalidOption(LightLinkError, ValueError):
    """A setting that cannot be; ``value`` is left out for secrets."""

    option: str
    reason: str
    value: Any = None

    def __str__(self) -> str:
        value = "" if self.value is None else f" {self.value!r}"
        return f"invalid {self.option}{value}: {self.reason}"


class UnsupportedSchema(LightLinkError):
    """A schema that a service announces and that no Python type says; ``where`` is the part of it."""

    service: str
    where: str
    reason: str

    def __str__(self) -> str:
        return f"{self.service}.{self.where}: {self.reason}"


class PayloadTooLarge(LightLinkError, ValueError):
    """A payload over the server's limit; both in bytes."""

    subject: str
    size: int
    limit: int

    def __str__(self) -> str:
        return f"the payload for {self.subject!r} has {self.size} bytes; the server takes at most {self.limit}"
