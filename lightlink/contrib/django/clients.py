"""The clients and managers of a Django process, made when they are first used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from django.core.signals import setting_changed

from lightlink.concurrency import forks
from lightlink.contrib.django import conf
from lightlink.contrib.link import Link

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lightlink.client import Client
    from lightlink.commands import CommandManager

_links: dict[str, Link] = {}


def link(alias: str = conf.DEFAULT_ALIAS) -> Link:
    """Return what holds the client and the manager of an alias; raises InvalidOption for settings that are wrong."""
    found = _links.get(alias)
    if found is None:
        made = Link(conf.read_cached(alias).options)
        with forks.lock():
            found = _links.setdefault(alias, made)
    return found


def close_all(timeout: float = 5.0) -> None:
    """Close what this process has opened, within ``timeout`` seconds each; the next use reads the settings anew."""
    with forks.lock():
        open_links = list(_links.values())
        conf.forget()
        _links.clear()
    for each in open_links:
        each.close(timeout)


class Clients:
    """The clients by alias: ``clients["default"]``. Each connects when it is used."""

    def __getitem__(self, alias: str) -> Client:
        return link(alias).client

    def __iter__(self) -> Iterator[str]:
        return iter(conf.aliases())

    def close_all(self, timeout: float = 5.0) -> None:
        """Close all, within ``timeout`` seconds each, as at the end of a test; the next use opens them anew."""
        close_all(timeout)


class Managers:
    """The managers by alias, connected: ``managers["default"]``; raises ConnectError, StoreUnavailable."""

    def __getitem__(self, alias: str) -> CommandManager:
        return link(alias).manager

    def __iter__(self) -> Iterator[str]:
        return iter(conf.aliases())


class _DefaultClient:
    """Stands for ``clients["default"]``, whichever that is when it is used."""

    def __getattr__(self, name: str) -> Any:
        return getattr(clients[conf.DEFAULT_ALIAS], name)

    def __dir__(self) -> list[str]:
        return dir(clients[conf.DEFAULT_ALIAS])

    def __repr__(self) -> str:
        return repr(clients[conf.DEFAULT_ALIAS])


clients = Clients()
managers = Managers()
client = cast("Client", _DefaultClient())


def _follow_settings(*, setting: str, **_: object) -> None:
    """Have tests that override LIGHTLINK use what they say."""
    if setting == "LIGHTLINK":
        close_all()


setting_changed.connect(_follow_settings)
