"""Write a typed client for a service from what it announces: one readable module, the same at each time."""

from __future__ import annotations

import keyword
import re
import textwrap
from typing import TYPE_CHECKING, Any

import attrs

from lightlink import describe
from lightlink.errors import UnsupportedSchema
from lightlink.rpc.schema_types import Field, TypeWriter, camel, literal, split_union

if TYPE_CHECKING:
    from lightlink.rpc.discovery import MethodInfo, RunningService

# What formatters take by default.
_WIDTH = 88
_NOT_PLAIN = re.compile(r"[^0-9A-Za-z_]")
# What else stands in the module, and no object may be called.
_TAKEN = ("Any", "Literal", "TypedDict", "SERVICE", "DIGEST")
_BUILTINS = frozenset({"bool", "dict", "float", "int", "list", "str"})
# A quoted text, or a name, in a type.
_QUOTED_OR_NAME = re.compile(r""" "(?:\\.|[^"\\])*" | '(?:\\.|[^'\\])*' | [A-Za-z_]\w* """, re.VERBOSE)


@attrs.frozen
class _Argument:
    key: str
    name: str
    type: str
    default: str | None  # None: it has to be given

    @property
    def source(self) -> str:
        """How it stands among the parameters."""
        return f"{self.name}: {self.type}" + ("" if self.default is None else f" = {self.default}")


@attrs.frozen
class _Method:
    key: str
    name: str
    text: str
    arguments: list[_Argument]
    rest: str | None  # the type of any other arguments
    result: str


def write_stub(service: RunningService) -> str:
    """Return the module; raises UnsupportedSchema for what it cannot express."""
    types = TypeWriter(service.name)
    for name in (*_TAKEN, _client_name(service)):
        types.claim(name, None)
    methods = [_method(service.name, types, info) for _, info in sorted(service.methods.items())]
    _refuse_twins(service.name, [method.name for method in methods], [method.key for method in methods])
    hidden = _BUILTINS & {method.name for method in methods}
    methods = [_spelled_out(method, hidden) for method in methods]
    parts = [_head(service, types, methods), *_objects(types), _client(service, methods)]
    return "\n\n\n".join(parts) + "\n"


def _method(service: str, types: TypeWriter, info: MethodInfo) -> _Method:
    schema = info.description.arguments
    prefix = camel(info.name)
    properties, required = describe.members(schema)
    arguments = []
    for key, part in sorted(properties.items(), key=lambda item: item[0] not in required):
        whole = {**part, "$defs": schema.get("$defs", {})} if isinstance(part, dict) else part
        written = types.write(whole, f"{info.name}: argument {key!r}", f"{prefix}{camel(key)}")
        arguments.append(_argument(key, written, part, key in required))
    _refuse_twins(service, [each.name for each in arguments], [each.key for each in arguments])
    extra = schema.get("additionalProperties", True)
    rest = None
    if extra is not False:
        whole = {**extra, "$defs": schema.get("$defs", {})} if isinstance(extra, dict) else extra
        rest = types.write(whole, f"{info.name}: other arguments", f"{prefix}Argument")
    result = types.write(info.description.result or {}, f"{info.name}: the result", f"{prefix}Result")
    return _Method(info.name, _identifier(info.name), info.description.text, arguments, rest, result)


def _spelled_out(method: _Method, hidden: frozenset[str]) -> _Method:
    """Return a method whose types name as ``builtins.list`` what a method called ``list`` hides from them."""
    if not hidden:
        return method

    def spell(text: str) -> str:
        return _QUOTED_OR_NAME.sub(lambda found: f"builtins.{found[0]}" if found[0] in hidden else found[0], text)

    arguments = [attrs.evolve(each, type=spell(each.type)) for each in method.arguments]
    rest = method.rest and spell(method.rest)
    return attrs.evolve(method, arguments=arguments, rest=rest, result=spell(method.result))


