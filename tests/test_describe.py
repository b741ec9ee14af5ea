"""What services announce of their methods: docstrings, and schemas that accept what the service accepts."""

from __future__ import annotations

import enum
import functools
import json
from typing import TYPE_CHECKING, Any, Literal, TypedDict
from uuid import UUID

import attrs
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

import lightlink
from lightlink import describe
from lightlink.binding import Binder, BindError

if TYPE_CHECKING:
    from collections.abc import Callable

    from helpers.raw import RawPeer


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


@attrs.define
class Point:
    x: float
    y: float = 0.0
    near: list[Point] = attrs.field(factory=list)


class Extra(TypedDict, total=False):
    note: str


def place(
    name: str,
    at: Point,
    count: int = 1,
    colour: Colour = Colour.RED,
    mode: Literal["fast", "safe"] | None = None,
    tags: dict[str, int] | None = None,
    extra: Extra | None = None,
) -> list[Point]:
    """Put something somewhere.

    Twice, if need be.
    """
    return [at]


def anything(**values: Any) -> None: ...


def numbers(first: float, /, *, flag: bool = False, **more: int) -> int:
    return 0


HANDLERS: tuple[Callable[..., Any], ...] = (place, anything, numbers)
NAMES = st.sampled_from(["name", "at", "count", "colour", "mode", "tags", "extra", "first", "flag", "other", "x", "y"])
SCALARS: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**60), 2**60),
    # To JSON Schema 1.0 is an integer; to the service, as to JSON's readers in most languages, it is not.
    st.floats(allow_nan=False, allow_infinity=False).filter(lambda number: not number.is_integer()),
    st.sampled_from(["red", "blue", "fast", "safe", "note", ""]),
    st.text(max_size=3),
)
POINTS = st.fixed_dictionaries(
    {"x": st.one_of(st.integers(0, 9), SCALARS)}, optional={"y": SCALARS, "near": st.just([{"x": 1}])}
)
VALUES = st.recursive(
    st.one_of(SCALARS, POINTS), lambda inner: st.lists(inner, max_size=2) | st.dictionaries(NAMES, inner, max_size=3)
)
GOOD = st.fixed_dictionaries(
    {"name": st.text(max_size=3), "at": POINTS},
    optional={"count": SCALARS, "colour": SCALARS, "mode": SCALARS, "tags": VALUES, "extra": VALUES},
)


@functools.cache
def judges_of(handler: Callable[..., Any]) -> tuple[Binder, Draft202012Validator]:
    binder = Binder(handler)
    return binder, Draft202012Validator(binder.schema())


each_handler = pytest.mark.parametrize("handler", HANDLERS, ids=lambda handler: handler.__name__)
any_arguments = given(arguments=st.one_of(GOOD, st.dictionaries(NAMES, VALUES, max_size=4)))


@each_handler
@settings(max_examples=100, deadline=None)
@any_arguments
def test_a_schema_accepts_what_the_handler_is_given(handler: Callable[..., Any], arguments: dict[str, Any]) -> None:
    assert is_valid(handler, arguments) is is_bound(handler, arguments)


@pytest.mark.slow
@each_handler
@settings(max_examples=2000, deadline=None)
@any_arguments
def test_a_schema_accepts_thousands_as_the_handler_does(handler: Callable[..., Any], arguments: dict[str, Any]) -> None:
    assert is_valid(handler, arguments) is is_bound(handler, arguments)


def is_valid(handler: Callable[..., Any], arguments: dict[str, Any]) -> bool:
    return judges_of(handler)[1].is_valid(arguments)


def is_bound(handler: Callable[..., Any], arguments: dict[str, Any]) -> bool:
    try:
        judges_of(handler)[0].bind(json.dumps(arguments).encode())
    except BindError:
        return False
    return True


@each_handler
def test_what_is_told_is_sound_and_comes_back_from_metadata(handler: Callable[..., Any]) -> None:
    told = describe.describe(Binder(handler))
    for schema in (told.arguments, told.result):
        Draft202012Validator.check_schema(schema)
    assert describe.read(told.metadata()) == told
    assert told == describe.describe(Binder(handler))


def test_docstring_defaults_and_result_are_told() -> None:
    told = describe.describe(Binder(place))
    assert told.text == "Put something somewhere.\n\nTwice, if need be."
    assert told.arguments["properties"]["count"] == {"type": "integer", "default": 1}
    assert told.arguments["properties"]["colour"]["default"] == "red"
    assert told.arguments["required"] == ["name", "at"]
    assert (told.result["type"], told.result["items"]) == ("array", {"$ref": "#/$defs/Point"})
    Draft202012Validator(told.result).validate([{"x": 1, "near": [{"x": 2}]}])


def test_what_is_not_annotated_may_be_anything() -> None:
    told = describe.describe(Binder(lambda a, b=None: None))
    assert told.arguments["properties"] == {"a": {}, "b": {"default": None}}
    assert (told.text, told.result) == ("", {})


