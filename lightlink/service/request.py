"""What a handler may ask to know about the request it answers."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import attrs

from lightlink.protocol import codec

if TYPE_CHECKING:
    from lightlink.client import Client


@attrs.frozen
class Request:
    """The request a handler answers; a parameter annotated with this class gets it.

    ``headers`` hold the last value of each name. ``deadline`` is the instant of `time.monotonic` at which the caller
    gives up, None when it did not say.
    """

    service: str
    method: str
    headers: dict[str, str]
    deadline: float | None
    client: Client = attrs.field(repr=False)

    def header_values(self, name: str) -> list[str]:
        """Return all values of a header, in the order in which they were sent; none if it is not there."""
        return codec.header_values(self.headers, name)

    def remaining(self) -> float:
        """Return the seconds left until the caller gives up; infinity when it did not say."""
        return float("inf") if self.deadline is None else max(0.0, self.deadline - time.monotonic())
