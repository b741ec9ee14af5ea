"""Servers that load an application and fork their workers from it, and then treat those as they like."""

from __future__ import annotations

import collections
import concurrent.futures
import http.client
import os
import re
import threading
from signal import SIGKILL, SIGTERM
from typing import TYPE_CHECKING

import pytest
from helpers.docs import blocks
from helpers.process import alive
from helpers.waiting import eventually

import lightlink

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from conftest import StartPython
    from helpers.process import PythonProcess

APPLICATION = """
import os
import lightlink

service = os.environ["SERVICE"]
client = lightlink.connect()  # LIGHTLINK_URL
assert client.call(service, "echo", {"text": "loaded"}) == "loaded"


def app(environ, start_response):
    text = environ["QUERY_STRING"]
    client.publish(f"{service}.asked", text)
    body = f'{os.getpid()} {client.call(service, "echo", {"text": text})}'.encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
"""

AFTER_UWSGI_FORKS = """

from uwsgidecorators import postfork

@postfork
def say():
    client.publish(f"{service}.asked", "started")
"""


class Echo:
    """A service that returns what it is given; ``seen`` counts that, ``heard`` the events published beside it."""

    def __init__(self, url: str, name: str) -> None:
        self.seen: collections.Counter[str] = collections.Counter()
        self.heard: collections.Counter[str] = collections.Counter()
        self._lock = threading.Lock()
        self.service = lightlink.Service(name, url)
        self.service.register("echo", self.echo)
        self.service.on(f"{name}.asked")(self.hear)

    def echo(self, text: str) -> str:
        with self._lock:
            self.seen[text] += 1
        return text

    def hear(self, text: str) -> None:
        with self._lock:
            self.heard[text] += 1


@pytest.fixture
def echo(url: str, prefix: str) -> Iterator[Echo]:
    made = Echo(url, prefix)
    with made.service:
        yield made


def ask(port: int, text: str) -> tuple[int, str]:
    """Return the worker that answered, and its answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("GET", f"/?{text}")
        pid, _, answer = connection.getresponse().read().decode().partition(" ")
    finally:
        connection.close()
    return int(pid), answer


def ask_many(port: int, texts: list[str]) -> set[int]:
    """Ask with eight threads, check that each got its own answer, and return the workers."""
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda text: ask(port, text), texts))
    assert [answer for _, answer in answers] == texts
    return {pid for pid, _ in answers}


def check_workers(process: PythonProcess, port: int, echo: Echo, forks: Callable[[], int]) -> None:
    """Ask until two workers have answered, kill one, ask on, and end the server; ``forks`` tells how many it made."""
    workers: set[int] = set()

    def two_have_answered() -> bool:
        workers.update(ask_many(port, [f"{len(echo.seen)}-{n}" for n in range(50)]))
        return len(workers) == 2

    assert eventually(two_have_answered, timeout=30)
    killed = min(workers)
    os.kill(killed, SIGKILL)  # as the kernel does when memory runs out
    assert eventually(lambda: forks() == 3 and not alive(killed), timeout=30)
    assert killed not in ask_many(port, [f"after-{n}" for n in range(50)])
    process.signal(SIGTERM)
    assert process.wait(60).returncode == 0
    assert set(echo.seen.values()) == {1}
    asked = set(echo.seen) - {"loaded"}
    assert eventually(lambda: set(echo.heard) - {"started"} == asked)
    assert {times for text, times in echo.heard.items() if text != "started"} == {1}


def test_a_client_made_before_gunicorn_forks_works_in_workers(
    tmp_path: Path, python: StartPython, echo: Echo, url: str, prefix: str
) -> None:
    (tmp_path / "application.py").write_text(APPLICATION)
    process = python(
        """
        import sys
        from gunicorn.app.wsgiapp import run

        sys.argv[1:1] = ["--preload", "--bind=127.0.0.1:0", "--workers=2", "--worker-class=gthread", "--threads=4"]
        run()
        """,
        f"--chdir={tmp_path}",
        "application:app",
        env={"LIGHTLINK_URL": url, "SERVICE": prefix},
        options=(),
    )
    listening = eventually(lambda: re.search(r"Listening at: http://127.0.0.1:(\d+)", process.stderr), timeout=30)
    check_workers(process, int(listening[1]), echo, lambda: process.stderr.count("Booting worker"))


@pytest.mark.parametrize("hooks", [(), ("--py-call-uwsgi-fork-hooks",)], ids=["without_hooks", "with_hooks"])
def test_a_client_made_before_uwsgi_forks_works_in_every_worker(
    tmp_path: Path, python: StartPython, echo: Echo, url: str, prefix: str, hooks: tuple[str, ...]
) -> None:
    """It forks without a word to Python, unless it is told otherwise."""
    (tmp_path / "application.py").write_text(APPLICATION + AFTER_UWSGI_FORKS)
    process = python(
        """
        import sys
        import pyuwsgi

        common = "--http-socket=127.0.0.1:0 --master --processes=2 --threads=4 --need-app --die-on-term --callable=app"
        pyuwsgi.run([*common.split(), *sys.argv[1:]])
        """,
        f"--wsgi-file={tmp_path}/application.py",
        *hooks,
        env={"LIGHTLINK_URL": url, "SERVICE": prefix},
        options=(),
    )
    bound = eventually(lambda: re.search(r"bound to TCP address 127.0.0.1:(\d+)", process.stderr), timeout=30)
    check_workers(process, int(bound[1]), echo, lambda: echo.heard["started"])


TASKS = """
import os
import celery
import celery_in_folder
import lightlink

