"""Open the first connection: every server once, within one limit, with the reason each was not taken."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import socket
import ssl
import time
from typing import TYPE_CHECKING, Any

import nats.errors

from lightlink.errors import AuthenticationError, ConnectError
from lightlink.runtime.tls import make_context
from lightlink.runtime.wire import TLSRequired, WireClient

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from nats.aio.client import Server

    from lightlink.options import ConnectOptions

_REFUSALS = ("authorization violation", "authentication", "nkey", "jwt")


async def dial(
    options: ConnectOptions, make_client: Callable[[], WireClient], callbacks: dict[str, Callable[..., Awaitable[None]]]
) -> WireClient:
    """Return a connected client.

    ``make_client`` makes a fresh one for each server; ``callbacks`` are nats-py's. Raises ConnectError, or
    AuthenticationError when every server that answered refused us.
    """
    deadline = time.monotonic() + options.connect_timeout
    tried: list[tuple[str, str]] = []
    refused = False
    servers = list(options.servers)
    random.shuffle(servers)
    for server in servers:
        remaining = deadline - time.monotonic()
        if remaining <= 0:
            tried.append((server, "not tried, the time was up"))
            continue
        client = make_client()
        try:
            await _connect(client, server, options, callbacks, remaining)
        except (OSError, ValueError, nats.errors.Error, asyncio.TimeoutError) as exc:
            await _discard(client)
            refused = refused or is_refusal(exc)
            tried.append((server, explain(exc, remaining)))
        else:
            client.set_server_pool(list(options.servers))
            client.stay_connected()
            return client
    raise (AuthenticationError if refused else ConnectError)(tried, options.connect_timeout)


def is_refusal(exc: BaseException) -> bool:
    """Tell whether an error means that one side does not accept the other's identity."""
    if isinstance(exc, (ssl.SSLError, TLSRequired)):
        return True
    return isinstance(exc, nats.errors.Error) and any(word in str(exc).lower() for word in _REFUSALS)


def explain(exc: BaseException, timeout: float) -> str:
    """Say why a server was not taken, in words for the one who wrote its URL."""
    if isinstance(exc, asyncio.TimeoutError):
        return f"no NATS server answered within {timeout:.3g} s"
    if isinstance(exc, ssl.SSLCertVerificationError):
        return f"the server's certificate was not accepted: {exc.verify_message}"
    if isinstance(exc, ssl.SSLError):
        return f"the TLS handshake failed: {exc.reason or exc}"
    if isinstance(exc, socket.gaierror):
        return f"the host name does not resolve ({exc.strerror})"
    if isinstance(exc, ConnectionRefusedError):
        return "connection refused"
    if isinstance(exc, OSError) and exc.errno:
        return os.strerror(exc.errno).lower()
    if "INFO" in str(exc) or isinstance(exc, ValueError):
        return "what answers there is not a NATS server"
    return str(exc).removeprefix("nats: ").strip("'") or type(exc).__name__


async def _connect(
    client: WireClient,
    server: str,
    options: ConnectOptions,
    callbacks: dict[str, Callable[..., Awaitable[None]]],
    timeout: float,
) -> None:
    first_error: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def on_error(exc: Exception) -> None:
        if not first_error.done():
            first_error.set_exception(exc)
        else:
            await callbacks["error_cb"](exc)

    # nats-py tries a server again and again; the first error is what we want to know.
    settings = {**_settings(options, timeout), **callbacks, "error_cb": on_error}
    connecting = asyncio.ensure_future(client.connect(servers=[server], **settings))
    try:
        done, _ = await asyncio.wait({connecting, first_error}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        if not done:
            raise asyncio.TimeoutError
        for finished in done:
            finished.result()
        if not client.is_connected:
            # nats-py takes a connection closed right after CONNECT for an open one.
            raise nats.errors.Error("the server closed the connection during the handshake")
    finally:
        if not connecting.done():
            connecting.cancel()
            await asyncio.wait({connecting})
        if connecting.done() and not connecting.cancelled():
            connecting.exception()
        if not first_error.done():
            first_error.cancel()


async def _discard(client: WireClient) -> None:
    with contextlib.suppress(Exception):  # it never was connected; there is nothing to lose
        await asyncio.wait_for(client.close(), 1.0)


def _settings(options: ConnectOptions, timeout: float) -> dict[str, Any]:
    settings: dict[str, Any] = {
        "name": options.name,
        "allow_reconnect": False,
        "connect_timeout": timeout,
        "ping_interval": options.ping_interval,
        "reconnect_time_wait": options.reconnect_wait,
        "max_reconnect_attempts": -1,
        "reconnect_to_server_handler": Backoff(options),
        "user": options.user,
        "password": options.password,
        "token": options.token,
        # nats-py reads the file at each connect, so a renewed one is picked up.
        "user_credentials": options.creds,
        "nkeys_seed": str(options.nkey) if options.nkey else None,
        # Our own outbox bounds what waits, and nats-py's buffer must not refuse its own small requests.
        "pending_size": 8 * 1024 * 1024,
        "flush_timeout": 10.0,
    }
    if options.wants_tls:
        settings["tls"] = make_context(options.tls)
        settings["tls_hostname"] = options.tls.hostname if options.tls else None
    if options.inbox_prefix:
        settings["inbox_prefix"] = options.inbox_prefix
    return settings


class Backoff:
    """Chooses the server and the wait before each attempt to reconnect: round robin, doubling, capped, jittered."""

    def __init__(self, options: ConnectOptions) -> None:
        self._first = options.reconnect_wait
        self._most = options.reconnect_wait_max
        self._attempt = 0

    def __call__(self, servers: list[Server], _info: dict[str, Any]) -> tuple[Server, float]:
        """Return the server to try next and the seconds to wait before."""
        if all(server.reconnects == 0 for server in servers):
            self._attempt = 0
        server = servers[self._attempt % len(servers)]
        rounds = min(self._attempt // len(servers), 16)
        self._attempt += 1
        # Jitter from the very first wait on keeps a thousand clients from coming back in the same instant.
        return server, min(self._most, self._first * 2**rounds) * random.uniform(0.5, 1.0)
