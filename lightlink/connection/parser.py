"""The parser of what the server sends: messages are cut out of the bytes as they came, the rest is nats-py's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nats.errors import ProtocolError
from nats.protocol.parser import Parser

if TYPE_CHECKING:
    from collections.abc import Callable

    # (subscription id, subject, reply subject, payload, header block); False: it is to be delivered otherwise.
    Deliver = Callable[[int, bytes, bytes, bytes, "bytes | None"], bool]

_MESSAGE = b"MH"  # how the lines of messages begin: MSG <subject> <sid> [reply] <size>
_WITH_HEADERS = b"H"[0]  # HMSG <subject> <sid> [reply] <size of the headers> <size of all>
# No server says as much in a line (the longest is an INFO, with the addresses of a cluster), or in a message: its own
# limit is a number of 32 bits. What claims to be longer would only be held for ever.
_MOST_IN_LINE = 1024 * 1024
_MOST_IN_MESSAGE = 2**31


class WireParser(Parser):
    """nats-py's parser, except that a message costs neither regular expressions nor a copy of all that follows it.

    ``deliver`` is given each message; one that it does not take goes to ``nc._process_msg``, as with nats-py. After
    the messages of each read ``end_read`` is called.
    """

    def __init__(self, nc: Any, deliver: Deliver, end_read: Callable[[], object]) -> None:
        self._deliver = deliver
        self._end_read = end_read
        # A message whose end has not come, in pieces; how much of it is there, and how much is worth another look.
        self._held: list[bytes] = []
        self._length = 0
        self._wanted = 0
        self._resets = 0
        super().__init__(nc)

    def reset(self) -> None:
        """Forget what is held: a new connection begins."""
        super().reset()
        self._held = []
        self._resets += 1

    def take(self, data: bytes) -> bytes:
        """Deliver the messages that bytes begin with, and return what is left for `parse`, which waits for it."""
        if self._held:
            data = self._resume(data)
        try:
            at = self._take(data, 0)
        finally:
            self._end_read()
        return data[at:]

    async def parse(self, data: bytes = b"") -> None:
        """Act on what the server sent; raises ProtocolError."""
        if self._held:
            data = self._resume(data)
        try:
            await self._parse(data)
        finally:
            self._end_read()

    async def _parse(self, data: bytes) -> None:
        resets = self._resets
        at, end = 0, len(data)
        while (at := self._take(data, at)) < end:
            start = data.find(b"\r\n", at) + 2
            if start < 2:
                if end - at > _MOST_IN_LINE:
                    raise ProtocolError("nats: a line without end")
                self._hold(data, at, end + 1)
                return
            if data[at] in _MESSAGE:
                subject, sid, reply, header_size, size = _read_line(data[at:start], data[at] == _WITH_HEADERS)
                body, stop = start + header_size, start + size
                at = stop + 2
                headers = data[start:body] if header_size else None
                await self.nc._process_msg(sid, subject, reply, data[body:stop], headers)
            else:
                await super().parse(data[at:start])
                if self.buf and self._resets == resets:  # nats-py takes a long line for the begin of a longer one
                    raise ProtocolError("nats: unknown protocol")
                at = start
            if self._resets != resets:
                return  # the connection that these bytes came from has ended meanwhile

    def _take(self, data: bytes, at: int) -> int:
        """Deliver messages from ``at`` on, hold one that is not there whole, and return where something else begins."""
        end = len(data)
        while at < end and data[at] in _MESSAGE:
            start = data.find(b"\r\n", at) + 2
            if start < 2:
                break
            try:
                subject, sid, reply, header_size, size = _read_line(data[at:start], data[at] == _WITH_HEADERS)
            except ProtocolError:
                break  # `parse` raises it
            body, stop = start + header_size, start + size
            if stop + 2 > end:
                self._hold(data, at, stop + 2)
                return end
            if not self._deliver(sid, subject, reply, data[body:stop], data[start:body] if header_size else None):
                break
            at = stop + 2
        return at

    def _hold(self, data: bytes, at: int, wanted: int) -> None:
        """Keep what begins at ``at`` until there are bytes up to ``wanted``."""
        self._held = [data[at:]]
        self._length, self._wanted = len(data) - at, wanted - at

    def _resume(self, data: bytes) -> bytes:
        """Return what is held and what came, or nothing while that is not enough."""
        self._held.append(data)
        self._length += len(data)
        if self._length < self._wanted:
            return b""
        data = b"".join(self._held)
        self._held = []
        return data


def _read_line(line: bytes, with_headers: bool) -> tuple[bytes, int, bytes, int, int]:
    """Return subject, subscription id, reply subject, size of the headers and size of all, from a message's line."""
    words = line.split()
    try:
        if words[0] != (b"HMSG" if with_headers else b"MSG"):
            raise ValueError(words[0])
        if with_headers:
            header_size, size = int(words[-2]), int(words[-1])
            reply = words[3] if len(words) > 5 else b""
        else:
            header_size, size = 0, int(words[-1])
            reply = words[3] if len(words) > 4 else b""
        sid = int(words[2])
    except (ValueError, IndexError):
        raise ProtocolError("nats: malformed MSG") from None
    if not 0 <= header_size <= size < _MOST_IN_MESSAGE:
        raise ProtocolError("nats: malformed MSG")
    return words[1], sid, reply, header_size, size
