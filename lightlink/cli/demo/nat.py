"""A NAT that forgets: what is between an agent on a train and the rest of the world."""

from __future__ import annotations

import contextlib
import selectors
import socket
from typing import TYPE_CHECKING

from lightlink.concurrency.threads import start_thread

if TYPE_CHECKING:
    from typing_extensions import Self

_LARGEST = 65536
_LOOK_SECONDS = 0.02


class Nat:
    """Relay the datagrams of one client, from a port of its own that may change at any time. A context manager."""

    def __init__(self, target: tuple[str, int]) -> None:
        self._target = target
        self._inside, self._outside = _new_port(), _new_port()
        self._client: tuple[str, int] | None = None
        self._is_open = True
        self._thread = start_thread(self._relay, "lightlink-demo-nat")

    @property
    def port(self) -> int:
        """Where the client sends to."""
        port: int = self._inside.getsockname()[1]
        return port

    def forget(self) -> int:
        """Drop the mapping: what comes from now on goes out from another port, which is returned."""
        before, self._outside = self._outside, _new_port()
        before.close()
        port: int = self._outside.getsockname()[1]
        return port

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._is_open = False
        self._thread.join(1.0)
        for sock in (self._inside, self._outside):
            sock.close()

    def _relay(self) -> None:
        while self._is_open:
            with selectors.DefaultSelector() as ready:
                for sock in (self._inside, self._outside):
                    with contextlib.suppress(ValueError):  # the port has just changed
                        ready.register(sock, selectors.EVENT_READ)
                ready.select(_LOOK_SECONDS)
            with contextlib.suppress(OSError):  # nothing more for now, or the port has just changed
                while True:
                    data, self._client = self._inside.recvfrom(_LARGEST)
                    self._outside.sendto(data, self._target)
            with contextlib.suppress(OSError):
                while self._client:
                    self._inside.sendto(self._outside.recv(_LARGEST), self._client)


def _new_port() -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", 0))
    sock.setblocking(False)
    return sock
