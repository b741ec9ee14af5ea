"""What a handler may ask to know about the request it answers."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from lightlink.client import Client


@attrs.frozen
class Request:
    """The request a handler answers; a parameter annotated with this class gets it.

    ``deadline`` is the instant of `time.monotonic` at which the caller gives up, None when it did not say.
    """

    service: str
    method: str
    headers: dict[str, str]
    deadline: float | None
    client: Client = attrs.field(repr=False)

    def remaining(self) -> float:
        """Return the seconds left until the caller gives up; infinity when it did not say."""
        return float("inf") if self.deadline is None else max(0.0, self.deadline - time.monotonic())
