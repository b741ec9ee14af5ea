from __future__ import annotations

import dataclasses
import datetime
import functools
import inspect
from collections.abc import Sized
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, Optional

import attrs
import msgspec
import pytest
from typing_extensions import NotRequired, TypedDict

from lightlink.binding import Binder, BindError
from lightlink.errors import InvalidOption


@attrs.define
class Point:
    x: int
    y: int = 0


@dataclasses.dataclass
class Shape:
    name: str
    points: list[Point]
    closed: bool = True


class Address(TypedDict):
    street: str
    number: NotRequired[int]


class Tree(msgspec.Struct):
    value: int
    children: list[Tree] = []


class Context:
    pass


def call(handler: Any, args: bytes = b"{}", **context: Any) -> Any:
    binder = Binder(handler, {Context: "context"})
    return binder.call(binder.bind(args), context)


def problem(handler: Any, args: bytes) -> str:
    with pytest.raises(BindError) as caught:
        Binder(handler, {Context: "context"}).bind(args)
    return str(caught.value)


def refusal(handler: Any) -> str:
    with pytest.raises(InvalidOption) as caught:
        Binder(handler)
    return str(caught.value)


def add(a: int, b: int) -> int:
    return a + b


def test_arguments_are_bound_by_name() -> None:
    assert call(lambda a, b: (a, b), b'{"b": 2, "a": 1}') == (1, 2)
    assert call(add, b'{"b": 2, "a": 1}') == 3


def test_a_built_in_that_does_not_tell_its_parameters_is_refused() -> None:
    assert "no signature" in refusal(min)


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (b'{"a": 1}', "missing argument 'b'"),
        (b"{}", "missing argument 'a'"),
        (b'{"a": 1, "b": 2, "c": 3}', "unknown argument 'c'"),
        (b'{"a": 1, "b": "2"}', "argument 'b': expected `int`, got `str`"),
        (b'{"a": 1, "b": null}', "argument 'b': expected `int`, got `null`"),
        (b'{"a": 1, "b": 2.5}', "argument 'b': expected `int`, got `float`"),
        (b'{"a": true, "b": 2}', "argument 'a': expected `int`, got `bool`"),
        (b"[1, 2]", "arguments must be an object with a name for each, not an array"),
        (b'"text"', "arguments: expected `object`, got `str`"),
        (b"7", "arguments: expected `object`, got `int`"),
        (b'{"a": 1, "b": \xff}', "arguments: JSON is malformed"),
    ],
)
def test_a_wrong_argument_is_named_with_what_was_expected(args: bytes, text: str) -> None:
    assert text in problem(add, args)


def test_null_stands_for_no_arguments() -> None:
    assert call(lambda: "none", b"null") == "none"
    assert "missing argument 'a'" in problem(add, b"null")


def test_classes_of_all_kinds_are_made_and_checked_all_the_way() -> None:
    def draw(shape: Shape, where: Address, tree: Tree, origin: Optional[Point] = None) -> Any:  # noqa: UP045
        return shape, where, tree, origin

    args = b"""{"shape": {"name": "s", "points": [{"x": 1}, {"x": 2, "y": 3}]}, "where": {"street": "High"},
        "tree": {"value": 1, "children": [{"value": 2}]}, "origin": {"x": 0}}"""
    shape, where, tree, origin = call(draw, args)
    assert shape == Shape("s", [Point(1, 0), Point(2, 3)])
    assert where == {"street": "High"}
    assert tree.children[0].value == 2
    assert origin == Point(0)
    wrong = args.replace(b'"y": 3', b'"y": "3"')
    assert problem(draw, wrong) == "argument 'shape': expected `int`, got `str` (at shape.points[1].y)"
    wrong = args.replace(b'"street": "High"', b'"number": 1')
    assert problem(draw, wrong) == "argument 'where': object missing required field `street`"


def test_literals_unions_limits_and_times_are_checked() -> None:
    def handler(
        mode: Literal["fast", "slow"],
        size: int | str,
        share: Annotated[float, msgspec.Meta(ge=0, le=1)],
        when: datetime.datetime,
        data: bytes,
        names: dict[str, tuple[int, ...]],
    ) -> Any:
        return mode, size, share, when.year, data, names

    args = b'{"mode":"fast","size":"L","share":1,"when":"2024-05-01T00:00:00Z","data":"AP8=","names":{"a":[1]}}'
    assert call(handler, args) == ("fast", "L", 1.0, 2024, b"\x00\xff", {"a": (1,)})
    assert "argument 'mode': invalid enum value 'medium'" in problem(handler, args.replace(b"fast", b"medium"))
    assert "argument 'share': expected `float` <= 1.0" in problem(handler, args.replace(b'"share":1', b'"share":2'))
    assert "argument 'size'" in problem(handler, args.replace(b'"L"', b"[]"))
    assert "argument 'when'" in problem(handler, args.replace(b"2024-05-01", b"yesterday"))


