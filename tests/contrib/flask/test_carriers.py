"""The sample's app where Flask apps run: gunicorn's workers, preloaded or not, and Flask's own server."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from signal import SIGINT, SIGTERM
from typing import TYPE_CHECKING

import pytest
from helpers.http import Http
from helpers.waiting import eventually
from helpers.wsgi import GUNICORN

import lightlink

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import StartPython

SAMPLE = Path(__file__).resolve().parents[3] / "samples" / "flask_shop"

# The master connects, and has a manager, before it forks: what a preloaded app may do by accident.
PRELOADED = """
import os
from flask import jsonify
from shop import create_app, link

app = create_app()
with app.app_context():
    link.client.ping()
    link.manager.clients()


@app.get("/process")
def process():
    return jsonify(process=os.getpid(), price=link.call("prices", "of", {"item": "apple"}))


@app.get("/agents")
def agents():
    return jsonify([each.client_id for each in link.manager.clients()])
"""

FLASK = """
    import sys
    from flask.cli import main
    sys.argv = ["flask", *sys.argv[1:]]
    main()
"""


@pytest.fixture(scope="module")
def prices(server: lightlink.EmbeddedServer) -> Iterator[None]:
    service = lightlink.Service("prices", server.url)
    service.register("of", lambda item: {"apple": 0.5}[item])
    with service:
        yield


@pytest.mark.usefixtures("prices")
@pytest.mark.parametrize(
    ("worker", "preload"),
    [
        ("sync", False),
        ("gthread", True),
        pytest.param("sync", True, marks=pytest.mark.slow),
        pytest.param("gthread", False, marks=pytest.mark.slow),
    ],
)
def test_gunicorn_s_workers_have_a_connection_each(
    python: StartPython, url: str, tmp_path: Path, worker: str, preload: bool
) -> None:
    (tmp_path / "preloaded.py").write_text(PRELOADED)
    process = python(
        GUNICORN,
        *(["--preload"] if preload else []),
        f"--worker-class={worker}",
        "--workers=2",
        "--threads=4",
        "--bind=127.0.0.1:0",
        "--no-control-socket",
        f"--chdir={tmp_path}",
        "preloaded:app",
        env={"FLASK_LIGHTLINK_URL": url, "PYTHONPATH": os.pathsep.join([str(SAMPLE), str(SAMPLE.parents[1])])},
        options=(),
    )
    listening = eventually(lambda: re.search(r"Listening at: (http://\S+)", process.stderr), timeout=30)
    http = Http(listening[1])

    def answering() -> set[int]:
        answers = [http.get("/process") for _ in range(8)]
        assert {answer.json["price"] for answer in answers} == {0.5}
        return {answer.json["process"] for answer in answers}

    assert eventually(lambda: len(answering()) == 2, timeout=30)
    assert process.pid not in answering()
    assert {http.get("/agents").status for _ in range(8)} == {200}
    process.signal(SIGTERM)
    assert process.wait().returncode == 0


@pytest.mark.slow
@pytest.mark.usefixtures("prices")
def test_flask_run_serves_anew_after_a_change_of_the_code(python: StartPython, url: str, tmp_path: Path) -> None:
    """With its reloader: a parent that watches, and a child that serves."""
    shutil.copytree(SAMPLE / "shop", tmp_path / "shop")
    process = python(
        FLASK,
        "--app=shop",
        "run",
        "--port=0",
        "--reload",
        env={"FLASK_LIGHTLINK_URL": url, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(SAMPLE.parents[1])])},
        options=(),
    )

    def running() -> list[str]:
        return re.findall(r"Running on (http://\S+)", process.stderr)

    http = Http(eventually(running, timeout=30)[-1])
    assert http.get("/price/apple").json == {"item": "apple", "price": 0.5}
    views = tmp_path / "shop" / "views.py"
    views.write_text(views.read_text().replace('"price": link', '"cost": link'))
    eventually(lambda: process.stderr.count("Restarting with") == 2, timeout=30)

    def is_new() -> bool:
        try:
            return "cost" in Http(running()[-1]).get("/price/apple").json
        except OSError:
            return False

    assert eventually(is_new, timeout=30)
    process.signal_group(SIGINT)
    process.wait()
