"""Browser sessions: a cookie that names the token it was made from, signed with that token's digest.

The server keeps no state: a session ends when it expires, or when its token is revoked.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from typing import TYPE_CHECKING, Protocol, runtime_checkable
from urllib.parse import urlsplit

from werkzeug.exceptions import Forbidden, Unauthorized
from werkzeug.exceptions import NotImplemented as HttpNotImplemented
from werkzeug.wrappers import Response

from lightlink.http import addresses, inputs
from lightlink.http.access import SCOPES
from lightlink.http.console.schemas import LogIn, Session
from lightlink.http.replies import reply
from lightlink.version import __version__

if TYPE_CHECKING:
    from werkzeug.wrappers import Request

    from lightlink.http.access import Token
    from lightlink.http.call import Call

SECONDS = 8 * 3600
_COOKIE = "__Host-lightlink"
_LOOPBACK_COOKIE = "lightlink"
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})


@runtime_checkable
class NamedTokens(Protocol):
    """A token source that also finds a token by name, with the SHA-256 of its secret."""

    def named(self, name: str, /) -> tuple[bytes, Token] | None:
        """Return the digest of a token's secret, and the token."""


def get_session(call: Call) -> Session:
    """Return the current user and permissions."""
    app = call.app
    if app.tokens is None:
        return Session(log_in=False, version=__version__, name="", scope=[*SCOPES])
    token = app.identify(call.request)
    if token is None:
        return Session(log_in=True, version=__version__)
    return Session(log_in=True, version=__version__, name=token.name, scope=sorted(token.scope))


def log_in(call: Call) -> Response:
    """Create a session from a token and set its cookie; raises Unauthorized for an invalid token."""
    body: LogIn = call.body
    tokens = call.app.tokens
    if tokens is None:
        return reply(get_session(call))
    if not isinstance(tokens, NamedTokens):
        raise HttpNotImplemented("logging in needs a token source with named(name), which this app's has not")
    check_origin(call.request)
    token = tokens(body.token)
    if token is None:
        call.app.count_stranger()
        raise Unauthorized("invalid token")
    expiry = int(time.time()) + SECONDS
    digest = hashlib.sha256(body.token.encode()).digest()
    response = reply(Session(log_in=True, version=__version__, name=token.name, scope=sorted(token.scope)))
    _set_cookie(call.request, response, f"{token.name}.{expiry}.{_sign(digest, token.name, expiry)}", SECONDS)
    return response


def log_out(call: Call) -> Response:
    """Delete the session cookie."""
    check_origin(call.request)
    inputs.check_type(call.request)
    response = reply(Session(log_in=call.app.tokens is not None, version=__version__))
    _set_cookie(call.request, response, "", 0)
    return response


def find(request: Request, tokens: object) -> Token | None:
    """Return the token of a request's session; raises Forbidden for a possible cross-site request forgery."""
    cookie = request.cookies.get(_cookie_name(request), "")
    name, _, rest = cookie.rpartition(".")[0].rpartition(".")
    signature = cookie.rpartition(".")[2]
    if not name or not (rest.isascii() and rest.isdigit() and len(rest) < 12) or not signature.isascii():
        return None
    found = tokens.named(name) if isinstance(tokens, NamedTokens) else None
    if found is None or int(rest) < time.time():
        return None
    digest, token = found
    if not hmac.compare_digest(_sign(digest, name, int(rest)), signature):
        return None
    check_origin(request)
    return token


def check_origin(request: Request) -> None:
    """Raise Forbidden for a state-changing request from another origin."""
    if request.method in _SAFE:
        return
    site = request.headers.get("Sec-Fetch-Site")
    if site is not None:
        own = site == "same-origin"
    else:
        origin = _network_location(request.headers.get("Origin", ""))
        own = origin is not None and origin == request.environ.get("HTTP_HOST")
    if not own:
        raise Forbidden("cross-site request: with a session, only this site's own pages may change anything")


def _network_location(origin: str) -> str | None:
    """Return host and port of an origin; None for one that has none, or is no URL."""
    try:
        return urlsplit(origin).netloc or None
    except ValueError:  # as of "http://["
        return None


def _sign(digest: bytes, name: str, expiry: int) -> str:
    return hmac.new(digest, f"{name}|{expiry}".encode(), hashlib.sha256).hexdigest()


def _cookie_name(request: Request) -> str:
    return _LOOPBACK_COOKIE if _is_plain_loopback(request) else _COOKIE


def _is_plain_loopback(request: Request) -> bool:
    """Tell whether the request is plain HTTP on loopback, where some browsers reject Secure cookies."""
    host = addresses.host_name(request.environ.get("HTTP_HOST", ""))
    return request.scheme == "http" and (host == "localhost" or addresses.is_loopback(host))


def _set_cookie(request: Request, response: Response, value: str, seconds: int) -> None:
    name = _cookie_name(request)
    response.set_cookie(
        name, value, max_age=seconds, path="/", secure=name == _COOKIE, httponly=True, samesite="Strict"
    )
