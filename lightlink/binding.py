"""Bind a JSON object to a handler's parameters: by name, checked against the annotations.

Used for RPC arguments and command payloads alike. The annotations are compiled once, when the handler is registered.
"""

from __future__ import annotations

import inspect
import re
from typing import TYPE_CHECKING, Any, Union, get_type_hints

import msgspec

from lightlink.errors import InvalidOption, LightLinkError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_AT_ARGUMENT = re.compile(r"(?P<problem>.*) - at `\$\.(?P<name>\w+)(?P<rest>.*)`", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `(?P<name>\w+)`$")
_UNKNOWN = re.compile(r"Object contains unknown field `(?P<name>.*)`$", re.DOTALL)


class BindError(LightLinkError):
    """The arguments do not fit the handler; the message names the argument and what was expected."""


class Binder:
    """Calls a handler with arguments from JSON.

    ``handler`` is the function; ``injected`` maps a type to the key under which `call` is given its value: a parameter
    annotated with such a type gets that value instead of an argument. Raises InvalidOption when the handler's signature
    cannot be bound by name.
    """

    def __init__(self, handler: Callable[..., Any], injected: Mapping[type, str] | None = None) -> None:
        self._handler = handler
        self._injected: dict[str, str] = {}
        self._rest_type: Any = None
        self._positional: list[str] = []
        fields = self._read_signature(injected or {})
        self._type = self._compile(fields)
        self._decoder = msgspec.json.Decoder(self._type)
        self._names = [name for name, *_ in fields]

    @property
    def injects(self) -> bool:
        """Whether the handler asks for anything but arguments."""
        return bool(self._injected)

    def bind(self, args: bytes) -> dict[str, Any]:
        """Return keyword arguments from a JSON object; raises BindError."""
        try:
            if self._rest_type is None:
                bound = self._decoder.decode(args)
                return {name: value for name in self._names if (value := getattr(bound, name)) is not msgspec.UNSET}
            return self._bind_with_rest(args)
        except (ValueError, RecursionError, msgspec.MsgspecError) as exc:
            raise BindError(_explain(str(exc))) from exc

    def call(self, kwargs: dict[str, Any], context: Mapping[str, Any]) -> Any:
        """Call the handler with bound arguments, and with what it asked for of ``context``."""
        for name, key in self._injected.items():
            kwargs[name] = context[key]
        if not self._positional:
            return self._handler(**kwargs)
        return self._handler(*[kwargs.pop(name) for name in self._positional if name in kwargs], **kwargs)

    def _bind_with_rest(self, args: bytes) -> dict[str, Any]:
        given = msgspec.json.decode(args, type=dict[str, Any])
        bound = msgspec.convert(given, self._type)
        kwargs = {name: value for name in self._names if (value := getattr(bound, name)) is not msgspec.UNSET}
        for name, value in given.items():
            if name not in kwargs and name not in self._injected:
                kwargs[name] = value if self._rest_type is Any else msgspec.convert(value, self._rest_type)
        return kwargs

    def _read_signature(self, injected: Mapping[type, str]) -> list[tuple[str, Any, Any]]:
        """Return a (name, type, default) for each argument."""
        if inspect.iscoroutinefunction(self._handler):
            raise InvalidOption("handler", "is a coroutine function; handlers are plain functions", self._name)
        hints = _type_hints(self._handler)
        fields: list[tuple[str, Any, Any]] = []
        for parameter in inspect.signature(self._handler).parameters.values():
            annotation = hints.get(parameter.name, Any)
            if parameter.kind is parameter.VAR_POSITIONAL:
                raise InvalidOption("handler", f"*{parameter.name} cannot be bound: arguments have names", self._name)
            if parameter.kind is parameter.VAR_KEYWORD:
                self._rest_type = annotation
                continue
            if parameter.kind is parameter.POSITIONAL_ONLY:
                self._positional.append(parameter.name)
            if isinstance(annotation, type) and annotation in injected:
                self._injected[parameter.name] = injected[annotation]
            elif parameter.default is parameter.empty:
                fields.append((parameter.name, annotation, msgspec.NODEFAULT))
            else:
                fields.append((parameter.name, Union[annotation, msgspec.UnsetType], msgspec.UNSET))
        return fields

    def _compile(self, fields: list[tuple[str, Any, Any]]) -> Any:
        try:
            compiled = msgspec.defstruct(
                "Arguments", fields, kw_only=True, forbid_unknown_fields=self._rest_type is None
            )
            msgspec.json.Decoder(compiled)
        except TypeError as exc:
            raise InvalidOption("handler", f"an annotation cannot be checked: {exc}", self._name) from exc
        return compiled

    @property
    def _name(self) -> str:
        return getattr(self._handler, "__qualname__", repr(self._handler))


def _type_hints(handler: Callable[..., Any]) -> dict[str, Any]:
    target = handler if inspect.isroutine(handler) else type(handler).__call__
    try:
        return get_type_hints(target, include_extras=True)
    except (NameError, TypeError) as exc:
        name = getattr(handler, "__qualname__", repr(handler))
        raise InvalidOption("handler", f"its annotations cannot be read: {exc}", name) from exc


def _explain(problem: str) -> str:
    """Say a msgspec message in terms of arguments."""
    if match := _MISSING.match(problem):
        return f"missing argument {match['name']!r}"
    if match := _UNKNOWN.match(problem):
        return f"unknown argument {match['name']!r}"
    if match := _AT_ARGUMENT.match(problem):
        where = f" (at {match['name']}{match['rest']})" if match["rest"] else ""
        return f"argument {match['name']!r}: {match['problem'][0].lower()}{match['problem'][1:]}{where}"
    if problem == "Expected `object`, got `array`":
        return "arguments must be an object with a name for each, not an array"
    return f"arguments: {problem}"
