"""Check what users give, in one wording for one rule. Each raises InvalidOption, which names the option."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from lightlink.errors import InvalidOption

if TYPE_CHECKING:
    import attrs

# Seconds, 285 years. Locks wait no longer, and what the server is told in nanoseconds has 64 bits.
FOR_EVER = 9e9


def field(check: Callable[..., object], *args: Any, **options: Any) -> Callable[[Any, attrs.Attribute[Any], Any], None]:
    """Return an attrs validator that checks a field by ``check(name, value, *args, **options)``."""

    def validate(_: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
        check(attribute.name, value, *args, **options)

    return validate


def integer(option: str, value: Any, least: int = 1, most: int | None = None) -> int:
    """Return an integer from ``least`` to ``most``; None is no limit."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least or (most is not None and value > most):
        rule = "a positive integer" if least == 1 else f"an integer, at least {least}"
        raise InvalidOption(option, f"must be {rule if most is None else f'an integer from {least} to {most}'}", value)
    return value


def number(option: str, value: Any) -> float:
    """Return a positive number."""
    return _positive(option, value, "must be a positive number")


def seconds(option: str, value: Any) -> float:
    """Return a positive number of seconds, at most FOR_EVER."""
    if value.__class__ is float and 0 < value <= FOR_EVER:  # as mostly; the rest costs a call half a microsecond
        return value
    return float(min(_positive(option, value, "must be a positive number of seconds"), FOR_EVER))


def seconds_or_zero(option: str, value: Any, most: float = float("inf")) -> float:
    """Return a number of seconds that is not negative; infinity is one unless ``most`` is less."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= most:
        raise InvalidOption(option, "must be a number of seconds, 0 or more", value)
    return value


def wait_limit(timeout: Any) -> float:
    """Return how many seconds to wait at most, infinity included."""
    if not isinstance(timeout, (int, float)) or not timeout <= float("inf"):
        raise InvalidOption("timeout", "must be a number of seconds", timeout)
    return float(max(min(timeout, FOR_EVER), 0))


def string(option: str, value: Any) -> str:
    """Return a string."""
    if not isinstance(value, str):
        raise InvalidOption(option, "must be a string", type(value).__name__)
    return value


def string_map(option: str, value: Any) -> dict[str, str]:
    """Return a dict of a mapping of strings to strings."""
    if not isinstance(value, Mapping) or not all(
        isinstance(key, str) and isinstance(each, str) for key, each in value.items()
    ):
        raise InvalidOption(option, "must map strings to strings", value)
    return dict(value)


def functions(option: str, value: Any) -> tuple[Any, ...]:
    """Return functions that were given in a list."""
    if not isinstance(value, (list, tuple)) or not all(map(callable, value)):
        raise InvalidOption(option, "must be a list of functions", type(value).__name__)
    return tuple(value)


def _positive(option: str, value: Any, rule: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < float("inf"):
        raise InvalidOption(option, rule, value)
    return value
