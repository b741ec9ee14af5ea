"""Serve the page and its assets from the package, with a strict content security policy."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from werkzeug.exceptions import NotFound
from werkzeug.utils import redirect
from werkzeug.wrappers import Response

if TYPE_CHECKING:
    from werkzeug.wrappers import Request

    from lightlink.http.call import Call

_FOLDER = Path(__file__).parent / "assets"
_TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css"}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)


def get_page(call: Call) -> Response:
    """Return the HTML page."""
    return _file(call, "index.html")


def to_page(request: Request) -> Response:
    """Redirect to the URL with a trailing slash, on which the page's relative URLs depend."""
    return redirect(request.script_root + "/", 308)


def get_asset(call: Call) -> Response:
    """Return a JavaScript module or the stylesheet."""
    return _file(call, call.path["name"])


def _file(call: Call, name: str) -> Response:
    found = _assets().get(name)
    if found is None:
        raise NotFound(f"File not found: {call.request.path}")
    content, mimetype, etag = found
    response = Response(content, mimetype=mimetype)
    response.set_etag(etag)
    response.headers["Cache-Control"] = "no-cache"  # so that an upgrade takes effect at once
    response.headers["Content-Security-Policy"] = POLICY
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Referrer-Policy"] = "no-referrer"
    response.make_conditional(call.request)
    return response


@lru_cache(maxsize=1)
def _assets() -> dict[str, tuple[bytes, str, str]]:
    """Return all assets by URL path; a requested path is never used as a file system path."""
    found = [file for file in _FOLDER.rglob("*") if file.suffix in _TYPES]
    return {file.relative_to(_FOLDER).as_posix(): _read(file) for file in found}


def _read(file: Path) -> tuple[bytes, str, str]:
    content = file.read_bytes()
    return content, _TYPES[file.suffix], hashlib.sha256(content).hexdigest()[:16]
