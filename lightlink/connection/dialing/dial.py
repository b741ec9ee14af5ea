"""Open the first connection: every server once, within one limit, with the reason each was not taken."""

from __future__ import annotations

import asyncio
import contextlib
import random
from typing import TYPE_CHECKING, Any

import nats.errors

from lightlink.concurrency.deadline import Deadline
from lightlink.connection.dialing.credentials import identity_settings
from lightlink.connection.dialing.diagnosis import explain, is_refusal, true_reason
from lightlink.errors import AuthenticationError, ConnectError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from nats.aio.client import Server

    from lightlink.connection.nats_client import WireClient
    from lightlink.options import ConnectOptions


# Of our own: a program that has seeded Python's draws the same numbers with us as without.
_chance = random.Random()  # noqa: S311 - no secret


async def dial(
    options: ConnectOptions, make_client: Callable[[], WireClient], callbacks: dict[str, Callable[..., Any]]
) -> WireClient:
    """Return a connected client.

    ``make_client`` makes a fresh one for each server; ``callbacks`` are nats-py's. Each server gets an equal share of
    the time left, so that one that is silent does not keep us from the others. Raises ConnectError,
    AuthenticationError when a server refused us, InvalidOption for unfit key files.
    """
    deadline = Deadline(options.connect_timeout)
    settings = _settings(options)
    tried: list[tuple[str, str]] = []
    refused = False
    servers = _in_turn(options.servers)
    for number, server in enumerate(servers):
        share = deadline.remaining() / (len(servers) - number)
        client = make_client()
        try:
            await _connect(client, server, {**settings, "connect_timeout": share}, callbacks)
        except (OSError, ValueError, nats.errors.Error, asyncio.TimeoutError) as exc:
            await _discard(client)
            reason = await true_reason(client, exc, deadline.remaining())
            refused = refused or is_refusal(reason)
            tried.append((server, explain(reason, share, options)))
        except BaseException:
            await _discard(client)
            raise
        else:
            client.stay_connected(options.servers, options.connect_timeout)
            return client
    raise (AuthenticationError if refused else ConnectError)(tried, options.connect_timeout)


def _in_turn(servers: Sequence[str]) -> list[str]:
    """Return servers in the order to try them: gateways first, as others beside them are for where UDP is blocked."""
    shuffled = list(servers)
    _chance.shuffle(shuffled)
    return sorted(shuffled, key=lambda server: not server.startswith("quic://"))


async def _connect(
    client: WireClient, server: str, settings: dict[str, Any], callbacks: dict[str, Callable[..., Any]]
) -> None:
    first_error: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def on_error(exc: Exception) -> None:
        if not first_error.done():
            first_error.set_exception(exc)
        else:
            await callbacks["error_cb"](exc)

    # nats-py tries a server again and again; the first error is what we want to know.
    settings = {**settings, **callbacks, "error_cb": on_error}
    connecting = asyncio.ensure_future(client.connect(servers=[server], **settings))
    attempts = {connecting, first_error}
    for attempt in attempts:
        attempt.add_done_callback(_look_at)
    try:
        done, _ = await asyncio.wait(attempts, timeout=settings["connect_timeout"], return_when=asyncio.FIRST_COMPLETED)
        if not done:
            raise asyncio.TimeoutError
        for finished in done:
            finished.result()
        if not client.is_connected:
            # nats-py takes a connection closed right after CONNECT for an open one.
            raise ConnectionResetError("the server closed the connection during the handshake")
    finally:
        first_error.cancel()
        await _end(connecting)


def _look_at(done: asyncio.Future[None]) -> None:
    if not done.cancelled():
        done.exception()  # asyncio complains of one that nobody has looked at


async def _end(task: asyncio.Task[None]) -> None:
    """Cancel a task and return when it has ended, not before, however often this one is cancelled meanwhile.

    That happens as the loop ends: what the task had opened would stay so.
    """
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        task.cancel()
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as exc:
            cancelled = exc
    if cancelled is not None:
        raise cancelled


async def _discard(client: WireClient) -> None:
    client.give_up()  # whatever becomes of the rest: as the loop ends it may never begin
    with contextlib.suppress(Exception):  # it never was connected; there is nothing to lose
        await asyncio.wait_for(client.discard(), 0.2)


def _settings(options: ConnectOptions) -> dict[str, Any]:
    settings: dict[str, Any] = {
        "name": options.name,
        "allow_reconnect": False,
        "ping_interval": options.ping_interval,
        "reconnect_time_wait": options.reconnect_wait,
        "max_reconnect_attempts": -1,
        # Our own outbox bounds what waits, and nats-py's buffer must not refuse its own small requests.
        "pending_size": 8 * 1024 * 1024,
        "flush_timeout": 10.0,
        **identity_settings(options),
    }
    if options.wants_tls:
        settings["tls_handshake_first"] = options.tls_first
        settings["tls_hostname"] = options.tls.hostname if options.tls else None
    if options.inbox_prefix:
        settings["inbox_prefix"] = options.inbox_prefix
    return settings


class Backoff:
    """Chooses the server and the wait before each attempt to reconnect: doubling, capped, jittered.

    The servers given take turns with those that were told of, however many these are.
    """

    def __init__(self, options: ConnectOptions) -> None:
        self._given = {server.partition("://")[2] for server in options.servers}
        gateways = (server for server in options.servers if server.startswith("quic://"))
        self._gateways = {server.partition("://")[2] for server in gateways}
        self._first = options.reconnect_wait
        self._most = options.reconnect_wait_max
        self._attempt = 0
        self._avoided = ""

    def avoid(self, server: str) -> None:
        """Begin with another server than this, and without a wait: the connection is about to be given up."""
        self._avoided = server

    def reset(self) -> None:
        """Begin again with the shortest wait: the connection is back."""
        self._attempt = 0

    def next(self) -> float:
        """Return the seconds to wait before the next attempt, whichever server it is for."""
        wait: float = min(self._most, self._first * 2 ** min(self._attempt, 16))
        self._attempt += 1
        return wait * _jitter()

    def __call__(self, servers: list[Server], _info: dict[str, Any]) -> tuple[Server, float]:
        """Return the server to try next and the seconds to wait before."""
        # Gateways first: others beside them are for where UDP is blocked.
        servers = sorted(servers, key=lambda server: server.uri.netloc not in self._gateways)
        avoided, self._avoided = self._avoided, ""
        if avoided:
            for server in servers:
                if server.uri.geturl() != avoided:
                    return server, 0.0
        given = [server for server in servers if server.uri.netloc in self._given]
        told = [server for server in servers if server.uri.netloc not in self._given]
        if given and told:
            turn, which = divmod(self._attempt, 2)
            group = told if which else given
        else:
            turn, group = self._attempt, servers
        server = group[turn % len(group)]
        rounds = min(self._attempt // len(servers), 16)
        self._attempt += 1
        return server, min(self._most, self._first * 2**rounds) * _jitter()


def _jitter() -> float:
    """Return what a wait is multiplied with, from the very first on: a thousand clients must not come back at once."""
    return _chance.uniform(0.5, 1.0)
