"""Views for those who run the server: health, metrics, the OpenAPI document."""

from __future__ import annotations

from typing import TYPE_CHECKING

from werkzeug.wrappers import Response

from lightlink.commands import model
from lightlink.commands.store import schema
from lightlink.connection.session import Status
from lightlink.errors import LightLinkError, StoreUnavailable
from lightlink.http.replies import reply
from lightlink.http.schemas import Health, Sickness
from lightlink.jetstream import api

if TYPE_CHECKING:
    from lightlink.http.call import Call

_HEALTH_SECONDS = 2.0


def get_health(call: Call) -> Response:
    """Tell whether commands can be stored and read now."""
    try:
        _check(call)
    except LightLinkError as exc:
        return reply(Sickness(error=str(exc), time=model.now()), 503)
    return reply(Health(time=model.now()))


def _check(call: Call) -> None:
    connection = call.app.managers.get().connection
    if connection.status is not Status.CONNECTED:
        raise StoreUnavailable("reaching NATS", f"the connection is {connection.status.value}")
    if api.stream_info(connection, schema.REQUESTS, _HEALTH_SECONDS) is None:
        raise StoreUnavailable("reading commands", f"there is no stream {schema.REQUESTS}")


def get_metrics(call: Call) -> Response:
    """Return the metrics, in the format that the client accepts; they tell about every agent and type."""
    call.check_unlimited("metrics")
    body, content_type = call.app.metrics.render(call.request.headers.get("Accept", ""))
    return Response(body, content_type=content_type, headers={"Cache-Control": "no-store"})


def get_openapi(call: Call) -> Response:
    """Return the OpenAPI document."""
    return reply(call.app.document(call.request.script_root or "/"))