def test_an_injected_parameter_is_no_argument() -> None:
    def look(request: lightlink.Request, which: UUID) -> None: ...

    told = describe.describe(Binder(look, {lightlink.Request: "request"}))
    assert list(told.arguments["properties"]) == ["which"]
    assert told.arguments["properties"]["which"]["format"] == "uuid"
    assert told.result == {"type": "null"}


def test_a_digest_changes_with_what_is_told() -> None:
    def one(a: int) -> int:
        return a

    def other(a: str) -> int:
        return 0

    digests = {describe.describe(Binder(each)).digest for each in (one, other, place)}
    assert len(digests) == 3


@pytest.mark.parametrize(
    "metadata",
    [None, {}, {"arguments": "not JSON", "digest": 5}, {"arguments": "[]"}, {"arguments": "[" * 100_000}, {"x": "y"}],
)
def test_metadata_of_others_is_read_as_far_as_it_can_be(metadata: Any) -> None:
    assert describe.read(metadata) == describe.Description()


# On the wire ----------------------------------------------------------------------------------------------------------


def info_of(peer: RawPeer, name: str) -> dict[str, Any]:
    answer = peer.run(peer.nc.request(f"$SRV.INFO.{name}", b"", timeout=30))
    assert len(answer.data) <= 64 * 1024
    found: dict[str, Any] = json.loads(answer.data)
    return found


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"properties": {"arguments": {"type": "object"}}}, "(*, arguments: dict[str, Any] = Ellipsis, **arguments_)"),
        ({"properties": ["a"], "required": ["a"]}, "(**arguments)"),
        ({"properties": {"a": {"enum": 3}}, "required": True}, "(*, a: Any = Ellipsis, **arguments)"),
    ],
)
def test_whatever_schema_is_told_there_is_a_signature(arguments: dict[str, Any], expected: str) -> None:
    assert str(describe.Description(arguments=arguments).signature()) == expected


def test_info_tells_of_each_method_what_its_handler_says(url: str, peer: RawPeer, prefix: str) -> None:
    service = lightlink.Service(prefix, url)
    service.register("place", place, idempotent=True, metadata={"unit": "m", "description": "in my own words"})
    with service:
        info = info_of(peer, prefix)

    [endpoint] = info["endpoints"]
    assert endpoint["metadata"]["unit"] == "m"
    assert endpoint["metadata"]["idempotent"] == "true"
    assert endpoint["metadata"]["description"] == "in my own words"
    assert json.loads(endpoint["metadata"]["arguments"]) == Binder(place).schema()
    assert info["metadata"]["host"]


def test_beyond_64_kib_digests_stand_for_it(url: str, peer: RawPeer, prefix: str) -> None:
    service = lightlink.Service(prefix, url)
    for number in range(60):
        service.register(f"place{number}", place)
    with service, lightlink.connect(url) as client:
        info = info_of(peer, prefix)
        digest = describe.describe(Binder(place)).digest
        assert {json.dumps(each["metadata"]) for each in info["endpoints"]} == {json.dumps({"digest": digest})}
        assert len(info["endpoints"]) == 60
        one = client.call(prefix, describe.DESCRIBE_METHOD, {"method": "place7"})
        assert describe.read(one["place7"]).digest == digest
        everything = client.call(prefix, describe.DESCRIBE_METHOD)
        assert len(everything) == 60


def test_a_secretive_service_tells_nothing_of_its_methods(url: str, peer: RawPeer, prefix: str) -> None:
    service = lightlink.Service(prefix, url, describe=False)
    service.register("place", place)
    with service, lightlink.connect(url) as client:
        info = info_of(peer, prefix)
        with pytest.raises(lightlink.MethodNotFound):
            client.call(prefix, describe.DESCRIBE_METHOD)
        with pytest.raises(lightlink.MethodNotFound) as caught:
            client.call(prefix, "plac")
    assert [each["metadata"] for each in info["endpoints"]] == [{}]
    assert info["metadata"] == {}
    assert caught.value.message == "method not found: plac"


def test_a_caller_hears_which_method_it_may_have_meant(url: str, prefix: str) -> None:
    service = lightlink.Service(prefix, url)
    service.register("add", lambda: None)
    with service, lightlink.connect(url) as client:
        with pytest.raises(lightlink.MethodNotFound, match=r"method not found: ad \(did you mean add\?\)"):
            client.call(prefix, "ad")
        with pytest.raises(lightlink.MethodNotFound, match=r"method not found: quite_another$"):
            client.call(prefix, "quite_another")


def test_a_struct_that_takes_no_other_fields_says_so() -> None:
    class Strict(msgspec.Struct, forbid_unknown_fields=True):
        a: int

    def take(given: Strict) -> None: ...

    take.__annotations__ = {"given": Strict}
    schema = Binder(take).schema()
    assert not Draft202012Validator(schema).is_valid({"given": {"a": 1, "b": 2}})
