"""What is told of a handler: its docstring, JSON Schemas (2020-12) of its arguments and result, and their digest.

It travels in the metadata of a service's endpoints (ADR-32), as text, and is read from there.
"""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import keyword
from typing import TYPE_CHECKING, Any

import attrs
import msgspec

from lightlink.binding import foreign_type, read_annotations, schema_components

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from lightlink.binding import Binder

# The keys in an endpoint's metadata.
DESCRIPTION = "description"
ARGUMENTS = "arguments"
RESULT = "result"
DIGEST = "digest"
# In the data of a method's statistics: of the last minute, and in nanoseconds.
RATE, P99 = "requests_per_second", "p99_processing_time"
KEYS = (DESCRIPTION, ARGUMENTS, RESULT, DIGEST)

# A method that tells of a service's methods what does not fit into its INFO; it is not announced.
DESCRIBE_METHOD = "_describe"

_MAX_TEXT = 4096
_DIGITS = 16


class TypeText(str):
    """A type as it stands in source, shown without quotes."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


@attrs.frozen(kw_only=True)
class Description:
    """What is known of a method or a type of command. A schema that is empty allows anything."""

    text: str = ""
    arguments: dict[str, Any] = attrs.field(factory=dict)
    result: dict[str, Any] = attrs.field(factory=dict)
    digest: str = ""

    def signature(self) -> inspect.Signature:
        """Return how it is called from Python: each argument by name."""
        properties, required = members(self.arguments)
        parameters = []
        for name, schema in sorted(properties.items(), key=lambda item: item[0] not in required):
            if name.isidentifier() and not keyword.iskeyword(name):
                default = inspect.Parameter.empty if name in required else _default(schema)
                annotation = TypeText(type_text(schema))
                kind = inspect.Parameter.KEYWORD_ONLY
                parameters.append(inspect.Parameter(name, kind, default=default, annotation=annotation))
        if not self.arguments or self.arguments.get("additionalProperties", True) is not False:
            rest = "arguments"
            while rest in properties:
                rest += "_"
            parameters.append(inspect.Parameter(rest, inspect.Parameter.VAR_KEYWORD))
        result = TypeText(type_text(self.result)) if self.result else inspect.Signature.empty
        return inspect.Signature(parameters, return_annotation=result)

    def within(self, key: str) -> Description:
        """Return the description of what puts its result into an object, under one key."""
        definitions = self.result.get("$defs", {})
        schema = {name: value for name, value in self.result.items() if name != "$defs"}
        result: dict[str, Any] = {"type": "object", "properties": {key: schema}, "required": [key]}
        if definitions:
            result["$defs"] = definitions
        return attrs.evolve(self, result=result, digest=digest_of(self.text, self.arguments, result))

    def metadata(self) -> dict[str, str]:
        """Return it as metadata; what there is nothing to say of is left out."""
        given = {
            DESCRIPTION: self.text,
            # As it was written: the order of arguments is worth something to a reader.
            ARGUMENTS: msgspec.json.encode(self.arguments).decode() if self.arguments else "",
            RESULT: msgspec.json.encode(self.result).decode() if self.result else "",
            DIGEST: self.digest,
        }
        return {name: value for name, value in given.items() if value}


def describe(binder: Binder, left_out: tuple[type, ...] = ()) -> Description:
    """Return what is told of a handler; a result annotated as one of ``left_out`` counts as not annotated."""
    handler = binder.handler
    text = (inspect.getdoc(handler) or "")[:_MAX_TEXT] if _has_own_text(handler) else ""
    arguments: dict[str, Any] = {}
    with contextlib.suppress(TypeError, ValueError, RecursionError):  # types that are checked and have no schema
        arguments = binder.schema()
    result = _result_schema(handler, left_out)
    return Description(text=text, arguments=arguments, result=result, digest=digest_of(text, arguments, result))


def read(metadata: Mapping[str, Any] | None) -> Description:
    """Return what an endpoint's metadata tells, of whatever service; what cannot be read counts as not told."""
    given = {name: value for name, value in (metadata or {}).items() if isinstance(value, str)}
    return Description(
        text=given.get(DESCRIPTION, ""),
        arguments=_object(given.get(ARGUMENTS, "")),
        result=_object(given.get(RESULT, "")),
        digest=given.get(DIGEST, ""),
    )


