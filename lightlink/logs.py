"""What is known of the handler that runs, for its log lines and for what it calls.

It is kept in a `contextvars.Context` of the handler's own: nothing of it is seen by the next.
"""

from __future__ import annotations

import logging
import re
import sys
from contextvars import Context, ContextVar
from typing import TYPE_CHECKING, Any, TypeAlias

from lightlink.protocol import codec
from lightlink.protocol.ids import new_id
from lightlink.protocol.subjects import as_text

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

# What a log line may ask for, whether or not there is such a thing where it is written.
FACTS = ("correlation_id", "service", "method", "subject", "client_id", "command_id", "attempt", "run_id")

RUN_ID_HEADER = "LightLink-Run-Id"

# Handed on as they came where nobody traces (W3C Trace Context and Baggage).
TRACE_HEADERS = ("traceparent", "tracestate", "baggage")

# W3C Trace Context: version, trace id, parent id, flags.
_TRACE = re.compile(r"[0-9a-f]{2}-(?P<trace>[0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")
# It goes into logs and other people's systems.
_PLAIN = re.compile(r"[\x21-\x7e]{1,128}")
_ONE_LINE = re.compile(r"[\x20-\x7e]{1,8192}")


# Of the handler that runs: what is known of it, the subject it was reached on if that is news, the headers that came.
# A tuple, for a service answers many thousand requests a second; nothing is worked out before it is asked for.
_Scope: TypeAlias = "tuple[Mapping[str, Any], bytes, bytes | Mapping[str, str] | None]"
_scope: ContextVar[_Scope | None] = ContextVar("lightlink_scope", default=None)
# Returns what is known of the handler that runs here, None outside of one; for where that is all that may be spent.
in_handler = _scope.get
_correlation_id: ContextVar[str] = ContextVar("lightlink_correlation_id", default="")


def context_of(facts: Mapping[str, Any]) -> Context:
    """Return a context in which nothing but the facts of a handler is known, to be copied for each of its runs."""
    context = Context()
    context.run(_scope.set, (facts, b"", None))
    return context


def enter(facts: Mapping[str, Any], headers: bytes | Mapping[str, str] | None, subject: bytes = b"") -> None:
    """Say what is known of the handler that is about to run in this context, and which headers came with it."""
    _scope.set((facts, subject, headers))
    if "structlog" in sys.modules:
        tell_structlog()


def enter_request(headers: Mapping[str, str]) -> Callable[[], None]:
    """Say which headers a web request brought (`request_headers`); return what puts back what was known before.

    For where a request has no context of its own. What it calls, publishes and sends carries the headers.
    """
    before = _scope.get(), _correlation_id.get()
    _correlation_id.set("")
    enter({}, headers)

    def leave() -> None:
        # Not by tokens: a body that is streamed may end in another context.
        _scope.set(before[0])
        _correlation_id.set(before[1])
        if "structlog" in sys.modules:
            sys.modules["structlog"].contextvars.unbind_contextvars("correlation_id")
            if before[0] is not None:
                tell_structlog()

    return leave


def request_headers(get: Callable[[str], str | None], request_id_header: str) -> dict[str, str]:
    """Return the headers that whatever a web request leads to carries; ``get`` looks up a header of the request.

    The correlation id is what the request brings in ``request_id_header``, if it is plain text of at most 128
    characters, else the id of its trace, else a new one.
    """
    headers: dict[str, str] = {}
    for name in TRACE_HEADERS:
        value = get(name)
        if value and _ONE_LINE.fullmatch(value):
            headers[name] = value
    given = get(request_id_header) or get(codec.CORRELATION_HEADER) or ""
    headers[codec.CORRELATION_HEADER] = _find_correlation_id({**headers, codec.CORRELATION_HEADER: given})
    return headers


def tell_structlog() -> None:
    """Let structlog know what is known, as its ``merge_contextvars`` wants it; it has been imported."""
    structlog: Any = sys.modules["structlog"]
    structlog.contextvars.bind_contextvars(**log_context())


def log_context() -> dict[str, Any]:
    """Return what is known of the handler that runs here: an empty dict outside of one.

    There are ``correlation_id`` and, as they apply, ``service``, ``method``, ``subject``, ``client_id``,
    ``command_id``, ``attempt`` and ``run_id``. With structlog its ``merge_contextvars`` brings the same.
    """
    scope = _scope.get()
    if scope is None:
        return {}
    facts, subject, headers = scope
    found = {"correlation_id": correlation_id(), **facts}
    if subject:
        found["subject"] = as_text(subject)
    run_id = _decoded(headers).get(RUN_ID_HEADER, "")
    if _PLAIN.fullmatch(run_id):
        found["run_id"] = run_id
    return found


def correlation_id() -> str:
    """Return what all that one request leads to is known by: the caller's, else its trace's id, else a random one.

    It is looked for, or drawn, when it is first asked for; empty outside of a handler.
    """
    known = _correlation_id.get()
    scope = _scope.get()
    if not known and scope is not None:
        known = _find_correlation_id(_decoded(scope[2]))
        _correlation_id.set(known)
    return known


def outgoing(headers: codec.HeaderMap | None) -> codec.HeaderMap | None:
    """Return the headers to send: what a handler sends carries its correlation id and the trace that it is part of."""
    if _scope.get() is None:
        return headers
    own = headers or {}
    came = {name: value for name, value in trace_headers().items() if name == "baggage" or "traceparent" not in own}
    return {codec.CORRELATION_HEADER: correlation_id(), **came, **own}


def trace_headers() -> dict[str, str]:
    """Return the headers of a trace that came with what is handled here, as they came; empty outside of a handler."""
    scope = _scope.get()
    headers = scope[2] if scope is not None else None
    # Most have none, and a service answers many thousand requests a second.
    if headers is None or (
        isinstance(headers, bytes) and b"traceparent:" not in headers and b"baggage:" not in headers
    ):
        return {}
    decoded = _decoded(headers)
    return {name: decoded[name] for name in TRACE_HEADERS if decoded.get(name)}


class LogFilter(logging.Filter):
    """Puts what `log_context` returns on each record: ``%(correlation_id)s``, ``%(method)s`` and so on in a format.

    It belongs on a log handler: ``handler.addFilter(lightlink.LogFilter())``. What does not apply is empty.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Complete a record; every one passes."""
        found = log_context()
        for name in FACTS:
            if not hasattr(record, name):
                setattr(record, name, found.get(name, ""))
        return True


def _find_correlation_id(headers: Mapping[str, str]) -> str:
    given = headers.get(codec.CORRELATION_HEADER, "")
    if _PLAIN.fullmatch(given):
        return given
    trace = _TRACE.fullmatch(headers.get("traceparent", ""))
    return trace["trace"] if trace else new_id()


def _decoded(headers: bytes | Mapping[str, str] | None) -> Mapping[str, str]:
    return codec.decode_headers(headers) if headers is None or isinstance(headers, bytes) else headers
