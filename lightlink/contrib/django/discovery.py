"""Find what a project serves."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, TypeVar

from django.apps import apps
from django.core.management.base import CommandError
from django.utils.module_loading import module_has_submodule

if TYPE_CHECKING:
    from types import ModuleType

T = TypeVar("T")


def discover(module: str, kind: type[T]) -> dict[str, T]:
    """Return the objects of a kind that the installed apps' modules of this name hold, by ``module:name``."""
    found: dict[str, T] = {}
    for config in apps.get_app_configs():
        if module_has_submodule(config.module, module):
            held = _objects(importlib.import_module(f"{config.name}.{module}"), kind)
            # One that an app imports from another is served once.
            found |= {name: each for name, each in held.items() if each not in found.values()}
    return found


def load(target: str, kind: type[T]) -> dict[str, T]:
    """Return the object that ``module:name`` stands for, or all of a kind in ``module``; raises CommandError."""
    name, _, attribute = target.partition(":")
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as exc:
        if exc.name is None or not f"{name}.".startswith(f"{exc.name}."):
            raise
        raise CommandError(f"there is no module {exc.name!r}; write shop.services:prices") from exc
    found = _objects(module, kind)
    if not attribute:
        return found
    if f"{name}:{attribute}" not in found:
        there = ", ".join(each.partition(":")[2] for each in found) or "none"
        raise CommandError(f"{name} has no {kind.__name__} {attribute!r}; it has: {there}")
    return {target: found[f"{name}:{attribute}"]}


def _objects(module: ModuleType, kind: type[T]) -> dict[str, T]:
    return {f"{module.__name__}:{name}": value for name, value in vars(module).items() if isinstance(value, kind)}


def plain_ones(runnables: dict[str, Any], at_home: type) -> list[str]:
    """Return the names of those that do not look after database connections."""
    return [name for name, each in runnables.items() if not isinstance(each, at_home)]
