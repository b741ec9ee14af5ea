"""What is received goes straight to the parser when nothing is before it, without a task that is woken for it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class Inlet(asyncio.StreamReader):
    """A stream reader that offers what comes to ``take`` while `read` waits; what that returns is for `read`."""

    def __init__(self, take: Callable[[bytes], bytes], limit: int) -> None:
        super().__init__(limit=limit)
        self._take = take
        self._is_waited_for = False
        self.protocol = asyncio.StreamReaderProtocol(self)

    def writer(self, transport: asyncio.Transport) -> asyncio.StreamWriter:
        """Return a writer to the transport that the protocol is of."""
        return asyncio.StreamWriter(transport, self.protocol, self, asyncio.get_running_loop())

    def feed_data(self, data: bytes) -> None:  # type: ignore[override]  # of typeshed, which takes any iterable
        """Accept received bytes."""
        if self._is_waited_for:
            data = self._take(data)
            if not data:
                return
            self._is_waited_for = False
        super().feed_data(data)

    async def read(self, n: int = -1) -> bytes:
        """Return up to ``n`` bytes, empty at end of file."""
        self._is_waited_for = True
        try:
            return await super().read(n)
        finally:
            self._is_waited_for = False
