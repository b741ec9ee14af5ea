"""Commands over HTTP (extra ``http``): a WSGI app for curl, scripts and dashboards, and a server for it.

`create_app` returns the app; Flask, Django, gunicorn, waitress or any other WSGI server carries it. `serve` and
``lightlink http`` serve it with waitress.
"""

try:
    from lightlink.http.access import FileTokens, Token
    from lightlink.http.app import HttpApp, create_app
    from lightlink.http.limits import Limits
    from lightlink.http.server import CannotListen, serve
except ModuleNotFoundError as exc:
    if (exc.name or "").partition(".")[0] not in ("werkzeug", "waitress", "prometheus_client"):
        raise
    raise ModuleNotFoundError(f"lightlink.http needs {exc.name}: pip install 'lightlink[http]'", name=exc.name) from exc

__all__ = ["CannotListen", "FileTokens", "HttpApp", "Limits", "Token", "create_app", "serve"]
