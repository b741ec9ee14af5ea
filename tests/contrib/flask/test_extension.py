"""The extension in a real Flask app, against a real server."""

from __future__ import annotations

import io
import logging
import threading
from typing import TYPE_CHECKING, Any

import flask
import pytest
from helpers.tracing import tracing

import lightlink
from lightlink import errors, logs
from lightlink.contrib.flask import STATUSES, LightLink, health_blueprint
from lightlink.contrib.statuses import status_of, with_changes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import StartServer
    from flask.testing import FlaskClient
    from helpers.commands import World

CORRELATION = "LightLink-Correlation-Id"
NOWHERE = "nats://127.0.0.1:1"


def make_app(link: LightLink, **config: Any) -> flask.Flask:
    app = flask.Flask("site")
    app.config.from_mapping(config)
    link.init_app(app)
    return app


@pytest.fixture
def link() -> LightLink:
    return LightLink()


@pytest.fixture
def app(url: str, link: LightLink) -> Iterator[flask.Flask]:
    made = make_app(link, LIGHTLINK_URL=url)
    with made.app_context():
        yield made
        link.close()


@pytest.fixture
def service(url: str, prefix: str) -> Iterator[lightlink.Service]:
    made = lightlink.Service(prefix, url)

    @made.rpc
    def headers(request: lightlink.Request) -> dict[str, str]:
        return request.headers

    @made.rpc
    def fail() -> None:
        raise KeyError("a secret of the service")

    @made.rpc
    def double(number: int) -> int:
        return 2 * number

    with made:
        yield made


def browser_for(app: flask.Flask, rule: str, view: Any, method: str = "GET") -> FlaskClient:
    app.add_url_rule(rule, view_func=view, endpoint=rule, methods=[method])
    return app.test_client()


# Set-up ---------------------------------------------------------------------------------------------------------------


def test_an_app_starts_without_nats_and_answers_503(link: LightLink) -> None:
    app = make_app(link, LIGHTLINK_URL=NOWHERE, LIGHTLINK_OPTIONS={"connect_timeout": 0.2})
    browser = browser_for(app, "/", lambda: link.call("math", "add"))

    answer = browser.get("/")

    assert (answer.status_code, answer.get_json()) == (503, {"error": "Service Unavailable", "type": "ConnectError"})
    assert answer.headers["Retry-After"] == "2"


def test_two_apps_of_one_extension_have_a_connection_each(url: str, fresh_server: StartServer, link: LightLink) -> None:
    other = fresh_server().url
    servers = []
    for app in (make_app(link, LIGHTLINK_URL=url), make_app(link, LIGHTLINK_URL=other)):
        with app.app_context():
            link.client.ping()
            servers.append(link.client.server)
            link.close()
    assert servers == [url, other]


def test_threads_that_come_first_at_once_get_one_client(app: flask.Flask, link: LightLink) -> None:
    found: list[lightlink.Client] = []
    barrier = threading.Barrier(8)

    def look() -> None:
        with app.app_context():
            barrier.wait(30)
            link.client.ping()
            found.append(link.client)

    threads = [threading.Thread(target=look) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(found) == 8
    assert len({id(client) for client in found}) == 1


def test_an_extension_is_registered_once_with_an_app(app: flask.Flask, link: LightLink) -> None:
    assert "lightlink" in app.extensions
    with pytest.raises(errors.NotReady, match="'site' already"):
        link.init_app(app)
    with flask.Flask("bare").app_context(), pytest.raises(errors.NotReady, match=r"link\.init_app\(app\)"):
        _ = link.client


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"LIGHTLINK_URL": "http://x"}, "must start with nats://"),
        ({"LIGHTLINK_OPTIONS": {"worker": 3}}, "did you mean workers"),
        ({"LIGHTLINK_TLS_CERT": "a.pem"}, "cert is given without key"),
        ({"LIGHTLINK_STATUSES": {"Nonsense": 500}}, "must map errors of LightLink"),
        ({"LIGHTLINK_STATUSES": {"CallTimeout": 200}}, "must be from 400 to 599"),
    ],
)
def test_wrong_settings_are_refused_when_the_app_is_made(link: LightLink, config: dict[str, Any], words: str) -> None:
    with pytest.raises(errors.InvalidOption, match=words):
        make_app(link, **config)


