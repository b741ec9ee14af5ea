"""Types of users' own that JSON does not know: what becomes of them in a body, and how they come out of one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from lightlink.errors import InvalidOption
from lightlink.protocol.text import text_of

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

_known: dict[type, tuple[Callable[[Any], Any] | None, Callable[[Any, Any], Any] | None]] = {}


def register_type(
    kind: type[T],
    *,
    encode: Callable[[T], Any] | None = None,
    decode: Callable[[type[T], Any], T] | None = None,
) -> None:
    """Have values of a class, and of those derived from it, carried in this process as JSON does not know them.

    ``encode(value)`` returns what stands for a value: text, a number, a dict or the like. ``decode(cls, value)`` makes
    a ``cls`` (``kind``, or what is derived from it) of that, where a handler is annotated so, or ``returns=`` asks for
    it; what it raises is told as a bad argument. Register before handlers that are annotated so: ::

        lightlink.register_type(Path, encode=str, decode=lambda cls, value: cls(value))

    Registered again, a class has the new ones. Raises InvalidOption.
    """
    if not isinstance(kind, type):
        raise InvalidOption("kind", "must be a class", kind)
    if encode is None and decode is None:
        raise InvalidOption("encode", "must be given, or decode", None)
    for name, function in (("encode", encode), ("decode", decode)):
        if function is not None and not callable(function):
            raise InvalidOption(name, "must be a function", function)
    _known[kind] = encode, decode


def can_decode(kind: Any) -> bool:
    """Tell whether somebody has said how a class is made of a JSON value."""
    return _decoder_of(kind) is not None


def encode_own(value: Any) -> Any:
    """Return what stands for a value that JSON does not know; raises TypeError, ValueError."""
    for base in type(value).__mro__:
        encode = _known.get(base, (None, None))[0]
        if encode is not None:
            try:
                return encode(value)
            except (TypeError, ValueError):
                raise
            except Exception as exc:
                raise ValueError(f"encode failed with {type(exc).__name__}: {text_of(exc)}") from exc
    raise TypeError(f"Encoding objects of type {type(value).__qualname__} is unsupported: see lightlink.register_type")


def decode_own(kind: Any, value: Any) -> Any:
    """Return the ``kind`` that a JSON value stands for; raises ValueError where it does for none."""
    decode = _decoder_of(kind)
    if decode is None:
        if isinstance(value, kind):  # annotated `object`, say
            return value
        raise TypeError(f"nobody has said how a {getattr(kind, '__qualname__', kind)} is made: lightlink.register_type")
    try:
        return decode(kind, value)
    except Exception as exc:
        known = isinstance(exc, (TypeError, ValueError))
        raise ValueError(text_of(exc) if known else f"decode failed with {type(exc).__name__}: {text_of(exc)}") from exc


def _decoder_of(kind: Any) -> Callable[[Any, Any], Any] | None:
    for base in getattr(kind, "__mro__", ()):
        decode = _known.get(base, (None, None))[1]
        if decode is not None:
            return decode
    return None
