"""What a client needs of a transport, beside what nats-py itself calls (`nats.aio.transport.Transport`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Protocol

if TYPE_CHECKING:
    import ssl
    from collections.abc import Sequence


class Transport(Protocol):
    """One connection at a time to a server, made anew as often as it is asked for."""

    schemes: ClassVar[frozenset[str]]

    async def connect(self, uri: Any, buffer_size: int, connect_timeout: float) -> None:
        """Connect, without the server's TLS; raises OSError, asyncio.TimeoutError."""

    async def connect_tls(
        self, uri: Any, /, ssl_context: ssl.SSLContext, buffer_size: int, connect_timeout: float
    ) -> None:
        """Speak TLS with the server from now on; ``uri`` is the name to verify, or the URL that holds it."""

    async def readline(self) -> bytes:
        """Return the next line of the handshake, empty at the end."""

    async def read(self, buffer_size: int) -> bytes:
        """Return what has come, ``buffer_size`` bytes at most, empty at the end."""

    def write(self, payload: bytes) -> Any:
        """Write bytes."""

    def write_frames(self, frames: Sequence[bytes]) -> None:
        """Write some frames, one behind the other."""

    def write_here(self, frame: bytes) -> bool:
        """Write bytes in a caller's thread, if nothing is before them; False says that the loop has to."""

    def writelines(self, payload: list[bytes]) -> Any:
        """Write bytes in pieces."""

    async def drain(self) -> None:
        """Return when the buffer of what was written is not full."""

    async def listen(self, pause: float) -> None:
        """Raise what the server says within ``pause`` seconds if that is an error, or its end."""

    async def wait_closed(self) -> None:
        """Return when the connection has ended."""

    def at_eof(self) -> bool:
        """Whether the server has said its last."""

    def close(self) -> Any:
        """Close, after what is written."""

    def descriptors(self) -> list[int]:
        """Return those of this process that lead to the server, for a forked child to let go of."""

    def abort(self) -> None:
        """Close at once; what is not written yet is lost."""
