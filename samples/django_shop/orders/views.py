"""What browsers and scripts see. Errors of services become statuses by themselves (the middleware)."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from django.http import JsonResponse
from django.shortcuts import get_object_or_404
from django.views.decorators.http import require_GET, require_POST

from lightlink.contrib.django import client
from orders.models import Order

if TYPE_CHECKING:
    from django.http import HttpRequest


@require_GET
def price(request: HttpRequest, item: str) -> JsonResponse:  # noqa: ARG001 - Django's signature
    """Ask a service."""
    return JsonResponse({"item": item, "price": client.call("catalogue", "price", {"item": item})})


@require_POST
def order(request: HttpRequest) -> JsonResponse:
    """Place an order."""
    return JsonResponse(client.call("orders", "place", json.loads(request.body)), status=201)


@require_GET
def show_order(request: HttpRequest, number: int) -> JsonResponse:  # noqa: ARG001
    """Show an order."""
    found = get_object_or_404(Order, pk=number)
    return JsonResponse({"items": list(found.lines.values("item", "price"))})
