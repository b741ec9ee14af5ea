"""Bind a JSON object to a handler's parameters: by name, checked against the annotations.

Used for RPC arguments and command payloads alike. The annotations are compiled once, when the handler is registered.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import re
from typing import TYPE_CHECKING, Any, Union, get_type_hints

import msgspec
import msgspec.inspect

from lightlink.errors import InvalidOption, LightLinkError
from lightlink.protocol.text import text_of
from lightlink.protocol.types import can_decode, decode_own

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

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
        self._injectable = frozenset(injected or {})
        self._injected: dict[str, str] = {}
        self._rest_type: Any = None
        self._positional: dict[str, Any] = {}
        self._defaults: dict[str, Any] = {}  # those that JSON can say
        fields = self._read_signature(injected or {})
        self._type = self._compile(fields)
        self._decoder = msgspec.json.Decoder(self._type, dec_hook=decode_own)
        self._names = [name for name, *_ in fields]

    @property
    def handler(self) -> Callable[..., Any]:
        """The function that is called."""
        return self._handler

    @property
    def injects(self) -> bool:
        """Whether the handler asks for anything but arguments."""
        return bool(self._injected)

    def schema(self) -> dict[str, Any]:
        """Return the JSON Schema (2020-12) of the arguments, as one object with its definitions under ``$defs``."""
        (reference,), components = schema_components(self._type)
        arguments = components.pop(reference["$ref"].rpartition("/")[2])
        del arguments["title"]
        for name, default in self._defaults.items():
            arguments["properties"][name] = {**arguments["properties"][name], "default": default}
        if self._rest_type is not None:
            arguments["additionalProperties"] = _rest_schema(self._rest_type, components)
        return {**arguments, "$defs": components} if components else arguments

    def bind(self, args: bytes) -> dict[str, Any]:
        """Return keyword arguments from a JSON object, in which null stands for none; raises BindError."""
        if args == b"null":
            args = b"{}"
        try:
            if self._rest_type is None:
                bound = self._decoder.decode(args)
                return {name: value for name in self._names if (value := getattr(bound, name)) is not msgspec.UNSET}
            return self._bind_with_rest(args)
        except (ValueError, RecursionError, msgspec.MsgspecError) as exc:
            raise BindError(_explain(text_of(exc))) from exc
        except BindError:
            raise
        except BaseException as exc:
            # The class of an argument may refuse in its own way; whoever asked is to hear of that, too.
            raise BindError(f"arguments: {type(exc).__name__}: {text_of(exc)}") from exc

    def call(self, kwargs: dict[str, Any], context: Mapping[str, Any]) -> Any:
        """Call the handler with bound arguments, and with what it asked for of ``context``."""
        kwargs = dict(kwargs)  # middleware may call again, and look at what it was called with
        for name, key in self._injected.items():
            kwargs[name] = context[key]
        if not self._positional:
            return self._handler(**kwargs)
        # By place, and then none before the last may be left out.
        placed = [kwargs.pop(name, default) for name, default in self._positional.items()]
        return self._handler(*placed, **kwargs)

    def _bind_with_rest(self, args: bytes) -> dict[str, Any]:
        # Each value is decoded as its own type: by way of a float a Decimal would lose digits.
        given = msgspec.json.decode(args, type=dict[str, msgspec.Raw])
        bound = self._decoder.decode(args)
        kwargs = {name: value for name in self._names if (value := getattr(bound, name)) is not msgspec.UNSET}
        for name, value in given.items():
            if name in self._injected:
                raise BindError(f"unknown argument {name!r}")
            if name not in kwargs:
                kwargs[name] = self._convert_rest(name, value)
        return kwargs

    def _convert_rest(self, name: str, value: msgspec.Raw) -> Any:
        try:
            return msgspec.json.decode(value, type=self._rest_type, dec_hook=decode_own)
        except msgspec.ValidationError as exc:
            raise BindError(f"argument {name!r}: {_lower_first(str(exc))}") from exc

    def _read_signature(self, injected: Mapping[type, str]) -> list[tuple[str, Any, Any]]:
        """Return a (name, type, default) for each argument."""
        hints = read_annotations(self._handler)
        refuse_unbindable(self._handler)
        fields: list[tuple[str, Any, Any]] = []
        for parameter in self._parameters():
            annotation = hints.get(parameter.name, Any)
            self._check(parameter, annotation)
            if parameter.kind is parameter.VAR_POSITIONAL:
                raise InvalidOption("handler", f"*{parameter.name} cannot be bound: arguments have names", self._name)
            if parameter.kind is parameter.VAR_KEYWORD:
                self._rest_type = annotation
                continue
            if parameter.kind is parameter.POSITIONAL_ONLY:
                self._positional[parameter.name] = parameter.default
            if isinstance(annotation, type) and annotation in injected:
                self._injected[parameter.name] = injected[annotation]
            elif parameter.default is parameter.empty:
                fields.append((parameter.name, annotation, msgspec.NODEFAULT))
            else:
                self._note_default(parameter)
                optional: Any = Union[annotation, msgspec.UnsetType]  # noqa: UP007 - not everything knows `|`
                fields.append((parameter.name, optional, msgspec.UNSET))
        return fields

    def _note_default(self, parameter: inspect.Parameter) -> None:
        with contextlib.suppress(TypeError, ValueError, RecursionError, msgspec.MsgspecError):
            self._defaults[parameter.name] = msgspec.json.decode(msgspec.json.encode(parameter.default))

    def _check(self, parameter: inspect.Parameter, annotation: Any) -> None:
        """Raise InvalidOption for a parameter that no argument could ever be given to."""
        if parameter.name.startswith("__"):
            raise InvalidOption("handler", f"the parameter {parameter.name!r} begins with two underscores", self._name)
        if isinstance(annotation, type) and annotation in self._injectable:
            return
        refuse_foreign(self._handler, parameter.name, annotation)

    def _parameters(self) -> Iterable[inspect.Parameter]:
        try:
            return inspect.signature(self._handler).parameters.values()
        except ValueError as exc:  # some built-in functions do not tell
            raise InvalidOption("handler", str(exc), self._name) from exc

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
        return handler_name(self._handler)


def schema_components(annotation: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the JSON Schema of a type, and those that it refers to under ``$defs``; own types may be anything."""
    return msgspec.json.schema_components(
        [annotation], schema_hook=lambda own: {"title": own.__name__}, ref_template="#/$defs/{name}"
    )


