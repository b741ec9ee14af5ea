"""The sample with PostgreSQL, which is restarted under its services."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from signal import SIGTERM
from typing import TYPE_CHECKING

import pytest
from helpers.docs import run
from helpers.postgres import Postgres
from helpers.waiting import eventually

import lightlink

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import StartPython

SAMPLE = Path(__file__).resolve().parents[3] / "samples" / "django_shop"
MANAGE = """
    import sys
    from django.core.management import execute_from_command_line
    execute_from_command_line(["manage.py", *sys.argv[1:]])
"""


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    with Postgres() as running:
        yield running


def environment(postgres: Postgres) -> dict[str, str]:
    return {"DATABASE": "postgresql", "DJANGO_SETTINGS_MODULE": "webshop.settings", **postgres.environment}


def test_a_service_heals_when_its_database_was_restarted(python: StartPython, url: str, postgres: Postgres) -> None:
    env = environment(postgres)
    run([sys.executable, "manage.py", "migrate", "-v0"], SAMPLE, **env)
    sell = "from catalogue.models import Item; Item.objects.create(name='apple', price=50, stock=3)"
    run([sys.executable, "manage.py", "shell", "-c", sell], SAMPLE, **env)
    paths = os.pathsep.join([str(SAMPLE), str(SAMPLE.parents[1])])
    process = python(MANAGE, "lightlink_service", env={**env, "LIGHTLINK_URL": url, "PYTHONPATH": paths}, options=())

    with lightlink.connect(url) as client:
        eventually(lambda: is_served(client))
        # So many at once that each of its threads has a connection.
        assert prices(client) == {50}
        postgres.stop()
        try:
            with pytest.raises(lightlink.HandlerError, match="OperationalError"):
                client.call("catalogue", "price", {"item": "apple"})
        finally:
            postgres.start()
        assert prices(client) == {50}

    process.signal(SIGTERM)
    assert process.wait().returncode == 0


def test_the_sample_passes_its_tests_on_postgresql(postgres: Postgres) -> None:
    """Its test database can be removed in the end: no handler's thread has kept a connection to it."""
    run([sys.executable, "-W", "error", "manage.py", "test"], SAMPLE, **environment(postgres))


def is_served(client: lightlink.Client) -> bool:
    try:
        return client.call("catalogue", "price", {"item": "apple"}) == 50
    except lightlink.ServiceUnavailable:
        return False


def prices(client: lightlink.Client) -> set[int]:
    asked = [client.submit("catalogue", "price", {"item": "apple"}) for _ in range(200)]
    return {each.result(30) for each in asked}
