"""Views for those who run the server: health, metrics, the OpenAPI document."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from msgspec import UNSET
from werkzeug.wrappers import Response

from lightlink.commands import model
from lightlink.commands.store import schema
from lightlink.connection.session import Status
from lightlink.errors import LightLinkError, PermissionDenied, StoreUnavailable
from lightlink.http.replies import reply
from lightlink.http.schemas import Health, OwnStream, ServerView, Sickness
from lightlink.jetstream import api
from lightlink.protocol import subjects

if TYPE_CHECKING:
    from lightlink.client import Client
    from lightlink.http.call import Call

_HEALTH_SECONDS = 2.0


def get_health(call: Call) -> Response:
    """Tell whether commands can be stored and read now."""
    try:
        _check(call)
    except LightLinkError as exc:
        return reply(Sickness(error=str(exc), time=model.now()), 503)
    return reply(Health(time=model.now()))


def get_server(call: Call) -> ServerView:
    """Tell how the NATS server is: its answer, its clock, how full the streams of commands are."""
    call.check_unlimited("the server")
    return call.app.recent.get("server", lambda: _server(call))


def _server(call: Call) -> ServerView:
    client = call.manager.client
    took = client.ping(_HEALTH_SECONDS)
    address = urlsplit(client.server or "")
    streams = [found for name in schema.STREAMS if (found := _stream(client, name)) is not None]
    now = call.manager.now()
    return ServerView(
        server=f"{address.hostname}:{address.port}",  # without what one logs in with
        time=now,
        round_trip=took,
        clock_behind=round((now - model.now()).total_seconds(), 3),
        streams=streams,
    )


def _stream(client: Client, name: str) -> OwnStream | None:
    """Return how full a stream is, None where there is none or this identity may not ask."""
    try:
        info = api.stream_info(client.connection, name, _HEALTH_SECONDS)
    except PermissionDenied:
        return None
    if info is None:
        return None
    most = info.config.max_bytes
    return OwnStream(
        name=name, messages=info.state.messages, bytes=info.state.bytes, max_bytes=most if most > 0 else UNSET
    )


def _check(call: Call) -> None:
    connection = call.app.managers.get().connection
    if connection.status is not Status.CONNECTED:
        raise StoreUnavailable("reaching NATS", f"the connection is {connection.status.value}")
    if api.stream_info(connection, subjects.COMMANDS_STREAM, _HEALTH_SECONDS) is None:
        raise StoreUnavailable("reading commands", f"there is no stream {subjects.COMMANDS_STREAM}")


def get_metrics(call: Call) -> Response:
    """Return the metrics, in the format that the client accepts; they tell about every agent and type."""
    call.check_unlimited("metrics")
    body, content_type = call.app.metrics.render(call.request.headers.get("Accept", ""))
    return Response(body, content_type=content_type, headers={"Cache-Control": "no-store"})


def get_openapi(call: Call) -> Response:
    """Return the OpenAPI document."""
    return reply(call.app.document(call.request.script_root or "/"))
