"""The OpenAPI document, and the running app held to it by schemathesis."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import attrs
import jsonschema_rs
import pytest
import schemathesis
from helpers.http import HttpProcess
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.pytest.lazy import get_all_tests
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance

from lightlink.http.openapi import document
from lightlink.http.route import Route
from lightlink.http.routes import ROUTES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lightlink.server import EmbeddedServer

# Whether a plan can be carried out is more than its document can say; nor does it say that a DELETE is of JSON.
PLANS = (
    "/api/plans/check",
    "/api/stored-plans",
    "/api/stored-plans/{name}",
    "/api/runs",
    "/api/schedules",
    "/api/schedules/{name}",
)
# Names of things in NATS, for which one regular expression would say too little.
DATA = ("/api/state", "/api/files", "/api/publish", "/api/services/")
DOCUMENT = document(ROUTES, "/", False)
SCHEMA = schemathesis.openapi.from_dict(DOCUMENT).exclude(path_regex="/(stream|events|tail)$")


@pytest.fixture(scope="module")
def running(server: EmbeddedServer) -> Iterator[HttpProcess]:
    with HttpProcess(server.url) as process:
        yield process


OPERATIONS = [found.ok().label if isinstance(found, Ok) else str(found) for found in SCHEMA.get_all_operations()]
REQUESTS = settings(deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


@pytest.mark.parametrize("operation", OPERATIONS)
def test_the_running_app_does_what_its_document_says(operation: str, running: HttpProcess) -> None:
    hold_to_its_document(operation, running, settings(REQUESTS, max_examples=10))


@pytest.mark.slow
@pytest.mark.parametrize("operation", OPERATIONS)
def test_the_document_holds_for_many_more_requests(operation: str, running: HttpProcess) -> None:
    hold_to_its_document(operation, running, settings(REQUESTS, max_examples=100))


def hold_to_its_document(operation: str, running: HttpProcess, requests: settings) -> None:
    """Send all requests that schemathesis thinks of for an operation.

    They are made here and not by ``SCHEMA.parametrize()``, by which every worker makes those of all operations to know
    the names of the tests.
    """
    [made] = get_all_tests(
        schema=SCHEMA.include(name=operation),
        test_func=does_what_its_document_says,
        settings=requests,
        given_kwargs=None,
    )
    assert isinstance(made, Ok), made
    _, send_all = made.ok()
    send_all(running=running)


def does_what_its_document_says(case: schemathesis.Case[Any], running: HttpProcess) -> None:
    if case.path == "/api/command/multi" and isinstance(case.body, dict) and case.body.get("wait", True) is True:
        # Nobody takes these commands: waiting for them would last as long as they may.
        case.body["wait"] = False

    response = case.call(base_url=running.url)

    # 503 is what a client that is offline gets, and no fault of the server; a 500 is in no document.
    excluded: list[Any] = [not_a_server_error]
    if case.path in PLANS or case.path.startswith(DATA):
        excluded.append(positive_data_acceptance)
    if "" in (case.query or {}).values():  # which counts as left out, as the document says
        excluded.append(negative_data_rejection)
    case.validate_response(response, excluded_checks=excluded)


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
