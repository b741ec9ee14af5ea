"""Write to the socket from the caller's thread, bypassing the event loop, when nothing is queued."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ssl
    from collections.abc import Sequence

# POSIX guarantees 16; all systems in use allow 1024.
_MOST_AT_ONCE = 1000
# Above these sizes, in bytes, sending frames unjoined is cheaper and lets other threads run.
_MANY_BYTES = 64 * 1024
_LARGE = 1024
_ALL = (-1,)


class Shortcut:
    """Writes to a socket: from callers' threads past the loop, on the loop's through an asyncio transport.

    The descriptor is a copy of its own: that of the transport may be closed, and be another file's, at any moment.

    Ctrl-C and signal handlers may come between any two lines of what callers use. Before anything is sent it stands in
    ``_writing``, with a list to which sending itself adds how much was sent. So whoever comes next knows what is left.
    """

    def __init__(self) -> None:
        # Reentrant, because a signal handler may call while its own thread is in here.
        self.lock = threading.RLock()
        self._transport: asyncio.WriteTransport
        self._loop: asyncio.AbstractEventLoop
        self._socket: socket.socket | None = None
        self._writing: tuple[Sequence[bytes], list[int]] | None = None

    def open(self, transport: asyncio.WriteTransport) -> None:
        """Lead to a transport, and past the loop to its socket if it has one; once, on the loop's thread."""
        with self.lock:
            self._transport, self._loop = transport, asyncio.get_running_loop()
            original = transport.get_extra_info("socket")
            if original is not None and hasattr(os, "fork"):  # descriptors of sockets are the system's on POSIX only
                self._socket = socket.socket(fileno=os.dup(original.fileno()))
                self._socket.setblocking(False)

    def close(self) -> None:
        """Lead nowhere from any other thread; else the server would not see the connection's end."""
        with self.lock:
            own, self._socket = self._socket, None
            self._writing = None
            if own is not None:
                own.close()

    def fileno(self) -> int:
        """Return the descriptor of its own, -1 when there is none."""
        return -1 if self._socket is None else self._socket.fileno()

    # In a caller's thread -------------------------------------------------------------------------------------------

    def write_here(self, frame: bytes) -> bool:
        """Write a frame; False says that nothing of it was written, and that the loop has to.

        What the socket does not take of it is written by the loop, before anything else.
        """
        with self.lock:
            if not self.is_free():
                return False
            sent: list[int] = []
            self._writing = (frame,), sent
            return self._send((frame,), sent)

    def drain(self, made: ssl.MemoryBIO) -> bool:
        """Write what TLS has made, with the lock and if `is_free`; False says that the connection is lost.

        Without it the other end would understand nothing that follows, so it is written whatever happens.
        """
        records: list[bytes] = []
        sent = [0]
        self._writing = records, sent
        # All of it in C, where no signal handler comes between taking and keeping it.
        records.extend(map(made.read, _ALL))
        return self._send(records, sent)

    def is_free(self) -> bool:
        """Whether what is sent now comes next; with the lock."""
        # Something stands there when a signal handler has interrupted its writing, or when it was given up half-way.
        if self._socket is None or self._writing is not None:
            return False
        try:
            return self._transport.get_write_buffer_size() == 0
        except RuntimeError as exc:
            if "mutated" not in str(exc):
                raise
            return False  # asyncio's buffer, which the loop empties as it is counted

    def _send(self, frames: Sequence[bytes], sent: list[int]) -> bool:
        assert self._socket is not None
        try:
            # All of it in C, where no signal handler comes between sending and noting how much.
            sent.extend(map(self._socket.send, frames))
        except OSError as exc:
            if not is_own(exc):
                raise
            if not sent or not isinstance(exc, BlockingIOError):
                self._writing = None  # the socket is full, or lost
                return False
        if sum(sent) == len(frames[0]):
            self._writing = None
        else:
            with contextlib.suppress(RuntimeError):  # the loop has ended, and with it the connection
                self._loop.call_soon_threadsafe(self._finish)
        return True

    # On the loop's thread -------------------------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """Write bytes, after what a caller has left."""
        with self.lock:
            rest = self._rest()
            self._transport.write(rest + data if rest else data)

    def write_frames(self, frames: Sequence[bytes]) -> None:
        """Write several frames in order, after what a caller has left."""
        with self.lock:
            rest = self._rest()
            if rest:
                frames = [rest, *frames]
            elif len(frames) <= _MOST_AT_ONCE:  # more than that in a batch are small
                size = sum(map(len, frames))
                if size > _MANY_BYTES and size > _LARGE * len(frames):
                    frames = self._send_many(frames)
            if frames:
                self._transport.write(frames[0] if len(frames) == 1 else b"".join(frames))

    def flush(self) -> None:
        """Write what a caller has left."""
        with self.lock:
            rest = self._rest()
            if rest and not self._transport.is_closing():
                self._transport.write(rest)

    def _finish(self) -> None:
        if self._socket is not None:  # or it is another connection
            self.flush()

    def _send_many(self, frames: Sequence[bytes]) -> Sequence[bytes]:
        """Send frames, and return what is left of them.

        The GIL is released meanwhile; uvloop holds it while it writes.
        """
        if not self.is_free() or self._socket is None:
            return frames
        try:
            sent = self._socket.sendmsg(frames[:_MOST_AT_ONCE])
        except OSError:
            return frames  # the socket is full, or lost
        for number, frame in enumerate(frames):
            if sent < len(frame):
                return [frame[sent:], *frames[number + 1 :]]
            sent -= len(frame)
        return ()

    def _rest(self) -> bytes:
        """Return what has to be written before anything else."""
        writing, self._writing = self._writing, None
        if writing is None:
            return b""
        frames, sent = writing
        return b"".join(frames)[sum(sent) :] if sent else b""


def is_own(exc: BaseException) -> bool:
    """Whether an error is of what was called where it is caught, and not of a signal handler that came between."""
    return exc.__traceback__ is None or exc.__traceback__.tb_next is None
