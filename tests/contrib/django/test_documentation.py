"""The how-to page: its blocks make a project, whose tests pass and whose lines run."""

from __future__ import annotations

import shlex
import shutil
import sys
from signal import SIGTERM
from typing import TYPE_CHECKING

import pytest
from helpers.docs import blocks, run, shell_lines
from helpers.wsgi import deploy

import lightlink

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import StartPython

PAGE = "how-to/django.md"

RUN = """
    import os, runpy, sys
    os.chdir(sys.argv[1])
    sys.path.insert(0, ".")
    sys.argv = sys.argv[2:]
    runpy.run_path("manage.py", run_name="__main__")
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project that the page makes; the first line of each block of Python names its file."""
    folder = tmp_path_factory.mktemp("made")
    (make,) = shell_lines(PAGE, "django-admin ")
    run([sys.executable, "-m", "django", *make.split()[1:]], folder)
    add, *migrate = (shell_lines(PAGE, f"python manage.py {start}")[0] for start in ("startapp", "makemig", "migrate"))
    run([sys.executable, *add.split()[1:]], folder)
    (folder / "prices" / "tests.py").unlink()
    for text in blocks(PAGE, "python"):
        path = folder / text.partition("\n")[0].removeprefix("# ")
        path.write_text(text)
    for line in migrate:
        run([sys.executable, *line.split()[1:], "-v0"], folder)
    return folder


@pytest.fixture
def project(made: Path, tmp_path: Path) -> Path:
    """A copy of the project for the test's own."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    return tmp_path


@pytest.mark.skipif(sys.version_info < (3, 11), reason="enterClassContext is new in Python 3.11")
def test_the_page_s_project_passes_its_tests(project: Path) -> None:
    run([sys.executable, "-W", "error", "manage.py", "test"], project)


def test_the_page_s_checks_find_nothing(project: Path) -> None:
    for line in shell_lines(PAGE, "python manage.py check"):
        run([sys.executable, *line.split()[1:]], project)


@pytest.mark.slow
def test_the_page_s_commands_serve(python: StartPython, project: Path, url: str) -> None:
    settings = project / "website" / "settings.py"
    settings.write_text(settings.read_text().replace("nats://127.0.0.1:4222", url))
    starts = [line.partition("#")[0] for line in shell_lines(PAGE, "python manage.py lightlink_")]
    assert len(starts) == 4
    (make,) = shell_lines(PAGE, "lightlink stream make")
    _, _, _, stream, subject = shlex.split(make, comments=True)
    with lightlink.connect(url) as client:
        client.stream(stream, [subject])
    for line in starts:
        process = python(RUN, project, *line.split()[1:], options=())
        process.wait_line("serving")
        process.signal(SIGTERM)
        assert process.wait().returncode == 0


@pytest.mark.parametrize("carrier", ["uwsgi", pytest.param("gunicorn", marks=pytest.mark.slow)])
def test_the_page_s_servers_serve(python: StartPython, project: Path, url: str, carrier: str) -> None:
    settings = project / "website" / "settings.py"
    settings.write_text(settings.read_text().replace("nats://127.0.0.1:4222", url))
    service = lightlink.Service("prices", url)
    service.register("of", lambda item: {"apple": 50}[item])
    (line,) = shell_lines(PAGE, f"{carrier} ")
    with service:
        process, http = deploy(python, line, project)
        assert {http.get("/price/apple").status for _ in range(8)} == {200}
        process.signal(SIGTERM)
        process.wait()
