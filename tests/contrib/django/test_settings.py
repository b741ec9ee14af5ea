"""The setting LIGHTLINK, what is checked of it, and the clients that it gives."""

from __future__ import annotations

import json
import logging
import re
from typing import TYPE_CHECKING, Any

import pytest
from django.db import connections
from django.http import HttpResponse, JsonResponse
from django.test import RequestFactory, override_settings
from helpers.tracing import tracing

import lightlink
from lightlink import errors, logs
from lightlink.contrib.django import client, clients, conf, managers
from lightlink.contrib.django.checks import check_deployment, check_outbox, check_settings
from lightlink.contrib.django.middleware import LightLinkContextMiddleware, LightLinkErrorsMiddleware
from lightlink.protocol.codec import CORRELATION_HEADER

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from conftest import StartServer
    from django.http import HttpRequest


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    yield
    clients.close_all()


def ids(found: list[Any]) -> list[str]:
    return [message.id for message in found]


# Clients --------------------------------------------------------------------------------------------------------------


def test_clients_connect_when_they_are_used(url: str) -> None:
    with override_settings(LIGHTLINK={"URL": url}):
        assert client.status is lightlink.Status.CONNECTING
        assert client.ping() > 0
        assert clients["default"] is clients["default"]
        assert repr(client).startswith("<Client 'django' connected")
        assert managers["default"].clients() == []


def test_aliases_are_connections_of_their_own(url: str, fresh_server: StartServer) -> None:
    other = fresh_server().url
    with override_settings(LIGHTLINK={"default": {"URL": url}, "plant": {"URL": other, "NAME": "shop"}}):
        assert list(clients) == ["default", "plant"]
        for alias, where in (("default", url), ("plant", other)):
            clients[alias].ping()
            assert clients[alias].server == where
        assert clients["plant"].options.name == "shop"
        with pytest.raises(errors.InvalidOption, match="no alias 'plan'; it has default, plant"):
            _ = clients["plan"]


def test_a_test_that_overrides_the_settings_gets_what_they_say(url: str, fresh_server: StartServer) -> None:
    other = fresh_server().url
    with override_settings(LIGHTLINK={"URL": url}):
        client.ping()
        before = clients["default"]
        with override_settings(LIGHTLINK={"URL": other}):
            client.ping()
            assert client.server == other
        assert before.status is lightlink.Status.CLOSED
        client.ping()
        assert client.server == url


# Settings -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("nats://x", "must be a dictionary"),
        ({"URI": "nats://x"}, "did you mean 'URL'"),
        ({"URL": "http://x"}, "must start with nats://"),
        ({"TLS": {"CERTS": "x"}}, "did you mean 'CERT'"),
        ({"TLS": "x"}, "must be a dictionary"),
        ({"OPTIONS": {"worker": 3}}, "did you mean workers"),
        ({"ATOMIC_HANDLERS": "default"}, "must be True, False or a list"),
        ({"default": {"URL": "nats://a"}, "b": {"UR": ""}}, r"LIGHTLINK\['b'\]: has no key 'UR'"),
    ],
)
def test_wrong_settings_are_errors_of_the_check(given: Any, words: str) -> None:
    with override_settings(LIGHTLINK=given):
        (error,) = check_settings()
        assert error.id == "lightlink.E001"
        assert re.search(words, error.msg)


def test_atomic_handlers_name_databases_that_there_are() -> None:
    with override_settings(LIGHTLINK={"ATOMIC_HANDLERS": ["default", "archive"]}):
        (error,) = check_settings()
        assert (error.id, "archive" in error.msg) == ("lightlink.E003", True)
    with override_settings(LIGHTLINK={"ATOMIC_HANDLERS": True}):
        assert check_settings() == []
        assert conf.read().atomic == ("default",)


def test_certificates_are_looked_at_before_they_fail(identities: Path, authority: Any) -> None:
    def tls(folder: Path, name: str) -> dict[str, Any]:
        files = {"CA": folder / "ca.pem", "CERT": folder / f"{name}.pem", "KEY": folder / f"{name}.key"}
        return {"URL": "tls://nats.example.org", "TLS": files}

    authority.issue("soon", days=10)
    with override_settings(LIGHTLINK=tls(identities, "web")):
        assert check_settings() == []
        assert check_deployment() == []
    with override_settings(LIGHTLINK=tls(identities, "nobody")):
        assert ids(check_settings()) == ["lightlink.E002"]
    with override_settings(LIGHTLINK=tls(authority.directory, "soon")):
        assert ids(check_settings()) == ["lightlink.W001"]


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({"URL": "nats://nats.example.org"}, ["lightlink.W002"]),
        ({"URL": "tls://nats.example.org"}, ["lightlink.W003"]),
        ({"URL": "tls://nats.example.org", "OPTIONS": {"token": "t"}}, []),
        ({"URL": "tls://app:secret@nats.example.org"}, ["lightlink.W004"]),
        ({"URL": "nats://localhost,nats://[::1],nats://127.0.0.2"}, []),
        ({"URL": "nats://127.evil.example"}, ["lightlink.W002"]),
    ],
)
def test_what_is_unsafe_is_said_at_deployment(given: Any, found: list[str]) -> None:
    with override_settings(LIGHTLINK=given):
        said = check_deployment()
        assert ids(said) == found
        assert all("secret" not in str(message) for message in said)


