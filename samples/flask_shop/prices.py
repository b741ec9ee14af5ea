"""The service that knows prices: ``lightlink run prices``."""

from __future__ import annotations

import logging

import lightlink

_log = logging.getLogger("prices")
_PRICES = {"apple": 0.5, "pear": 0.75}

service = lightlink.Service("prices", version="1.0.0")


@service.rpc(idempotent=True)
def of(item: str, request: lightlink.Request) -> float:
    """Return the price of an item."""
    _log.info("price of %r, for request %s", item, request.headers.get("LightLink-Correlation-Id"))
    return _PRICES[item]
