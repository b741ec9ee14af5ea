"""Find what a project serves, and run it until the process is asked to stop."""

from __future__ import annotations

import importlib
import logging
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from django.apps import apps
from django.core.management.base import CommandError
from django.utils.module_loading import module_has_submodule

from lightlink.concurrency.signals import StopSignal
from lightlink.concurrency.threads import join_thread, start_thread
from lightlink.errors import ClosedError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import ModuleType

_log = logging.getLogger("lightlink")
# How long beyond its drain something may take to end.
_GRACE_SECONDS = 5.0


class Runnable(Protocol):
    """What services and agents have in common."""

    def run(self, stop_timeout: float) -> None:
        """Serve until asked to stop."""

    def stop(self, timeout: float) -> None:
        """Finish what is held, and end."""


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


def serve(runnables: Sequence[Runnable], drain_timeout: float, say: Callable[[str], object]) -> None:
    """Run services and agents until SIGINT or SIGTERM, or until one of them ends, and drain them all.

    Raises the first error that one of them ended with.
    """
    stop = StopSignal()
    errors: list[BaseException] = []

    def run(each: Runnable) -> None:
        try:
            each.run(drain_timeout)
        except ClosedError as exc:
            if not stop.is_set:  # else it was stopped before it had begun
                errors.append(exc)
        except BaseException as exc:
            errors.append(exc)
        finally:
            stop.set()

    with stop.caught():
        threads = [start_thread(run, f"lightlink-serve-{number}", each) for number, each in enumerate(runnables, 1)]
        say("serving; Ctrl-C or SIGTERM ends it")
        stop.wait()
        say(f"draining, for at most {drain_timeout:g} s")
        # At once: each may take the whole time.
        stoppers = [start_thread(each.stop, "lightlink-stop", drain_timeout) for each in runnables]
        for thread in (*stoppers, *threads):
            join_thread(thread, drain_timeout + _GRACE_SECONDS)
    if errors:
        raise errors[0]


def plain_ones(runnables: dict[str, Any], at_home: type) -> list[str]:
    """Return the names of those that do not look after database connections."""
    return [name for name, each in runnables.items() if not isinstance(each, at_home)]
