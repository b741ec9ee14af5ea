"""What is different where a person types: in a notebook, or at Python's prompt."""

from __future__ import annotations

import logging
import os
import sys
from typing import TYPE_CHECKING, Any, Protocol
from weakref import WeakValueDictionary

if TYPE_CHECKING:
    from collections.abc import Callable

_log = logging.getLogger("lightlink")


class Stoppable(Protocol):
    """What a cell that is run again makes a second time."""

    def stop(self, timeout: float = ...) -> None:
        """Stop."""
        ...


_made: WeakValueDictionary[tuple[Any, ...], Any] = WeakValueDictionary()
_STOP_SECONDS = 5.0


def is_interactive() -> bool:
    """Whether a person types: IPython sets ``sys.ps1`` as well."""
    return hasattr(sys, "ps1")


def typed_name(function: Callable[..., Any]) -> str | None:
    """Return the name of a function that was typed at the prompt or in a cell; None for any other."""
    name = getattr(function, "__qualname__", "")
    is_typed = is_interactive() and getattr(function, "__module__", None) == "__main__"
    return name if is_typed and name and "<" not in name else None


def replace(key: tuple[Any, ...], what: str, made: Stoppable) -> None:
    """Stop what was made before under the same key, by a cell that is run again, and remember this one."""
    key = (os.getpid(), *key)
    before = _made.get(key)
    _made[key] = made
    if before is not None and before is not made:
        _log.warning("lightlink: %s is replaced by the one made now", what)
        before.stop(_STOP_SECONDS)
