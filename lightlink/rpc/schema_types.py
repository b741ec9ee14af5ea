"""Write JSON Schemas (2020-12) as Python types: those of values as JSON carries them."""

from __future__ import annotations

import keyword
import re
from typing import Any

import attrs
import msgspec

from lightlink import describe
from lightlink.errors import UnsupportedSchema

_PLAIN = {"string": "str", "integer": "int", "number": "float", "boolean": "bool", "null": "None"}
# What changes which values there are in a way that no type says. Bounds, patterns and formats only narrow them.
_INEXPRESSIBLE = (
    "not",
    "if",
    "then",
    "else",
    "patternProperties",
    "dependentSchemas",
    "unevaluatedProperties",
    "$dynamicRef",
)
_QUOTES = re.compile(r'\\.|"')
_REF = "#/$defs/"


@attrs.frozen
class Field:
    """A member of an object: ``key`` as JSON has it, its type, and whether it is always there."""

    key: str
    type: str
    required: bool
    text: str = ""


class TypeWriter:
    """Writes schemas as types, and gathers the objects that they need, each once.

    ``objects`` are the members of each by its name; it raises UnsupportedSchema for what has no type.
    """

    def __init__(self, service: str) -> None:
        self.objects: dict[str, list[Field]] = {}
        self._service = service
        # By name, what it stands for: two methods may mean different things by one name.
        self._meant: dict[str, bytes] = {}

    def write(self, schema: Any, where: str, prefix: str) -> str:
        """Return the type of a schema; ``where`` names it in an error, ``prefix`` begins the names of what has none."""
        defs = schema.get("$defs") if isinstance(schema, dict) else None
        return _Writing(self, self._service, where, prefix, defs if isinstance(defs, dict) else {}).type_of(
            schema, prefix
        )

    def claim(self, name: str, meaning: Any) -> bool | None:
        """Take a name for something: True if it is new, False if it stands for that already, None if it is taken."""
        content = msgspec.json.encode(meaning, order="deterministic")
        if name not in self._meant:
            self._meant[name] = content
            return True
        return False if self._meant[name] == content else None


