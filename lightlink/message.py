"""A message as a handler or reader gets it, and how handlers say which form of it they want."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, get_type_hints

import attrs

from lightlink import codec
from lightlink.errors import InvalidOption

if TYPE_CHECKING:
    from collections.abc import Callable


@attrs.frozen
class Message:
    """What was published: ``data`` is decoded from JSON, or the bytes themselves on a raw subscription.

    ``reply`` is the subject an answer is wanted on, or empty.
    """

    subject: str
    data: Any
    headers: dict[str, str] = attrs.field(factory=dict)
    reply: str = ""


# What the loop hands on: (subject, reply, payload, header block), not yet decoded.
Arrival = tuple[bytes, bytes, bytes, "bytes | None"]


def read_arrival(arrival: Arrival, raw: bool, as_type: Any = Any) -> Message:
    """Return the message; raises DecodeError when it is not JSON or does not fit ``as_type``."""
    subject, reply, payload, headers = arrival
    name = subject.decode("utf-8", "replace")
    data = payload if raw else codec.decode(payload, name, as_type)
    return Message(name, data, codec.decode_headers(headers), reply.decode())


def adapt_handler(handler: Callable[[Any], object], raw: bool) -> Callable[[Arrival], object]:
    """Return a function that reads an arrival and calls ``handler`` with what its parameter is annotated as.

    Annotated `Message`, it gets the message; annotated with another type, the data converted to that type; else the
    data. Raises InvalidOption when it does not take exactly one argument.
    """
    wanted = _parameter_type(handler)
    if wanted is Message:
        return lambda arrival: handler(read_arrival(arrival, raw))
    as_type = Any if raw else wanted

    def handle(arrival: Arrival) -> object:
        subject, _, payload, _ = arrival
        data = payload if raw else codec.decode(payload, subject.decode("utf-8", "replace"), as_type)
        return handler(data)

    return handle


def _parameter_type(handler: Callable[..., object]) -> Any:
    name = getattr(handler, "__qualname__", repr(handler))
    if not callable(handler):
        raise InvalidOption("handler", "is not callable", name)
    if inspect.iscoroutinefunction(handler):
        raise InvalidOption("handler", "is a coroutine function; handlers are plain functions", name)
    try:
        signature = inspect.signature(handler)
    except ValueError:  # a built-in such as print or list.append does not tell
        return Any
    try:
        signature.bind(None)
    except TypeError:
        raise InvalidOption("handler", f"must take one argument, the message; it takes {signature}", name) from None
    first = next(iter(signature.parameters.values()))
    try:
        hints = get_type_hints(handler if inspect.isroutine(handler) else type(handler).__call__, include_extras=True)
    except (NameError, TypeError) as exc:
        raise InvalidOption("handler", f"its annotations cannot be read: {exc}", name) from exc
    return Any if first.kind is first.VAR_POSITIONAL else hints.get(first.name, Any)
