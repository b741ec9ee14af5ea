"""What the commands have in common: how they drain, and that they start anew when the code changes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.utils import autoreload

from lightlink.contrib import serving
from lightlink.errors import LightLinkError

if TYPE_CHECKING:
    from argparse import ArgumentParser


class ServingCommand(BaseCommand):
    """A command that serves until it is asked to stop."""

    requires_system_checks = "__all__"

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Take how long to drain, and whether to start anew when the code changes."""
        parser.add_argument("--drain-timeout", type=float, default=10.0, help="Seconds to finish what is held.")
        parser.add_argument(
            "--reload", dest="reload", action="store_true", default=None, help="Start anew when the code changes."
        )
        parser.add_argument(
            "--noreload", dest="reload", action="store_false", help="Do not; the default without DEBUG."
        )

    def handle(self, *_: Any, **options: Any) -> None:
        """Serve, with Django's autoreloader if wanted."""
        wanted = settings.DEBUG if options["reload"] is None else options["reload"]
        if wanted:
            autoreload.run_with_reloader(self._serve, **options)
        else:
            self._serve(**options)

    def find(self, options: dict[str, Any]) -> dict[str, serving.Runnable]:
        """Return what to serve, by name."""
        raise NotImplementedError

    def _serve(self, **options: Any) -> None:
        # In the reloader's child: raises what was wrong in a file that it waits to see changed.
        autoreload.raise_last_exception()
        found = self.find(options)
        drain_timeout = options["drain_timeout"]
        try:
            serving.serve(
                list(found.values()),
                drain_timeout,
                on_ready=lambda: self._say(f"serving {', '.join(found)}; Ctrl-C or SIGTERM ends it"),
                on_stopping=lambda: self._say(f"draining, for at most {drain_timeout:g} s"),
            )
        except LightLinkError as exc:
            raise CommandError(str(exc)) from exc

    def _say(self, text: str) -> None:
        self.stdout.write(text)
        self.stdout.flush()
