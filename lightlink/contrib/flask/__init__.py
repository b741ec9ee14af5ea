"""LightLink in Flask (extra ``flask``).

::

from lightlink.contrib.flask import LightLink

link = LightLink()

def create_app():
app = flask.Flask(__name__)
app.config["LIGHTLINK_URL"] = "nats://127.0.0.1:4222"
link.init_app(app)
return app

@shop.get("/price/<item>")
def price(item):
return link.call("prices", "of", {"item": item})
"""

try:
    import flask  # noqa: F401 - to say at once what is missing
except ModuleNotFoundError as exc:
    if exc.name != "flask":
        raise
    raise ModuleNotFoundError(
        "lightlink.contrib.flask needs Flask: pip install 'lightlink[flask]'", name=exc.name
    ) from exc

from lightlink.contrib.flask.extension import LightLink
from lightlink.contrib.flask.health import health_blueprint
from lightlink.contrib.statuses import STATUSES

__all__ = ["STATUSES", "LightLink", "health_blueprint"]
