"""``manage.py lightlink_service`` and ``lightlink_agent``, in processes of their own, as they are run."""

from __future__ import annotations

import os
from pathlib import Path
from signal import SIGKILL, SIGTERM
from typing import TYPE_CHECKING

import pytest
from helpers.process import PythonProcess, alive
from helpers.waiting import eventually

import lightlink

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from conftest import StartPython

ROOT = Path(__file__).resolve().parents[3]

SETTINGS = """
SECRET_KEY = "x" * 50
USE_TZ = True
INSTALLED_APPS = ["lightlink.contrib.django", "plant"]
LIGHTLINK = {"NAME": "plant"}
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "plant.sqlite3"}}
"""

SERVICES = """
import os
import lightlink
from lightlink.contrib.django import Service

name = os.environ["SERVICE"]
service = Service(name)
plain = lightlink.Service(f"{name}_plain")


@service.rpc
def slow(request: lightlink.Request) -> str:
    with request.client.subscribe(f"{name}.go") as go:
        request.client.flush()
        request.client.publish(f"{name}.begun")
        go.get(timeout=30)
    return "done"


@service.rpc
def version() -> int:
    return 1


plain.register("version", version)
"""

AGENTS = """
import os
from lightlink.contrib.django import Agent

agent = Agent(os.environ["SERVICE"])


@agent.command("add")
def add(a: int, b: int) -> int:
    return a + b
"""

CONSUMERS = """
import os
from lightlink.contrib.django import Service
from lightlink.streams import StoredMessage

name = os.environ["SERVICE"]
service = Service(f"{name}_ledger")


@service.consume(f"{name}.sold", name=f"{name}_ledger")
def book(message: StoredMessage) -> None:
    service.client.publish(f"{name}.booked", message.data)
"""

# A file, because the autoreloader starts it again; else as samples/django_shop has it.
MANAGE = """
import sys
from django.core.management import execute_from_command_line

execute_from_command_line(sys.argv)
"""
RUN = """
    import runpy, sys
    sys.argv.pop(0)
    runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture
def client(url: str) -> Iterator[lightlink.Client]:
    with lightlink.connect(url) as connected:
        yield connected


@pytest.fixture
def manage(python: StartPython, tmp_path: Path, url: str, prefix: str) -> Callable[..., PythonProcess]:
    """Start ``manage.py`` with arguments in a project of the test's own."""
    (tmp_path / "plant").mkdir()
    files = {"manage": MANAGE, "settings": SETTINGS}
    for name, text in {
        **files,
        "plant/services": SERVICES,
        "plant/agents": AGENTS,
        "plant/consumers": CONSUMERS,
    }.items():
        (tmp_path / f"{name}.py").write_text(text)
    (tmp_path / "plant" / "__init__.py").touch()
    paths = os.pathsep.join([str(tmp_path), str(ROOT)])
    env = {"DJANGO_SETTINGS_MODULE": "settings", "LIGHTLINK_URL": url, "SERVICE": prefix, "PYTHONPATH": paths}
    return lambda *arguments, **more: python(RUN, tmp_path / "manage.py", *arguments, env={**env, **more})


def test_services_of_the_apps_are_found_and_drained(
    manage: Callable[..., PythonProcess], client: lightlink.Client, prefix: str
) -> None:
    process = manage("lightlink_service")
    process.wait_line("serving plant.services:service, plant.services:plain")
    with client.subscribe(f"{prefix}.begun") as begun:
        assert answers(client, f"{prefix}_plain")
        under_way = client.submit(prefix, "slow", timeout=60)
        begun.get(timeout=30)

        process.signal(SIGTERM)
        process.wait_line("draining")
        eventually(lambda: not answers(client, prefix))
        client.publish(f"{prefix}.go")
        assert under_way.result(30) == "done"

    done = process.wait()
    assert done.returncode == 0
    assert "plant.services:plain does not look after database connections" in done.stderr


def test_consumers_of_the_apps_handle_stored_events(
    manage: Callable[..., PythonProcess], client: lightlink.Client, prefix: str
) -> None:
    client.stream(prefix, [f"{prefix}.sold"])
    client.publish_stored(f"{prefix}.sold", {"item": "apple"})
    with client.subscribe(f"{prefix}.booked") as booked:
        client.flush()
        process = manage("lightlink_consumer")
        process.wait_line("serving plant.consumers:service")

        assert booked.get(timeout=30).data == {"item": "apple"}
    process.signal(SIGTERM)
    assert process.wait().returncode == 0


@pytest.mark.slow
def test_a_service_that_is_named_runs_alone(
    manage: Callable[..., PythonProcess], client: lightlink.Client, prefix: str
) -> None:
    process = manage("lightlink_service", "plant.services:service")
    eventually(lambda: answers(client, prefix))
    assert not answers(client, f"{prefix}_plain")
    process.signal(SIGTERM)
    assert process.wait().returncode == 0


def test_an_agent_runs_commands_and_leaves(manage: Callable[..., PythonProcess], url: str, prefix: str) -> None:
    process = manage("lightlink_agent", "plant.agents:agent")
    with lightlink.connect(url) as client, lightlink.CommandManager(client) as manager:
        assert manager.send(prefix, "add", {"a": 1, "b": 2}).result(30) == 3
        process.signal(SIGTERM)
        assert process.wait().returncode == 0
        assert prefix not in [presence.client_id for presence in manager.clients()]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["lightlink_service", "nowhere.services"], "there is no module 'nowhere'"),
        (["lightlink_service", "plant.services:other"], "has no Service 'other'; it has: service, plain"),
        (["lightlink_agent", "plant.services"], "no agent found"),
    ],
)
def test_what_cannot_be_found_is_said(manage: Callable[..., PythonProcess], arguments: list[str], words: str) -> None:
    done = manage(*arguments).wait()
    assert done.returncode == 1
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_a_service_that_the_server_refuses_ends_the_command(manage: Callable[..., PythonProcess]) -> None:
    with lightlink.EmbeddedServer(config="authorization { token: secret }") as server:
        done = manage("lightlink_service", LIGHTLINK_URL=server.url).wait()
    assert done.returncode == 1
    assert "could not authenticate" in done.stderr


@pytest.mark.slow
def test_the_code_that_changes_is_served_anew(
    manage: Callable[..., PythonProcess], client: lightlink.Client, prefix: str, tmp_path: Path
) -> None:
    process = manage("lightlink_service", "plant.services:service", "--reload")
    eventually(lambda: answers(client, prefix))
    services = tmp_path / "plant" / "services.py"
    services.write_text(services.read_text().replace("return 1", "return 2"))

    def is_new() -> bool:
        os.utime(services)  # the reloader compares with what it saw first, which may have been this change
        return answers(client, prefix) == 2

    eventually(is_new, interval=0.5)
    process.signal_group(SIGTERM)
    process.wait()


@pytest.mark.slow
def test_a_killed_service_leaves_its_work_to_the_others(
    manage: Callable[..., PythonProcess], client: lightlink.Client, prefix: str
) -> None:
    processes = [manage("lightlink_service", "plant.services:service") for _ in range(2)]
    for process in processes:
        process.wait_line("serving")
    eventually(lambda: answers(client, prefix))
    processes[0].signal(SIGKILL)
    eventually(lambda: not alive(processes[0].pid))
    for _ in range(20):
        assert eventually(lambda: answers(client, prefix)) == 1


def answers(client: lightlink.Client, service: str) -> int:
    """Return what a service says its version is, 0 if nobody answers."""
    try:
        return int(client.call(service, "version", timeout=2.0))
    except (lightlink.ServiceUnavailable, lightlink.CallTimeout):
        return 0
