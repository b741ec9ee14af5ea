"""A bidirectional stream of a QUIC connection as an asyncio transport."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable


_log = logging.getLogger("lightlink")

# Bytes not yet sent above which a writer is paused, and below which it goes on.
_HIGH, _LOW = 256 * 1024, 64 * 1024
# Packets' content is given out together, as TLS and a socket to write to cost by the piece; bytes at a time.
_MOST_AT_ONCE = 256 * 1024


class Link(Protocol):
    """What a stream needs of the connection that it is of."""

    def extra_info(self) -> dict[str, Any]:
        """Return what is known of the connection, by asyncio's names."""
        ...

    def send(self, number: int, data: Any) -> None:
        """Send bytes on a stream."""
        ...

    def unsent(self, number: int) -> int:
        """Return how many bytes of a stream wait to be sent."""
        ...

    def finish(self, number: int) -> None:
        """Send nothing more on a stream after what waits."""
        ...

    def reset(self, number: int, code: int) -> None:
        """End a stream in both directions, with a reason."""
        ...

    def forget(self, number: int) -> None:
        """Drop a stream that has ended."""
        ...


class QuicStream(asyncio.Transport):
    """What comes before there is a protocol, or while reading is paused, is kept; so is an early end."""

    def __init__(self, link: Link, number: int) -> None:
        super().__init__()
        self.number = number
        self._link = link
        self._loop = asyncio.get_running_loop()
        self._protocol: Any = None
        self._held: deque[bytes] = deque()
        self._is_reading = True
        self._has_ended = False  # the other side sends no more
        self._end_told = False
        self._closing = False
        self._lost = False
        self._reason: Exception | None = None
        self._high, self._low = _HIGH, _LOW
        self._is_full = False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return what is known of the connection: ``socket``, ``peername``."""
        return self._link.extra_info().get(name, default)

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Have another protocol get what comes from now on, and what came before there was any."""
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
        """Whether it is closed, or about to be."""
        return self._closing

    # Reading --------------------------------------------------------------------------------------------------------

    def pause_reading(self) -> None:
        """Keep what comes until `resume_reading`."""
        self._is_reading = False

    def resume_reading(self) -> None:
        """Give out what was kept, and what comes."""
        self._is_reading = True
        self._loop.call_soon(self.deliver)

    def is_reading(self) -> bool:
        """Whether what comes is given out."""
        return self._is_reading and not self._closing

    def receive(self, data: bytes, *, is_last: bool) -> None:
        """Keep what has come from the other side for `deliver`."""
        if self._lost:
            return
        if data:
            self._held.append(data)
        self._has_ended = self._has_ended or is_last

    def deliver(self) -> None:
        """Give out what was kept, as far as the protocol takes it."""
        try:
            while self._held and self._may_deliver():
                self._protocol.data_received(self._take())
            if self._has_ended and not self._end_told and not self._held and self._may_deliver():
                self._end_told = True
                if not self._protocol.eof_received():
                    self.close()
        except Exception as exc:
            # As in asyncio's own transports: one stream's fault must not stop the others of its connection.
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
        return self._is_reading and self._protocol is not None and not self._lost

    # Writing --------------------------------------------------------------------------------------------------------

    def write(self, data: Any) -> None:
        """Send bytes, as the connection can carry them."""
        if self._closing or not data:
            return
        self._link.send(self.number, data)
        if not self._is_full and self.get_write_buffer_size() > self._high:
            self._is_full = True
            self._protocol.pause_writing()

    def writelines(self, list_of_data: Iterable[Any]) -> None:
        """Send bytes in pieces."""
        self.write(b"".join(list_of_data))

    def can_write_eof(self) -> bool:
        """Return False: a NATS connection does not end in one direction alone."""
        return False

    def get_write_buffer_size(self) -> int:
        """Return how many bytes wait to be sent."""
        return 0 if self._lost else self._link.unsent(self.number)

    def get_write_buffer_limits(self) -> tuple[int, int]:
        """Return below how many bytes a paused writer goes on, and above how many it is paused."""
        return self._low, self._high

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Change these limits."""
        self._high = _HIGH if high is None else high
        self._low = self._high // 4 if low is None else low

    def look_at_buffer(self) -> None:
        """Let a paused writer go on when enough was sent."""
        if self._is_full and not self._lost and self.get_write_buffer_size() <= self._low:
            self._is_full = False
            self._protocol.resume_writing()

    # The end --------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Send what waits, and end the stream."""
        if self._closing:
            return
        self._closing = True
        self._link.finish(self.number)
        self._loop.call_soon(self.lose, None)

    def abort(self) -> None:
        """End the stream at once; what waits is lost."""
        self.reset(0)

    def reset(self, code: int, reason: Exception | None = None) -> None:
        """End the stream at once, and tell the other side why; ``reason`` is for our own."""
        if self._lost:
            return
        self._link.reset(self.number, code)
        self.lose(reason)

    def lose(self, reason: Exception | None) -> None:
        """Take note that the stream has ended."""
        if self._lost:
            return
        self._lost = self._closing = True
        self._reason = reason
        self._held.clear()
        if self._protocol is not None:
            self._loop.call_soon(self._protocol.connection_lost, reason)
        self._link.forget(self.number)
