"""From replies and errors to HTTP responses. Every error has a JSON body, and none shows a traceback."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Response

from lightlink.errors import (
    AgentOffline,
    CallTimeout,
    ClosedError,
    CommandEnded,
    CommandNotFound,
    ConnectError,
    EncodeError,
    FleetError,
    InvalidArguments,
    InvalidName,
    InvalidOption,
    LightLinkError,
    LinkError,
    MessageTimeout,
    MethodNotFound,
    NotReady,
    OutboxFull,
    PayloadTooLarge,
    PermissionDenied,
    PlanInvalid,
    PlanNotFound,
    RemoteError,
    RevisionConflict,
    RunNotFound,
    RunRefused,
    ServiceUnavailable,
    StateError,
    StateNotFound,
    StoredFileNotFound,
    StoreUnavailable,
    StreamError,
    StreamNotFound,
    TransferStalled,
    UndoRefused,
)
from lightlink.http.schemas import Problem
from lightlink.protocol import codec

if TYPE_CHECKING:
    from werkzeug.wrappers import Request

_log = logging.getLogger("lightlink")

JSON = "application/json"
# The first that fits counts.
_STATUSES: tuple[tuple[tuple[type[Exception], ...], int], ...] = (
    ((PayloadTooLarge,), 413),
    ((InvalidName, InvalidOption, EncodeError), 400),
    ((PlanInvalid, InvalidArguments), 400),
    ((CommandNotFound, PlanNotFound, RunNotFound, MethodNotFound), 404),
    ((StateNotFound, StoredFileNotFound, StreamNotFound), 404),
    ((CommandEnded, RunRefused, UndoRefused, RevisionConflict), 409),
    ((RemoteError,), 502),
    ((MessageTimeout, CallTimeout), 504),
    ((AgentOffline, NotReady, StoreUnavailable, ConnectError, ClosedError, OutboxFull, PermissionDenied), 503),
    ((FleetError, ServiceUnavailable, StreamError, StateError, LinkError, TransferStalled), 503),
)


def reply(body: Any, status: int = 200) -> Response:
    """Return a response with a JSON body."""
    # A line of its own in a terminal.
    response = Response(codec.encode_json(body, "the reply") + b"\n", status=status, mimetype=JSON)
    # What a command is now, it may not be a moment later; and nothing here is for a browser to guess at.
    response.headers["Cache-Control"] = "no-store"
    response.headers["X-Content-Type-Options"] = "nosniff"
    return response


def refusal(error: Exception, request: Request) -> Response:
    """Return the response for an error; what nobody expected is logged, and the client learns no more than that."""
    if isinstance(error, HTTPException):
        return _http_refusal(error)
    status = next((code for kinds, code in _STATUSES if isinstance(error, kinds)), 500)
    if status != 500:
        return reply(Problem(error=str(error)), status)
    _log.error("lightlink: %r %r failed", request.method, request.path, exc_info=error)
    text = str(error) if isinstance(error, LightLinkError) else "internal error; the server's log says more"
    return reply(Problem(error=text), 500)


def _http_refusal(error: HTTPException) -> Response:
    response = reply(Problem(error=error.description or error.name), error.code or 500)
    # Allow, WWW-Authenticate, Retry-After: all but those of the HTML page that werkzeug would send.
    for name, value in error.get_headers():
        if name.lower() not in ("content-type", "content-length"):
            response.headers[name] = value
    return response