class _Writing:
    """One schema with its definitions."""

    def __init__(self, types: TypeWriter, service: str, where: str, prefix: str, defs: dict[str, Any]) -> None:
        self._types = types
        self._service = service
        self._where = where
        self._prefix = prefix
        self._defs = defs
        self._names: dict[str, str] = {}  # of definitions, by their keys

    def type_of(self, schema: Any, context: str) -> str:
        """Return the type of a part; ``context`` is its name if it is an object without one."""
        if schema is True or schema == {}:
            return "Any"
        if not isinstance(schema, dict):
            raise self._unsupported("a schema that allows nothing")
        for word in _INEXPRESSIBLE:
            if word in schema:
                raise self._unsupported(f"{word!r}")
        if "$ref" in schema:
            return self._reference(schema["$ref"])
        if "const" in schema or "enum" in schema:
            return self._literal(schema["enum"] if "enum" in schema else [schema["const"]])
        for word in ("anyOf", "oneOf", "allOf"):
            if word in schema:
                return self._combined(word, schema[word], context)
        return self._by_type(schema, context)

    def _reference(self, reference: Any) -> str:
        key = str(reference).removeprefix(_REF)
        if key not in self._defs or not str(reference).startswith(_REF):
            raise self._unsupported(f"the reference {reference!r}")
        if key not in self._names:
            target = self._defs[key]
            if not isinstance(target, dict) or "properties" not in target:
                return self.type_of(target, camel(key))
            self._names[key] = self._named(camel(key), target)
        return self._names[key]

    def _named(self, name: str, schema: dict[str, Any]) -> str:
        """Return the name of an object, whose members are noted; another that has the same name gets a longer one."""
        meaning = {"of": schema, "$defs": self._needed(schema)}
        for chosen in (name, f"{self._prefix}{name}"):
            is_new = self._types.claim(chosen, meaning)
            if is_new is not None:
                if is_new:
                    self._names.update({key: chosen for key, each in self._defs.items() if each is schema})
                    self._types.objects[chosen] = self._members(schema, chosen)
                return chosen
        raise self._unsupported(f"two objects called {self._prefix}{name!r}")

    def _needed(self, schema: Any) -> dict[str, Any]:
        """Return the definitions that a schema refers to, and those that these do."""
        found: dict[str, Any] = {}
        waiting = describe.mentioned(schema)
        while waiting:
            key = waiting.pop()
            if key in self._defs and key not in found:
                found[key] = self._defs[key]
                waiting |= describe.mentioned(found[key])
        return found

    def _members(self, schema: dict[str, Any], name: str) -> list[Field]:
        extra = schema.get("additionalProperties", True)
        if not isinstance(extra, bool) and extra != {}:
            raise self._unsupported("an object with members of its own and others of a type")
        required = schema.get("required") or ()
        return [
            Field(key, self.type_of(part, f"{name}{camel(key)}"), key in required, _text(part))
            for key, part in schema["properties"].items()
        ]

    def _combined(self, word: str, parts: Any, context: str) -> str:
        if not isinstance(parts, list) or not parts or (word == "allOf" and len(parts) > 1):
            raise self._unsupported(f"{word!r}")
        numbered = len(parts) > 1
        return union([self.type_of(part, f"{context}{n if numbered else ''}") for n, part in enumerate(parts, 1)])

    def _literal(self, values: Any) -> str:
        if not isinstance(values, list) or not values:
            raise self._unsupported("an enum without values")
        if not all(value is None or isinstance(value, (str, int, bool)) for value in values):
            return union([_PLAIN["number"] if isinstance(value, float) else "Any" for value in values])
        return f"Literal[{', '.join(map(literal, values))}]"

    def _by_type(self, schema: dict[str, Any], context: str) -> str:
        kind = schema.get("type", "object" if "properties" in schema else None)
        if kind is None:
            return "Any"
        if isinstance(kind, list):
            return union([self._by_type({**schema, "type": each}, context) for each in kind])
        if kind == "array":
            return self._array(schema, context)
        if kind == "object":
            return self._object(schema, context)
        if kind not in _PLAIN:
            raise self._unsupported(f"the type {kind!r}")
        return _PLAIN[kind]

    def _array(self, schema: dict[str, Any], context: str) -> str:
        parts = list(schema.get("prefixItems") or [])
        if parts and schema.get("items", True) is not False:
            parts.append(schema.get("items", {}))
        if not parts:
            return f"list[{self.type_of(schema.get('items', {}), f'{context}Item')}]"
        return f"list[{union([self.type_of(part, f'{context}Item{n}') for n, part in enumerate(parts, 1)])}]"

    def _object(self, schema: dict[str, Any], context: str) -> str:
        if schema.get("properties"):
            name = camel(str(schema["title"])) if schema.get("title") else context
            return self._named(name, schema)
        return f"dict[str, {self.type_of(schema.get('additionalProperties', {}) or {}, f'{context}Value')}]"

    def _unsupported(self, what: str) -> UnsupportedSchema:
        return UnsupportedSchema(self._service, self._where, f"{what} cannot be written as a Python type")


def union(parts: list[str]) -> str:
    """Return the union of types, each once; None stands last."""
    found = list(dict.fromkeys(each for part in parts for each in split_union(part)))
    if "Any" in found:
        return "Any"
    return " | ".join([each for each in found if each != "None"] + (["None"] if "None" in found else []))


def split_union(text: str) -> list[str]:
    """Return the members of a union as it is written."""
    parts, depth, quoted, start = [], 0, False, 0
    for place, character in enumerate(text):
        if character == '"' and text[place - 1 : place] != "\\":
            quoted = not quoted
        elif not quoted:
            depth += (character == "[") - (character == "]")
            if not depth and text.startswith(" | ", place):
                parts.append(text[start:place])
                start = place + 3
    return [*parts, text[start:]]


def literal(value: Any) -> str:
    """Return a value as source, strings in double quotes as formatters want them."""
    if not isinstance(value, str) or ('"' in value and "'" not in value):
        return repr(value)
    # With a double quote in front it is written in single ones, and everything but the quotes is escaped.
    inner = repr(f'"{value}')[2:-1]
    return '"' + _QUOTES.sub(lambda match: {"\\'": "'", '"': '\\"'}.get(match[0], match[0]), inner) + '"'


def camel(text: str) -> str:
    """Return text as the name of a class."""
    words = [word for word in re.split(r"[^0-9A-Za-z]+", text) if word]
    name = "".join(word[0].upper() + word[1:] for word in words) or "Value"
    return f"_{name}" if name[0].isdigit() or keyword.iskeyword(name) else name


def _text(schema: Any) -> str:
    text = schema.get("description") if isinstance(schema, dict) else None
    return text if isinstance(text, str) else ""
