"""nats-py's JetStream is imported when somebody asks for it: this library has its own.

Without it nats-py takes three quarters of its time to import. For a program that uses both, all is as it was: `nats.js`
is there, and becomes the real one with the first look into it.
"""

from __future__ import annotations

import importlib
import sys
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import module_from_spec
from types import ModuleType
from typing import Any

from lightlink.concurrency import forks

_PACKAGE, _LATER = "nats", "nats.js"


class _Later(ModuleType):
    """Stands in for a module until something of it is asked for. Its submodules can be imported before."""

    def __getattr__(self, name: str) -> Any:
        with forks.lock():
            if sys.modules.get(self.__name__) is self:
                del sys.modules[self.__name__]
        return getattr(importlib.import_module(self.__name__), name)


def put_off() -> None:
    """Let nats-py be imported without its JetStream, unless it has been imported already."""
    if _PACKAGE in sys.modules or (spec := _spec()) is None:
        return
    later = module_from_spec(spec)
    later.__class__ = _Later
    sys.modules[_LATER] = later
    nats: Any = importlib.import_module(_PACKAGE)
    nats.js = later


def _spec() -> ModuleSpec | None:
    package = PathFinder.find_spec(_PACKAGE)
    return None if package is None else PathFinder.find_spec(_LATER, package.submodule_search_locations)