def _argument(key: str, written: str, schema: Any, required: bool) -> _Argument:
    name = _identifier(key)
    if required:
        return _Argument(key, name, written, None)
    default = _default(schema, split_union(written))
    if default is not None:
        return _Argument(key, name, written, default)
    # What the service takes for it, it says itself.
    return _Argument(key, name, f"{written} | lightlink.UnsetType" if written != "Any" else written, "lightlink.UNSET")


def _default(schema: Any, members: list[str]) -> str | None:
    """Return a default as source, None for one that is not told or would not fit the type."""
    if not isinstance(schema, dict) or "default" not in schema:
        return None
    value = schema["default"]
    if isinstance(value, (dict, list)):
        return None
    source = literal(value)
    kinds = {type(value).__name__, "float"} if type(value) is int else {type(value).__name__}
    fits = {"None"} if value is None else kinds
    is_listed = any(member.startswith("Literal[") and source in member[8:-1].split(", ") for member in members)
    return source if "Any" in members or fits & {*members} or is_listed else None


def _identifier(key: str) -> str:
    name = _NOT_PLAIN.sub("_", key) or "_"
    if name[0].isdigit():
        name = f"_{name}"
    return f"{name}_" if keyword.iskeyword(name) or name in ("self", "arguments") or name.startswith("__") else name


def _refuse_twins(service: str, names: list[str], keys: list[str]) -> None:
    for name in names:
        twins = [key for each, key in zip(names, keys, strict=True) if each == name]
        if len(twins) > 1:
            raise UnsupportedSchema(service, " and ".join(twins), f"both would be called {name!r}")


# The text -------------------------------------------------------------------------------------------------------------


def _head(service: RunningService, types: TypeWriter, methods: list[_Method]) -> str:
    written = [each.type for fields in types.objects.values() for each in fields]
    written += [each.type for method in methods for each in method.arguments]
    written += [text for method in methods for text in (method.result, method.rest or "")]
    names = [name for name in ("Any", "Literal") if any(_mentions(text, name) for text in written)]
    names += ["TypedDict"] if types.objects else []
    imports = ["import builtins"] if any("builtins." in text for text in written) else []
    imports += [f"from typing import {', '.join(names)}"] if names else []
    standard = "\n".join(imports) + "\n\n" if imports else ""
    return (
        f'"""Typed client of the service {service.name}.\n\n'
        f"Written by `lightlink stub {service.name}` from what the service announces; do not\n"
        f"edit it, but write it again.\n\n"
        f"Digest: {service.digest}\n"
        f'"""\n\n'
        f"from __future__ import annotations\n\n"
        f"{standard}"
        f"import lightlink\n\n"
        f"SERVICE = {literal(service.name)}\n"
        f"DIGEST = {literal(service.digest)}"
    )


def _mentions(text: str, name: str) -> bool:
    return name in text.replace("[", " ").replace("]", " ").replace(",", " ").split()


def _objects(types: TypeWriter) -> list[str]:
    return [source for name, fields in sorted(types.objects.items()) for source in _object(name, fields)]


def _object(name: str, fields: list[Field]) -> list[str]:
    """Return the classes of an object: its members that are always there are a class of their own beside others."""
    always = [field for field in fields if field.required]
    sometimes = [field for field in fields if not field.required]
    is_plain = all(field.key.isidentifier() and not keyword.iskeyword(field.key) for field in fields)
    write = _class if is_plain else _mapped
    if not always or not sometimes:
        return [write(name, fields, "TypedDict", total=bool(always))]
    required, optional = f"_{name}Required", f"_{name}Optional"
    if is_plain:
        return [_class(required, always, "TypedDict", total=True), _class(name, sometimes, required, total=False)]
    both = f"class {name}({required}, {optional}):\n    pass"
    return [_mapped(required, always, "", total=True), _mapped(optional, sometimes, "", total=False), both]


def _class(name: str, fields: list[Field], base: str, *, total: bool) -> str:
    members = "\n".join(f"    {field.key}: {field.type}" for field in fields)
    return f"class {name}({base}{'' if total else ', total=False'}):\n{members}"


