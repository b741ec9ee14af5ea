"""The app in what carries WSGI: Flask, Django, gunicorn, each as a real server with real HTTP."""

from __future__ import annotations

import os
import re
import signal
from typing import TYPE_CHECKING, Any

import pytest
from helpers.http import Events, Http
from helpers.process import PythonProcess
from helpers.waiting import eventually

import lightlink
from lightlink.commands import Agent

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from conftest import StartPython

# Each snippet makes `application` out of the LightLink app `app`.
SERVE = """
    import sys
    import lightlink
    from lightlink.commands import CommandManager
    from lightlink.http import create_app
    from werkzeug.serving import make_server

    manager = CommandManager(lightlink.connect(sys.argv[1]), name="carried")
    app = create_app(manager)
{application}
    server = make_server("127.0.0.1", 0, application, threaded=True)
    print("port", server.port, flush=True)
    server.serve_forever()
"""

FLASK_MOUNTED = """
    import flask
    from werkzeug.middleware.dispatcher import DispatcherMiddleware

    site = flask.Flask("site")
    site.add_url_rule("/own", view_func=lambda: "the site's own page", endpoint="own")
    site.wsgi_app = DispatcherMiddleware(site.wsgi_app, {"/lightlink": app})
    application = site
"""

FLASK_BLUEPRINT = """
    import flask
    from lightlink.http.flask import blueprint

    site = flask.Flask("site")
    site.add_url_rule("/own", view_func=lambda: "the site's own page", endpoint="own")
    site.register_blueprint(blueprint(app), url_prefix="/lightlink")

    @site.before_request
    def ask_who_it_is():
        if flask.request.headers.get("X-Blocked"):
            return "not you", 418

    application = site
"""

DJANGO = """
    import django.conf
    import django.http
    import django.urls
    from django.core.handlers.wsgi import WSGIHandler
    from werkzeug.middleware.dispatcher import DispatcherMiddleware

    urlpatterns = [django.urls.path("own", lambda request: django.http.HttpResponse("the site's own page"))]
    django.conf.settings.configure(ROOT_URLCONF="__main__", ALLOWED_HOSTS=["*"], SECRET_KEY="x" * 50)
    django.setup()
    application = DispatcherMiddleware(WSGIHandler(), {"/lightlink": app})
"""

CARRIERS = {"flask-mounted": FLASK_MOUNTED, "flask-blueprint": FLASK_BLUEPRINT, "django": DJANGO}


@pytest.fixture
def agent(url: str, prefix: str) -> Iterator[Agent]:
    with lightlink.connect(url) as client:
        made = Agent(prefix, client)

        @made.command("add")
        def add(a: int, b: int) -> int:
            return a + b

        with made:
            yield made


def carried(python: StartPython, url: str, application: str) -> tuple[PythonProcess, Http]:
    # Flask and Django may warn of what is theirs.
    process = python(SERVE.replace("{application}", application), url, options=())
    return process, Http(f"http://127.0.0.1:{process.wait_line('port ')}/lightlink")


def check_everything(http: Http, client_id: str, issued_by: str = "carried") -> None:
    """Send a command and follow it in each way there is."""
    body = {"client_id": client_id, "command_type": "add", "payload": {"a": 1, "b": 2}}
    with http.open(f"/api/commands/stream?client_id={client_id}&status=completed") as opened:
        events = iter(Events(opened))
        sent = http.post("/api/command", body)
        assert sent.status == 200, sent
        command_id = sent.json["command_id"]
        command = http.get(f"/api/command/{command_id}?wait=20").json["command"]
        assert (command["result"], command["issued_by"]) == (3, issued_by)
        assert next(events)[1]["command_id"] == command_id
    assert http.get("/health").status == 200
    for name in ("X-Forwarded-For", "X-Forwarded-Proto", "Forwarded", "Via"):  # which it must not hide from the app
        assert name in http.get("/api/commands", headers={name: "203.0.113.9"}).error
    assert http.get("/api/nothing").error == "there is no /api/nothing"
    refused = http.request("DELETE", "/api/command")
    assert (refused.status, refused.headers["Allow"]) == (405, "POST")
    assert http.post("/api/command", {"client_id": "a1"}).error == "command_type: is missing"
    assert http.get(f"/api/commands?client_id={client_id}&limit=1").json["total"] == 1


@pytest.mark.parametrize("name", CARRIERS)
def test_a_site_carries_the_app_beside_its_own_pages(python: StartPython, url: str, agent: Agent, name: str) -> None:
    _, http = carried(python, url, CARRIERS[name])

    check_everything(http, agent.client_id)
    assert http.get("/openapi.json").json["servers"] == [{"url": "/lightlink"}]
    assert http.get("").headers["Location"].endswith("/lightlink/")
    assert b'src="console/app.js"' in http.get("/").body
    assert http.get("/console/app.js").headers.get_content_type() == "text/javascript"
    assert Http(f"http://127.0.0.1:{http.port}").get("/own").body == b"the site's own page"


