"""Print every public name with its parameters: ``python tests/signatures.py > tests/signatures.txt``."""

from __future__ import annotations

import enum
import inspect
from typing import Any

import lightlink


def signatures() -> list[str]:
    """Return a line for each public name of the library, and for each public method of its classes."""
    found = []
    for name in sorted(lightlink.__all__):
        value = getattr(lightlink, name)
        if inspect.isclass(value):
            found += [f"class {name}", *(f"{name}.{line}" for line in _members(value))]
        elif callable(value):
            found.append(f"{name}{_parameters(value)}")
        else:
            found.append(name)
    return found


def _members(cls: type) -> list[str]:
    if issubclass(cls, enum.Enum):
        return sorted(each.name for each in cls)
    own = {
        name: value
        for base in reversed(cls.__mro__)
        if base.__module__.startswith("lightlink")
        for name, value in vars(base).items()
        if not name.startswith("_") or name == "__init__"
    }
    return [_member(name, own[name]) for name in sorted(own) if _is_told(own[name])]


def _is_told(value: Any) -> bool:
    return callable(value) or isinstance(value, (property, staticmethod, classmethod))


def _member(name: str, value: Any) -> str:
    if isinstance(value, property):
        return name
    return f"{name}{_parameters(value.__func__ if isinstance(value, (staticmethod, classmethod)) else value)}"


def _parameters(function: Any) -> str:
    """Return names, kinds and whether there is a default: annotations may become more exact, defaults be objects."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return "(...)"
    marks: dict[Any, str] = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
    shown: list[str] = []
    for each in parameters:
        if each.kind is inspect.Parameter.KEYWORD_ONLY and not any(part.startswith("*") for part in shown):
            shown.append("*")
        default = "" if each.default is inspect.Parameter.empty else "=..."
        shown.append(f"{marks.get(each.kind, '')}{each.name}{default}")
    return f"({', '.join(shown)})"


if __name__ == "__main__":
    print("\n".join(signatures()))
