"""Requests that schemathesis thinks of, and what it makes of their answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.pytest.lazy import get_all_tests
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance

from lightlink.http.openapi import document
from lightlink.http.routes import ROUTES

if TYPE_CHECKING:
    from helpers.http import HttpProcess

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
SCHEMA = schemathesis.openapi.from_dict(document(ROUTES, "/", False))


def hold_to_it(operation: str, running: HttpProcess, requests: int) -> None:
    """Send all requests of the coverage phase for an operation, and so many that are made by chance.

    They are made here and not by ``schema.parametrize()``, by which every worker makes those of all operations to know
    the names of the tests.
    """
    [made] = get_all_tests(
        schema=SCHEMA.include(name=operation),
        test_func=does_what_its_document_says,
        settings=settings(
            max_examples=requests, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
        ),
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
