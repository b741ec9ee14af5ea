"""``manage.py lightlink_agent module:agent``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.core.management.base import CommandError

from lightlink.commands.agent.agent import Agent as PlainAgent
from lightlink.contrib.django.discovery import load, plain_ones
from lightlink.contrib.django.management.base import ServingCommand
from lightlink.contrib.django.services import Agent

if TYPE_CHECKING:
    from argparse import ArgumentParser

    from lightlink.contrib.serving import Runnable


class Command(ServingCommand):
    """Runs agents until SIGTERM, then drains."""

    help = "Run agents until Ctrl-C or SIGTERM; then finish what they hold."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Take which agents."""
        parser.add_argument("targets", nargs="+", metavar="module[:agent]")
        super().add_arguments(parser)

    def find(self, options: dict[str, Any]) -> dict[str, Runnable]:
        """Return the agents to run."""
        found: dict[str, PlainAgent] = {}
        for target in options["targets"]:
            found |= load(target, PlainAgent)
        if not found:
            raise CommandError("no agent found: name module:agent")
        for name in plain_ones(found, Agent):
            warning = f"{name} does not look after database connections: use lightlink.contrib.django.Agent"
            self.stderr.write(self.style.WARNING(warning))
        return dict(found)
