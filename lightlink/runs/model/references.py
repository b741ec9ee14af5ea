"""References to data in a plan: ``${params.version}``, ``${before.result.items.0}``. Nothing is evaluated."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from lightlink.protocol import codec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Lookup = Callable[[list[str]], Any]

# ``$${`` stands for a ``${`` that is meant as text.
_REFERENCE = re.compile(r"\$\$\{|\$\{([^{}]*)\}")
_PATH = re.compile(r"[A-Za-z_][\w-]*(\.[\w-]+)*")


class MissingReference(Exception):
    """What a reference names is not there. For use inside this package; ``text`` is the path."""

    def __init__(self, text: str, reason: str) -> None:
        super().__init__(f"${{{text}}}: {reason}")


def find(value: Any) -> Iterator[str]:
    """Yield the path of every reference in a value, however deep, well-formed or not."""
    if isinstance(value, str):
        yield from (match[1] for match in _REFERENCE.finditer(value) if match[1] is not None)
    elif isinstance(value, dict):
        for each in value.values():
            yield from find(each)
    elif isinstance(value, (list, tuple)):
        for each in value:
            yield from find(each)


def slips(value: Any) -> Iterator[str]:
    """Yield what is wrong with each ``${`` in a value that `find` does not find, and that would be sent as it is."""
    if isinstance(value, str):
        if "${" in _REFERENCE.sub("", value):
            yield f"{value!r} has a ${{ without its }}; one that is meant as text is $${{"
    elif isinstance(value, dict):
        for name, each in value.items():
            if isinstance(name, str) and "${" in name:
                yield f"{name!r}: the name of a member cannot be a reference"
            yield from slips(each)
    elif isinstance(value, (list, tuple)):
        for each in value:
            yield from slips(each)


def escaped(value: Any) -> Any:
    """Return a value in which nothing is a reference; `resolve` makes of it what was given."""
    if isinstance(value, str):
        return value.replace("${", "$${")
    if isinstance(value, dict):
        return {name: escaped(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [escaped(each) for each in value]
    return value


def is_path(text: str) -> bool:
    """Tell whether a path is well-formed: names between dots."""
    return _PATH.fullmatch(text) is not None


def resolve(value: Any, lookup: Lookup) -> Any:
    """Return a value with its references replaced by what ``lookup(path)`` finds; raises MissingReference.

    Text that is exactly one reference becomes what it stands for, of whatever type; amid text it becomes text.
    """
    if isinstance(value, str):
        return _resolve_text(value, lookup)
    if isinstance(value, dict):
        return {name: resolve(each, lookup) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [resolve(each, lookup) for each in value]
    return value


def _resolve_text(text: str, lookup: Lookup) -> Any:
    whole = _REFERENCE.fullmatch(text)
    if whole is not None and whole[1] is not None:
        return lookup(whole[1].split("."))
    return _REFERENCE.sub(
        lambda match: "${" if match[1] is None else _as_text(lookup(match[1].split("."))),
        text,
    )


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else codec.encode_json(value).decode()


def descend(value: Any, path: list[str], text: str) -> Any:
    """Return what a path leads to in decoded JSON: names of members, numbers of items; raises MissingReference."""
    for name in path:
        if isinstance(value, dict) and name in value:
            value = value[name]
        elif isinstance(value, list) and name.isascii() and name.isdigit() and int(name) < len(value):
            value = value[int(name)]
        else:
            raise MissingReference(text, f"there is no {name!r}")
    return value
