"""What goes wrong with durable events, and what their handlers raise."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lightlink.errors.base import LightLinkError

if TYPE_CHECKING:
    from collections.abc import Mapping


class NotStored(LightLinkError):
    """An event was not stored; ``unknown`` says that it may be all the same, since no answer came."""

    subject: str
    reason: str
    unknown: bool = False

    def __str__(self) -> str:
        doubt = "; it may be all the same" if self.unknown else ""
        return f"{self.subject!r} was not stored: {self.reason}{doubt}"


class StreamError(LightLinkError):
    """An operation on a stream, or on a consumer of it, failed; ``reason`` says why."""

    name: str
    operation: str
    reason: str

    def __str__(self) -> str:
        return f"cannot {self.operation} {self.name!r}: {self.reason}"


class StreamNotFound(StreamError):
    """There is no such stream, or no such consumer."""

    name: str
    operation: str = "find"
    reason: str = "there is none"


class Reject(LightLinkError):
    """Raised by the handler of a durable event that can never be handled: it becomes a dead letter at once."""


class Later(LightLinkError):
    """Raised by the handler of a durable event that cannot be handled yet; no failure. ``delay`` in seconds."""

    delay: float

    def __str__(self) -> str:
        return f"again in {self.delay:g} s"


class BatchFailed(LightLinkError):
    """Raised by the handler of a batch of which some have failed; ``errors`` by their place in the batch."""

    errors: Mapping[int, Exception]

    def __str__(self) -> str:
        return f"{len(self.errors)} of a batch failed: {next(iter(self.errors.values()), '')}"
