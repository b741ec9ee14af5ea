"""Orders and their lines."""

from __future__ import annotations

from django.db import models


class Order(models.Model):
    """What somebody bought at once."""

    placed_at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return f"order {self.pk}"


class Line(models.Model):
    """An item of an order, at the price of that day in cents."""

    order = models.ForeignKey(Order, on_delete=models.CASCADE, related_name="lines")
    item = models.CharField(max_length=100)
    price = models.PositiveIntegerField()

    def __str__(self) -> str:
        return f"{self.item} of {self.order}"