def _rest_schema(annotation: Any, components: dict[str, Any]) -> Any:
    """Return the schema of what ``**kwargs`` takes; what it refers to is added to the components."""
    if annotation is Any:
        return True
    try:
        (schema,), more = schema_components(annotation)
    except (TypeError, ValueError, RecursionError):
        return True
    components.update(more)
    return schema


def handler_name(handler: Any) -> str:
    """Return what to call a handler in a message."""
    return getattr(handler, "__qualname__", None) or repr(handler)


def read_annotations(handler: Callable[..., Any]) -> dict[str, Any]:
    """Return the annotations of a handler: a function, a method, a partial, a class or an object to be called.

    Raises InvalidOption for what is not callable, for a coroutine function, and for annotations that name what cannot
    be found, such as a class local to a function.
    """
    _refuse_no_function(handler)
    # From where the signature is from too: behind a decorator, also one that is a class, that is the function.
    wrapped = _function_of(inspect.unwrap(handler, stop=lambda each: hasattr(each, "__signature__")))
    try:
        hints = get_type_hints(wrapped, include_extras=True)
    except (NameError, TypeError) as exc:
        reason = f"its annotations cannot be read: {exc}"
        raise InvalidOption("handler", reason, handler_name(handler)) from exc
    return {**_annotations_in_signature(handler), **hints}


def only_parameter(handler: Callable[..., Any], what: str) -> inspect.Parameter | None:
    """Return the first parameter of a handler that is called with one thing; None where a built-in does not tell.

    ``what`` is what it is called with. Raises InvalidOption for a handler that cannot be called so.
    """
    _refuse_no_function(handler)
    try:
        signature = inspect.signature(handler)
    except ValueError:  # a built-in such as print or list.append does not tell
        return None
    try:
        signature.bind(None)
    except TypeError:
        reason = f"must take one argument, {what}; it takes {signature}"
        raise InvalidOption("handler", reason, handler_name(handler)) from None
    return next(iter(signature.parameters.values()))


