"""The admin's pages of the outbox and of dead letters, and the outbox's signals, in a project of their own."""

from __future__ import annotations

import queue
from typing import TYPE_CHECKING

import pytest
from helpers.process import run_python
from helpers.waiting import eventually

import lightlink
from lightlink.streams import StoredMessage

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import StartServer

PROJECT = """
    import sys, types
    import django
    from django.conf import settings
    from django.urls import path

    url, database = sys.argv[1:3]
    contrib = "django.contrib."
    settings.configure(
        SECRET_KEY="x" * 50, USE_TZ=True, ROOT_URLCONF="urls", STATIC_URL="static/", ALLOWED_HOSTS=["testserver"],
        INSTALLED_APPS=[*(contrib + each for each in ("admin", "auth", "contenttypes", "sessions", "messages")),
                        "lightlink.contrib.django"],
        MIDDLEWARE=["django.contrib.sessions.middleware.SessionMiddleware",
                    "django.contrib.auth.middleware.AuthenticationMiddleware",
                    "django.contrib.messages.middleware.MessageMiddleware"],
        TEMPLATES=[{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True,
                    "OPTIONS": {"context_processors": ["django.template.context_processors.request",
                                                       "django.contrib.auth.context_processors.auth",
                                                       "django.contrib.messages.context_processors.messages"]}}],
        LIGHTLINK={"URL": url, "OPTIONS": {"connect_timeout": 2.0}},
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": database}},
    )
    django.setup()
    from django.contrib import admin
    from django.contrib.auth.models import Permission, User
    from django.core.management import call_command
    from django.test import Client

    sys.modules["urls"] = types.ModuleType("urls")
    sys.modules["urls"].urlpatterns = [path("admin/", admin.site.urls)]
    call_command("migrate", verbosity=0)
    LETTERS = "/admin/lightlink/deadletter/"

    def user(*permissions):
        made = User.objects.create_user("-".join(permissions) or "nobody", is_staff=True)
        made.user_permissions.set(Permission.objects.filter(codename__in=permissions))
        browser = Client()
        browser.force_login(made)
        return browser

"""


@pytest.fixture
def own_url(fresh_server: StartServer) -> str:
    """A server without the dead letters of other tests."""
    return fresh_server().url


def test_dead_letters_are_looked_at_handled_again_and_removed(own_url: str, tmp_path: Path) -> None:
    refused, handled = ["<b>lamp</b>", "chair"], queue.Queue[str]()
    with lightlink.connect(own_url) as client:
        client.stream("ORDERS", ["orders.>"])

        @client.consume("orders.new", name="billing")
        def bill(message: StoredMessage) -> None:
            if message.data in refused:
                raise lightlink.Reject(f"no price for {message.data}")
            handled.put(message.data)

        for item in refused:
            client.publish_stored("orders.new", item)
        letters = client.dead_letters("ORDERS", "billing")
        eventually(lambda: len(letters.list()) == 2)
        again, gone = (letter.number for letter in letters.list())
        refused.clear()

        done = run_python(
            PROJECT
            + """
    again, gone = (f"ORDERS billing {number}" for number in sys.argv[3:])
    assert user().get(LETTERS).status_code == 403

    looker = user("view_deadletter")
    page = looker.get(LETTERS).content.decode()
    assert "no price for chair" in page
    assert "&lt;b&gt;lamp" in page and "<b>lamp" not in page
    assert "Remove the chosen" not in page
    assert looker.post(LETTERS, {"do": "drop", "letter": gone}).status_code == 403

    decider = user("view_deadletter", "change_deadletter")
    assert "Dead letters" in decider.get("/admin/").content.decode()
    told = decider.post(LETTERS, {"do": "redeliver", "letter": again}, follow=True).content.decode()
    assert "was given to its consumer again" in told
    told = decider.post(LETTERS, {"do": "drop", "letter": [gone, gone]}, follow=True).content.decode()
    assert "was removed" in told and "ORDERS" in told
    assert "No event waits for somebody to decide" in told
    for wrong in ({"do": "burn"}, {"do": "drop", "letter": "a b c"}):
        assert "errorlist" in (told := decider.post(LETTERS, wrong, follow=True).content.decode()) or "error" in told
""",
            own_url,
            tmp_path / "db",
            again,
            gone,
        )

        assert done.returncode == 0, done.stderr
        assert letters.list() == []
        assert handled.get(timeout=30) == "<b>lamp</b>"


def test_without_nats_the_page_says_so(tmp_path: Path) -> None:
    done = run_python(
        PROJECT
        + """
    page = user("view_deadletter").get(LETTERS)
    assert page.status_code == 200
    assert "Could not connect" in page.content.decode()
    assert "No event waits" not in page.content.decode()
""",
        "nats://127.0.0.1:1",
        tmp_path / "db",
    )
    assert done.returncode == 0, done.stderr


def test_the_outbox_is_shown_and_tells_by_signals(own_url: str, tmp_path: Path) -> None:
    with lightlink.connect(own_url) as client:
        client.stream("ORDERS", ["orders.>"])
    done = run_python(
        PROJECT
        + """
    from django.db import transaction
    from lightlink.contrib.django import clients, publish_on_commit
    from lightlink.contrib.django.models import OutboxEvent
    from lightlink.contrib.django.outbox import relay
    from lightlink.contrib.django.signals import event_refused, event_relayed

    told = []

    def relayed(sender, id, subject, using, **more):
        assert sender is OutboxEvent and not transaction.get_connection(using).in_atomic_block
        told.append(("relayed", id, subject, using))

    def refused(sender, id, subject, error, **more):
        told.append(("refused", id, subject))
        raise ValueError("a receiver that fails")

    event_relayed.connect(relayed)
    event_refused.connect(refused)
    with transaction.atomic():
        good = publish_on_commit("orders.new", 1)
        bad = publish_on_commit("nobody.keeps.this", 2)
    relay(clients["default"]).relay()
    assert told == [("relayed", good, "orders.new", "default"), ("refused", bad, "nobody.keeps.this")], told
    page = user("view_outboxevent").get("/admin/lightlink/outboxevent/").content.decode()
    assert "nobody.keeps.this" in page and "orders.new" not in page

    # An event that cannot be handled is told, too, by the process that consumes.
    import queue
    from lightlink import Reject
    from lightlink.contrib.django import Service
    from lightlink.contrib.django.models import DeadLetter
    from lightlink.contrib.django.signals import dead_letter_stored

    service, dead = Service("billing"), queue.Queue()

    def died(sender, message, consumer, error, **more):
        dead.put((sender, message.data, consumer, error, OutboxEvent.objects.count()))
        raise ValueError("a receiver that fails")

    dead_letter_stored.connect(died)

    @service.consume("orders.new", on_dead_letter=lambda message, error: dead.put(error))
    def bill(data):
        raise Reject("no price")

    @service.consume("orders.new", dead_letters=False)
    def count(data): ...

    with service:
        assert dead.get(timeout=30) == (DeadLetter, 1, "billing-bill", "no price", 1)
        assert dead.get(timeout=30) == "no price"
""",
        own_url,
        tmp_path / "db",
    )
    assert done.returncode == 0, done.stderr
