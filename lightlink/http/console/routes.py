"""Routes of the console alone; they are not part of the public API."""

from __future__ import annotations

from lightlink.http.console import assets, schemas, session
from lightlink.http.route import Route

ROUTES: tuple[Route, ...] = (
    Route(method="GET", path="/", view=assets.get_page, summary="Get the console's page.", scope=None),
    Route(
        method="GET",
        path="/console/session",
        view=session.get_session,
        summary="Get the current session.",
        scope=None,
    ),
    Route(
        method="POST",
        path="/console/session",
        view=session.log_in,
        summary="Log in with a token.",
        scope=None,
        body=schemas.LogIn,
    ),
    Route(method="DELETE", path="/console/session", view=session.log_out, summary="Log out.", scope=None),
    Route(method="GET", path="/console/<path:name>", view=assets.get_asset, summary="Get a file.", scope=None),
)
