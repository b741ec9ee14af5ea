"""The client: the one object a program holds to talk to others. It delegates, and holds no logic of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lightlink.client.calls import Calls
from lightlink.client.durable import DurableEvents
from lightlink.client.events import Events
from lightlink.client.files import Files
from lightlink.client.state import State
from lightlink.concurrency.threads import refuse_at_exit
from lightlink.options import ConnectOptions

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lightlink.middleware import Middleware
    from lightlink.options import TLS, Key, Secret


def connect(
    url: str | Sequence[str] | None = None,
    *,
    context: str | None = None,
    name: str | None = None,
    user: str | None = None,
    password: Secret | None = None,
    token: Secret | None = None,
    creds: Key | None = None,
    nkey: Key | None = None,
    tls: TLS | None = None,
    inbox_prefix: str | None = None,
    jetstream_domain: str | None = None,
    jetstream_prefix: str | None = None,
    timeout: float | None = None,
    connect_timeout: float | None = None,
    reconnect_wait: float | None = None,
    reconnect_wait_max: float | None = None,
    ping_interval: float | None = None,
    outbox_messages: int | None = None,
    outbox_bytes: int | None = None,
    outbox_timeout: float | None = None,
    workers: int | None = None,
    wait: float | None = None,
    discover: bool | None = None,
    tls_first: bool | None = None,
    refusal_timeout: float | None = None,
    lazy: bool | None = None,
    bulk_connection: bool | None = None,
    on_error: Callable[[Exception], object] | None = None,
    middleware: Sequence[Middleware] | None = None,
) -> Client:
    """Connect to NATS and return a client.

    ``url`` is one server, several separated by commas, or a list; without it ``LIGHTLINK_URL``, ``NATS_URL``, the
    selected NATS context (or the one named by ``context``) and ``nats://127.0.0.1:4222`` are looked at in this order.
    The other settings are those of `ConnectOptions`, times in seconds and sizes in bytes; None leaves each at its
    default. ``middleware`` are functions around what the client does, outermost first; see `lightlink.middleware`.
    ``wait`` is for how long no server need be there yet, as at boot. With ``lazy`` the connection is made when
    it is first used, and its errors are raised there. With ``bulk_connection`` files have a connection
    of their own, as by default through a gateway.

    Raises ConnectError when no server can be reached within ``connect_timeout`` and ``wait`` seconds,
    AuthenticationError when it refuses us, InvalidOption.
    """
    settings = {key: value for key, value in locals().items() if key not in ("url", "context")}
    refuse_at_exit()
    return Client(ConnectOptions.resolve(url, context=context, **settings))


class Client(Calls, Events, DurableEvents, State, Files):
    """A connection to NATS, safe to share between threads. Made by `connect`; a context manager."""
