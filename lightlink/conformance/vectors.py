"""The vectors, and what counts as equal to what they expect: pure, without NATS."""

from __future__ import annotations

import importlib.resources
from typing import Any

import attrs
import msgspec

# What `{"$type": ...}` may name, as JSON Schema names it.
_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "array": (list,),
    "object": (dict,),
}


class ServiceVector(msgspec.Struct):
    """A request to a service, and the reply that is expected. ``{service}`` stands for the service's name."""

    name: str
    level: str
    subject: str
    reply: Any
    why: str
    headers: dict[str, str] = {}
    body: Any = None
    text: str | None = None
    reply_headers: dict[str, Any] = {}

    def payload(self) -> bytes:
        """Return the bytes of the request."""
        return msgspec.json.encode(self.body) if self.text is None else self.text.encode()


class ClientVector(msgspec.Struct):
    """The reply to a client's call, and what the client is to make of it. ``{id}`` stands for the request's id."""

    name: str
    level: str
    args: dict[str, Any]
    outcome: dict[str, Any]
    why: str
    reply: Any = None
    reply_text: str | None = None
    reply_headers: dict[str, str] = {}

    def payload(self, request_id: str) -> bytes:
        """Return the bytes of the reply to a request."""
        if self.reply_text is not None:
            return self.reply_text.encode()
        return msgspec.json.encode(filled(self.reply, {"{id}": request_id}))


class Vectors(msgspec.Struct):
    """All vectors of one format."""

    format: int
    service: dict[str, Any]
    services: list[ServiceVector]
    clients: list[ClientVector]

    @classmethod
    def load(cls) -> Vectors:
        """Read those that come with the library."""
        return msgspec.json.decode(text(), type=cls)


@attrs.frozen
class Verdict:
    """What became of a check: ``fault`` says what is not as expected, and is empty where all is.

    ``level`` is ``must``, ``should``, or ``skip`` where the program under test says that it has no such thing. ``why``
    is the reason, or the sentence of docs/wire.md.
    """

    name: str
    level: str
    why: str
    fault: str = ""

    @property
    def is_failure(self) -> bool:
        """Whether it fails what must hold."""
        return bool(self.fault) and self.level == "must"


def text() -> bytes:
    """Return the file of vectors as it is."""
    return importlib.resources.files("lightlink.conformance").joinpath("vectors.json").read_bytes()


def filled(value: Any, names: dict[str, str]) -> Any:
    """Return a value with what its texts stand for put in: ``filled({"name": "{service}"}, {"{service}": "x"})``."""
    if isinstance(value, str):
        return names.get(value, value)
    if isinstance(value, dict):
        return {key: filled(each, names) for key, each in value.items()}
    if isinstance(value, list):
        return [filled(each, names) for each in value]
    return value


def difference(expected: Any, found: Any, place: str = "") -> str:
    """Say where what was found is not as expected, "" where it is.

    An object may have more fields than expected. ``{"$type": "string"}`` expects a type, ``{"$contains": "text"}`` a
    part of a text, ``{"$each": ...}`` a list whose every entry is as expected.
    """
    if isinstance(expected, dict):
        (operator, operand), *_ = [*expected.items(), ("", None)]
        check = _OPERATORS.get(operator)
        if check is not None:
            return check(operand, found, place)
        return _fields(expected, found, place)
    if type(expected) is not type(found) or expected != found:
        return f"{place or 'it'} is {_shown(found)}, not {_shown(expected)}"
    return ""


def _fields(expected: dict[str, Any], found: Any, place: str) -> str:
    if not isinstance(found, dict):
        return f"{place or 'it'} is {_shown(found)}, not an object"
    for name, value in expected.items():
        inner = f"{place}.{name}" if place else name
        fault = difference(value, found[name], inner) if name in found else f"{inner} is missing"
        if fault:
            return fault
    return ""


def _has_type(name: str, found: Any, place: str) -> str:
    fits = isinstance(found, _TYPES[name]) and (name == "boolean" or not isinstance(found, bool))
    return "" if fits else f"{place or 'it'} is {_shown(found)}, not of type {name}"


def _contains(part: str, found: Any, place: str) -> str:
    fits = isinstance(found, str) and part in found
    return "" if fits else f"{place or 'it'} is {_shown(found)}, without {_shown(part)}"


def _each(expected: Any, found: Any, place: str) -> str:
    if not isinstance(found, list) or not found:
        return f"{place or 'it'} is {_shown(found)}, not a list with entries"
    faults = (difference(expected, each, f"{place}[{number}]") for number, each in enumerate(found))
    return next(filter(None, faults), "")


_OPERATORS = {"$type": _has_type, "$contains": _contains, "$each": _each}


def _shown(value: Any) -> str:
    shown = msgspec.json.encode(value).decode()
    return shown if len(shown) <= 100 else f"{shown[:100]}..."
