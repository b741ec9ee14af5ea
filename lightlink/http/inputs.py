"""Read what a request brings, or say which field of it is wrong."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeVar

import attrs
import msgspec
import msgspec.inspect
from werkzeug.exceptions import BadRequest, RequestEntityTooLarge, UnsupportedMediaType

from lightlink.errors import DecodeError
from lightlink.protocol import codec

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable

    from werkzeug.wrappers import Request

    from lightlink.http.limits import Limits

T = TypeVar("T")

# Strings, whatever is in them, and brackets. A string that does not end matches too, so that nothing is tried twice.
_BRACKETS = re.compile(rb'"(?:[^"\\]|\\.)*"?|[\[{]|[\]}]', re.DOTALL)
_WHERE = re.compile(r"(.*) - at `(key in )?\$\.?(.*)`", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `(.*)`", re.DOTALL)


def read_body(
    request: Request, as_type: type[T], limits: Limits, *, optional: bool = False, any_type: bool = False
) -> T:
    """Return a request's body as a type; raises the HTTP errors 400, 413 and 415, whose text names the field.

    An ``optional`` body may be missing. Unless ``any_type``, it must be announced as JSON, also where it is missing.
    """
    if (request.content_length or 0) > limits.max_body:
        raise _too_large(limits)
    # A body whose length is not announced is cut off behind the limit.
    request.max_content_length = limits.max_body
    try:
        data = request.get_data(cache=False)
    except RequestEntityTooLarge:
        raise _too_large(limits) from None
    if not any_type and (data or optional):
        check_type(request)
    if not data:
        if optional:
            return as_type()
        raise BadRequest("the body is empty; send a JSON object")
    if request.headers.get("Content-Encoding", "identity") != "identity":
        raise UnsupportedMediaType("Content-Encoding is not supported; send the JSON as it is")
    if depth(data, limits.max_depth) > limits.max_depth:
        raise BadRequest(f"the body is nested deeper than {limits.max_depth}")
    try:
        return convert(codec.decode(data, "the body"), as_type, strict=True)
    except DecodeError as exc:
        raise BadRequest(f"the body is not JSON: {_plain(exc.reason)}") from None


def check_type(request: Request, wanted: str = "application/json") -> None:
    """Raise the HTTP error 415 unless a request says that its body is JSON, or what else is wanted.

    A page of another site can have a browser send forms and plain text without asking.
    """
    if request.mimetype != wanted:
        raise UnsupportedMediaType(f"Content-Type is {request.mimetype or 'missing'}; send {wanted}")


def read_query(request: Request, as_type: type[T] | None) -> T | None:
    """Return a request's query as a type; raises the HTTP error 400, whose text names the parameter."""
    given = request.args
    for name, values in given.lists():
        if len(values) > 1:
            raise BadRequest(f"{name}: is given {len(values)} times")
    if as_type is None:
        _refuse_unknown(given, ())
        return None
    # A form whose filter is left empty sends it all the same.
    return convert({name: value for name, value in given.items() if value}, as_type, strict=False)


def convert(value: Any, as_type: type[T], *, strict: bool) -> T:
    """Return decoded JSON as an attrs class; raises the HTTP error 400. Unless ``strict``, texts may be numbers."""
    if isinstance(value, dict):
        _refuse_unknown(value, [field.name for field in attrs.fields(as_type)])  # type: ignore[arg-type]
        for name in _integers(as_type):  # type: ignore[arg-type]
            # JSON has one kind of number only: 5.0 is a whole one.
            if isinstance(value.get(name), float) and value[name].is_integer():
                value[name] = int(value[name])
    try:
        return msgspec.convert(value, as_type, strict=strict)
    except msgspec.ValidationError as exc:
        raise BadRequest(explain(str(exc))) from None


def depth(data: bytes, limit: int) -> int:
    """Return how deep JSON is nested; stops counting above ``limit``."""
    level = deepest = 0
    for match in _BRACKETS.finditer(data):
        first = match[0][:1]
        if first in b"[{":
            level += 1
            deepest = max(deepest, level)
            if deepest > limit:
                break
        elif first in b"]}":
            level -= 1
    return deepest


def explain(problem: str) -> str:
    """Return what msgspec says is wrong, with the field's name in front."""
    missing = _MISSING.match(problem)
    if missing:
        return f"{missing[1]}: is missing"
    found = _WHERE.match(problem)
    if found is None:
        return f"the body: {_plain(problem)}"
    what, _, where = found.groups()
    return f"{where}: {_plain(what)}"


@lru_cache
def _integers(as_type: Hashable) -> list[str]:
    """Return the names of a type's fields that are whole numbers."""
    fields = msgspec.inspect.type_info(as_type).fields  # type: ignore[attr-defined]
    # What has a description is wrapped once more.
    kinds = {field.name: getattr(field.type, "type", field.type) for field in fields}
    return [name for name, kind in kinds.items() if isinstance(kind, msgspec.inspect.IntType)]


def _plain(text: str) -> str:
    first = text[:1] if text[1:2].isupper() else text[:1].lower()  # JSON stays JSON
    return first + text[1:].replace("`", "")


def _refuse_unknown(given: Iterable[str], known: Iterable[str]) -> None:
    unknown = sorted(set(given) - set(known))
    if unknown:
        names = ", ".join(name[:64] for name in unknown[:8])
        raise BadRequest(f"{names}: unknown; known are: {', '.join(known) or 'none'}")


def _too_large(limits: Limits) -> RequestEntityTooLarge:
    return RequestEntityTooLarge(f"the body has more than {limits.max_body} bytes")
