"""LightLink in Django (extra ``django``).

::

    INSTALLED_APPS = [..., "lightlink.contrib.django"]
    LIGHTLINK = {"URL": "nats://127.0.0.1:4222"}

    from lightlink.contrib.django import client

    def price(request, item):
        return JsonResponse({"price": client.call("prices", "of", {"item": item})})
"""

try:
    import django  # noqa: F401 - to say at once what is missing
except ModuleNotFoundError as exc:
    if exc.name != "django":
        raise
    needed = "lightlink.contrib.django needs Django: pip install 'lightlink[django]'"
    raise ModuleNotFoundError(needed, name=exc.name) from exc

from lightlink.contrib.django.clients import client, clients, managers
from lightlink.contrib.django.handlers import with_database
from lightlink.contrib.django.outbox import forget, is_new, publish_on_commit, relay
from lightlink.contrib.django.services import Agent, Service

__all__ = [
    "Agent",
    "Service",
    "client",
    "clients",
    "forget",
    "is_new",
    "managers",
    "publish_on_commit",
    "relay",
    "with_database",
]
