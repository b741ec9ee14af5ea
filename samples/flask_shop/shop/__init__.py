"""A shop whose prices, orders and pictures are other programs' work."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flask import Flask

from lightlink.contrib.flask import LightLink, health_blueprint

if TYPE_CHECKING:
    from collections.abc import Mapping

link = LightLink()


def create_app(config: Mapping[str, Any] | None = None) -> Flask:
    """Return the app; ``config`` goes over the environment (``FLASK_LIGHTLINK_URL`` and the like)."""
    from shop.views import views  # noqa: PLC0415 - the views use `link`

    app = Flask("shop")
    app.config.from_prefixed_env()
    app.config.from_mapping(config)
    link.init_app(app)
    app.register_blueprint(views)
    app.register_blueprint(health_blueprint(link), url_prefix="/health")
    return app
