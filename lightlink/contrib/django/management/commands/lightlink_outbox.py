"""``manage.py lightlink_outbox``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lightlink.contrib.django.clients import clients
from lightlink.contrib.django.management.base import ServingCommand
from lightlink.contrib.django.outbox import relay

if TYPE_CHECKING:
    from argparse import ArgumentParser

    from lightlink.contrib.serving import Runnable


class Command(ServingCommand):
    """Relays the outbox until SIGTERM."""

    help = "Relay the events that publish_on_commit wrote, until Ctrl-C or SIGTERM. Any number may run."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Take which database, and over which connection."""
        parser.add_argument("--database", default="default", help="Whose outbox; one of DATABASES.")
        parser.add_argument("--alias", default="default", help="Over which connection; one of LIGHTLINK.")
        parser.add_argument("--once", action="store_true", help="Relay what is there now, and end.")
        parser.add_argument("--interval", type=float, default=0.5, help="Seconds between two looks.")
        super().add_arguments(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        """Relay."""
        if not options["once"]:
            super().handle(*args, **options)
            return
        client = clients[options["alias"]]
        self.stdout.write(str(relay(client, using=options["database"]).relay()))

    def find(self, options: dict[str, Any]) -> dict[str, Runnable]:
        """Return the relay."""
        client = clients[options["alias"]]
        found = relay(client, using=options["database"], interval=options["interval"])
        return {f"the outbox of {options['database']}": found}
