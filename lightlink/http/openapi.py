"""The OpenAPI 3.1 document, made from the types that check the requests."""

from __future__ import annotations

import re
from functools import lru_cache
from types import UnionType
from typing import TYPE_CHECKING, Any, get_args

import attrs
import msgspec

from lightlink.http.schemas import Problem, SendCommands

if TYPE_CHECKING:
    from lightlink.http.route import Route

_REFERENCE = "#/components/schemas/{name}"
_PARAMETER = re.compile(r"<(?:\w+:)?(\w+)>")
_TEXTS = {
    400: "A field or parameter is missing, unknown or wrong; the text names it.",
    401: "Missing or invalid bearer token.",
    403: "The token is not good for this.",
    404: "Not found.",
    409: "The command has ended already, the key was used for another or written by somebody else, or the run is not"
    " where that can be done.",
    413: "The body or the message is too large.",
    415: "The body is not of the type that the call takes.",
    411: "Content-Length is missing.",
    429: "Too many requests; Retry-After says when to try again.",
    501: "Runs are not served here.",
    502: "The service has answered with an error; the text is its own.",
    503: "NATS cannot be reached, the client is not connected, or too many requests wait already.",
    504: "The agent did not answer in time.",
}


@lru_cache(maxsize=16)
def document(routes: tuple[Route, ...], base: str, needs_token: bool) -> dict[str, Any]:
    """Return the document of some calls for an app mounted at ``base``."""
    types = sorted({each for route in routes for each in _types(route)} | {Problem}, key=lambda each: each.__name__)
    _, components = msgspec.json.schema_components(types, ref_template=_REFERENCE)
    for kind in types:
        if kind is not Problem and any(kind is route.body for route in routes):
            components[kind.__name__]["additionalProperties"] = False
    components[SendCommands.__name__]["oneOf"] = [{"required": ["client_ids"]}, {"required": ["labels"]}]
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(_PARAMETER.sub(r"{\1}", route.path), {})[route.method.lower()] = _operation(route)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "LightLink commands",
            "version": "1",
            "description": "Send commands to agents, follow them and get their results.",
        },
        "servers": [{"url": base}],
        "security": [{"token": []}] if needs_token else [],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _types(route: Route) -> list[type[Any]]:
    found = [route.body, *route.replies.values()]
    return [part for each in found for part in _parts(each) if attrs.has(part)]


def _operation(route: Route) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": route.name,
        "summary": route.summary,
        "parameters": _parameters(route),
        "responses": _responses(route),
    }
    if route.body is not None:
        content = {"application/json": {"schema": _schema(route.body)}}
        operation["requestBody"] = {"required": True, "content": content}
    elif route.takes != "application/json":
        operation["requestBody"] = {"required": True, "content": {route.takes: {"schema": {"type": "string"}}}}
    if route.scope is None:
        operation["security"] = []
    return operation


def _parameters(route: Route) -> list[dict[str, Any]]:
    parameters: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
        for name in _PARAMETER.findall(route.path)
    ]
    if route.query is not None:
        _, components = msgspec.json.schema_components([route.query], ref_template=_REFERENCE)
        for name, described in components[route.query.__name__]["properties"].items():
            # One that is empty counts as left out.
            about = {"name": name, "in": "query", "required": False, "allowEmptyValue": True}
            parameters.append({**about, "schema": described})
    return parameters


def _responses(route: Route) -> dict[str, Any]:
    responses: dict[str, Any] = {}
    for status, kind in route.replies.items():
        text = _TEXTS.get(status, "Done.")
        responses[str(status)] = {"description": text, "content": {route.content: {"schema": _schema(kind)}}}
    common = {400, 403, 429} if route.scope is None else {400, 401, 403, 429, 503}
    if route.body is not None:
        common |= {413}
    if route.method != "GET":
        common |= {415}
    for status in sorted(common | set(route.problems)):
        content = {"application/json": {"schema": _schema(Problem)}}
        responses.setdefault(str(status), {"description": _TEXTS[status], "content": content})
    return responses


def _schema(kind: Any) -> dict[str, Any]:
    schemas, _ = msgspec.json.schema_components(list(_parts(kind)), ref_template=_REFERENCE)
    return schemas[0] if len(schemas) == 1 else {"anyOf": list(schemas)}


def _parts(kind: Any) -> tuple[Any, ...]:
    """Return the members of a union; msgspec takes no union of two classes."""
    return get_args(kind) if isinstance(kind, UnionType) else (kind,)
