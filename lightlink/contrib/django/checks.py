"""What ``manage.py check`` says of the settings, and ``check --deploy`` of what is unsafe in them."""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from django.conf import settings
from django.core.checks import Error, Warning  # noqa: A004 - Django's names
from django.db import connections, router

from lightlink.certs.check import check_client_files
from lightlink.contrib.django import conf
from lightlink.errors import InvalidOption

if TYPE_CHECKING:
    from collections.abc import Sequence

    from django.core.checks import CheckMessage

    from lightlink.options import ConnectOptions

_PASSWORD = re.compile(r"://[^/@\s]+@")


def check_settings(app_configs: object = None, **_: Any) -> list[CheckMessage]:  # noqa: ARG001 - Django's signature
    """Return what is wrong in LIGHTLINK: keys, values, certificates that are missing, unfit or end soon."""
    found: list[CheckMessage] = []
    try:
        names = conf.aliases()
    except InvalidOption as exc:
        return [Error(str(exc), id="lightlink.E001")]
    for alias in names:
        try:
            found += _check_files(alias, conf.read(alias).options)
            found += _check_databases(alias)
        except InvalidOption as exc:
            found.append(Error(f"LIGHTLINK[{alias!r}]: {exc}", id="lightlink.E001"))
    return found


def check_deployment(app_configs: object = None, **_: Any) -> list[CheckMessage]:  # noqa: ARG001
    """Return what is unsafe in LIGHTLINK: connections in the clear, secrets in the settings' text."""
    found: list[CheckMessage] = []
    try:
        read = [conf.read(alias) for alias in conf.aliases()]
    except InvalidOption:
        return []  # check_settings says so
    for each in read:
        far = [server for server in each.options.servers if not _is_near(server)]
        if far and not each.options.wants_tls:
            text = f"LIGHTLINK[{each.alias!r}] talks to {', '.join(far)} without TLS: everybody in between reads along."
            found.append(Warning(text, hint="Set TLS, or a tls:// URL.", id="lightlink.W002"))
        elif far and not _proves_itself(each.options):
            text = f"LIGHTLINK[{each.alias!r}] does not say who it is: no certificate, user, token or credentials."
            found.append(Warning(text, hint="Give TLS a CERT and a KEY.", id="lightlink.W003"))
    if _PASSWORD.search(repr(getattr(settings, "LIGHTLINK", {}))):
        text = "LIGHTLINK holds a password or token in a URL, which debug pages and logs of settings show."
        found.append(Warning(text, hint="Read it from the environment into OPTIONS.", id="lightlink.W004"))
    return found


def check_outbox(
    app_configs: object = None,  # noqa: ARG001
    databases: Sequence[str] | None = None,
    **_: Any,
) -> list[CheckMessage]:
    """Return which of the databases that may be asked have been migrated, and lack the outbox."""
    found: list[CheckMessage] = []
    for alias in databases or ():
        if not router.allow_migrate(alias, "lightlink", model_name="outboxevent"):
            continue
        tables = connections[alias].introspection.table_names()
        # Before the first migration nothing is missing yet.
        if "django_migrations" in tables and "lightlink_outbox" not in tables:
            text = f"the database {alias!r} has no table lightlink_outbox: publish_on_commit would fail."
            found.append(Warning(text, hint="Run manage.py migrate lightlink.", id="lightlink.W005"))
    return found


def _check_files(alias: str, options: ConnectOptions) -> list[CheckMessage]:
    if options.tls is None:
        return []
    try:
        info = check_client_files(options.tls.ca, options.tls.cert, options.tls.key)
    except InvalidOption as exc:
        return [Error(f"LIGHTLINK[{alias!r}]: {exc}", id="lightlink.E002")]
    if info is None or not info.warning:
        return []
    return [Warning(f"LIGHTLINK[{alias!r}]: the certificate {options.tls.cert} {info.warning}", id="lightlink.W001")]


def _check_databases(alias: str) -> list[CheckMessage]:
    unknown = [name for name in conf.read(alias).atomic if name not in settings.DATABASES]
    text = f"LIGHTLINK[{alias!r}]: ATOMIC_HANDLERS names databases that there are not: {', '.join(unknown)}"
    return [Error(text, id="lightlink.E003")] if unknown else []


def _is_near(server: str) -> bool:
    host = urlsplit(server).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _proves_itself(options: ConnectOptions) -> bool:
    ways = (options.user, options.token, options.creds, options.nkey, options.tls and options.tls.cert)
    return any(way is not None for way in ways)
