"""The setting LIGHTLINK: one connection, or several that have aliases, as DATABASES has."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs
from django.conf import settings
from django.db import DEFAULT_DB_ALIAS

from lightlink.contrib.link import read_options
from lightlink.errors import InvalidOption
from lightlink.options import ConnectOptions

DEFAULT_ALIAS = "default"
_KEYS = ("URL", "TLS", "OPTIONS", "NAME", "ATOMIC_HANDLERS")
_TLS_KEYS = ("CA", "CERT", "KEY", "HOSTNAME")


@attrs.frozen
class LinkSettings:
    """What the settings say of one connection.

    ``atomic`` names the databases in whose transactions handlers run.
    """

    alias: str
    options: ConnectOptions
    atomic: tuple[str, ...]


# By alias, since handlers ask each time; forgotten when a test changes the setting.
_read: dict[str, LinkSettings] = {}


def read_cached(alias: str) -> LinkSettings:
    """Return what `read` does, from memory."""
    if alias not in _read:
        _read[alias] = read(alias)
    return _read[alias]


def forget() -> None:
    """Have the settings read anew."""
    _read.clear()


def aliases() -> list[str]:
    """Return the aliases that the settings name; raises InvalidOption."""
    return list(_entries())


def read(alias: str = DEFAULT_ALIAS) -> LinkSettings:
    """Return what the settings say of a connection; raises InvalidOption, with the key that is wrong."""
    entries = _entries()
    if alias not in entries:
        raise InvalidOption("LIGHTLINK", f"has no alias {alias!r}; it has {', '.join(entries)}")
    entry = entries[alias]
    _check_keys(f"LIGHTLINK[{alias!r}]", entry, _KEYS)
    tls = entry.get("TLS") or {}
    _check_keys(f"LIGHTLINK[{alias!r}]['TLS']", tls, _TLS_KEYS)
    files = {name.lower(): value for name, value in tls.items()}
    options = read_options(entry.get("URL"), files, entry.get("OPTIONS") or {}, entry.get("NAME") or "django")
    return LinkSettings(alias, options, _databases(entry.get("ATOMIC_HANDLERS", False)))


def connect_settings(options: ConnectOptions) -> dict[str, Any]:
    """Return options as keywords of `lightlink.connect`, but for what a service or agent decides itself."""
    own = ("servers", "name", "wait", "lazy")
    return {field.name: getattr(options, field.name) for field in attrs.fields(ConnectOptions) if field.name not in own}


def databases(alias: str, atomic: bool | Sequence[str] | None) -> Callable[[], tuple[str, ...]]:
    """Return what tells in whose transactions handlers run: as ``atomic`` says, by default as the settings do."""
    if atomic is None:
        return lambda: read_cached(alias).atomic
    chosen = _databases(atomic)
    return lambda: chosen


def _entries() -> dict[str, Mapping[str, Any]]:
    given = getattr(settings, "LIGHTLINK", {})
    if not isinstance(given, Mapping):
        raise InvalidOption("LIGHTLINK", "must be a dictionary", type(given).__name__)
    if not given or not all(isinstance(entry, Mapping) and name not in _KEYS for name, entry in given.items()):
        return {DEFAULT_ALIAS: given}
    return dict(given)


def _check_keys(where: str, given: Any, known: tuple[str, ...]) -> None:
    if not isinstance(given, Mapping):
        raise InvalidOption(where, "must be a dictionary", type(given).__name__)
    for unknown in given.keys() - {*known}:
        close = difflib.get_close_matches(str(unknown).upper(), known, 1)
        raise InvalidOption(where, f"has no key {unknown!r}" + (f"; did you mean {close[0]!r}?" if close else ""))


def _databases(given: Any) -> tuple[str, ...]:
    if isinstance(given, bool):
        return (DEFAULT_DB_ALIAS,) if given else ()
    if isinstance(given, (list, tuple)) and all(isinstance(name, str) for name in given):
        return tuple(given)
    raise InvalidOption("ATOMIC_HANDLERS", "must be True, False or a list of database aliases", given)