def test_an_extension_closed_after_a_test_opens_again(app: flask.Flask, link: LightLink) -> None:
    first = link.client
    assert first.ping() > 0
    assert isinstance(link.manager.clients(), list)
    link.close()
    assert first.status is lightlink.Status.CLOSED
    assert link.client.ping() > 0
    assert isinstance(link.manager.clients(), list)


# Errors ---------------------------------------------------------------------------------------------------------------


def test_errors_become_statuses_and_texts_of_others_stay_inside(
    app: flask.Flask, link: LightLink, service: lightlink.Service, caplog: pytest.LogCaptureFixture
) -> None:
    browser = browser_for(
        app,
        "/<method>",
        lambda method: [link.call(service.name, method, flask.request.args.to_dict())],
    )

    bad = browser.get("/double?number=x")
    assert (bad.status_code, bad.get_json()["type"]) == (400, "InvalidArguments")
    assert "'number'" in bad.get_json()["error"]
    missing = browser.get("/triple")
    assert (missing.status_code, missing.get_json()["type"]) == (404, "MethodNotFound")
    failed = browser.get("/fail")
    assert (failed.status_code, failed.get_json()) == (502, {"error": "Bad Gateway", "type": "HandlerError"})
    assert any("a secret of the service" in record.getMessage() for record in caplog.records)


@pytest.mark.parametrize("status", [404, 405, 416])
def test_an_app_s_own_pages_and_statuses_win(url: str, link: LightLink, prefix: str, status: int) -> None:
    app = make_app(link, LIGHTLINK_URL=url, LIGHTLINK_STATUSES={"ServiceUnavailable": status})
    app.register_error_handler(status, lambda error: (f"own page: {error.description}", error.code))
    browser = browser_for(app, "/", lambda: link.call(prefix, "add"))

    answer = browser.get("/")

    assert answer.status_code == status
    assert answer.text.startswith(f"own page: {prefix}"), answer.text
    with app.app_context():
        link.close()


@pytest.mark.parametrize(
    "config", [{"LIGHTLINK_HANDLE_ERRORS": False}, {"LIGHTLINK_STATUSES": {"ServiceUnavailable": None}}]
)
def test_errors_can_be_left_to_the_app(link: LightLink, url: str, prefix: str, config: dict[str, Any]) -> None:
    app = make_app(link, LIGHTLINK_URL=url, TESTING=True, **config)
    browser = browser_for(app, "/", lambda: link.call(prefix, "add"))

    with pytest.raises(errors.ServiceUnavailable):
        browser.get("/")

    with app.app_context():
        link.close()


@pytest.mark.parametrize(("status", "name"), [(529, "529"), (507, "Insufficient Storage"), (504, "Gateway Timeout")])
def test_an_error_may_have_a_status_without_a_name(link: LightLink, status: int, name: str) -> None:
    def view() -> None:
        raise errors.FlushTimeout(1.0, "connected")

    answer = browser_for(make_app(link, LIGHTLINK_STATUSES={"FlushTimeout": status}), "/", view).get("/")
    assert (answer.status_code, answer.get_json()) == (status, {"error": name, "type": "FlushTimeout"})


def test_every_status_is_one_of_an_error_that_there_is() -> None:
    assert set(STATUSES.values()) == {400, 404, 409, 413, 429, 502, 503, 504}
    statuses = with_changes({errors.HandlerError: 500})
    assert status_of(errors.HandlerError("s", "m", "handler_error", "x"), statuses) == 500
    assert status_of(errors.AuthenticationError([], 1.0), statuses) == 503  # as a ConnectError
    assert status_of(errors.InvalidOption("o", "r"), statuses) is None


# What a request brings ------------------------------------------------------------------------------------------------


TRACE = {
    "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    "tracestate": "vendor=1",
    "baggage": "user=7",
}


