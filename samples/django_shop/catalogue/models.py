"""Items and their stock."""

from __future__ import annotations

from django.db import models


class Item(models.Model):
    """Something to buy; ``price`` in cents."""

    name = models.CharField(max_length=100, unique=True)
    price = models.PositiveIntegerField()
    stock = models.PositiveIntegerField(default=0)

    def __str__(self) -> str:
        return str(self.name)
