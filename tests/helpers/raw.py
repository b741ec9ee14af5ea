"""Plain nats-py in a thread of its own: the independent judge of what goes over the wire."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import json
import socket
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.errors import NoKeysError

from helpers.loop import LoopThread

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from typing_extensions import Self

T = TypeVar("T")
Work: TypeAlias = "Coroutine[Any, Any, T] | Callable[[Client], Coroutine[Any, Any, T]]"


def read_info(port: int) -> dict[str, Any]:
    """Connect to a nats-server on 127.0.0.1 and return the INFO with which it greets."""
    with socket.create_connection(("127.0.0.1", port), 30) as client, client.makefile("rb") as lines:
        info: dict[str, Any] = json.loads(lines.readline().removeprefix(b"INFO "))
    return info


async def some(read: Callable[..., Coroutine[Any, Any, list[T]]], *args: Any) -> list[T]:
    """Return what nats-py's ``keys`` or ``history`` of a bucket reads where there is something to read.

    It asks after its subscription what is left, and takes "nothing is left" for "nothing is there" when all is on its
    way: then it is asked again.
    """
    for _ in range(100):
        with contextlib.suppress(NoKeysError):
            return await read(*args)
        await asyncio.sleep(0.05)
    raise AssertionError("nothing is there")


class _Client(Client):
    def jetstream(self, **options: Any) -> JetStreamContext:
        """Return a context that waits for an answer as long as a slow machine may take, and not for 5 s."""
        return super().jetstream(**{"timeout": 30, **options})

    async def flush(self, timeout: int = 10) -> None:
        """Wait until the server has done all that it was sent, and its complaints are here.

        nats-py writes its PING before what waits to be written: the first PONG says nothing of a subscription that was
        made just before, and a request may find nobody.
        """
        await super().flush(timeout)
        await super().flush(timeout)


class RawPeer:
    """A nats-py client, ``nc``, that knows nothing of LightLink.

    ``peer.run(peer.nc.flush())`` runs a coroutine; ``peer.run(fn)`` runs ``fn(nc)``. ``errors`` holds what nats-py
    reported to its error callback. ``options`` go to ``Client.connect``.
    """

    def __init__(self, url: str, **options: Any) -> None:
        self.errors: list[Exception] = []
        self._thread = LoopThread("raw-peer")
        try:
            self.nc: Client = self._thread.run(self._connect(url, options))
        except BaseException:
            self._thread.stop()
            raise

    def run(
        self, work: Coroutine[Any, Any, T] | Callable[[Client], Coroutine[Any, Any, T]], timeout: float = 30.0
    ) -> T:
        """Return the result of the coroutine or coroutine function; TimeoutError after ``timeout`` seconds."""
        return self._thread.run(work if isinstance(work, Coroutine) else work(self.nc), timeout)

    def close(self) -> None:
        """Close the connection. Idempotent."""
        if self._thread.loop.is_closed():
            return
        try:
            self._thread.run(self.nc.close())
        except concurrent.futures.CancelledError:
            pass  # nats-py has cancelled itself: its connection was lost while it closed
        finally:
            self._thread.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def _connect(self, url: str, options: dict[str, Any]) -> Client:
        nc = _Client()
        try:
            await nc.connect(url, **{"connect_timeout": 30, "error_cb": self._note, **options})
        except BaseException:
            await nc.close()  # nats-py leaves the connection of a failed connect open
            raise
        return nc

    async def _note(self, error: Exception) -> None:
        self.errors.append(error)
