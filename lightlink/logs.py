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
    from collections.abc import Mapping

# What a log line may ask for, whether or not there is such a thing where it is written.
FACTS = ("correlation_id", "service", "method", "subject", "client_id", "command_id", "attempt", "run_id")

RUN_ID_HEADER = "LightLink-Run-Id"

# W3C Trace Context: version, trace id, parent id, flags.
_TRACE = re.compile(r"[0-9a-f]{2}-(?P<trace>[0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")
# It goes into logs and other people's systems.
_PLAIN = re.compile(r"[\x21-\x7e]{1,128}")


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
    """Return the headers to send: what a handler sends carries its correlation id."""
    if _scope.get() is None:
        return headers
    return {codec.CORRELATION_HEADER: correlation_id(), **(headers or {})}


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
