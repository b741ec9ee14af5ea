"""The language of nats-server's configuration file, as far as LightLink writes it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lightlink.errors import InvalidOption

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence


def block(name: str, lines: Iterable[str]) -> list[str]:
    """Return a map with a name; ``lines`` are its content."""
    return [f"{name} {{", *(f"  {line}" for line in lines), "}"]


def list_of(name: str, items: Sequence[Sequence[str]]) -> list[str]:
    """Return a list of maps; each item is the lines of one."""
    lines = [f"{name}: ["]
    for item in items:
        lines += ["  {", *(f"    {line}" for line in item), "  }"]
    return [*lines, "]"]


def assignments(values: Mapping[str, Any]) -> list[str]:
    """Return one line for each setting."""
    return [f"{name}: {quoted(value)}" for name, value in values.items()]


def quoted(given: str | int) -> str:
    """Return a value as the configuration language writes it; raises InvalidOption for a control character."""
    if isinstance(given, bool):
        return str(given).lower()
    if isinstance(given, int):
        return str(given)
    if not given.isprintable():
        raise InvalidOption("server configuration", "cannot hold a control character", given)
    return '"' + given.replace("\\", "\\\\").replace('"', '\\"') + '"'