def test_a_flask_sites_hooks_run_before_the_blueprints_requests(python: StartPython, url: str) -> None:
    _, http = carried(python, url, FLASK_BLUEPRINT)

    answer = http.get("/api/commands", headers={"X-Blocked": "yes"})

    assert (answer.status, answer.body) == (418, b"not you")


# gunicorn -------------------------------------------------------------------------------------------------------------

PRELOADED = """
import os
import lightlink
from lightlink.commands import CommandManager
from lightlink.http import create_app

# Made before the workers are forked: their parent is connected, and has sent a command.
manager = CommandManager(lightlink.connect(os.environ["NATS_URL"]), name="carried")
manager.send(os.environ["CLIENT_ID"], "add", {"a": 0, "b": 0})
inner = create_app(manager)


def app(environ, start_response):
    def start_with_process(status, headers, exc_info=None):
        return start_response(status, [*headers, ("X-Process", str(os.getpid()))], exc_info)

    return inner(environ, start_with_process)
"""

GUNICORN = """
    import sys
    from gunicorn.app.wsgiapp import run
    sys.argv = ["gunicorn", *sys.argv[1:]]
    run()
"""


def gunicorn(python: StartPython, url: str, folder: Path, client_id: str, **env: str) -> tuple[PythonProcess, Http]:
    (folder / "carried_app.py").write_text(PRELOADED)
    process = python(
        GUNICORN,
        "--preload",
        "--workers=2",
        "--threads=8",
        "--bind=127.0.0.1:0",
        "--no-control-socket",
        f"--chdir={folder}",
        "carried_app:app",
        env={"NATS_URL": url, "CLIENT_ID": client_id, **env},
        options=(),
    )
    address = eventually(lambda: re.search(r"Listening at: (http://\S+)", process.stderr), timeout=30)
    assert address is not None
    return process, Http(address[1])


def processes(http: Http) -> set[str]:
    return {http.get("/health").headers["X-Process"] for _ in range(8)}


def test_gunicorn_s_forked_workers_give_the_same_answers(
    python: StartPython, url: str, agent: Agent, tmp_path: Path
) -> None:
    process, http = gunicorn(python, url, tmp_path, agent.client_id)

    eventually(lambda: len(processes(http)) == 2, timeout=30)
    assert str(process.pid) not in processes(http)
    for _ in range(4):
        check_everything(http, agent.client_id)
    body = {"client_id": agent.client_id, "command_type": "add", "payload": {"a": 1, "b": 1}}
    command_id = http.post("/api/command", body).json["command_id"]
    http.get(f"/api/command/{command_id}?wait=20")
    assert len({http.get(f"/api/command/{command_id}").body for _ in range(8)}) == 1
    process.signal(signal.SIGTERM)
    assert process.wait().returncode == 0


def test_a_killed_gunicorn_worker_is_replaced(python: StartPython, url: str, agent: Agent, tmp_path: Path) -> None:
    _, http = gunicorn(python, url, tmp_path, agent.client_id)
    victims = eventually(lambda: _pair(processes(http)), timeout=30)
    for victim in victims:
        os.kill(int(victim), signal.SIGKILL)

    eventually(lambda: _serves_anew(http, victims), timeout=30)
    check_everything(http, agent.client_id)


def _pair(found: set[str]) -> set[str]:
    return found if len(found) == 2 else set()


def _serves_anew(http: Http, victims: set[str]) -> bool:
    try:
        return not processes(http) & victims
    except OSError:
        return False


def test_metrics_of_gunicorn_s_workers_are_summed_up(
    python: StartPython, url: str, agent: Agent, tmp_path: Path
) -> None:
    folder = tmp_path / "metrics"
    folder.mkdir()
    _, http = gunicorn(python, url, tmp_path, agent.client_id, PROMETHEUS_MULTIPROC_DIR=str(folder))
    seen: set[Any] = set()
    sent = 0
    while len(seen) < 2 or sent < 4:
        body = {"client_id": agent.client_id, "command_type": "add", "payload": {"a": 1, "b": 1}}
        seen.add(http.post("/api/command", body).headers["X-Process"])
        sent += 1

    for _ in range(4):
        assert f'command_sent_total{{command_type="add"}} {sent}.0'.encode() in http.get("/metrics").body


def test_an_app_whose_manager_is_made_later_starts_without_nats(python: StartPython) -> None:
    later = SERVE.replace(
        'manager = CommandManager(lightlink.connect(sys.argv[1]), name="carried")',
        "manager = lambda: CommandManager(lightlink.connect(sys.argv[1], connect_timeout=0.2))",
    )
    process = python(later.replace("{application}", "    application = app"), "nats://127.0.0.1:1", options=())
    http = Http(f"http://127.0.0.1:{process.wait_line('port ')}")

    for path in ("/health", "/api/commands"):
        answer = http.get(path)
        assert answer.status == 503
        assert answer.error.startswith("could not connect to NATS within 0.2 s")
