"""A bidirectional stream of a QUIC connection as an asyncio transport."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable


_log = logging.getLogger("lightlink")

# Unsent bytes above which a writer is paused, and below which it resumes.
_HIGH, _LOW = 256 * 1024, 64 * 1024
# Deliver up to this many bytes at once: TLS and socket writes cost per call.
_MOST_AT_ONCE = 256 * 1024


class Link(Protocol):
    """What a stream needs of its connection."""

    def extra_info(self) -> dict[str, Any]:
        """Return connection information by asyncio's names."""
        ...

    def send(self, number: int, data: Any) -> None:
        """Send bytes on a stream."""
        ...

    def unsent(self, number: int) -> int:
        """Return the number of unsent bytes of a stream."""
        ...

    def finish(self, number: int) -> None:
        """Send FIN after the queued data of a stream."""
        ...

    def reset(self, number: int, code: int) -> None:
        """Reset a stream in both directions, with a reason."""
        ...

    def forget(self, number: int) -> None:
        """Remove an ended stream."""
        ...


class QuicStream(asyncio.Transport):
    """A stream. Data and end of file received before there is a protocol, or while paused, are buffered."""

    def __init__(self, link: Link, number: int) -> None:
        super().__init__()
        self.number = number
        self._link = link
        self._loop = asyncio.get_running_loop()
        self._protocol: Any = None
        self._held: deque[bytes] = deque()
        self._is_reading = True
        self._has_ended = False  # the peer has sent FIN
        self._end_told = False
        self._closing = False
        self._lost = False
        self._reason: Exception | None = None
        self._high, self._low = _HIGH, _LOW
        self._is_full = False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return connection information: ``socket``, ``peername``."""
        return self._link.extra_info().get(name, default)

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Deliver to another protocol from now on, beginning with what is buffered."""
        self._protocol = protocol
        if self._lost:
            self._loop.call_soon(protocol.connection_lost, self._reason)
        elif self._held or self._has_ended:
            self._loop.call_soon(self.deliver)

    def get_protocol(self) -> asyncio.BaseProtocol:
        """Return the protocol."""
        protocol: asyncio.BaseProtocol = self._protocol
        return protocol

    def is_closing(self) -> bool:
        """Whether it is closed or closing."""
        return self._closing

    # Reading --------------------------------------------------------------------------------------------------------

    def pause_reading(self) -> None:
        """Buffer received data until `resume_reading`."""
        self._is_reading = False

    def resume_reading(self) -> None:
        """Deliver buffered and new data."""
        self._is_reading = True
        self._loop.call_soon(self.deliver)

    def is_reading(self) -> bool:
        """Whether received data is delivered."""
        return self._is_reading and not self._closing

    def receive(self, data: bytes, *, is_last: bool) -> None:
        """Buffer data from the peer for `deliver`."""
        if self._lost:
            return
        if data:
            self._held.append(data)
        self._has_ended = self._has_ended or is_last

    def deliver(self) -> None:
        """Deliver buffered data as far as the protocol accepts it."""
        try:
            while self._held and self._may_deliver():
                self._protocol.data_received(self._take())
            if self._has_ended and not self._end_told and not self._held and self._may_deliver():
                self._end_told = True
                if not self._protocol.eof_received():
                    self.close()
        except Exception as exc:
            # As in asyncio's transports: a protocol's exception must not affect other streams.
            _log.exception("lightlink: a QUIC stream's protocol failed")
            self.reset(0, exc)

    def _take(self) -> bytes:
        first = self._held.popleft()
        if not self._held:
            return first
        pieces, size = [first], len(first)
        while self._held and size < _MOST_AT_ONCE:
            pieces.append(self._held.popleft())
            size += len(pieces[-1])
        return b"".join(pieces)

    def _may_deliver(self) -> bool:
        # What comes once it is closed nobody wants, as with asyncio's own transports.
        return self._is_reading and self._protocol is not None and not self._closing

    # Writing --------------------------------------------------------------------------------------------------------

    def write(self, data: Any) -> None:
        """Send bytes as fast as the connection allows."""
        if self._closing or not data:
            return
        self._link.send(self.number, data)
        if not self._is_full and self.get_write_buffer_size() > self._high:
            self._is_full = True
            self._protocol.pause_writing()

    def writelines(self, list_of_data: Iterable[Any]) -> None:
        """Send a list of buffers."""
        self.write(b"".join(list_of_data))

    def can_write_eof(self) -> bool:
        """Return False: NATS has no half-closed connections."""
        return False

    def get_write_buffer_size(self) -> int:
        """Return the number of bytes waiting to be sent."""
        return 0 if self._lost else self._link.unsent(self.number)

    def get_write_buffer_limits(self) -> tuple[int, int]:
        """Return the low and high limits of the write buffer in bytes."""
        return self._low, self._high

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Set these limits."""
        self._high = _HIGH if high is None else high
        self._low = self._high // 4 if low is None else low

    def look_at_buffer(self) -> None:
        """Resume a paused writer once the buffer is below the low limit."""
        if self._is_full and not self._lost and self.get_write_buffer_size() <= self._low:
            self._is_full = False
            self._protocol.resume_writing()

    # The end --------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Flush and close the stream."""
        if self._closing:
            return
        self._closing = True
        self._link.finish(self.number)
        self._loop.call_soon(self.lose, None)

    def abort(self) -> None:
        """Close the stream at once, discarding buffered data."""
        self.reset(0)

    def reset(self, code: int, reason: Exception | None = None) -> None:
        """Reset the stream with a code for the peer; ``reason`` is for our protocol."""
        if self._lost:
            return
        self._link.reset(self.number, code)
        self.lose(reason)

    def lose(self, reason: Exception | None) -> None:
        """Handle the end of the stream."""
        if self._lost:
            return
        self._lost = self._closing = True
        self._reason = reason
        self._held.clear()
        if self._protocol is not None:
            self._loop.call_soon(self._protocol.connection_lost, reason)
        self._link.forget(self.number)
