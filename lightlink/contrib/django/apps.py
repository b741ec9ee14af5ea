"""The app. Nothing connects as it is loaded: Django loads it for ``migrate``, and before a server forks."""

from __future__ import annotations

from django.apps import AppConfig
from django.core import checks

from lightlink.contrib.django.checks import check_deployment, check_outbox, check_settings


class LightLinkConfig(AppConfig):
    """LightLink among the installed apps."""

    name = "lightlink.contrib.django"
    label = "lightlink"
    verbose_name = "LightLink"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Have Django check the settings."""
        checks.register(check_settings, "lightlink")
        checks.register(check_deployment, "lightlink", deploy=True)
        checks.register(check_outbox, checks.Tags.database)
