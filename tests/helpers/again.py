"""Run the tests of a module again, on another server than they were written for."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import ModuleType

# They make a server of their own from a directory of certificates.
_OTHER_SERVER = {"fresh_server", "authority", "small", "admin", "commanding", "tmp_path", "python"}


def take(module: ModuleType, namespace: dict[str, Any], *but: str) -> None:
    """Put a module's tests and fixtures into the namespace of another, which has fixtures of its own for the server.

    ``but`` names tests to be left out; so are those that make a server of their own.
    """
    taken = 0
    for name, value in vars(module).items():
        if type(value).__name__ == "FixtureFunctionDefinition":
            namespace.setdefault(name, value)
        elif name.startswith("test_") and name not in but and not _OTHER_SERVER & _parameters(value):
            namespace[name] = value
            taken += 1
    assert taken, module


def _parameters(test: Any) -> set[str]:
    return {*inspect.signature(test).parameters}
