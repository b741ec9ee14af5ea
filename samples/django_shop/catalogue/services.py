"""The service ``catalogue``; ``manage.py lightlink_service`` finds it here."""

from __future__ import annotations

from django.db import transaction
from django.db.models import F

from catalogue.models import Item
from lightlink.contrib.django import Service, is_new
from lightlink.streams import StoredMessage

service = Service("catalogue", version="1.0.0")


@service.rpc(idempotent=True)
def price(item: str) -> int:
    """Return the price of an item in cents."""
    return int(Item.objects.values_list("price", flat=True).get(name=item))


@service.consume("orders.placed", name="stock")
def take_from_stock(order: StoredMessage) -> None:
    """Follow what was sold, once for each order, whoever dies and however often the event comes."""
    with transaction.atomic():
        if is_new(order, "stock"):
            for name in order.data["items"]:
                Item.objects.filter(name=name, stock__gt=0).update(stock=F("stock") - 1)
