"""``manage.py lightlink_service [module:service ...]``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.core.management.base import CommandError

from lightlink.contrib.django.discovery import discover, load, plain_ones
from lightlink.contrib.django.management.base import ServingCommand
from lightlink.contrib.django.services import Service
from lightlink.service.service import Service as PlainService

if TYPE_CHECKING:
    from argparse import ArgumentParser

    from lightlink.contrib.serving import Runnable


class Command(ServingCommand):
    """Serves services until SIGTERM, then drains."""

    help = "Serve the services of each app's services.py, or those named, until Ctrl-C or SIGTERM; then drain."

    # In which module of each app they are found.
    module = "services"

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Take which services."""
        parser.add_argument("targets", nargs="*", metavar="module[:service]")
        super().add_arguments(parser)

    def find(self, options: dict[str, Any]) -> dict[str, Runnable]:
        """Return the services to serve."""
        found: dict[str, PlainService] = {}
        for target in options["targets"]:
            found |= load(target, PlainService)
        if not options["targets"]:
            found = discover(self.module, PlainService)
        if not found:
            raise CommandError(f"no service found: make one in an app's {self.module}.py, or name module:service")
        for name in plain_ones(found, Service):
            warning = f"{name} does not look after database connections: use lightlink.contrib.django.Service"
            self.stderr.write(self.style.WARNING(warning))
        return dict(found)
