"""Use types of your own as arguments and results: attrs classes, dataclasses, Literals, lists of them...

python samples/typed_rpc.py [URL]
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import attrs
from _server import nats_url

import lightlink


@dataclass
class Item:
    """One line of an order."""

    name: str
    price: float
    count: int = 1


@attrs.frozen
class Quote:
    """What an order costs."""

    total: float
    currency: Literal["EUR", "USD"]
    names: list[str]


def make_service(url: str) -> lightlink.Service:
    """Return a service whose method takes and returns these types."""
    service = lightlink.Service("shop", url)

    # On the wire it is JSON: a peer in another language sends {"items": [{"name": ..., "price": ...}]}. A parameter
    # annotated with Request is no argument: it tells who calls, and how much time is left.
    @service.rpc
    def quote(items: list[Item], request: lightlink.Request, currency: Literal["EUR", "USD"] = "EUR") -> Quote:
        print(f"{request.service}.{request.method} has {request.remaining():.0f} seconds left")
        total = sum(item.price * item.count for item in items)
        return Quote(total, currency, [item.name for item in items])

    return service


def main(url: str) -> None:
    """Ask for quotes, with good and bad arguments."""
    with make_service(url), lightlink.connect(url) as client:
        basket = [Item("apple", 0.5, 4), Item("pear", 0.75)]
        # ``returns`` says what the result is to be converted to; without it, it is a dict.
        quote = client.call("shop", "quote", {"items": basket}, returns=Quote)
        print(type(quote).__name__, quote.total, quote.currency, quote.names)

        # Each mistake is named with the argument, down to the place in it.
        for wrong in (
            {"items": [{"name": "apple", "price": "cheap"}]},
            {"items": basket, "currency": "GBP"},
            {"items": basket, "colour": "red"},
            {},
        ):
            try:
                client.call("shop", "quote", wrong)
            except lightlink.InvalidArguments as error:
                print(error.message)


if __name__ == "__main__":
    with nats_url() as url:
        main(url)
