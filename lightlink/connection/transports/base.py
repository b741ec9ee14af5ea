"""The transport protocol: what LightLink needs beyond `nats.aio.transport.Transport`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Protocol

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Sequence


class Transport(Protocol):
    """One connection to a server at a time; `connect` can be called again and again."""

    schemes: ClassVar[frozenset[str]]
    # Offered what is received while `read` waits; returns what is left for it.
    take: Callable[[bytes], bytes]

    async def connect(self, uri: Any, buffer_size: int, connect_timeout: float) -> None:
        """Connect, before the TLS handshake; raises OSError, asyncio.TimeoutError."""

    async def connect_tls(
        self, uri: Any, /, ssl_context: ssl.SSLContext, buffer_size: int, connect_timeout: float
    ) -> None:
        """Upgrade to TLS; ``uri`` is the name to verify, or the URL that holds it."""

    async def readline(self) -> bytes:
        """Return the next line of the handshake, empty at end of file."""

    async def read(self, buffer_size: int) -> bytes:
        """Return up to ``buffer_size`` received bytes, empty at end of file."""

    def write(self, payload: bytes) -> Any:
        """Write bytes."""

    def write_frames(self, frames: Sequence[bytes]) -> None:
        """Write several frames in order."""

    def write_here(self, frame: bytes) -> bool:
        """Write bytes from the caller's thread if no data is queued; False means that the loop must write them."""

    def writelines(self, payload: list[bytes]) -> Any:
        """Write a list of buffers."""

    async def drain(self) -> None:
        """Wait until the write buffer is below its limit."""

    async def listen(self, pause: float) -> None:
        """Raise an error or disconnect that the server sends within ``pause`` seconds."""

    async def wait_closed(self) -> None:
        """Wait until the connection is closed."""

    def at_eof(self) -> bool:
        """Whether the end of file was reached."""

    def close(self) -> Any:
        """Close after flushing the write buffer."""

    def descriptors(self) -> list[int]:
        """Return the file descriptors of the connection, for a forked child to close."""

    def abort(self) -> None:
        """Close at once, discarding unwritten data."""
