"""Django middleware: errors of LightLink that no view has caught become HTTP statuses."""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import TYPE_CHECKING

from django.conf import settings
from django.http import JsonResponse

from lightlink.contrib.statuses import status_of, with_changes
from lightlink.errors import LightLinkError
from lightlink.protocol.text import visible

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.http import HttpRequest, HttpResponse

_log = logging.getLogger("lightlink")


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
        text = str(exception) if shown else HTTPStatus(status).phrase
        return JsonResponse({"error": text, "type": type(exception).__name__}, status=status)
