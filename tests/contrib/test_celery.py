"""The how-to page on Celery: its tasks in a real worker that forks, with queues in a folder."""

from __future__ import annotations

import os
import shlex
from signal import SIGTERM
from typing import TYPE_CHECKING

import pytest
from helpers.docs import ROOT, blocks, shell_lines

import lightlink
from lightlink.commands import Agent

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import StartPython

PAGE = "how-to/celery.md"
CELERY = """
    import os, sys
    from celery.__main__ import main
    os.chdir(os.environ["FOLDER"])
    sys.argv = ["celery", *sys.argv[1:]]
    main()
"""
# Who queues the tasks needs no NATS. One of its tasks is delivered twice; one is queued by the handler of a service.
BOSS = """
    import os, sys
    import lightlink
    os.chdir(os.environ["FOLDER"])
    import tasks

    prices = [tasks.quote.delay("apple") for _ in range(8)]
    assert [each.get(timeout=40, interval=0.05) for each in prices] == [0.5] * 8
    twice = [tasks.install.apply_async(("kiosk", "4.2"), task_id="the-same") for _ in range(2)]
    assert [each.get(timeout=40, interval=0.05) for each in twice] == ["4.2", "4.2"]
    assert not tasks.link.is_connected
    os.environ["LIGHTLINK_URL"] = sys.argv[1]
    import orders
    with orders.orders, lightlink.connect() as client:
        placed = client.call("orders", "place", {"item": "apple"})
        assert tasks.quote.AsyncResult(placed).get(timeout=40, interval=0.05) == 0.5
    print("done", flush=True)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What the page writes; the first line of each block that is a file names it."""
    setup, tasks, orders, in_folder, use = blocks(PAGE, "python")
    (tmp_path / "celery_in_folder.py").write_text(in_folder)
    (tmp_path / "tasks.py").write_text(setup + tasks + use)
    (tmp_path / "orders.py").write_text(orders)
    return tmp_path


def test_tasks_use_the_link_in_each_of_a_worker_s_processes(python: StartPython, url: str, folder: Path) -> None:
    installed: list[str] = []
    prices = lightlink.Service("prices", url)
    prices.register("of", lambda item: {"apple": 0.5}[item])
    agent = Agent("kiosk", url)
    agent.register("install", lambda version: installed.append(version) or version)
    paths = os.pathsep.join([str(folder), str(ROOT), str(ROOT / "tests")])
    env = {"LIGHTLINK_URL": url, "FOLDER": str(folder), "PYTHONPATH": paths}
    (line,) = shell_lines(PAGE, "celery ")
    quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat"]
    with prices, agent:
        worker = python(CELERY, *shlex.split(line)[1:], *quiet, env=env, options=())
        boss = python(BOSS, url, env=env | {"LIGHTLINK_URL": "nats://127.0.0.1:1"}, options=())
        assert boss.wait(110).returncode == 0, boss.stderr
        worker.signal(SIGTERM)
        assert worker.wait(60).returncode == 0
    assert installed == ["4.2"]
