"""Traces of calls, events, files and commands with OpenTelemetry (extra ``otel``: its API alone; the SDK is yours).

::

    from lightlink.contrib import opentelemetry

    opentelemetry.instrument()      # before clients, services and agents are made

Context travels in headers by the global propagator, by default W3C ``traceparent``, ``tracestate`` and ``baggage``. A
call's server span is the child of its client span, an event's consumer span that of its producer span. Where no span is
current, that of the headers to be sent is the parent: a web request's, or that of who wrote an event into an outbox.
Commands and durable events may be handled days later: they begin a trace of their own, which links to the sender's.
Names and attributes are those of the semantic conventions for RPC and messaging, version 1.27.0.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from lightlink import logs
from lightlink.middleware import install, uninstall
from lightlink.protocol import subjects
from lightlink.version import __version__

try:
    from opentelemetry import baggage, context, propagate, trace
    from opentelemetry.trace import Link, SpanKind, Status, StatusCode
except ModuleNotFoundError as exc:
    if exc.name is None or exc.name.partition(".")[0] != "opentelemetry":
        raise
    raise ModuleNotFoundError(
        f"lightlink.contrib.opentelemetry needs {exc.name}: pip install 'lightlink[otel]'", name=exc.name
    ) from exc

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Span, TracerProvider

    from lightlink.middleware import Call, Proceed

__all__ = ["Tracing", "instrument", "uninstrument"]

SCHEMA_URL = "https://opentelemetry.io/schemas/1.27.0"

_OUTGOING = {
    "call": SpanKind.CLIENT,
    "publish": SpanKind.PRODUCER,
    "send": SpanKind.PRODUCER,
    "notify": SpanKind.PRODUCER,
}
_INCOMING = {
    "serve": SpanKind.SERVER,
    "event": SpanKind.CONSUMER,
    "file": SpanKind.CONSUMER,
    "consume": SpanKind.CONSUMER,
    "command": SpanKind.CONSUMER,
    "message": SpanKind.CONSUMER,
    "watch": SpanKind.CONSUMER,
}
# What may come long after it was sent.
_LINKED = frozenset({"consume", "command"})
# (operation type, operation name) of the messaging conventions.
_OPERATIONS = {
    "publish": ("publish", "publish"),
    "send": ("publish", "send"),
    "notify": ("publish", "send"),
    "message": ("process", "process"),
    "watch": ("process", "process"),
    "event": ("process", "process"),
    "file": ("process", "process"),
    "consume": ("process", "process"),
    "command": ("process", "process"),
}
# A token of a subject that names one of many: with a digit in it, or long.
_ONE_OF_MANY = re.compile(r"[^.]*\d[^.]*|[^.]{25,}")
_COMMANDS = subjects.COMMANDS.removesuffix(".")
_MESSAGES = subjects.MESSAGES.removesuffix(".")


class Tracing:
    """Middleware that makes spans; `instrument` puts it around everything, or give it to one client or service."""

    def __init__(self, tracer_provider: TracerProvider | None = None) -> None:
        self._tracer = trace.get_tracer("lightlink", __version__, tracer_provider, schema_url=SCHEMA_URL)

    def __call__(self, call: Call, proceed: Proceed) -> Any:
        """Do what is to be done inside a span."""
        if call.kind in _OUTGOING:
            return self._send(call, proceed)
        return self._handle(call, proceed)

    def _send(self, call: Call, proceed: Proceed) -> Any:
        name, attributes = _described(call)
        token = context.attach(_sender_of(call))
        try:
            with self._tracer.start_as_current_span(
                name,
                kind=_OUTGOING[call.kind],
                attributes=attributes,
                record_exception=False,
                set_status_on_exception=False,
            ) as span:
                propagate.inject(call.headers)
                return _proceed(span, call, proceed)
        finally:
            context.detach(token)

    def _handle(self, call: Call, proceed: Proceed) -> Any:
        name, attributes = _described(call)
        sent = propagate.extract(call.headers, context=context.Context())
        links = []
        if call.kind in _LINKED:
            links = _links_to(call, sent)
            sent = _baggage_alone(sent)
        # The context that came, and nothing of this thread's, is what the handler is in.
        token = context.attach(sent)
        try:
            with self._tracer.start_as_current_span(
                name,
                context=sent,
                kind=_INCOMING[call.kind],
                attributes=attributes,
                links=links,
                record_exception=False,
                set_status_on_exception=False,
            ) as span:
                return _proceed(span, call, proceed)
        finally:
            context.detach(token)


# One for the process, so that instrumenting twice makes no second span.
_installed: list[Tracing] = []


def instrument(tracer_provider: TracerProvider | None = None) -> None:
    """Make spans for everything that clients, services and agents do that are made from now on; once.

    ``tracer_provider`` is by default the global one.
    """
    if not _installed:
        _installed.append(Tracing(tracer_provider))
        install(_installed[0])


def uninstrument() -> None:
    """Make no spans for clients, services and agents that are made from now on."""
    while _installed:
        uninstall(_installed.pop())


def _proceed(span: Span, call: Call, proceed: Proceed) -> Any:
    try:
        return proceed(call)
    except BaseException as exc:
        if span.is_recording():
            span.record_exception(exc)
            span.set_attribute("error.type", type(exc).__qualname__)
            span.set_status(Status(StatusCode.ERROR, str(exc)))
        raise


def _described(call: Call) -> tuple[str, dict[str, Any]]:
    """Return the name of a span, of low cardinality, and its attributes."""
    if call.kind in ("call", "serve"):
        service, _, method = call.name.partition(".")
        return f"{service}/{method}", {"rpc.system": "lightlink", "rpc.service": service, "rpc.method": method}
    operation_type, operation = _OPERATIONS[call.kind]
    attributes: dict[str, Any] = {
        "messaging.system": "nats",
        "messaging.operation.type": operation_type,
        "messaging.operation.name": operation,
    }
    if call.kind in ("send", "command"):
        attributes |= {"messaging.destination.name": _COMMANDS, "lightlink.command.type": call.name}
        if call.kind == "send":
            attributes["messaging.batch.message_count"] = len(call.to)
        if call.context is not None:
            attributes |= {
                "messaging.message.id": call.context.command_id,
                "lightlink.client.id": call.context.client_id,
                "lightlink.command.attempt": call.context.attempt,
            }
        return f"{operation} {call.name}", attributes
    if call.kind in ("notify", "message"):
        attributes |= {"messaging.destination.name": _MESSAGES, "lightlink.message.type": call.name}
        return f"{operation} {call.name}", attributes
    if call.kind == "consume" and call.message is None:
        attributes["messaging.batch.message_count"] = len(call.args)
    template = _ONE_OF_MANY.sub("*", call.name)
    attributes["messaging.destination.name"] = call.name
    if template != call.name:
        attributes["messaging.destination.template"] = template
    return f"{operation} {template}", attributes


def _sender_of(call: Call) -> Context:
    """Return the context of what is sent: this thread's, else that which its headers name; they name it no longer."""
    found = context.get_current()
    if not trace.get_current_span(found).get_span_context().is_valid:
        found = propagate.extract(call.headers, context=found)
    # What came is handed on by its heirs; its `tracestate` would stand beside another's `traceparent`.
    fields = propagate.get_global_textmap().fields
    for field, value in logs.trace_headers().items():
        if field in fields and call.headers.get(field) == value:
            del call.headers[field]
    return found


def _links_to(call: Call, sent: Context) -> list[Link]:
    """Return links to the senders' spans: of a batch, to each."""
    contexts = [sent]
    if isinstance(call.args, list) and call.message is None and call.kind == "consume":
        contexts = [propagate.extract(each.headers, context=context.Context()) for each in call.args]
    senders = [trace.get_current_span(each).get_span_context() for each in contexts]
    return [Link(sender) for sender in senders if sender.is_valid]


def _baggage_alone(sent: Context) -> Context:
    found = context.Context()
    for name, value in baggage.get_all(sent).items():
        found = baggage.set_baggage(name, value, found)
    return found
