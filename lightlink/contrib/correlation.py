"""What a web request is known by, so that the calls it leads to are known by the same."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from lightlink.protocol.codec import CORRELATION_HEADER
from lightlink.protocol.ids import new_id

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["CORRELATION_HEADER", "headers_for"]

# W3C Trace Context: handed on as they are.
_TRACE_HEADERS = ("traceparent", "tracestate", "baggage")
# They go into logs, headers and other people's systems.
_PLAIN = re.compile(r"[\x21-\x7e]{1,128}")
_ONE_LINE = re.compile(r"[\x20-\x7e]{1,8192}")


def headers_for(get: Callable[[str], str | None], request_id_header: str) -> dict[str, str]:
    """Return the headers that the calls of a request carry; ``get`` looks up a header of the request.

    The correlation id is the one that the request brings in ``request_id_header``, if it is plain text of at most 128
    characters, else a new one.
    """
    given = get(request_id_header) or get(CORRELATION_HEADER) or ""
    headers = {CORRELATION_HEADER: given if _PLAIN.fullmatch(given) else new_id()}
    for name in _TRACE_HEADERS:
        value = get(name)
        if value and _ONE_LINE.fullmatch(value):
            headers[name] = value
    return headers
