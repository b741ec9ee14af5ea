"""Errors of LightLink that no view has caught become HTTP statuses."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from flask import jsonify, request
from werkzeug.exceptions import default_exceptions

from lightlink.contrib.statuses import phrase_of, status_of, with_changes
from lightlink.errors import LightLinkError
from lightlink.protocol.text import visible

if TYPE_CHECKING:
    from collections.abc import Mapping

    import flask
    from flask.typing import ResponseReturnValue

_log = logging.getLogger("lightlink")
_RETRY_SECONDS = {429: "1", 503: "2"}


def answer_errors(app: flask.Flask, changes: Mapping[type[LightLinkError] | str, int | None]) -> None:
    """Have an app answer errors of LightLink by their statuses, through its own pages for these if it has any.

    Outsiders learn the text of what is their own mistake (4xx); that of others' (5xx) is in the log, and in the answer
    only where the app is being debugged. Raises InvalidOption for statuses that cannot be.
    """
    statuses = with_changes(changes)

    def answer(error: LightLinkError) -> ResponseReturnValue:
        status = status_of(error, statuses)
        if status is None:
            raise error
        if status >= 500:
            _log.warning("lightlink: %s %s: %s", request.method, visible(request.path), visible(str(error)))
        shown = str(error) if status < 500 or app.debug else None
        page = default_exceptions[status](description=shown) if status in default_exceptions else None
        # An app with a page of its own for this status shows it.
        if page is not None and (own := app.handle_http_exception(page)) is not page:
            return own
        name = page.name if page is not None else phrase_of(status)
        response: Any = jsonify({"error": shown or name, "type": type(error).__name__})
        response.status_code = status
        if status in _RETRY_SECONDS:
            response.headers["Retry-After"] = _RETRY_SECONDS[status]
        return response  # type: ignore[no-any-return]

    app.register_error_handler(LightLinkError, answer)
