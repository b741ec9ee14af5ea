"""The sample's own tests, and its WSGI application under gunicorn."""

from __future__ import annotations

import os
import re
import shutil
import sys
from pathlib import Path
from signal import SIGTERM
from typing import TYPE_CHECKING

import pytest
from helpers.docs import run
from helpers.http import Http
from helpers.ports import free_port
from helpers.waiting import eventually
from helpers.wsgi import GUNICORN

import lightlink

if TYPE_CHECKING:
    from conftest import StartPython

SAMPLE = Path(__file__).resolve().parents[3] / "samples" / "django_shop"
RUNSERVER = """
    import os, sys
    # The reloader starts the child by this.
    manage = os.path.join(os.environ["SHOP"], "manage.py")
    os.chdir(os.environ["SHOP"])
    os.execv(sys.executable, [sys.executable, manage, "runserver", sys.argv[1]])
"""


def test_the_sample_passes_its_own_tests(tmp_path: Path) -> None:
    run([sys.executable, "-W", "error", "manage.py", "test"], SAMPLE, SQLITE=str(tmp_path / "shop"))


def test_the_sample_s_migrations_are_those_of_its_models(tmp_path: Path) -> None:
    checked = [sys.executable, "manage.py", "makemigrations", "--check", "--dry-run"]
    assert "No changes detected" in run(checked, SAMPLE, SQLITE=str(tmp_path / "shop"))


def test_nothing_connects_for_migrate_check_and_the_like(tmp_path: Path) -> None:
    nowhere = {"SQLITE": str(tmp_path / "shop"), "LIGHTLINK_URL": "nats://127.0.0.1:1"}
    run([sys.executable, "manage.py", "migrate", "-v0"], SAMPLE, **nowhere)
    run([sys.executable, "manage.py", "check", "--deploy", "--tag=lightlink"], SAMPLE, **nowhere)


@pytest.mark.parametrize(
    ("worker", "preload"),
    [
        ("gthread", True),
        pytest.param("sync", False, marks=pytest.mark.slow),
        pytest.param("sync", True, marks=pytest.mark.slow),
        pytest.param("gthread", False, marks=pytest.mark.slow),
    ],
)
def test_gunicorn_s_workers_answer(python: StartPython, url: str, tmp_path: Path, worker: str, preload: bool) -> None:
    service = lightlink.Service("catalogue", url)
    service.register("price", lambda item: {"apple": 50}[item])
    paths = os.pathsep.join([str(SAMPLE), str(SAMPLE.parents[1])])
    with service:
        process = python(
            GUNICORN,
            *(["--preload"] if preload else []),
            f"--worker-class={worker}",
            "--workers=2",
            "--threads=4",
            "--bind=127.0.0.1:0",
            "--no-control-socket",
            "webshop.wsgi",
            env={"LIGHTLINK_URL": url, "SQLITE": str(tmp_path / "shop"), "PYTHONPATH": paths},
            options=(),
        )
        listening = eventually(lambda: re.search(r"Listening at: (http://\S+)", process.stderr), timeout=30)
        http = Http(listening[1])
        for _ in range(8):
            assert http.get("/price/apple").json == {"item": "apple", "price": 50}
        assert http.get("/price/melon").status == 502
        process.signal(SIGTERM)
        assert process.wait().returncode == 0


@pytest.mark.slow
def test_runserver_serves_anew_after_a_change_of_the_code(python: StartPython, url: str, tmp_path: Path) -> None:
    """With its reloader: a parent that watches, and a child that serves and has a connection of its own."""
    shutil.copytree(SAMPLE, tmp_path / "shop")
    service = lightlink.Service("catalogue", url)
    service.register("price", lambda item: {"apple": 50}[item])
    port = free_port()
    http = Http(f"http://127.0.0.1:{port}")
    env = {"LIGHTLINK_URL": url, "SQLITE": str(tmp_path / "database"), "SHOP": str(tmp_path / "shop")}
    run([sys.executable, "manage.py", "migrate", "-v0"], tmp_path / "shop", **env)

    def shown() -> set[str]:
        try:
            return set(http.get("/price/apple").json)
        except OSError:
            return set()  # it is not there yet, or starts anew

    with service:
        process = python(RUNSERVER, str(port), env=env, options=())
        assert eventually(shown, timeout=30) == {"item", "price"}
        views = next(path for path in (tmp_path / "shop").rglob("views.py") if '"price"' in path.read_text())
        views.write_text(views.read_text().replace('"price":', '"cost":'))

        def changed() -> bool:
            # Django's reloader does not see a change that was there before it first looked.
            views.touch()
            return shown() == {"item", "cost"}

        assert eventually(changed, timeout=60, interval=5)
        process.signal_group(SIGTERM)
        process.wait()
