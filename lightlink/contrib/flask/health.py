"""Where a load balancer asks whether this process lives, and whether it can reach NATS."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flask import Blueprint

from lightlink.errors import LightLinkError
from lightlink.validators import seconds

if TYPE_CHECKING:
    from lightlink.contrib.flask.extension import LightLink


def health_blueprint(link: LightLink, *, name: str = "lightlink_health", timeout: float = 2.0) -> Blueprint:
    """Return a blueprint with ``/live``, which always says 200, and ``/ready``, which says 503 without a server.

    To be ready, NATS has to answer within ``timeout`` seconds; a first connection may take its ``connect_timeout``.
    """
    limit = seconds("timeout", timeout)
    blueprint = Blueprint(name, __name__)

    @blueprint.get("/live")
    def live() -> dict[str, str]:
        return {"status": "ok"}

    @blueprint.get("/ready")
    def ready() -> tuple[dict[str, object], int]:
        try:
            took = link.client.ping(limit)
        except LightLinkError as exc:
            return {"status": "unavailable", "error": type(exc).__name__}, 503
        return {"status": "ok", "nats_ms": round(took * 1000, 2)}, 200

    return blueprint
