"""Types of users' own in arguments, results, events, state and commands, once they have said how they are carried."""

from __future__ import annotations

import threading
from pathlib import PurePosixPath as PurePath
from typing import TYPE_CHECKING, Any

import pydantic
import pytest
from helpers.commands import World

import lightlink
from lightlink.binding import Binder
from lightlink.errors import DecodeError, EncodeError, InvalidArguments, InvalidOption
from lightlink.protocol import codec, types

if TYPE_CHECKING:
    from collections.abc import Iterator


class Order(pydantic.BaseModel):
    number: int
    tags: list[str] = []


class Rush(Order):
    hours: float


class Odd:
    """Nobody says how it is carried."""


@pytest.fixture
def client(url: str) -> Iterator[lightlink.Client]:
    with lightlink.connect(url) as client:
        yield client


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(types, "_known", {})
    lightlink.register_type(
        pydantic.BaseModel,
        encode=lambda model: model.model_dump(mode="json"),
        decode=lambda cls, value: cls.model_validate(value),
    )
    lightlink.register_type(PurePath, encode=str, decode=lambda cls, value: cls(value))


def test_a_service_takes_and_returns_them(client: lightlink.Client, url: str, prefix: str) -> None:
    service = lightlink.Service(prefix, url)

    @service.rpc
    def place(order: Rush, where: PurePath | None = None) -> Order:
        assert type(order) is Rush
        return Order(number=order.number + 1, tags=[str(where)])

    with service:
        given = {"order": Rush(number=1, hours=2.5), "where": PurePath("/tmp/a")}
        assert client.call(prefix, "place", given, returns=Order) == Order(number=2, tags=["/tmp/a"])
        assert client.call(prefix, "place", {"order": {"number": 1, "hours": 1}}) == {"number": 2, "tags": ["None"]}
        with pytest.raises(InvalidArguments, match=r"(?s)argument 'order': .*hours"):
            client.call(prefix, "place", {"order": {"number": 1}})
        with pytest.raises(DecodeError, match="number"):
            client.call(prefix, "place", given, returns=Rush)
        (found,) = client.services(prefix, expect=1, timeout=10)
        assert found.methods["place"].description.arguments["properties"]["order"] == {"title": "Rush"}


def test_events_state_and_commands_carry_them(client: lightlink.Client, url: str, prefix: str) -> None:
    heard: list[Any] = []
    came = threading.Event()

    @client.on(f"{prefix}.placed")
    def on_placed(order: Order) -> None:
        heard.append(order)
        came.set()

    client.publish(f"{prefix}.placed", Order(number=1))
    assert came.wait(30)
    assert heard == [Order(number=1)]
    bucket = client.state(prefix, value_type=Order)
    bucket.set("last", Order(number=2))
    assert bucket.get("last") == Order(number=2)
    with World(url) as world:
        agent = world.agent(prefix)
        agent.register("place", take)
        agent.start()
        promise = world.manager().send(prefix, "place", {"order": Order(number=3)})
        assert promise.result(30) == {"number": 4, "tags": []}


def take(order: Order) -> Order:
    return Order(number=order.number + 1)


def test_what_nobody_has_told_of_is_refused_by_name(client: lightlink.Client, prefix: str) -> None:
    def handle(odd: Odd) -> None: ...

    for register in (Binder, client.on(f"{prefix}.odd")):
        with pytest.raises(InvalidOption, match=r"'odd' is annotated Odd, which no JSON value becomes.*register_type"):
            register(handle)
    with pytest.raises(EncodeError, match=r"Odd.*register_type"):
        client.publish(prefix, Odd())


def test_what_a_hook_raises_is_told_as_what_was_sent() -> None:
    def broken(*_: Any) -> Any:
        raise KeyError("as nobody has foreseen")

    lightlink.register_type(Odd, encode=broken, decode=broken)
    with pytest.raises(EncodeError, match="encode failed with KeyError"):
        codec.encode(Odd())
    with pytest.raises(DecodeError, match="decode failed with KeyError"):
        codec.decode(b"1", "x", Odd)


@pytest.mark.parametrize(
    ("given", "options", "match"),
    [
        ("Odd", {"encode": str}, "kind"),
        (Odd, {}, "encode"),
        (Odd, {"decode": 3}, "decode"),
    ],
)
def test_mistakes_are_refused(given: Any, options: Any, match: str) -> None:
    with pytest.raises(InvalidOption, match=match):
        lightlink.register_type(given, **options)