def test_calls_carry_the_request_s_id_and_trace(app: flask.Flask, link: LightLink, service: lightlink.Service) -> None:
    ways = {
        "client": lambda: link.client.call(service.name, "headers"),
        "call": lambda: link.call(service.name, "headers", headers={"Own": "1"}),
        "submit": lambda: link.submit(service.name, "headers").result(30),
        "service": lambda: link.service(service.name).headers(),
    }
    browser = browser_for(app, "/<way>", lambda way: ways[way]())

    for way in ways:
        answer = browser.get(f"/{way}", headers={"X-Request-ID": f"id-{way}", **TRACE})
        got = answer.get_json()
        assert got == {**got, **TRACE, CORRELATION: f"id-{way}"}
        assert answer.headers["X-Request-ID"] == f"id-{way}"
        assert ("Own" in got) == (way == "call")


@pytest.mark.parametrize("given", ["", "two words", "x" * 129, "ümlaut"])
def test_an_id_that_is_no_plain_text_is_replaced(
    app: flask.Flask, link: LightLink, service: lightlink.Service, given: str
) -> None:
    browser = browser_for(app, "/", lambda: link.call(service.name, "headers"))

    answer = browser.get("/", headers={"X-Request-ID": given} if given else {})

    assert len(answer.get_json()[CORRELATION]) == 36
    assert answer.headers["X-Request-ID"] == answer.get_json()[CORRELATION]


def test_commands_and_log_lines_of_a_request_know_its_trace(
    app: flask.Flask, link: LightLink, world: World, prefix: str
) -> None:
    got: list[dict[str, str]] = []
    lines: list[Any] = []
    keep = logging.Handler()
    keep.emit = lines.append  # type: ignore[method-assign, assignment]
    keep.addFilter(lightlink.LogFilter())
    app.logger.addHandler(keep)
    agent = world.agent(prefix)

    @agent.command("note")
    def note(context: lightlink.CommandContext) -> None:
        got.append(context.headers)

    # The app's own functions before a request are part of it, too.
    app.before_request_funcs.setdefault(None, []).insert(0, lambda: app.logger.warning("before"))
    # By a manager that the request's link is not asked for.
    manager = world.manager(sweep_interval=None)
    browser = browser_for(app, "/", lambda: str(manager.send(prefix, "note").result(30)))
    with agent:
        answer = browser.get("/", headers=TRACE)
        app.logger.warning("after")

    known = TRACE["traceparent"][3:35]
    assert answer.headers["X-Request-ID"] == known
    assert got[0] == {**got[0], **TRACE, CORRELATION: known}
    assert [line.correlation_id for line in lines] == [known, ""]


def test_a_request_within_a_request_leaves_the_outer_its_id(app: flask.Flask, service: lightlink.Service) -> None:
    def outer() -> list[str]:
        return [logs.correlation_id(), inner.get("/in", headers={"X-Request-ID": "2"}).text, logs.correlation_id()]

    inner = browser_for(app, "/in", logs.correlation_id)
    browser = browser_for(app, "/", outer)

    assert browser.get("/", headers={"X-Request-ID": "1"}).get_json() == ["1", "2", "1"]
    assert logs.correlation_id() == ""


def test_a_body_that_is_streamed_makes_its_calls_by_the_id(
    app: flask.Flask, link: LightLink, service: lightlink.Service
) -> None:
    def body() -> Iterator[str]:
        yield "7"
        yield link.call(service.name, "headers")[CORRELATION]

    browser = browser_for(app, "/", lambda: flask.Response(flask.stream_with_context(body())))
    assert browser.get("/", headers={"X-Request-ID": "7"}).text == "77"
    assert logs.correlation_id() == ""


def test_traces_go_from_a_request_through_the_services(
    app: flask.Flask, url: str, link: LightLink, prefix: str
) -> None:
    with tracing() as spans:
        service = lightlink.Service(prefix, url)
        service.register("double", lambda: 2)
        browser = browser_for(app, "/", lambda: str(link.client.call(prefix, "double")))
        with service:
            assert browser.get("/", headers=TRACE).text == "2"
            # A request that has a span of its own, as by the instrumentation of Flask.
            with spans.provider.get_tracer("test").start_as_current_span("request"):
                browser.get("/", headers=TRACE)
            found = spans.wait(5)
    sent, served, request, sent_within, _ = found
    for span, parent in ((sent, "b7ad6b7169203331"), (served, f"{sent.context.span_id:016x}")):
        assert span.parent is not None
        known = (f"{span.context.trace_id:032x}", f"{span.parent.span_id:016x}")
        assert known == (TRACE["traceparent"][3:35], parent)
    assert sent_within.parent is not None
    assert sent_within.parent.span_id == request.context.span_id


