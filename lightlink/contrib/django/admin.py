"""The outbox among the admin's pages, to look at: what waits, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.contrib import admin

from lightlink.contrib.django.models import OutboxEvent

if TYPE_CHECKING:
    from django.http import HttpRequest


@admin.register(OutboxEvent)
class OutboxEventAdmin(admin.ModelAdmin):
    """What waits; it may be removed, and not written by hand."""

    list_display = ("created_at", "subject", "key", "attempts", "error")
    list_filter = ("subject",)
    search_fields = ("id", "key", "subject")

    def has_add_permission(self, request: HttpRequest) -> bool:  # noqa: ARG002 - Django's signature
        """Tell that nobody may."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: OutboxEvent | None = None) -> bool:  # noqa: ARG002
        """Tell that nobody may."""
        return False
