"""The service of the demo; it runs in a process of its own."""

from __future__ import annotations

from typing import TypedDict

import lightlink

service = lightlink.Service("shop", version="1.0.0")
prices = {"apple": 0.5, "pear": 0.75}


class Order(TypedDict):
    """What the shop expects in an order."""

    item: str
    count: int


@service.rpc
def total(item: str, count: int = 1) -> float:
    """Return the price of some of an item."""
    return prices[item] * count


@service.on("orders.new")
def ship(order: Order) -> None:
    """Ship an order, and say so."""
    service.client.publish("orders.shipped", {**order, "total": total(**order)})
