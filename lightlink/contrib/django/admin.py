"""The outbox and the dead letters among the admin's pages: what waits, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.http import HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import path

from lightlink.contrib.django.clients import clients
from lightlink.contrib.django.conf import DEFAULT_ALIAS
from lightlink.contrib.django.models import DeadLetter, OutboxEvent
from lightlink.errors import LightLinkError
from lightlink.streams.dead import consumers_with_letters

if TYPE_CHECKING:
    from django.http import HttpRequest, HttpResponse
    from django.urls import URLPattern

    from lightlink.streams import DeadLetter as Letter

_MOST = 200


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


@admin.register(DeadLetter)
class DeadLetterAdmin(admin.ModelAdmin):
    """The dead letters of all consumers that the default client sees: looked at, handled again, removed."""

    def get_urls(self) -> list[URLPattern]:
        """Return the one page there is: nothing can be written or opened by itself."""
        name = f"{self.opts.app_label}_{self.opts.model_name}_changelist"
        return [path("", self.admin_site.admin_view(self.changelist_view), name=name)]

    def has_add_permission(self, request: HttpRequest) -> bool:  # noqa: ARG002 - Django's signature
        """Tell that nobody may."""
        return False

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """Show the letters, or do what was decided of some."""
        if not self.has_view_or_change_permission(request):
            raise PermissionDenied
        may_decide = self.has_change_permission(request)
        if request.method == "POST":
            if not may_decide:
                raise PermissionDenied
            _decide(request)
            return HttpResponseRedirect(request.get_full_path())
        letters: list[Letter] = []
        reached = True
        try:
            letters = _letters()
        except LightLinkError as exc:
            reached = False
            messages.error(request, str(exc))
        more = {"letters": letters, "reached": reached, "may_decide": may_decide, "opts": self.opts}
        title = self.opts.verbose_name_plural.capitalize()
        context = {**self.admin_site.each_context(request), "title": title, **more, **(extra_context or {})}
        return TemplateResponse(request, "admin/lightlink/deadletter/change_list.html", context)


def _letters() -> list[Letter]:
    """Return the first letters of each consumer; raises StreamError, ConnectError."""
    client = clients[DEFAULT_ALIAS]
    client.open()
    found: list[Letter] = []
    for stream, consumer in consumers_with_letters(client.connection, client.options.timeout):
        found += client.dead_letters(stream, consumer).list(_MOST - len(found))
        if len(found) >= _MOST:
            break
    return found


def _decide(request: HttpRequest) -> None:
    """Do with the chosen letters what was asked, and tell what became of them."""
    what = {"redeliver": "given to its consumer again", "drop": "removed"}.get(request.POST.get("do", ""))
    if what is None:
        messages.error(request, "Choose what is to be done.")
        return
    for chosen in request.POST.getlist("letter"):
        stream, _, rest = chosen.partition(" ")
        consumer, _, number = rest.partition(" ")
        try:
            letters = clients[DEFAULT_ALIAS].dead_letters(stream, consumer)
            act = letters.redeliver if request.POST["do"] == "redeliver" else letters.drop
            act(int(number))
        except (LightLinkError, ValueError) as exc:
            messages.error(request, str(exc))
        else:
            messages.success(request, f"Letter {number} of {consumer} was {what}.")