def digest_of(text: str, arguments: Mapping[str, Any], result: Mapping[str, Any]) -> str:
    """Return what changes when a description does."""
    return _digest(_text([text, arguments, result]))


def digest_of_all(digests: Iterable[tuple[str, str]]) -> str:
    """Return one digest for the (name, digest) of each method of a service."""
    return _digest(_text(sorted(digests)))


def flat(schema: dict[str, Any], components: dict[str, Any]) -> dict[str, Any]:
    """Return a schema that is no bare reference, with the definitions that it needs beside it."""
    name = str(schema.get("$ref", "")).removeprefix(_REF)
    if name in components and name not in mentioned(components):
        schema = components[name]
        components = {each: value for each, value in components.items() if each != name}
    return {**schema, "$defs": components} if components else schema


def schema_of(annotation: Any) -> dict[str, Any]:
    """Return the schema of a type, an empty one for a type that has none."""
    if annotation is Any or annotation is inspect.Parameter.empty or foreign_type(annotation) is not None:
        return {}
    try:
        (schema,), components = schema_components(annotation)
    except (TypeError, ValueError, RecursionError):
        return {}
    return flat(schema, components)


def members(schema: Mapping[str, Any]) -> tuple[dict[str, Any], list[Any]]:
    """Return the schemas of an object's members, and the names of those that are always there.

    Any program writes schemas: what is no schema counts as not told.
    """
    properties, required = schema.get("properties"), schema.get("required")
    return properties if isinstance(properties, dict) else {}, required if isinstance(required, list) else []


def type_text(schema: Any) -> str:
    """Return a schema as a Python type would be written, for a reader; classes stand by their names."""
    if not isinstance(schema, dict):
        return "Any"
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if "const" in schema or "enum" in schema:
        values = schema["enum"] if "enum" in schema else [schema["const"]]
        return f"Literal[{', '.join(map(repr, values))}]" if values and isinstance(values, list) else "Any"
    alternatives = schema.get("anyOf") or schema.get("oneOf") or schema.get("type")
    if isinstance(alternatives, list):
        return " | ".join(dict.fromkeys(map(_alternative_text, alternatives))) or "Any"
    if alternatives == "array":
        return f"list[{type_text(schema.get('items'))}]"
    if alternatives == "object":
        if "title" in schema:
            return str(schema["title"])
        return f"dict[str, {type_text(schema.get('additionalProperties'))}]"
    return _PLAIN_TYPES.get(str(alternatives), "Any")


_PLAIN_TYPES = {"string": "str", "integer": "int", "number": "float", "boolean": "bool", "null": "None"}


def _alternative_text(schema: Any) -> str:
    return type_text({"type": schema} if isinstance(schema, str) else schema)


def _default(schema: Any) -> Any:
    return schema["default"] if isinstance(schema, dict) and "default" in schema else Ellipsis


_REF = "#/$defs/"


def mentioned(value: Any) -> set[str]:
    """Return the names of the definitions that a schema refers to."""
    if isinstance(value, dict):
        own = {str(value["$ref"]).removeprefix(_REF)} if "$ref" in value else set()
        return own.union(*(mentioned(each) for each in value.values()))
    if isinstance(value, list):
        return set().union(*(mentioned(each) for each in value))
    return set()


def _result_schema(handler: Callable[..., Any], left_out: tuple[type, ...]) -> dict[str, Any]:
    hints = read_annotations(handler)
    if isinstance(handler, type) or "return" not in hints:
        return {}
    wanted = hints["return"]
    return {} if isinstance(wanted, type) and issubclass(wanted, left_out) else schema_of(wanted)


def _has_own_text(handler: Callable[..., Any]) -> bool:
    """Tell whether a docstring is the handler's, not that of the type which it is an object of."""
    return getattr(handler, "__doc__", None) != getattr(type(handler), "__doc__", None)


def _text(value: Any) -> str:
    return msgspec.json.encode(value, order="sorted").decode()


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]


def _object(text: str) -> dict[str, Any]:
    if not text:
        return {}
    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except (ValueError, RecursionError, msgspec.MsgspecError):
        return {}
