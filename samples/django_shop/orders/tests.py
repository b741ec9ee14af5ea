"""The shop's tests: ``python manage.py test``. The server, the services and their threads are real."""

from __future__ import annotations

import threading
import time
from typing import Any

from catalogue import services as catalogue_services
from catalogue.models import Item
from django.test import TransactionTestCase, override_settings

import lightlink
from lightlink.contrib.django import client, clients, relay
from orders import services as order_services
from orders.models import Order

_running: list[Any] = []


def setUpModule() -> None:
    """Start a server and the shop's services."""
    server = lightlink.EmbeddedServer()
    server.start()
    with lightlink.connect(server.url) as setting_up:
        setting_up.stream("ORDERS", ["orders.>"])
    settings = override_settings(LIGHTLINK={"URL": server.url, "ATOMIC_HANDLERS": True})
    settings.enable()
    _running.extend([server.stop, settings.disable, clients.close_all])
    for module in (catalogue_services, order_services):
        module.service.start()
        _running.append(module.service.stop)
    relaying = relay(clients["default"], interval=0.05).start()
    _running.append(relaying.stop)


def tearDownModule() -> None:
    """Stop them."""
    for end in reversed(_running):
        end()


class ShopTest(TransactionTestCase):
    """What browsers see."""

    def setUp(self) -> None:
        """Have something to sell."""
        Item.objects.create(name="apple", price=50, stock=3)
        Item.objects.create(name="pear", price=75, stock=3)

    def test_a_price_is_what_the_service_says(self) -> None:
        """One call."""
        assert self.client.get("/price/apple").json() == {"item": "apple", "price": 50}

    def test_an_order_is_placed_and_told_of(self) -> None:
        """A transaction, an event when it is committed, and the stock that follows it."""
        told = threading.Event()
        with client.subscribe("orders.placed", lambda _: told.set()):
            answer = self.client.post("/orders", {"items": ["apple", "pear"]}, content_type="application/json")
            assert (answer.status_code, answer.json()["total"]) == (201, 125), answer.content
            assert told.wait(30)
        shown = self.client.get(f"/orders/{answer.json()['number']}").json()
        assert shown["items"] == [{"item": "apple", "price": 50}, {"item": "pear", "price": 75}]
        for _ in range(600):
            if set(Item.objects.values_list("stock", flat=True)) == {2}:
                return
            time.sleep(0.05)
        self.fail("the stock did not follow the order")

    def test_an_order_with_an_unknown_item_leaves_nothing(self) -> None:
        """ATOMIC_HANDLERS rolls back what the handler wrote before it failed."""
        answer = self.client.post("/orders", {"items": ["apple", "melon"]}, content_type="application/json")
        assert (answer.status_code, answer.json()["type"]) == (502, "HandlerError")
        assert not Order.objects.exists()
