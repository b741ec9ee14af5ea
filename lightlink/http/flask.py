"""Carry an app in Flask, as a blueprint."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flask import Blueprint, Response, current_app, request

from lightlink.http.call import CONTEXT

if TYPE_CHECKING:
    from lightlink.http.app import HttpApp

_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


def blueprint(app: HttpApp, name: str = "lightlink") -> Blueprint:
    """Return a blueprint that hands every request below its ``url_prefix`` to the app.

    What the Flask app does before a request, such as asking who it is, is done before these too.
    """
    made = Blueprint(name, __name__)

    def forward(path: str) -> Response:
        environ = dict(request.environ)
        # A stream outlives the request's own context, and asks the source of tokens again.
        environ[CONTEXT] = current_app.app_context
        before = environ["PATH_INFO"].removesuffix(f"/{path}".encode().decode("latin-1"))
        environ["SCRIPT_NAME"] = environ.get("SCRIPT_NAME", "") + before
        environ["PATH_INFO"] = environ["PATH_INFO"][len(before) :]
        return Response.from_app(app, environ)  # type: ignore[return-value]

    made.add_url_rule("/", "forward", forward, methods=_METHODS, defaults={"path": ""}, provide_automatic_options=False)
    made.add_url_rule("/<path:path>", "forward", forward, methods=_METHODS, provide_automatic_options=False)
    return made
