"""The service ``catalogue``; ``manage.py lightlink_service`` finds it here."""

from __future__ import annotations

from typing import TypedDict

from django.db.models import F

from catalogue.models import Item
from lightlink.contrib.django import Service

service = Service("catalogue", version="1.0.0")


class Placed(TypedDict):
    """An order was placed."""

    number: int
    items: list[str]


@service.rpc(idempotent=True)
def price(item: str) -> int:
    """Return the price of an item in cents."""
    return int(Item.objects.values_list("price", flat=True).get(name=item))


@service.on("orders.placed")
def take_from_stock(order: Placed) -> None:
    """Follow what was sold; one instance of the service gets each event."""
    for name in order["items"]:
        Item.objects.filter(name=name, stock__gt=0).update(stock=F("stock") - 1)