def test_a_default_is_the_functions_own_even_a_mutable_one() -> None:
    def collect(item: int, into: list[int] = []) -> list[int]:  # noqa: B006
        into.append(item)
        return into

    binder = Binder(collect)
    assert binder.call(binder.bind(b'{"item": 1}'), {}) == [1]
    assert binder.call(binder.bind(b'{"item": 2}'), {}) == [1, 2], "as with any call of the function"
    assert binder.call(binder.bind(b'{"item": 3, "into": []}'), {}) == [3]


def test_a_default_need_not_fit_the_annotation_nor_be_json() -> None:
    marker = object()
    assert call(lambda a=marker: a) is marker

    def handler(a: int = None) -> Any:  # type: ignore[assignment]  # noqa: RUF013
        return a

    assert call(handler) is None
    assert call(handler, b'{"a": 1}') == 1


def test_keyword_only_parameters_are_bound() -> None:
    def handler(*, a: int, b: int = 2) -> tuple[int, int]:
        return a, b

    assert call(handler, b'{"a": 1}') == (1, 2)
    assert "missing argument 'a'" in problem(handler, b"{}")


def test_positional_only_parameters_are_bound_by_name_too() -> None:
    def handler(a: int, b: int = 2, c: int = 3, /, d: int = 4) -> tuple[int, ...]:
        return a, b, c, d

    assert call(handler, b'{"a": 1}') == (1, 2, 3, 4)
    assert call(handler, b'{"a": 1, "c": 30}') == (1, 2, 30, 4)
    assert call(handler, b'{"d": 40, "b": 20, "a": 10}') == (10, 20, 3, 40)


def test_keyword_arguments_take_every_other_argument() -> None:
    def handler(a: int, **rest: Any) -> Any:
        return a, rest

    assert call(handler, b'{"a": 1, "b": 2, "c": {"d": null}}') == (1, {"b": 2, "c": {"d": None}})
    assert "missing argument 'a'" in problem(handler, b'{"b": 2}')
    assert "argument 'a': expected `int`, got `str`" in problem(handler, b'{"a": "1"}')


def test_keyword_arguments_with_an_annotation_are_checked() -> None:
    def handler(**points: Point) -> Any:
        return points

    assert call(handler, b'{"a": {"x": 1}}') == {"a": Point(1)}
    assert "argument 'b': expected `object`, got `int`" in problem(handler, b'{"a": {"x": 1}, "b": 7}')


def test_keyword_arguments_do_not_change_how_the_others_are_read() -> None:
    def handler(names: dict[int, str], when: datetime.date, data: bytes, share: float, **rest: Any) -> Any:
        return names, when.day, data, share, rest

    args = b'{"names": {"1": "one"}, "when": "2024-05-02", "data": "AP8=", "share": 1, "x": 1}'
    assert call(handler, args) == ({1: "one"}, 2, b"\x00\xff", 1.0, {"x": 1})


def test_an_injected_parameter_gets_the_context() -> None:
    def handler(a: int, context: Context, b: int = 2) -> Any:
        return a, context, b

    context = Context()
    assert Binder(handler, {Context: "context"}).injects
    assert not Binder(add, {Context: "context"}).injects
    assert call(handler, b'{"a": 1}', context=context) == (1, context, 2)
    assert "unknown argument 'context'" in problem(handler, b'{"a": 1, "context": {}}')


def test_an_injected_parameter_may_stand_anywhere() -> None:
    def placed(context: Context, a: int, /) -> Any:
        return context, a

    def open_ended(context: Context, **rest: Any) -> Any:
        return context, rest

    context = Context()
    assert call(placed, b'{"a": 1}', context=context) == (context, 1)
    assert call(open_ended, b'{"a": 1}', context=context) == (context, {"a": 1})
    assert "unknown argument 'context'" in problem(open_ended, b'{"context": 1}')


class Calculator:
    factor = 10

    def scale(self, a: int) -> int:
        return a * self.factor

    @classmethod
    def scale_all(cls, a: int) -> int:
        return a * cls.factor

    @staticmethod
    def double(a: int) -> int:
        return a * 2

    def __call__(self, a: int) -> int:
        return a + 1


