"""A service as an OpenAPI 3.1 document, from what it announces: for documentation, and for gateways in front of it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from lightlink.rpc.schema_types import camel

if TYPE_CHECKING:
    from lightlink.rpc.discovery import MethodInfo, RunningService

_REF = "#/$defs/"
_NOT_A_KEY = re.compile(r"[^A-Za-z0-9._-]")  # what the names of components are made of
# How a gateway would answer what a service refuses, or cannot do.
_ERRORS = {
    "400": "The arguments do not fit the method.",
    "429": "Too many requests wait; it did not run.",
    "500": "The handler failed.",
    "503": "Nobody serves it; it did not run.",
    "504": "No answer in time; it may have run.",
}
_ERROR = {
    "type": "object",
    "properties": {"error": {"type": "string"}, "code": {"type": "string"}},
    "required": ["error"],
}


def write_openapi(service: RunningService) -> dict[str, Any]:
    """Return the document: each method is a POST of its arguments, as JSON, to ``/<service>/<method>``."""
    components: dict[str, Any] = {"Error": _ERROR}
    methods = sorted(service.methods.items())
    paths = {f"/{service.name}/{name}": {"post": _operation(info, components)} for name, info in methods}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": service.name,
            "version": service.versions[-1] if service.versions else "0.0.0",
            "description": service.description,
        },
        "paths": paths,
        "components": {"schemas": dict(sorted(components.items()))},
    }


def _operation(info: MethodInfo, components: dict[str, Any]) -> dict[str, Any]:
    told = info.description
    arguments = _moved(info, told.arguments or {"type": "object"}, "Arguments", components)
    result = _moved(info, told.result, "Result", components)
    error = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    summary, _, more = told.text.partition("\n")
    operation: dict[str, Any] = {
        "operationId": info.name,
        "summary": summary or info.name,
        "requestBody": {
            "required": bool(told.arguments.get("required")),
            "content": {"application/json": {"schema": arguments}},
        },
        "responses": {
            "200": {"description": "The result.", "content": {"application/json": {"schema": result}}},
            **{status: {"description": text, "content": error} for status, text in _ERRORS.items()},
        },
    }
    if more.strip():
        operation["description"] = more.strip()
    if info.metadata.get("idempotent") == "true":
        operation["x-idempotent"] = True
    return operation


def _moved(info: MethodInfo, schema: dict[str, Any], part: str, components: dict[str, Any]) -> dict[str, Any]:
    """Return a schema whose definitions are among the document's; of two that share a name one gets a longer one."""
    defs: dict[str, Any] = schema.get("$defs") or {}
    plain = {name: _NOT_A_KEY.sub("_", name) for name in defs}
    names = {
        name: chosen
        if components.get(chosen, _UNTAKEN) in (_UNTAKEN, _renamed(defs[name], plain))
        else f"{camel(info.name)}{part}{chosen}"
        for name, chosen in plain.items()
    }
    components.update({names[name]: _renamed(defs[name], names) for name in defs})
    moved: dict[str, Any] = _renamed({key: value for key, value in schema.items() if key != "$defs"}, names)
    return moved


_UNTAKEN = object()


def _renamed(value: Any, names: dict[str, str]) -> Any:
    """Return a schema whose references lead to the document's components."""
    if isinstance(value, list):
        return [_renamed(each, names) for each in value]
    if not isinstance(value, dict):
        return value
    found = {key: _renamed(each, names) for key, each in value.items()}
    reference = value.get("$ref")
    if isinstance(reference, str) and reference.startswith(_REF):
        name = reference.removeprefix(_REF)
        found["$ref"] = f"#/components/schemas/{names.get(name, name)}"
    return found
