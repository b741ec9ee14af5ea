"""Django middleware: a request is known by an id, and errors of LightLink that no view has caught become statuses."""

from __future__ import annotations

import logging
from contextvars import copy_context
from http import HTTPStatus
from typing import TYPE_CHECKING

from django.conf import settings
from django.http import JsonResponse

from lightlink import logs
from lightlink.contrib.statuses import phrase_of, status_of, with_changes
from lightlink.errors import LightLinkError
from lightlink.protocol.codec import CORRELATION_HEADER
from lightlink.protocol.text import visible

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.http import HttpRequest, HttpResponse

_log = logging.getLogger("lightlink")


class LightLinkContextMiddleware:
    """Has all that a request leads to be known by one id: log lines (`lightlink.LogFilter`), calls, events, commands.

    It is the one that the request brings in LIGHTLINK_REQUEST_ID_HEADER (X-Request-ID), if that is plain text of at
    most 128 characters, else the id of its trace, else a new one; the answer carries it. The trace of the request
    (``traceparent``, ``tracestate``, ``baggage``) goes on in what it calls, publishes and sends.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response
        self._header = str(getattr(settings, "LIGHTLINK_REQUEST_ID_HEADER", "X-Request-ID"))

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """Answer a request, in a context of its own."""
        response: HttpResponse = copy_context().run(self._answer, request)
        return response

    def _answer(self, request: HttpRequest) -> HttpResponse:
        headers = logs.request_headers(request.headers.get, self._header)
        logs.enter_request(headers)
        response = self._get_response(request)
        response.headers.setdefault(self._header, headers[CORRELATION_HEADER])
        return response


class LightLinkErrorsMiddleware:
    """Answers errors of LightLink by the statuses of `lightlink.contrib.statuses`, as JSON.

    ``LIGHTLINK_STATUSES`` changes some: ``{"CallTimeout": 503}``, None leaves an error to Django. Outsiders learn the
    text of what is their own mistake (4xx); that of others' (5xx) is in the log, and in the answer only with DEBUG.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response
        self._statuses = with_changes(getattr(settings, "LIGHTLINK_STATUSES", {}))

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """Answer a request."""
        return self._get_response(request)

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse | None:
        """Return the answer for an error of ours, None for others."""
        if not isinstance(exception, LightLinkError):
            return None
        status = status_of(exception, self._statuses)
        if status is None:
            return None
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            _log.warning("lightlink: %s %s: %s", request.method, visible(request.path), visible(str(exception)))
        shown = status < HTTPStatus.INTERNAL_SERVER_ERROR or settings.DEBUG
        text = str(exception) if shown else phrase_of(status)
        return JsonResponse({"error": text, "type": type(exception).__name__}, status=status)