# Requests, and the outbox's table -------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", ["id-1", "two words"])
def test_all_that_a_request_leads_to_is_known_by_its_id(url: str, prefix: str, given: str) -> None:
    records: list[Any] = []
    keep = logging.Handler()
    keep.emit = records.append  # type: ignore[method-assign, assignment]
    keep.addFilter(lightlink.LogFilter())
    log = logging.getLogger("views")
    log.addHandler(keep)

    def view(request: HttpRequest) -> HttpResponse:
        log.warning("looked at")
        return HttpResponse(client.call(prefix, "who"))

    service = lightlink.Service(prefix, url)
    service.register("who", logs.correlation_id)
    request = RequestFactory().get("/", headers={"X-Request-ID": given})
    with service, override_settings(LIGHTLINK={"URL": url}):
        response = LightLinkContextMiddleware(view)(request)
        log.warning("outside of a request")
    log.removeHandler(keep)

    known = response.content.decode()
    assert (known == given) == (given == "id-1")
    assert response.headers["X-Request-ID"] == known
    assert [record.correlation_id for record in records] == [known, ""]


TRACE = {
    "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    "tracestate": "vendor=1",
    "baggage": "user=7",
}


def test_a_request_s_trace_goes_on_in_what_it_leads_to(url: str, prefix: str) -> None:
    def headers(request: lightlink.Request) -> dict[str, str]:
        return request.headers

    def view(_: HttpRequest) -> JsonResponse:
        client.publish(prefix, 1)
        return JsonResponse(client.call(prefix, "headers"))

    service = lightlink.Service(prefix, url)
    service.register("headers", headers)
    request = RequestFactory().get("/", headers=TRACE)
    with (
        service,
        override_settings(LIGHTLINK={"URL": url}),
        lightlink.connect(url) as listener,
        listener.subscribe(prefix) as heard,
    ):
        response = LightLinkContextMiddleware(view)(request)
        known = {**TRACE, CORRELATION_HEADER: response.headers["X-Request-ID"]}
        for got in (json.loads(response.content), heard.get(30).headers):
            assert got == {**got, **known}
    assert response.headers["X-Request-ID"] == TRACE["traceparent"][3:35]


def test_spans_of_a_request_s_calls_are_its_trace_s(url: str, prefix: str) -> None:
    def view(_: HttpRequest) -> HttpResponse:
        return HttpResponse(client.call(prefix, "double"))

    with tracing() as spans:
        service = lightlink.Service(prefix, url)
        service.register("double", lambda: 2)
        with service, override_settings(LIGHTLINK={"URL": url}):
            LightLinkContextMiddleware(view)(RequestFactory().get("/", headers=TRACE))
            sent, served = spans.wait(2)
    for span, parent in ((sent, "b7ad6b7169203331"), (served, f"{sent.context.span_id:016x}")):
        assert span.parent is not None
        known = (f"{span.context.trace_id:032x}", f"{span.parent.span_id:016x}")
        assert known == (TRACE["traceparent"][3:35], parent)


@pytest.mark.parametrize(("status", "name"), [(529, "529"), (507, "Insufficient Storage"), (504, "Gateway Timeout")])
def test_an_error_may_have_a_status_without_a_name(status: int, name: str) -> None:
    def view(_: HttpRequest) -> HttpResponse:
        raise NotImplementedError

    with override_settings(LIGHTLINK_STATUSES={"FlushTimeout": status}):
        middleware = LightLinkErrorsMiddleware(view)
    answer = middleware.process_exception(RequestFactory().get("/"), errors.FlushTimeout(1.0, "connected"))
    assert answer is not None
    assert (answer.status_code, json.loads(answer.content)) == (status, {"error": name, "type": "FlushTimeout"})


def test_an_outbox_without_its_table_is_found_once_migrated() -> None:
    assert check_outbox() == []  # databases are asked only where Django allows it
    with connections["default"].cursor() as cursor:
        assert check_outbox(databases=["default"]) == []
        cursor.execute("CREATE TABLE django_migrations (app TEXT)")
        try:
            assert ids(check_outbox(databases=["default"])) == ["lightlink.W005"]
            cursor.execute("CREATE TABLE lightlink_outbox (id TEXT)")
            assert check_outbox(databases=["default"]) == []
        finally:
            cursor.execute("DROP TABLE IF EXISTS lightlink_outbox")
            cursor.execute("DROP TABLE django_migrations")
    connections.close_all()
