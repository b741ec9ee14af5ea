"""Write to the socket from the caller's thread, bypassing the event loop, when nothing is queued."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

# POSIX guarantees 16; all systems in use allow 1024.
_MOST_AT_ONCE = 1000


class Shortcut:
    """Writes frames from callers' threads to a socket that an asyncio transport writes to as well.

    Writers on the loop hold ``lock``, after what `rest` returns. The descriptor is a copy of its own:
    that of the transport may be closed, and be another file's, at any moment.

    Ctrl-C and signal handlers may come between any two lines here. Before a frame is sent it stands in ``_writing``
    with a list, to which sending itself adds how much was sent. So whoever comes next knows what is left.
    """

    def __init__(self) -> None:
        # Reentrant, because a signal handler may call while its own thread is in here.
        self.lock = threading.RLock()
        self._transport: asyncio.WriteTransport
        self._loop: asyncio.AbstractEventLoop
        self._socket: socket.socket | None = None
        self._writing: tuple[bytes, list[int]] | None = None

    def open(self, transport: asyncio.WriteTransport) -> None:
        """Lead to a transport's socket from now on; on its loop's thread."""
        original = transport.get_extra_info("socket")
        if original is None or not hasattr(os, "fork"):  # descriptors of sockets are the system's on POSIX only
            return
        with self.lock:
            self._transport, self._loop = transport, asyncio.get_running_loop()
            self._socket = socket.socket(fileno=os.dup(original.fileno()))
            self._socket.setblocking(False)

    def close(self) -> None:
        """Lead nowhere; else the server would not see the connection's end."""
        with self.lock:
            own, self._socket = self._socket, None
            self._writing = None
            if own is not None:
                own.close()

    def fileno(self) -> int:
        """Return the descriptor of its own, -1 when it leads nowhere."""
        return -1 if self._socket is None else self._socket.fileno()

    def write(self, frame: bytes) -> bool:
        """Write a frame; False says that nothing of it was written, and that the loop has to.

        What the socket does not take of it is written by the loop, before anything else.
        """
        with self.lock:
            # One may be there when a signal handler has interrupted its writing, or when it was given up half-way.
            if self._socket is None or self._writing is not None:
                return False
            sent: list[int] = []
            self._writing = frame, sent
            try:
                if not self._is_free():
                    self._writing = None
                    return False
                # All of it in C, where no signal handler comes between sending and noting how much.
                sent.extend(map(self._socket.send, (frame,)))
            except OSError as exc:
                if exc.__traceback__ is not None and exc.__traceback__.tb_next is not None:
                    raise  # not ours: a signal handler's
                self._writing = None  # the socket is full, or lost
                return False
            if sent[0] == len(frame):
                self._writing = None
            else:
                with contextlib.suppress(RuntimeError):  # the loop has ended, and with it the connection
                    self._loop.call_soon_threadsafe(self._finish)
            return True

    def send(self, frames: Sequence[bytes]) -> Sequence[bytes]:
        """Write frames on the loop's thread, with the lock, and return what is left of them.

        The GIL is released meanwhile; uvloop holds it while it writes.
        """
        if self._socket is None or not self._is_free():
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

    def rest(self) -> bytes:
        """Return what has to be written before anything else; with the lock."""
        writing, self._writing = self._writing, None
        if writing is None:
            return b""
        frame, sent = writing
        return frame[sent[0] :] if sent else b""

    def _is_free(self) -> bool:
        """Whether nothing that the loop has written is still on its way to the socket."""
        try:
            return self._transport.get_write_buffer_size() == 0
        except RuntimeError as exc:
            if "mutated" not in str(exc):
                raise
            return False  # asyncio's buffer, which the loop empties as it is counted

    def _finish(self) -> None:
        with self.lock:
            rest = self.rest()
            if rest and self._socket is not None:
                self._transport.write(rest)
