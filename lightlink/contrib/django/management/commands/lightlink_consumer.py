"""``manage.py lightlink_consumer [module:service ...]``."""

from __future__ import annotations

from lightlink.contrib.django.management.commands.lightlink_service import Command as ServiceCommand


class Command(ServiceCommand):
    """Serves the services that consume stored events, in processes of their own."""

    help = "Handle what the services of each app's consumers.py consume, or those named, until Ctrl-C or SIGTERM."
    module = "consumers"
