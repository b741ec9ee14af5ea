"""The extension: a client an app and process, and what a request brings along to the calls that it makes."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

import flask
from flask import current_app, has_app_context, has_request_context, request

from lightlink import logs
from lightlink.contrib.flask.commands import group
from lightlink.contrib.flask.errors import answer_errors
from lightlink.contrib.link import Link, read_options
from lightlink.errors import InvalidOption, NotReady
from lightlink.protocol.codec import CORRELATION_HEADER

if TYPE_CHECKING:
    from collections.abc import Mapping
    from concurrent.futures import Future

    from werkzeug.datastructures import FileStorage

    from lightlink.client import Client
    from lightlink.commands import CommandManager
    from lightlink.files import FileInfo, Progress
    from lightlink.rpc.proxy import ServiceProxy
    from lightlink.rpc.retry import Retry

_KEY = "lightlink"
# Where a request's WSGI environment keeps what its calls carry, and what ends that.
_HEADERS = "lightlink.headers"
_LEAVE = "lightlink.leave"
_DEFAULTS: Mapping[str, Any] = {
    "LIGHTLINK_URL": None,
    "LIGHTLINK_TLS_CA": None,
    "LIGHTLINK_TLS_CERT": None,
    "LIGHTLINK_TLS_KEY": None,
    "LIGHTLINK_TLS_HOSTNAME": None,
    "LIGHTLINK_OPTIONS": {},
    "LIGHTLINK_STATUSES": {},
    "LIGHTLINK_HANDLE_ERRORS": True,
    "LIGHTLINK_REQUEST_ID_HEADER": "X-Request-ID",
}


class LightLink:
    """NATS for a Flask app, or for several.

    The app's config says where to connect: ``LIGHTLINK_URL``, ``LIGHTLINK_TLS_CA``, ``_CERT``, ``_KEY`` and
    ``_HOSTNAME``, and in ``LIGHTLINK_OPTIONS`` any setting of `lightlink.connect`; what is not set comes from the
    environment. Nothing is connected before it is used, so an app starts without NATS, and may be loaded before its
    server forks. An error of LightLink that a view does not catch becomes the HTTP status that `STATUSES` names, with
    the changes in ``LIGHTLINK_STATUSES``; ``LIGHTLINK_HANDLE_ERRORS`` False leaves that to the app.
    """

    def __init__(self, app: flask.Flask | None = None) -> None:
        self._app = app
        if app is not None:
            self.init_app(app)

    def init_app(self, app: flask.Flask) -> None:
        """Set the app up from its config; raises InvalidOption for what is wrong there, NotReady the second time."""
        if _KEY in app.extensions:
            raise NotReady("the extension LightLink", f"is registered with app {app.name!r} already")
        for name, value in _DEFAULTS.items():
            app.config.setdefault(name, value)
        config = app.config
        tls = {name: config[f"LIGHTLINK_TLS_{name.upper()}"] for name in ("ca", "cert", "key", "hostname")}
        app.extensions[_KEY] = Link(read_options(config["LIGHTLINK_URL"], tls, config["LIGHTLINK_OPTIONS"], app.name))
        # By its signal, as what else the app does before a request is part of the request, too.
        flask.request_started.connect(self._enter_request, app)
        app.after_request(self._tell_correlation_id)
        app.teardown_request(_leave_request)
        app.cli.add_command(group)
        if config["LIGHTLINK_HANDLE_ERRORS"]:
            answer_errors(app, config["LIGHTLINK_STATUSES"])

    # What it holds --------------------------------------------------------------------------------------------------

    @property
    def client(self) -> Client:
        """The client of the current app in this process."""
        return self._link.client

    @property
    def manager(self) -> CommandManager:
        """The manager of the current app in this process, connected; raises ConnectError, StoreUnavailable."""
        return self._link.manager

    @property
    def correlation_id(self) -> str | None:
        """What the current request is known by, to its client and to the services that it calls; None outside one."""
        return self.headers.get(CORRELATION_HEADER)

    @property
    def headers(self) -> dict[str, str]:
        """The headers that calls of the current request carry: correlation id and trace context; else none."""
        if not has_request_context():
            return {}
        # Not in `g`, which all requests of a test share that has pushed an app context of its own.
        found: dict[str, str] | None = request.environ.get(_HEADERS)
        if found is None:
            found = logs.request_headers(request.headers.get, current_app.config["LIGHTLINK_REQUEST_ID_HEADER"])
            request.environ[_HEADERS] = found
        return dict(found)

    def close(self, timeout: float = 5.0) -> None:
        """Close what this process has opened for the current app, within ``timeout`` seconds; for the end of tests."""
        self._link.close(timeout)

    # What it does ---------------------------------------------------------------------------------------------------

    def call(
        self,
        service: str,
        method: str,
        args: Any = None,
        *,
        timeout: float | None = None,
        returns: Any = Any,
        retry: Retry | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """Call a method of a service, with the headers of the current request; see `Client.call`."""
        sent = self._with_own(headers)
        return self.client.call(service, method, args, timeout=timeout, returns=returns, retry=retry, headers=sent)

    def submit(
        self,
        service: str,
        method: str,
        args: Any = None,
        *,
        timeout: float | None = None,
        returns: Any = Any,
        headers: Mapping[str, str] | None = None,
    ) -> Future[Any]:
        """Call a method without waiting, with the headers of the current request; see `Client.submit`."""
        sent = self._with_own(headers)
        return self.client.submit(service, method, args, timeout=timeout, returns=returns, headers=sent)

    def service(self, name: str, *, timeout: float | None = None, retry: Retry | None = None) -> ServiceProxy:
        """Return a service whose methods are called like functions, with the headers of the current request."""
        return self.client.service(name, timeout=timeout, retry=retry, headers=self.headers)

    def publish(self, subject: str, data: Any = None, *, headers: Mapping[str, str] | None = None) -> None:
        """Publish data, with the headers of the current request; see `Client.publish`."""
        self.client.publish(subject, data, headers=self._with_own(headers))

    def upload(
        self,
        file: FileStorage,
        *,
        name: str | None = None,
        content_type: str | None = None,
        metadata: Mapping[str, str] | None = None,
        progress: Progress | None = None,
    ) -> FileInfo:
        """Store a file of a form (``request.files["picture"]``) with its name and type; see `FileStore.upload`.

        Raises InvalidOption when the form was sent without choosing a file.
        """
        chosen = name or file_name(file.filename or "")
        if not chosen:
            raise InvalidOption("file", "the form was sent without choosing one", file.name)
        given_type = content_type or file.mimetype or None
        return self.client.upload(
            file.stream, name=chosen, content_type=given_type, metadata=metadata, progress=progress
        )

    # ----------------------------------------------------------------------------------------------------------------

    @property
    def _link(self) -> Link:
        app = current_app if has_app_context() or self._app is None else self._app
        link = app.extensions.get(_KEY)
        if not isinstance(link, Link):
            raise NotReady("the extension LightLink", f"is not registered with app {app.name!r}: link.init_app(app)")
        return link

    def _with_own(self, headers: Mapping[str, str] | None) -> Mapping[str, str] | None:
        own = self.headers
        return {**own, **headers} if own and headers else own or headers

    def _enter_request(self, _: flask.Flask, **__: Any) -> None:
        """Have all that the request leads to carry what it brought, and its log lines name it."""
        request.environ[_LEAVE] = logs.enter_request(self.headers)

    def _tell_correlation_id(self, response: flask.Response) -> flask.Response:
        response.headers.setdefault(current_app.config["LIGHTLINK_REQUEST_ID_HEADER"], self.correlation_id or "")
        return response


def _leave_request(_: BaseException | None) -> None:
    leave = request.environ.pop(_LEAVE, None)
    if leave is not None:
        leave()


def file_name(given: str) -> str:
    """Return the last part of the name that a browser sends; some send a whole path, of their own system."""
    return PurePosixPath(given.replace("\\", "/")).name