def test_what_a_request_publishes_carries_its_id(app: flask.Flask, link: LightLink, url: str, prefix: str) -> None:
    with lightlink.connect(url) as listener, listener.subscribe(prefix) as heard:
        browser = browser_for(app, "/", lambda: link.publish(prefix, 1) or "done")
        browser.get("/", headers={"X-Request-ID": "abc"})
        link.publish(prefix, 2)  # outside a request

        assert [heard.get(30).headers.get(CORRELATION) for _ in range(2)] == ["abc", None]


def test_a_form_s_file_keeps_its_name_and_type(app: flask.Flask, link: LightLink) -> None:
    browser = browser_for(app, "/", lambda: link.upload(flask.request.files["file"]).id, "POST")
    content = b"x" * 300_000

    sent = browser.post("/", data={"file": (io.BytesIO(content), "Über Äpfel.csv", "text/csv")})

    info = link.client.file_info(sent.text)
    assert (info.name, info.content_type, info.size) == ("Über Äpfel.csv", "text/csv", len(content))
    fetched = io.BytesIO()
    link.client.download(info.id, fetched)
    assert fetched.getvalue() == content
    link.client.delete_file(info.id)


def test_a_form_without_a_chosen_file_is_the_view_s_mistake(app: flask.Flask, link: LightLink) -> None:
    with app.test_request_context("/", method="POST", data={"file": (io.BytesIO(), "")}):
        empty = flask.request.files.get("file")
        assert empty is not None
        with pytest.raises(errors.InvalidOption, match="without choosing"):
            link.upload(empty)


# Health and commands --------------------------------------------------------------------------------------------------


def test_health_tells_a_live_process_from_a_ready_one(url: str, link: LightLink) -> None:
    answers = []
    for where in (url, NOWHERE):
        app = make_app(link, LIGHTLINK_URL=where, LIGHTLINK_OPTIONS={"connect_timeout": 0.2})
        app.register_blueprint(health_blueprint(link), url_prefix="/health")
        browser = app.test_client()
        answers.append((browser.get("/health/live").status_code, browser.get("/health/ready").status_code))
        with app.app_context():
            link.close()
    assert answers == [(200, 200), (200, 503)]


def test_commands_use_the_app_s_connection(app: flask.Flask, service: lightlink.Service, url: str, prefix: str) -> None:
    runner = app.test_cli_runner()

    assert runner.invoke(args=["lightlink", "call", prefix, "double", '{"number": 4}']).output == "8\n"
    with lightlink.connect(url) as listener, listener.subscribe(f"{prefix}.said") as heard:
        assert runner.invoke(args=["lightlink", "pub", f"{prefix}.said", '{"a": "\\u001b"}']).exit_code == 0
        assert heard.get(30).data == {"a": "\x1b"}
    assert f"{prefix}  0.0.0  instances: 1  requests: 1\n" in runner.invoke(args=["lightlink", "services"]).output
    methods = runner.invoke(args=["lightlink", "services", prefix]).output
    assert "double(*, number: int) -> int\n" in methods
    with lightlink.Agent(prefix, url, labels={"site": "here"}):
        assert f"{prefix}  site=here\n" in runner.invoke(args=["lightlink", "agents"]).output
    doctor = runner.invoke(args=["lightlink", "doctor"])
    assert doctor.exit_code == 0
    assert f"connected:  {url}, round trip " in doctor.output
    assert "JetStream:  answers" in doctor.output


def test_a_command_that_fails_says_why_in_a_line(app: flask.Flask, prefix: str) -> None:
    runner = app.test_cli_runner()

    failed = runner.invoke(args=["lightlink", "call", prefix, "double"])
    assert failed.exit_code == 1
    assert failed.output == f"Error: {prefix}.double is unavailable: nobody serves it (no responders)\n"
    assert "is not JSON" in runner.invoke(args=["lightlink", "pub", prefix, "{"]).output
