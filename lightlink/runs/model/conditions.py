"""Conditions of a plan: ``[left, op, right]``, a list of them (all must hold), or ``{"any": [...]}``."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

from lightlink.protocol import codec
from lightlink.runs.model import references
from lightlink.runs.model.references import MissingReference

if TYPE_CHECKING:
    from collections.abc import Callable

    from lightlink.runs.model.references import Lookup

_COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "in": lambda left, right: left in right,
}
_EXISTS = "exists"
_MOST_SHOWN = 100
OPERATORS = (*_COMPARISONS, _EXISTS)


class CannotCompare(Exception):
    """Two values are of kinds that this operator does not compare. For use inside this package."""


def fault(condition: Any) -> str:
    """Return what is wrong with how a condition is written, empty for nothing."""
    if isinstance(condition, dict):
        if list(condition) != ["any"] or not isinstance(condition["any"], list):
            return 'must be [left, op, right], a list of such, or {"any": [...]}'
        return next(filter(None, map(fault, condition["any"])), "")
    if not isinstance(condition, list) or not condition:
        return 'must be [left, op, right], a list of such, or {"any": [...]}'
    if _is_comparison(condition):
        left, op, *right = condition
        if op not in OPERATORS:
            return f"{op!r} is no operator; there are {', '.join(OPERATORS)}"
        if op == _EXISTS:
            is_reference = isinstance(left, str) and left.startswith("${")
            fine = is_reference and right in ([], [True], [False])
            return "" if fine else "exists takes a reference, and true or false"
        return "" if len(right) == 1 else f"{op} compares two values"
    return next(filter(None, map(fault, condition)), "")


def holds(condition: Any, lookup: Lookup) -> bool:
    """Tell whether a condition that has no fault holds; raises MissingReference, CannotCompare."""
    if isinstance(condition, dict):
        return any(holds(each, lookup) for each in condition["any"])
    if not _is_comparison(condition):
        return all(holds(each, lookup) for each in condition)
    left, op, *right = condition
    if op == _EXISTS:
        return bool(_exists(left, lookup) == (right != [False]))
    values = references.resolve(left, lookup), references.resolve(right[0], lookup)
    try:
        return bool(_COMPARISONS[op](*values))
    except TypeError:
        raise CannotCompare(f"{values[0]!r} {op} {values[1]!r} compares what cannot be compared") from None


def broken(condition: Any, lookup: Lookup) -> str:
    """Return which comparison of a condition that does not hold is to blame, and what was found; empty for several."""
    if isinstance(condition, dict):
        return ""
    if not _is_comparison(condition):
        return next((broken(each, lookup) for each in condition if not holds(each, lookup)), "")
    left, op, *right = condition
    if op == _EXISTS:
        return f"{left} {'is not there' if right != [False] else 'is there'}"
    found, wanted = (_short(references.resolve(each, lookup)) for each in (left, right[0]))
    return f"{left} is {found}, not {op} {wanted}"


def _short(value: Any) -> str:
    text = codec.encode_json(value).decode()
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}..."


def _is_comparison(condition: list[Any]) -> bool:
    """Tell whether it is one comparison: its operator is text, where a list of conditions has another condition."""
    return len(condition) > 1 and isinstance(condition[1], str)


def _exists(left: str, lookup: Lookup) -> bool:
    try:
        references.resolve(left, lookup)
    except MissingReference:
        return False
    return True