@pytest.mark.parametrize(
    ("handler", "result"),
    [
        (Calculator().scale, 50),
        (Calculator.scale_all, 50),
        (Calculator.double, 10),
        (Calculator(), 6),
        (functools.partial(add, b=1), 6),
        (functools.partial(add, 1), None),
        (functools.partial(functools.partial(Calculator().scale)), 50),
        (functools.lru_cache(lambda a: a), 5),
        (lambda a: a, 5),
        (Point, Point(5)),
    ],
    ids=["method", "class", "static", "object", "partial", "placed", "nested", "cached", "lambda", "type"],
)
def test_methods_partials_objects_and_classes_are_handlers_too(handler: Any, result: Any) -> None:
    name = "x" if handler is Point else "b" if result is None else "a"
    assert call(handler, b'{"%s": 5}' % name.encode()) == (6 if result is None else result)


@pytest.mark.parametrize(
    "handler",
    [Calculator().scale, Calculator.scale_all, Calculator(), functools.partial(add, b=1)],
    ids=["method", "class", "object", "partial"],
)
def test_their_annotations_count_as_well(handler: Any) -> None:
    assert problem(handler, b'{"a": "5"}') == "argument 'a': expected `int`, got `str`"


def test_a_class_as_handler_has_its_arguments_checked() -> None:
    assert problem(Point, b'{"x": "1"}') == "argument 'x': expected `int`, got `str`"


def test_a_decorated_handler_keeps_its_signature_and_annotations() -> None:
    def logged(function: Any) -> Any:
        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            return function(*args, **kwargs)

        return wrapper

    assert call(logged(add), b'{"a": 1, "b": 2}') == 3
    assert problem(logged(add), b'{"a": 1, "b": "2"}') == "argument 'b': expected `int`, got `str`"


def test_a_closures_postponed_annotations_are_checked() -> None:
    def make(offset: int) -> Any:
        def shifted(point: Point, by: list[int]) -> int:
            return point.x + offset + sum(by)

        return shifted

    assert call(make(100), b'{"point": {"x": 1}, "by": [10]}') == 111
    assert "argument 'point'" in problem(make(0), b'{"point": 1, "by": []}')


def test_a_postponed_annotation_of_a_local_class_is_refused() -> None:
    class Local:
        pass

    def handler(a: Local) -> None:
        pass

    assert "name 'Local' is not defined" in refusal(handler)


async def coroutine(a: int) -> None:
    pass


async def generator(a: int) -> Any:
    yield a


class AsyncCallable:
    async def __call__(self, a: int) -> None:
        pass

    async def method(self, a: int) -> None:
        pass


@pytest.mark.parametrize(
    "handler",
    [coroutine, generator, AsyncCallable(), AsyncCallable().method, functools.partial(coroutine, 1)],
    ids=["function", "generator", "object", "method", "partial"],
)
def test_a_coroutine_function_is_refused(handler: Any) -> None:
    assert "coroutine function" in refusal(handler)


def test_positional_catch_alls_are_refused_by_name() -> None:
    def handler(*numbers: int) -> None:
        pass

    assert "*numbers cannot be bound" in refusal(handler)


def test_what_is_not_callable_is_refused() -> None:
    assert "is not callable" in refusal(42)


def test_an_annotation_that_cannot_be_checked_is_refused() -> None:
    def handler(shape: Point | Shape) -> None:
        pass

    assert "annotation cannot be checked" in refusal(handler)


def test_a_handler_without_annotations_gets_json_values() -> None:
    def handler(a, b=None, **c):  # type: ignore[no-untyped-def]
        return a, b, c

    assert call(handler, b'{"a": {"x": [1, null]}, "z": 1.5}') == ({"x": [1, None]}, None, {"z": 1.5})


@pytest.mark.parametrize("args", [b"{", b"", b'{"a": 1,}', b'{"a": 1} x', b"\xff", b"[" * 100_000])
def test_bytes_that_are_not_json_are_a_bind_error(args: bytes) -> None:
    for handler in (add, lambda **rest: rest):
        assert problem(handler, args)


@dataclasses.dataclass
class Refusing:
    """An argument whose class refuses in its own way."""

    how: str

    def __post_init__(self) -> None:
        raise {"lookup": KeyError("gone"), "division": ZeroDivisionError("by zero"), "exit": SystemExit("out")}[
            self.how
        ]


