"""The WSGI app: finds the call, lets in who may make it, reads what it brings, and answers in JSON whatever happens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from werkzeug.exceptions import Forbidden, HTTPException, TooManyRequests
from werkzeug.routing import Map, Rule, UnicodeConverter
from werkzeug.wrappers import Request, Response

from lightlink.commands.processes import Managers
from lightlink.concurrency.threads import Event
from lightlink.errors import InvalidOption
from lightlink.http import addresses, inputs
from lightlink.http.access import FileTokens, Token
from lightlink.http.call import Call, unauthorized
from lightlink.http.console import session
from lightlink.http.console.assets import to_page
from lightlink.http.console.routes import ROUTES as CONSOLE_ROUTES
from lightlink.http.limits import Limits, RateLimiter, WaitingRoom
from lightlink.http.metrics import Metrics
from lightlink.http.openapi import document
from lightlink.http.recent import Recent
from lightlink.http.replies import refusal, reply
from lightlink.http.routes import ROUTES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from lightlink.commands.manager.manager import CommandManager
    from lightlink.http.access import TokenSource
    from lightlink.http.route import Route

# What a proxy adds: then the address that asks is the proxy's, and says nothing of who does.
_FORWARDED = ("Forwarded", "X-Real-IP", "X-Client-IP", "True-Client-IP", "CF-Connecting-IP", "Via")
_FORWARDED_PREFIX = "X-Forwarded-"
_UNSAFE = frozenset({"POST", "PUT", "PATCH", "DELETE"})
# Those who bring no good token share one bucket.
_STRANGERS = ""


def create_app(
    manager: CommandManager | Callable[[], CommandManager],
    *,
    tokens: str | Path | TokenSource | None = None,
    limits: Limits | None = None,
    open_to_all: bool = False,
    console: bool = True,
) -> HttpApp:
    """Return a WSGI app that serves a manager's commands, and runs where it is an `Orchestrator`.

    ``manager`` is a `CommandManager`, which is followed into forked workers, or a function that makes one when a
    process gets its first request. ``tokens`` is the path of a token file (see `FileTokens`) or a function from what a
    request brings as its bearer token to a `Token` or None. Without tokens only this machine is answered, unless
    ``open_to_all``: then something before this app decides who may.
    ``console`` says whether there is a web console at ``/``. Raises InvalidOption.
    """
    source = tokens if tokens is None or callable(tokens) else FileTokens(tokens)
    if limits is not None and not isinstance(limits, Limits):
        raise InvalidOption("limits", "must be Limits(...)", type(limits).__name__)
    return HttpApp(Managers(manager), source, limits or Limits(), open_to_all, console)


class _CommandId(UnicodeConverter):
    """The id of a command in a path, where /api/command/multi has none."""

    def __init__(self, url_map: Map) -> None:
        super().__init__(url_map)
        self.regex = "(?!multi$)[^/]+"


class _RunId(UnicodeConverter):
    """The id of a run in a path, where /api/runs/stream has none."""

    def __init__(self, url_map: Map) -> None:
        super().__init__(url_map)
        self.regex = "(?!stream$)[^/]+"


class HttpApp:
    """A WSGI app over the commands. Made by `create_app`; safe to share between threads."""

    def __init__(
        self, managers: Managers, tokens: TokenSource | None, limits: Limits, open_to_all: bool, console: bool
    ) -> None:
        self.managers = managers
        self.tokens = tokens
        self.limits = limits
        self.open_to_all = open_to_all
        self._console = console
        self.room = WaitingRoom(limits.max_waiting)
        self.recent = Recent()
        self.metrics = Metrics(managers.get, self.room)
        self.stopping = Event()
        self._rates = RateLimiter(limits.burst)
        served = (*ROUTES, *CONSOLE_ROUTES) if console else ROUTES
        rules = [Rule(route.path, methods=[route.method], endpoint=route) for route in served]
        # A redirect would have a body of HTML.
        self._map = Map(
            rules, converters={"command": _CommandId, "run": _RunId}, merge_slashes=False, redirect_defaults=False
        )

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Answer a request (PEP 3333)."""
        request = Request(environ)
        try:
            response = self._answer(request)
        except Exception as exc:
            response = refusal(exc, request)
        return response(environ, start_response)

    def document(self, base: str) -> dict[str, Any]:
        """Return the OpenAPI document of its calls, for where it is mounted."""
        return document(ROUTES, base, self.tokens is not None)

    def stop(self) -> None:
        """End every wait and every stream, so that a server can stop; what is asked later does not wait."""
        self.stopping.set()

    def __repr__(self) -> str:
        return f"<HttpApp {'with' if self.tokens else 'without'} tokens>"

    def _answer(self, request: Request) -> Response:
        if self._console and not request.environ.get("PATH_INFO"):
            return to_page(request)
        route, path = self._find(request)
        token = self._let_in(request, route)
        call = Call(app=self, request=request, token=token, path=path)
        call.query = inputs.read_query(request, route.query)
        if route.body is not None:
            # Without a token the sender may be a browser, which sends JSON to strangers only if they allow it.
            # So may one with a session be made to.
            lenient = token is not None and "Authorization" in request.headers
            call.body = inputs.read_body(
                request, route.body, self.limits, optional=route.body_is_optional, any_type=lenient
            )
        elif route.method in _UNSAFE and (token is None or "Authorization" not in request.headers):
            inputs.check_type(request, route.takes)
        result = route.view(call)
        return result if isinstance(result, Response) else reply(result)

    def _find(self, request: Request) -> tuple[Route, dict[str, Any]]:
        adapter = self._map.bind_to_environ(request.environ)
        try:
            route, path = adapter.match()
        except HTTPException as exc:
            if exc.code == 404:
                exc.description = f"there is no {request.path}"
            elif exc.code == 405:
                exc.description = f"{request.method} is not for {request.path}"
            raise
        return route, dict(path)

    # Who may --------------------------------------------------------------------------------------------------------

    def _let_in(self, request: Request, route: Route) -> Token | None:
        """Return whose request it is; raises the HTTP errors 401, 403 and 429."""
        if self.tokens is None:
            self._refuse_strangers(request)
            if route.scope is not None:
                self._count(_STRANGERS, self.limits.rate)
            return None
        if route.scope is None:
            return None
        token = self.identify(request)
        if token is None:
            self.count_stranger()
            raise unauthorized("a good bearer token is needed: Authorization: Bearer <token>")
        self._count(token.name, token.rate or self.limits.rate)
        if route.scope not in token.scope:
            raise Forbidden(f"token {token.name!r} may not {route.scope}")
        return token

    def identify(self, request: Request) -> Token | None:
        """Return whose token or session a request brings; raises Forbidden for a session's change from elsewhere."""
        if "Authorization" not in request.headers:
            return session.find(request, self.tokens)
        scheme, _, secret = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not secret.strip() or self.tokens is None:
            return None
        token = self.tokens(secret.strip())
        if token is not None and not isinstance(token, Token):
            raise InvalidOption("tokens", "must return a Token or None", type(token).__name__)
        return token

    def count_stranger(self) -> None:
        """Count a request of somebody without a good token; raises TooManyRequests."""
        self._count(_STRANGERS, self.limits.rate)

    def _count(self, caller: str, rate: float) -> None:
        wait = self._rates.take(caller, rate)
        if wait > 0:
            seconds = int(wait) + 1
            raise TooManyRequests(
                f"more than {rate:g} requests a second; try again in {seconds} s", retry_after=seconds
            )

    def _refuse_strangers(self, request: Request) -> None:
        """Without tokens, answer this machine only; nor a browser that another's page has told a false name of ours."""
        if self.open_to_all:
            return
        forwarded = _forwarded(request)
        if forwarded is not None:
            raise Forbidden(f"no tokens are configured, so only this machine is answered, and not what has {forwarded}")
        if not addresses.is_loopback(request.remote_addr or ""):
            where = request.remote_addr or "an address that is not told, as behind a unix socket"
            raise Forbidden(f"no tokens are configured, so only this machine is answered, and not {where}")
        host = addresses.host_name(request.environ.get("HTTP_HOST", ""))
        if host and host != "localhost" and not addresses.is_loopback(host):
            raise Forbidden(f"no tokens are configured, so only this machine's own names are answered, and not {host}")


def _forwarded(request: Request) -> str | None:
    """Return the name of a header that a proxy has added, if there is one."""
    for name in _FORWARDED:
        if name in request.headers:
            return name
    return next((name for name, _ in request.headers if name.startswith(_FORWARDED_PREFIX)), None)