def _refuse_no_function(handler: Any) -> None:
    """Raise InvalidOption for what is not callable, and for a coroutine function."""
    if not callable(handler):
        raise InvalidOption("handler", "is not callable", handler_name(handler))
    called = _function_of(handler)
    if inspect.iscoroutinefunction(called) or inspect.isasyncgenfunction(called):
        raise InvalidOption("handler", "is a coroutine function; handlers are plain functions", handler_name(handler))


def _function_of(handler: Any) -> Any:
    """Return the function that calling a partial, a class or an object comes down to."""
    while isinstance(handler, functools.partial):
        handler = handler.func
    if isinstance(handler, type):
        return handler.__init__  # type: ignore[misc]  # its signature is that of the class
    return handler if inspect.isroutine(handler) else type(handler).__call__


def _annotations_in_signature(handler: Any) -> dict[str, Any]:
    """Return what a signature that was set by hand says, as far as it is no text."""
    signature = getattr(handler, "__signature__", None)
    if not isinstance(signature, inspect.Signature):
        return {}
    given = {name: parameter.annotation for name, parameter in signature.parameters.items()}
    return {
        name: each for name, each in given.items() if each is not inspect.Parameter.empty and each.__class__ is not str
    }


def refuse_unbindable(handler: Any) -> None:
    """Raise InvalidOption for what cannot be called by a peer: a method without its object, a `singledispatch`."""
    name = handler_name(handler)
    if callable(getattr(handler, "dispatch", None)) and hasattr(handler, "registry"):
        reason = "chooses by the type of its argument, which JSON does not tell; register a function for each"
        raise InvalidOption("handler", reason, name)
    owner = name.rpartition(".")[0].rpartition(".")[2]
    if inspect.isfunction(handler) and owner.isidentifier():
        first = next(iter(inspect.signature(handler).parameters), "")
        if first in ("self", "cls"):
            reason = (
                f"is a method of the class {owner}; register that of an object: service.register(name, object.method)"
            )
            raise InvalidOption("handler", reason, name)


def _has_json(kind: type) -> bool:
    """Tell whether JSON values are of a class as they are, as all are an `object`."""
    try:
        return any(issubclass(each, kind) for each in (dict, list, str, int, float, bool, type(None)))
    except TypeError:  # a protocol that cannot be asked
        return False


def refuse_foreign(handler: Callable[..., Any], name: str, annotation: Any) -> None:
    """Raise InvalidOption for a parameter of a handler with a type that no JSON value becomes."""
    foreign = foreign_type(annotation)
    if foreign is not None:
        reason = f"{name!r} is annotated {foreign.__qualname__}, which no JSON value becomes"
        instead = "take a str, a dataclass or the like, and convert it, or see lightlink.register_type"
        raise InvalidOption("handler", f"{reason}; {instead}", handler_name(handler))


def foreign_type(annotation: Any) -> type | None:
    """Return a class in an annotation that no JSON value becomes, such as `pathlib.Path`; None when there is none."""
    try:
        found = msgspec.inspect.type_info(annotation)
    except (TypeError, NameError, RecursionError):
        return None  # compiling says what is wrong with it
    seen: set[int] = set()
    waiting: list[Any] = [found]
    while waiting:
        each = waiting.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        if isinstance(each, msgspec.inspect.CustomType) and not (can_decode(each.cls) or _has_json(each.cls)):
            return each.cls
        if isinstance(each, (tuple, list)):
            waiting += each
        elif isinstance(each, (msgspec.inspect.Type, msgspec.inspect.Field)):
            waiting += [getattr(each, name) for name in each.__struct_fields__]
    return None


def _explain(problem: str) -> str:
    """Say a msgspec message in terms of arguments."""
    if match := _MISSING.match(problem):
        return f"missing argument {match['name']!r}"
    if match := _UNKNOWN.match(problem):
        return f"unknown argument {match['name']!r}"
    if match := _AT_ARGUMENT.match(problem):
        where = f" (at {match['name']}{match['rest']})" if match["rest"] else ""
        return f"argument {match['name']!r}: {_lower_first(match['problem'])}{where}"
    if problem == "Expected `object`, got `array`":
        return "arguments must be an object with a name for each, not an array"
    return f"arguments: {_lower_first(problem)}"


def _lower_first(text: str) -> str:
    return text[:1].lower() + text[1:] if text[1:2].islower() else text  # JSON stays JSON