def _mapped(name: str, fields: list[Field], _base: str, *, total: bool) -> str:
    """Return an object some of whose members have names that Python has not."""
    members = "".join(f"        {literal(field.key)}: {literal(field.type)},\n" for field in fields)
    end = "" if total else "    total=False,\n"
    return f"{name} = TypedDict(\n    {literal(name)},\n    {{\n{members}    }},\n{end})"


def _client_name(service: RunningService) -> str:
    return f"{camel(service.name)}Client"


def _client(service: RunningService, methods: list[_Method]) -> str:
    text = service.description or f"The service {service.name}."
    return "\n".join(
        [
            f"class {_client_name(service)}:",
            *_docstring(text, "    "),
            "",
            "    def __init__(",
            "        self,",
            "        client: lightlink.Client,",
            "        *,",
            "        timeout: float | None = None,",
            "        retry: lightlink.Retry | None = None,",
            "        headers: dict[str, str] | None = None,",
            "    ) -> None:",
            "        self.__service = lightlink.TypedService(",
            "            client, SERVICE, DIGEST, timeout=timeout, retry=retry, headers=headers",
            "        )",
            *(line for method in methods for line in ["", *_definition(method)]),
        ]
    )


def _definition(method: _Method) -> list[str]:
    parameters = ["self", *(["*"] if method.arguments else []), *(each.source for each in method.arguments)]
    if method.rest is not None:
        parameters.append(f"**arguments: {method.rest}")
    lines = _signature(method.name, parameters, method.result)
    lines += _docstring(method.text, "        ") if method.text else []
    pairs = ["**arguments"] if method.rest is not None else []
    pairs += [f"{literal(each.key)}: {each.name}" for each in method.arguments]
    if method.result == "None":
        return [*lines, *_call("", method.key, pairs)]
    if method.result == "Any":
        return [*lines, *_call("return ", method.key, pairs)]
    name = "result_" if any(each.name == "result" for each in method.arguments) else "result"
    return [*lines, *_call(f"{name}: {method.result} = ", method.key, pairs), f"        return {name}"]


def _call(start: str, method: str, pairs: list[str]) -> list[str]:
    """Return the call as formatters lay it out: on as few lines as it fits, and then one part on each."""
    begin, arguments = f"        {start}self.__service.call(", f"{{{', '.join(pairs)}}}"
    line = f"{begin}{literal(method)}, {arguments})"
    if len(line) <= _WIDTH:
        return [line]
    inside = f"            {literal(method)}, {arguments}"
    if len(inside) <= _WIDTH:
        return [begin, inside, "        )"]
    one = f"            {arguments},"
    exploded = ["            {", *(f"                {pair}," for pair in pairs), "            },"]
    return [begin, f"            {literal(method)},", *([one] if len(one) <= _WIDTH else exploded), "        )"]


def _signature(name: str, parameters: list[str], result: str) -> list[str]:
    line = f"    def {name}({', '.join(parameters)}) -> {result}:"
    if len(line) <= _WIDTH:
        return [line]
    return [f"    def {name}(", *(f"        {each}," for each in parameters), f"    ) -> {result}:"]


def _docstring(text: str, indent: str) -> list[str]:
    shown = "".join(each if each.isprintable() or each == "\n" else " " for each in text.expandtabs(4).strip())
    body = shown.rstrip('"')
    escaped = body.replace("\\", "\\\\").replace('"""', '\\"\\"\\"') + '\\"' * (len(shown) - len(body))
    lines = [part for line in escaped.splitlines() for part in _folded(line.rstrip(), _WIDTH - len(indent) - 3)]
    if len(lines) == 1:
        return [f'{indent}"""{lines[0]}"""']
    return [f'{indent}"""{lines[0]}', *(f"{indent}{line}".rstrip() for line in lines[1:]), f'{indent}"""']


def _folded(line: str, width: int) -> list[str]:
    return textwrap.wrap(line, width) if len(line) > width else [line]
