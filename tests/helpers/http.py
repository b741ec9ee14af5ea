"""The HTTP server in a process of its own, and real HTTP to it."""

from __future__ import annotations

import http.client
import json
import socket
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

import werkzeug.test

from helpers.process import PythonProcess

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path
    from types import TracebackType

    from typing_extensions import Self
    from werkzeug.test import TestResponse

CLI = """
    import sys
    from lightlink.cli import main
    sys.exit(main(["http", *sys.argv[1:]]))
"""


class Answer(NamedTuple):
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self) -> Any:
        assert self.headers.get_content_type() == "application/json", self
        return json.loads(self.body)

    @property
    def error(self) -> str:
        """The text of a refusal, which has the shape that all refusals have."""
        body = self.json
        assert body["success"] is False, self
        assert "Traceback" not in body["error"], self
        return str(body["error"])


class Http:
    """Real HTTP to a server: ``http.post("/api/command", {...})``; each request on a connection of its own."""

    def __init__(self, url: str, token: str | None = None) -> None:
        parts = urlsplit(url)
        assert parts.hostname is not None
        self.url = url
        self.host = parts.hostname
        self.port = parts.port or 80
        self.base = parts.path.rstrip("/")
        self.token = token

    def get(self, path: str, **options: Any) -> Answer:
        return self.request("GET", path, **options)

    def post(self, path: str, body: Any = None, **options: Any) -> Answer:
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json", **options.pop("headers", {})}
        return self.request("POST", path, data, headers=headers, **options)

    def request(
        self,
        method: str,
        path: str,
        data: Any = None,
        *,
        headers: Mapping[str, str] | None = None,
        timeout: float = 30.0,
    ) -> Answer:
        connection = http.client.HTTPConnection(self.host, self.port, timeout=timeout)
        try:
            connection.request(method, self.base + path, data, self._headers(headers))
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read())
        finally:
            connection.close()

    def open(self, path: str, *, headers: Mapping[str, str] | None = None, timeout: float = 30.0) -> Opened:
        """Send a GET and do not wait for its answer."""
        return Opened(self, path, self._headers(headers), timeout)

    def send_raw(self, data: bytes, timeout: float = 30.0) -> bytes:
        """Send bytes that need not be HTTP, and return all that comes back until the server hangs up."""
        with socket.create_connection((self.host, self.port), timeout) as sock, sock.makefile("rb") as reader:
            sock.sendall(data)
            return reader.read()

    def _headers(self, headers: Mapping[str, str] | None) -> dict[str, str]:
        found = dict(headers or {})
        if self.token is not None:
            found.setdefault("Authorization", f"Bearer {self.token}")
        return found


class Opened:
    """A request under way; a context manager, which hangs up at the end."""

    def __init__(self, http_: Http, path: str, headers: dict[str, str], timeout: float) -> None:
        self._connection = http.client.HTTPConnection(http_.host, http_.port, timeout=timeout)
        self._connection.request("GET", http_.base + path, headers=headers)

    def answer(self) -> Answer:
        """Wait for the whole answer."""
        response = self._connection.getresponse()
        return Answer(response.status, response.headers, response.read())

    def response(self) -> http.client.HTTPResponse:
        """Wait for the head of the answer."""
        return self._connection.getresponse()

    def close(self) -> None:
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Events:
    """Server-sent events, as they come. Iterating yields (id, data) and passes comments over."""

    def __init__(self, opened: Opened) -> None:
        self._opened = opened
        self._response = opened.response()
        assert self._response.status == 200, self._response.read()
        assert self._response.headers.get_content_type() == "text/event-stream"
        # Its first comment says that from here on nothing is missed.
        while self._response.readline() != b": connected\n":
            pass

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        fields: dict[str, str] = {}
        for line in iter(self.line, ""):
            if line == "\n":
                if "data" in fields:
                    assert fields["event"] in ("command", "progress")
                    yield fields.get("id", ""), json.loads(fields["data"])
                fields = {}
                continue
            name, _, value = line.rstrip("\n").partition(":")
            fields[name] = value.removeprefix(" ")

    def line(self) -> str:
        """Return the next line, empty at the end."""
        return self._response.readline().decode()


class HttpProcess:
    """``lightlink http`` in a process of its own, listening on a free port; ``http`` talks to it."""

    def __init__(
        self, nats_url: str, *arguments: str, token: str | None = None, env: dict[str, str] | None = None
    ) -> None:
        arguments = ("--listen=127.0.0.1:0", "--json", f"--url={nats_url}", *arguments)
        self.process = PythonProcess(CLI, *arguments, env=env)
        try:
            # The line begins with what comes first in it.
            self.url: str = json.loads('{"url":' + self.process.wait_line('{"url":'))["url"]
        except BaseException:
            self.process.kill()
            raise
        self.http = Http(self.url, token)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.kill()


def tokens_file(path: Path, *tokens: dict[str, Any]) -> Path:
    """Write a file of tokens, and return its path."""
    path.write_text(json.dumps({"tokens": list(tokens)}))
    path.chmod(0o600)
    return path


class Browser(werkzeug.test.Client):
    """Calls a WSGI app without a server, as from this machine unless ``environ_overrides`` say otherwise."""

    def open(self, *args: Any, environ_overrides: dict[str, Any] | None = None, **options: Any) -> TestResponse:
        """Make a request."""
        overrides = {"REMOTE_ADDR": "127.0.0.1"} | (environ_overrides or {})
        return super().open(*args, environ_overrides=overrides, **options)
