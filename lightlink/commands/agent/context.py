"""What a command's handler may ask to know and to say."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from lightlink.commands.model import Progress, RequestRecord
from lightlink.commands.store import checks
from lightlink.concurrency.deadline import instant_after
from lightlink.concurrency.threads import Event
from lightlink.errors import InvalidOption, LightLinkError
from lightlink.jetstream.api import TTL
from lightlink.protocol import codec, subjects

if TYPE_CHECKING:
    from lightlink.connection.connection import Connection

_log = logging.getLogger("lightlink")

_MAX_NOTE = 4096
# In place of the last progress, for a second: the least that a server takes (ADR-43).
_GONE = codec.encode_headers({TTL: "1s"})


class Cancelled(Exception):
    """Raised by `CommandContext.check` in a handler whose command was cancelled or ran out of time."""


class CommandContext:
    """The command a handler runs; a parameter annotated with this class gets it.

    ``cancelled`` is an event, set when the command is cancelled or overdue, or its agent has to leave. ``attempt``
    counts from 1; ``deadline`` is an instant of `time.monotonic`; ``headers`` are the sender's, with the last value of
    each name.
    """

    def __init__(self, request: RequestRecord, connection: Connection) -> None:
        self.command_id = request.command_id
        self.client_id = request.client_id
        self.command_type = request.command_type
        self.headers: dict[str, str] = codec.Headers(request.headers or {})
        self.attempt = 1
        self.cancelled = Event()
        left = (request.deadline - connection.clock.now()).total_seconds()
        self.deadline = instant_after(left)
        self._connection = connection
        self._has_told = False
        self._subject = subjects.command_progress(request.client_id, request.command_id).encode()

    def header_values(self, name: str) -> list[str]:
        """Return all values of a header, in the order in which they were given; none if it is not there."""
        return codec.header_values(self.headers, name)

    @property
    def max_payload(self) -> int:
        """How many bytes the server takes in one message."""
        return self._connection.max_payload

    def remaining(self) -> float:
        """Return the seconds left until the command is overdue."""
        return max(0.0, self.deadline - time.monotonic())

    def progress(self, fraction: float, note: str = "") -> None:
        """Tell how far the command has come, from 0 to 1; the last is kept for others to see while it runs.

        A ``note`` of more than 4,096 characters is cut. It goes out without an acknowledgement, and may be lost.
        """
        if not isinstance(fraction, (int, float)) or not 0 <= fraction <= 1:
            raise InvalidOption("progress", "must be from 0 to 1", fraction)
        checks.text("note", note, may_be_empty=True)
        self._has_told = True
        self._connection.publish(self._subject, codec.encode_json(Progress(float(fraction), note[:_MAX_NOTE])))

    def forget_progress(self) -> None:
        """Have what was told removed: the command has ended. For use inside the library."""
        if not self._has_told:
            return
        try:
            self._connection.publish(self._subject, b"", headers=_GONE, timeout=0.0)
        except LightLinkError as exc:
            _log.debug("lightlink: the progress of %s stays until it ages: %s", self.command_id, exc)

    def check(self) -> None:
        """Raise Cancelled if the command was cancelled or is overdue: a place for the handler to end."""
        if self.cancelled.is_set():
            raise Cancelled(self.command_id)
