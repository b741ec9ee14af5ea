"""The service of the demo; it runs in a process of its own."""

from __future__ import annotations

import tempfile
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


@service.on_file
def read(info: lightlink.FileInfo) -> None:
    """Read an invoice, and say so."""
    with tempfile.TemporaryFile() as content:
        service.client.download(info.id, content)
        content.seek(0)
        lines = sum(1 for _ in content)
    service.client.publish("invoices.read", {"name": info.name, "from": info.sender, "lines": lines})
