"""The OpenAPI document, and the running app held to it by schemathesis."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import attrs
import jsonschema_rs
import pytest
from helpers.http import HttpProcess

from lightlink.http.openapi import document
from lightlink.http.route import Route
from lightlink.http.routes import ROUTES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lightlink.server import EmbeddedServer

DOCUMENT = document(ROUTES, "/", False)


@pytest.fixture(scope="module")
def running(server: EmbeddedServer) -> Iterator[HttpProcess]:
    with HttpProcess(server.url) as process:
        yield process


# Made from the document, and schemathesis is imported by the test: it takes each worker a second.
OPERATIONS = [
    f"{method.upper()} {path}"
    for path, methods in DOCUMENT["paths"].items()
    for method in methods
    if not path.endswith(("/stream", "/events", "/tail"))
]


@pytest.mark.parametrize("operation", OPERATIONS)
def test_the_running_app_does_what_its_document_says(operation: str, running: HttpProcess) -> None:
    from helpers.document import hold_to_it

    hold_to_it(operation, running, requests=10)


@pytest.mark.slow
@pytest.mark.parametrize("operation", OPERATIONS)
def test_the_document_holds_for_many_more_requests(operation: str, running: HttpProcess) -> None:
    from helpers.document import hold_to_it

    hold_to_it(operation, running, requests=100)


def test_the_document_is_the_one_that_the_app_serves(running: HttpProcess) -> None:
    answer = running.http.get("/openapi.json")

    assert answer.json == DOCUMENT


def test_the_document_is_openapi_3_1() -> None:
    assert DOCUMENT["openapi"] == "3.1.0"
    # A JSON Schema of 2020-12 is what OpenAPI 3.1 takes; each of ours must be one.
    for schema in DOCUMENT["components"]["schemas"].values():
        jsonschema_rs.meta.validate({**schema, "$schema": "https://json-schema.org/draft/2020-12/schema"})


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.name)
def test_every_call_is_described(route: Route) -> None:
    path = re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", route.path)
    operation = DOCUMENT["paths"][path][route.method.lower()]

    assert operation["operationId"] == route.name
    assert operation["summary"]
    assert "200" in operation["responses"]
    assert ("requestBody" in operation) == (route.body is not None or route.takes != "application/json")
    named = {parameter["name"] for parameter in operation["parameters"]}
    query = {field.name for field in attrs.fields(route.query)} if route.query else set()
    assert named == query | set(re.findall(r"<(?:\w+:)?(\w+)>", route.path))


def test_names_of_calls_are_unique() -> None:
    assert len({route.name for route in ROUTES}) == len(ROUTES)


def test_every_reference_leads_somewhere() -> None:
    found = set()

    def walk(value: Any) -> None:
        if isinstance(value, dict):
            found.update([value["$ref"]] if isinstance(value.get("$ref"), str) else [])
            for each in value.values():
                walk(each)
        elif isinstance(value, list):
            for each in value:
                walk(each)

    walk(DOCUMENT)

    assert found == {f"#/components/schemas/{name}" for name in DOCUMENT["components"]["schemas"]} - {
        "#/components/schemas/ListQuery"
    }


def test_what_a_request_may_hold_is_closed() -> None:
    for route in ROUTES:
        if route.body is not None:
            assert DOCUMENT["components"]["schemas"][route.body.__name__]["additionalProperties"] is False
