"""The service ``orders``."""

from __future__ import annotations

from lightlink.contrib.django import Service, client, publish_on_commit
from orders.models import Line, Order

service = Service("orders", version="1.0.0")


@service.rpc
def place(items: list[str]) -> dict[str, int]:
    """Place an order, all of it or nothing: ATOMIC_HANDLERS has it run in a transaction."""
    order = Order.objects.create()
    total = 0
    for item in items:
        price = client.call("catalogue", "price", {"item": item})  # an item that there is not ends it all
        Line.objects.create(order=order, item=item, price=price)
        total += price
    # Nobody hears of an order that was rolled back, and of one that was not somebody does, whoever dies.
    publish_on_commit("orders.placed", {"number": order.pk, "items": items})
    return {"number": order.pk, "total": total}
