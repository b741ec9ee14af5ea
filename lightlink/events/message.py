"""A message as a handler or reader gets it, and how handlers say which form of it they want."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from lightlink.binding import handler_name, only_parameter, read_annotations, refuse_foreign
from lightlink.errors import InvalidOption
from lightlink.protocol import codec
from lightlink.protocol.subjects import as_text

if TYPE_CHECKING:
    from collections.abc import Callable


@attrs.frozen
class Message:
    """What was published: ``data`` is decoded from JSON, or the bytes themselves on a raw subscription.

    ``headers`` hold the last value of each name. ``reply`` is the subject an answer is wanted on, or empty.
    """

    subject: str
    data: Any
    headers: dict[str, str] = attrs.field(factory=dict)
    reply: str = ""

    def header_values(self, name: str) -> list[str]:
        """Return all values of a header, in the order in which they were sent; none if it is not there."""
        return codec.header_values(self.headers, name)


# What the loop hands on: (subject, reply, payload, header block), not yet decoded.
Arrival = tuple[bytes, bytes, bytes, "bytes | None"]


def read_arrival(arrival: Arrival, raw: bool) -> Message:
    """Return the message; raises DecodeError when it is not JSON."""
    subject, reply, payload, headers = arrival
    name = as_text(subject)
    data = payload if raw else codec.decode(payload, name)
    return Message(name, data, codec.decode_headers(headers), as_text(reply))


class EventHandler:
    """Calls a function with what its parameter is annotated as.

    Annotated `Message`, it gets the message; annotated with another type, the data converted to that type; else the
    data. Raises InvalidOption when it does not take exactly one argument, or when its type cannot be converted to.
    """

    def __init__(self, handler: Callable[[Any], object], raw: bool) -> None:
        wanted = _parameter_type(handler, raw)
        self._handler = handler
        self.wants_message = isinstance(wanted, type) and issubclass(wanted, Message)
        self.decode = _decoder(handler, Any if self.wants_message else wanted, raw)

    def __call__(self, arrival: Arrival) -> None:
        """Handle what has arrived; raises DecodeError, and whatever the function does."""
        if self.wants_message:
            self._handler(self.read(arrival))
        else:
            self._handler(self.decode(arrival[2], as_text(arrival[0])))

    def read(self, arrival: Arrival) -> Message:
        """Return the message that has arrived, its data converted; raises DecodeError."""
        subject, reply, payload, headers = arrival
        name = as_text(subject)
        return Message(name, self.decode(payload, name), codec.decode_headers(headers), as_text(reply))

    def handle_message(self, message: Message) -> object:
        """Handle a message that was read with `decode`."""
        return self._handler(message if self.wants_message else message.data)

    def handle(self, message: Message, data: Any) -> object:
        """Handle a message that was read, with ``data`` in place of its own."""
        if not self.wants_message:
            return self._handler(data)
        return self._handler(message if data is message.data else attrs.evolve(message, data=data))


def _decoder(handler: Callable[[Any], object], wanted: Any, raw: bool) -> Callable[[bytes, str], Any]:
    if raw:
        return lambda payload, _: payload
    try:
        return codec.decoder(wanted)
    except TypeError as exc:
        raise InvalidOption("handler", f"its annotation cannot be checked: {exc}", handler_name(handler)) from exc


def _parameter_type(handler: Callable[..., object], raw: bool) -> Any:
    hints = read_annotations(handler)
    first = only_parameter(handler, "the message")
    if first is None or first.kind is first.VAR_POSITIONAL:
        return Any
    wanted = hints.get(first.name, Any)
    if not raw and not (isinstance(wanted, type) and issubclass(wanted, Message)):
        refuse_foreign(handler, first.name, wanted)
    return wanted