@pytest.mark.parametrize(
    ("how", "text"),
    [("lookup", "KeyError: 'gone'"), ("division", "ZeroDivisionError: by zero"), ("exit", "SystemExit: out")],
)
def test_whatever_an_arguments_class_raises_is_a_bind_error(how: str, text: str) -> None:
    def one(argument: Refusing) -> None: ...
    def rest(**arguments: Refusing) -> None: ...

    for handler in (one, rest):
        assert problem(handler, b'{"argument": {"how": "%b"}}' % how.encode()) == f"arguments: {text}"


def test_a_handlers_error_is_not_taken_for_a_binding_error() -> None:
    def handler(a: int) -> None:
        raise TypeError("mine")

    with pytest.raises(TypeError, match="mine"):
        call(handler, b'{"a": 1}')


def test_decimals_are_exact_beside_other_arguments_too() -> None:
    digits = "0.12345678901234567890123"

    def plain(price: Decimal) -> Any:
        return price

    def with_rest(price: Decimal, **rest: Decimal) -> Any:
        return price, rest

    assert Binder(plain).bind(b'{"price": %b}' % digits.encode()) == {"price": Decimal(digits)}
    given = b'{"price": %b, "other": %b, "text": "%b"}' % ((digits.encode(),) * 3)
    bound = Binder(with_rest).bind(given)
    assert bound == dict.fromkeys(("price", "other", "text"), Decimal(digits))


# One callable for signature and annotations ---------------------------------------------------------------------------


class Traced:
    """A decorator that is a class."""

    def __init__(self, function: Any) -> None:
        functools.update_wrapper(self, function)
        self.calls = 0

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.calls += 1
        return self.__wrapped__(*args, **kwargs)  # type: ignore[attr-defined]


def test_behind_a_class_decorator_everything_is_checked() -> None:
    @Traced
    def handler(n: int, request: Given) -> tuple[int, object]:
        return n, request

    binder = Binder(handler, {Given: "request"})
    for forged in (b'{"n": "1"}', b'{"n": 1, "request": {}}', b'{"request": {}}'):
        with pytest.raises(BindError):
            binder.bind(forged)
    assert binder.injects
    given = Given()
    assert binder.call(binder.bind(b'{"n": 1}'), {"request": given}) == (1, given)
    assert handler.calls == 1


class Given:
    """What is given to a handler, and not sent."""


def test_a_signature_set_by_hand_counts() -> None:
    def handler(*args: Any, **kwargs: Any) -> Any:
        return kwargs

    parameter = inspect.Parameter("n", inspect.Parameter.KEYWORD_ONLY, annotation=int)
    handler.__signature__ = inspect.Signature([parameter])  # type: ignore[attr-defined]
    binder = Binder(handler)
    assert binder.bind(b'{"n": 1}') == {"n": 1}
    with pytest.raises(BindError):
        binder.bind(b'{"n": "1"}')


class Plain:
    def method(self, n: int) -> int:
        return n


@functools.singledispatch
def dispatched(n: object) -> object:
    return n


def takes_a_path(path: Path) -> None: ...


def takes_paths(paths: dict[str, list[Path]]) -> None: ...


def takes_a_plain_one(plain: Plain | None) -> None: ...


@pytest.mark.parametrize(
    ("handler", "match"),
    [
        (Plain.method, "is a method of the class Plain; register that of an object"),
        (dispatched, "chooses by the type of its argument"),
        (takes_a_path, "'path' is annotated Path, which no JSON value becomes"),
        (takes_paths, "'paths' is annotated Path, which no JSON value becomes"),
        (takes_a_plain_one, "'plain' is annotated Plain, which no JSON value becomes"),
        (lambda __a: None, "begins with two underscores"),
    ],
)
def test_what_no_peer_could_call_is_refused_at_once(handler: Any, match: str) -> None:
    with pytest.raises(InvalidOption, match=match):
        Binder(handler)


def test_an_annotation_that_json_values_fit_as_they_are_is_taken() -> None:
    def takes(anything: object, sized: Sized = ()) -> None: ...

    assert Binder(takes).bind(b'{"anything": 1, "sized": [2]}') == {"anything": 1, "sized": [2]}
    with pytest.raises(BindError, match="sized"):
        Binder(takes).bind(b'{"anything": 1, "sized": 2}')


def test_a_method_of_an_object_is_as_good_as_a_function() -> None:
    assert Binder(Plain().method).bind(b'{"n": 1}') == {"n": 1}