service = os.environ["SERVICE"]
client = lightlink.connect()
assert client.call(service, "echo", {"text": "loaded"}) == "loaded"
app = celery.Celery("tasks")
celery_in_folder.use(app, os.environ["FOLDER"])
app.conf.worker_max_tasks_per_child = 5


@app.task(name="ask")
def ask(text):
    client.publish(f"{service}.asked", text)
    return os.getpid(), client.call(service, "echo", {"text": text})
"""


@pytest.mark.slow
def test_a_client_made_before_celery_forks_works_in_every_worker(
    tmp_path: Path, python: StartPython, echo: Echo, url: str, prefix: str
) -> None:
    """Each of its two workers ends after five tasks, and another takes its place."""
    (tmp_path / "tasks.py").write_text(TASKS)
    (tmp_path / "celery_in_folder.py").write_text(blocks("how-to/celery.md", "python")[-1])
    env = {"LIGHTLINK_URL": url, "SERVICE": prefix, "FOLDER": str(tmp_path)}
    worker = python(
        """
        import sys
        from celery.__main__ import main

        flags = "--without-gossip --without-mingle --without-heartbeat --pool=prefork --concurrency=2"
        sys.argv = ["celery", f"--workdir={sys.argv[1]}", "--app=tasks", "worker", *flags.split()]
        main()
        """,
        tmp_path,
        env=env,
        options=(),
    )
    boss = python(
        """
        import sys
        sys.path.insert(0, sys.argv[1])
        import tasks

        asked = [tasks.ask.delay(f"task-{n}") for n in range(20)]
        answers = [each.get(timeout=30) for each in asked]
        assert [text for _, text in answers] == [f"task-{n}" for n in range(20)], answers
        print("workers", len({pid for pid, _ in answers}), flush=True)
        """,
        tmp_path,
        env=env,
        options=(),
    )
    assert int(boss.wait_line("workers", timeout=40)) >= 4
    worker.signal(SIGTERM)
    assert worker.wait(60).returncode == 0
    asked = {f"task-{n}" for n in range(20)}
    assert set(echo.seen) == {"loaded", *asked}
    assert eventually(lambda: set(echo.heard) == asked)
    assert set(echo.heard.values()) == {1}
