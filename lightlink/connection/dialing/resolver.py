"""Resolve host names so that a resolver that hangs blocks neither callers nor the exit.

asyncio looks names up on threads that the interpreter's exit waits for, uvloop on threads that the process's exit does.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket

from lightlink.concurrency.threads import start_thread

Address = tuple[str, int]


class Resolver:
    """Looks names up anew each time, except that of a name which is being looked up nobody asks again."""

    def __init__(self) -> None:
        self._pending: dict[Address, asyncio.Future[list[Address]]] = {}

    async def look_up(self, host: str, port: int) -> list[Address]:
        """Return the addresses of a host, at least one; raises OSError."""
        if _is_address(host):
            return _ask(host, port, socket.AI_NUMERICHOST)  # as sockets tell it: IPv6 has many ways to write one
        name = (host, port)
        pending = self._pending.get(name)
        if pending is None or pending.done():
            pending = asyncio.get_running_loop().create_future()
            # Else asyncio complains of an error that came when nobody waited any more.
            pending.add_done_callback(lambda done: done.cancelled() or done.exception())
            self._pending[name] = pending
            start_thread(_look_up, "lightlink-resolver", name, pending)
        return await asyncio.shield(pending)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _ask(host: str, port: int, flags: int = 0) -> list[Address]:
    return [(str(at[0]), int(at[1])) for *_, at in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)]


def _look_up(name: Address, pending: asyncio.Future[list[Address]]) -> None:
    """Look a name up; on a thread of its own."""
    found: list[Address] = []
    error: Exception | None = None
    try:
        found += _ask(*name)
    except UnicodeError:  # IDNA: a part that is empty, or longer than 63 bytes
        error = socket.gaierror(socket.EAI_NONAME, "it cannot be a host's name")
    except Exception as exc:
        error = exc

    def settle() -> None:
        if pending.done():
            return
        if error is None:
            pending.set_result(found)
        else:
            pending.set_exception(error)

    try:
        pending.get_loop().call_soon_threadsafe(settle)
    except RuntimeError:
        return  # the loop has ended in the meantime, and with it the caller
