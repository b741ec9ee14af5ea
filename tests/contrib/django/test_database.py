"""The sample with PostgreSQL, which is restarted under its services."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from signal import SIGKILL, SIGTERM
from typing import TYPE_CHECKING

import pytest
from helpers.docs import run
from helpers.postgres import Postgres
from helpers.waiting import eventually

import lightlink

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import StartPython, StartServer
    from helpers.process import PythonProcess

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


def test_a_service_heals_when_its_database_was_restarted(
    python: StartPython, fresh_server: StartServer, postgres: Postgres
) -> None:
    env, url = environment(postgres), fresh_server().url
    with lightlink.connect(url) as client:
        client.stream("ORDERS", ["orders.>"])
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


PLACE = """
    import sys, time
    import django
    django.setup()
    from django.db import transaction
    from orders.models import Order
    from lightlink.contrib.django import publish_on_commit

    print("ready", flush=True)
    while True:
        with transaction.atomic():
            order = Order.objects.create()
            publish_on_commit("orders.placed", {"number": order.pk, "items": []}, key="orders")
            if order.pk % 3 == 0:
                transaction.set_rollback(True)
        time.sleep(0.02)
"""


def test_no_order_is_lost_or_made_up_whoever_is_killed(
    python: StartPython, fresh_server: StartServer, postgres: Postgres
) -> None:
    env, url = environment(postgres), fresh_server().url
    run([sys.executable, "manage.py", "migrate", "-v0"], SAMPLE, **env)
    env |= {"LIGHTLINK_URL": url, "PYTHONPATH": os.pathsep.join([str(SAMPLE), str(SAMPLE.parents[1])])}

    def start(code: str, *args: str) -> PythonProcess:
        process = python(code, *args, env=env, options=())
        process.wait_line("ready" if code is PLACE else "serving ")
        return process

    with lightlink.connect(url) as client:
        client.stream("ORDERS", ["orders.>"])

        def told() -> list[int]:
            return [event.data["number"] for event in client.replay("orders.placed")]

        shop, relaying = start(PLACE), start(MANAGE, "lightlink_outbox", "--interval=0.05")
        for _ in range(3):
            before = len(told())
            eventually(lambda: len(told()) > before + 5)  # noqa: B023 - awaited here
            relaying.signal(SIGKILL)
            shop.signal(SIGKILL)
            shop, relaying = start(PLACE), start(MANAGE, "lightlink_outbox", "--interval=0.05")
        shop.signal(SIGKILL)
        shop.wait()
        shown = run([sys.executable, "manage.py", "shell", "-v0", "-c", NUMBERS], SAMPLE, **env)
        placed = json.loads(shown.strip().splitlines()[-1])
        eventually(lambda: len(told()) >= len(placed))
        relaying.signal(SIGTERM)
        assert relaying.wait().returncode == 0
        assert told() == placed


NUMBERS = """
import json
from orders.models import Order
print(json.dumps(sorted(Order.objects.values_list('pk', flat=True))))
"""


def is_served(client: lightlink.Client) -> bool:
    try:
        return bool(client.call("catalogue", "price", {"item": "apple"}) == 50)
    except lightlink.ServiceUnavailable:
        return False


def prices(client: lightlink.Client) -> set[int]:
    asked = [client.submit("catalogue", "price", {"item": "apple"}) for _ in range(200)]
    return {each.result(30) for each in asked}
