"""Serve an app with waitress, on the lifecycle of all servers: many threads, JSON errors, and a prompt end."""

from __future__ import annotations

import ipaddress
import logging
import os
import socket
from typing import TYPE_CHECKING, Any

from waitress import wasyncore
from waitress.channel import HTTPChannel
from waitress.server import create_server
from waitress.task import ErrorTask, ThreadedTaskDispatcher

from lightlink.concurrency.lifecycle import Lifecycle, Stage
from lightlink.concurrency.threads import join_thread, not_started, start_thread
from lightlink.errors import InvalidOption, LightLinkError, NotReady
from lightlink.http.schemas import Problem
from lightlink.protocol import codec
from lightlink.protocol.text import joined

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Self

    from lightlink.http.app import HttpApp

_log = logging.getLogger("lightlink")

DEFAULT_LISTEN = "127.0.0.1:8475"
# How long requests that run have to end.
STOP_SECONDS = 5.0
# Beside the threads of those who wait.
_SPARE_THREADS = 16
_SPARE_CONNECTIONS = 256
_KEPT_FREE = 32


class CannotListen(LightLinkError):
    """The address is in use, or this process may not use it."""

    address: str
    reason: str

    def __str__(self) -> str:
        return f"cannot listen on {self.address}: {self.reason}"


class _JsonErrorTask(ErrorTask):  # type: ignore[misc]
    """What waitress itself refuses, as it cannot be read as HTTP, is refused in JSON too."""

    def execute(self) -> None:
        error = self.request.error
        self.status = f"{error.code} {error.reason}"
        body = codec.encode_json(Problem(error=f"{error.reason}: {error.body}"))
        self.response_headers.append(("Content-Type", "application/json"))
        self.set_close_on_finish()
        self.content_length = len(body)
        self.write(body)


class _Channel(HTTPChannel):  # type: ignore[misc]
    error_task_class = _JsonErrorTask

    def __init__(self, server: Any, *args: Any, **options: Any) -> None:
        super().__init__(server, *args, **options)
        _make_room(server.active_channels, server.adj.connection_limit - _KEPT_FREE)


def _make_room(channels: dict[int, Any], most: int) -> None:
    """Close the connection that has been silent longest, where so many would keep others out.

    Those that ask for nothing, or for nothing whole, are what there may be many of.
    """
    if len(channels) <= most:
        return
    silent = [each for each in channels.values() if not each.requests and not each.total_outbufs_len]
    if silent:
        min(silent, key=lambda each: each.last_activity).handle_close()


class HttpServer(Lifecycle):
    """Serves an app at ``listen`` (``host:port``) on threads of its own, from `start` to `stop`, or with `run`.

    Port 0 takes any free one. ``on_listening(url)`` is called once clients are taken.
    """

    def __init__(
        self, app: HttpApp, listen: str = DEFAULT_LISTEN, on_listening: Callable[[str], object] | None = None
    ) -> None:
        super().__init__()
        self._app = app
        self._listen = listen
        self._on_listening = on_listening
        self._sockets: dict[int, Any] = {}
        self._is_ending = False

    def start(self) -> Self:
        """Listen, and take clients; see `serve` for what it raises. Raises NotReady after the first start."""
        if self.stage is not Stage.NEW:
            raise NotReady("the HTTP server", f"is {self.stage.value} already")
        door, threads, settings = self._open(), _Threads(), _settings(self._app)
        try:
            threads.set_thread_count(settings["threads"])
            self._server = create_server(self._app, map=self._sockets, sockets=[door], _dispatcher=threads, **settings)
            self._server.channel_class = _Channel
            self._thread = start_thread(self._loop, "lightlink-http")
        except BaseException:
            threads.shutdown()
            wasyncore.close_all(self._sockets, ignore_all=True)
            door.close()
            raise
        self._stage, self._pid = Stage.RUNNING, os.getpid()
        if self._on_listening is not None:
            self._on_listening(_url(door))
        return self

    def stop(self, timeout: float = STOP_SECONDS) -> None:
        """End what waits, finish what runs within ``timeout`` seconds, and close. Idempotent."""
        self._stop_signal.set()
        if self.stage is not Stage.RUNNING:
            return
        self._stop_by(self._end, timeout)

    def _end(self, timeout: float) -> None:
        self._server.readable = lambda: False  # the door: the loop looks no more at who comes
        # The server waits for its threads, and these wait for commands.
        self._app.stop()
        # With the loop, which writes what they answer.
        self._server.task_dispatcher.shutdown(timeout=timeout)
        self._is_ending = True
        if self._thread.is_alive():
            self._server.pull_trigger()
        join_thread(self._thread, timeout)
        wasyncore.close_all(self._sockets, ignore_all=True)

    def _open(self) -> socket.socket:
        family, address = _resolve(self._listen)
        is_local = ipaddress.ip_address(address[0]).is_loopback
        if self._app.tokens is None and not self._app.open_to_all and not is_local:
            reason = "without tokens only a loopback address such as 127.0.0.1 may be used"
            raise InvalidOption("listen", reason, self._listen)
        try:
            return socket.create_server(address, family=family, backlog=1024)
        except OSError as exc:
            raise CannotListen(self._listen, os.strerror(exc.errno) if exc.errno else str(exc)) from exc

    def _loop(self) -> None:
        """Read, write and accept; on a thread of its own."""
        settings = self._server.adj
        try:
            while not self._is_ending:
                wasyncore.loop(settings.asyncore_loop_timeout, settings.asyncore_use_poll, self._sockets, count=1)
        except Exception as exc:
            self._lost = exc
            self._stop_signal.set()


def serve(app: HttpApp, listen: str = DEFAULT_LISTEN, on_listening: Callable[[str], object] | None = None) -> None:
    """Serve until SIGINT or SIGTERM; then end what waits, finish what runs, and return. For the main thread.

    ``listen`` is ``host:port``; port 0 takes any free one. ``on_listening(url)`` is called once clients are taken.
    Raises CannotListen; ResourceExhausted when this process may not have its threads; InvalidOption when the address
    cannot be, or is not a loopback one though there are no tokens.
    """
    HttpServer(app, listen, on_listening).run(STOP_SECONDS)


class _Threads(ThreadedTaskDispatcher):  # type: ignore[misc] # waitress has no types
    """The threads of a server, all of them or none."""

    def set_thread_count(self, count: int) -> None:
        try:
            super().set_thread_count(count)
        except LightLinkError:
            self.shutdown()
            raise

    def start_new_thread(self, target: Callable[[int], object], thread_no: int) -> None:
        try:
            super().start_new_thread(target, thread_no)
        except (RuntimeError, MemoryError) as exc:
            self.threads.discard(thread_no)  # or its end would be waited for
            raise not_started("starting the threads of the HTTP server", exc) from exc


def _settings(app: HttpApp) -> dict[str, Any]:
    waiting = app.limits.max_waiting
    return {
        # A request that waits holds a thread, idle and cheap; a poll, unlike select, knows no 1,024 connections.
        "threads": waiting + _SPARE_THREADS,
        "connection_limit": waiting + _SPARE_CONNECTIONS,
        "asyncore_use_poll": True,
        # Reading ahead is how waitress learns that a client has gone.
        "channel_request_lookahead": 1,
        # Beyond this even the rest of a refused body is not read.
        "max_request_body_size": max(4 * app.limits.max_body, app.limits.max_file),
        "max_request_header_size": 32 * 1024,
        "ident": "lightlink",
        # The app trusts none of them, and has to see them: without tokens what a proxy forwards is not answered.
        "clear_untrusted_proxy_headers": False,
    }


def _resolve(listen: str) -> tuple[socket.AddressFamily, tuple[str, int]]:
    host, separator, port = listen.rpartition(":")
    host = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not separator or not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise InvalidOption("listen", "must be host:port", listen)
    try:
        found = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as exc:
        raise InvalidOption("listen", f"there is no such address: {exc.strerror}", listen) from exc
    # Where a name has both, the addresses of version 4 are those that everything on a machine can reach.
    family, _, _, _, address = min(found, key=lambda each: each[0] != socket.AF_INET)
    return family, (str(address[0]), int(address[1]))


def _url(door: socket.socket) -> str:
    host, port = door.getsockname()[:2]
    return f"http://{joined(host, port)}"
