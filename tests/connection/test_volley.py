"""Many requests at once: each ends once, whatever becomes of it, and none holds up the others."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import pytest
from helpers.instants import interrupt_at
from helpers.waiting import eventually

import lightlink
from lightlink.connection.connection import NoReply
from lightlink.connection.volley import Volley
from lightlink.errors import ClosedError, InvalidName, OutboxFull, PayloadTooLarge

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from conftest import StartProxy
    from helpers.proxy import TcpProxy
    from helpers.raw import RawPeer
    from nats.aio.msg import Msg

    from lightlink.connection.replies import GroupWaiter


class Outcomes:
    """What came of each request, by number."""

    def __init__(self) -> None:
        self.by_number: dict[int, bytes | type[Exception]] = {}
        self.errors: list[Exception] = []

    def note(self, waiters: Sequence[GroupWaiter]) -> None:
        for waiter in waiters:
            assert waiter.about not in self.by_number
            self.by_number[waiter.about] = waiter.data if waiter.error is None else type(waiter.error)
            if waiter.error is not None:
                self.errors.append(waiter.error)


def cut_off(link: TcpProxy, client: lightlink.Client) -> None:
    """Cut a client off until `TcpProxy.accept`."""
    link.refuse()
    link.cut()
    eventually(lambda: client.status is not lightlink.Status.CONNECTED)


@pytest.fixture
def client(url: str) -> Iterator[lightlink.Client]:
    with lightlink.connect(url) as connected:
        yield connected


@pytest.fixture
def echo(peer: RawPeer, prefix: str) -> bytes:
    """The subject on which each request is answered with its own payload, but for an empty one."""

    async def answer(message: Msg) -> None:
        if message.data:
            await message.respond(message.data)

    async def subscribe() -> None:
        await peer.nc.subscribe(prefix, cb=answer)
        for _ in range(2):  # the first PING of nats-py may overtake the SUB
            await peer.nc.flush()

    peer.run(subscribe())
    return prefix.encode()


def numbered(subject: bytes, count: int) -> list[tuple[bytes, bytes, int]]:
    return [(subject, b"%d" % number, number) for number in range(count)]


def test_each_gets_its_own_reply(client: lightlink.Client, echo: bytes) -> None:
    outcomes = Outcomes()
    Volley(client.connection, 30, outcomes.note).send(numbered(echo, 1000))
    eventually(lambda: len(outcomes.by_number) == 1000)
    assert outcomes.by_number == {number: b"%d" % number for number in range(1000)}
    assert len(client.connection.session.replies) == 0


def test_what_nobody_answers_ends_in_time_and_alone(client: lightlink.Client, echo: bytes) -> None:
    outcomes = Outcomes()
    Volley(client.connection, 0.2, outcomes.note).send([(echo, b"", 0), (echo, b"one", 1), (echo, b"", 2)])
    eventually(lambda: len(outcomes.by_number) == 3)
    assert outcomes.by_number == {0: NoReply, 1: b"one", 2: NoReply}
    assert all(isinstance(error, NoReply) and error.sent for error in outcomes.errors)


def test_one_that_is_refused_does_not_hold_up_the_others(client: lightlink.Client, echo: bytes) -> None:
    outcomes = Outcomes()
    large = bytes(client.connection.max_payload + 1)
    given = [(echo, b"zero", 0), (echo, large, 1), (b"a subject", b"", 2), (echo, b"three", 3)]
    Volley(client.connection, 30, outcomes.note).send(given)
    assert (outcomes.by_number.pop(1), outcomes.by_number.pop(2)) == (PayloadTooLarge, InvalidName)
    eventually(lambda: len(outcomes.by_number) == 2)
    assert outcomes.by_number == {0: b"zero", 3: b"three"}


def test_what_finds_no_room_is_refused_and_the_rest_goes_on(proxy: StartProxy, echo: bytes) -> None:
    link = proxy()
    with lightlink.connect(link.url, outbox_messages=5, outbox_timeout=0.05) as client:
        cut_off(link, client)
        outcomes = Outcomes()
        Volley(client.connection, 30, outcomes.note).send(numbered(echo, 8))
        assert outcomes.by_number == dict.fromkeys((5, 6, 7), OutboxFull)
        link.accept()
        eventually(lambda: len(outcomes.by_number) == 8)
        assert [outcomes.by_number[number] for number in range(5)] == [b"%d" % number for number in range(5)]


def test_closing_ends_what_is_under_way(url: str, echo: bytes) -> None:
    outcomes = Outcomes()
    with lightlink.connect(url) as client:
        connection = client.connection
        Volley(connection, 30, outcomes.note).send([(echo, b"", 0), (echo, b"", 1)])
    assert outcomes.by_number == {0: ClosedError, 1: ClosedError}
    Volley(connection, 30, outcomes.note).send([(echo, b"", 2)])
    assert outcomes.by_number[2] is ClosedError


def test_what_is_made_does_not_wait_in_memory_for_room(proxy: StartProxy, echo: bytes) -> None:
    link = proxy()
    with lightlink.connect(link.url, outbox_bytes=1_000_000, outbox_timeout=0.05) as client:
        cut_off(link, client)
        made: list[int] = []
        outcomes = Outcomes()

        def note(waiters: Sequence[GroupWaiter]) -> None:
            outcomes.note(waiters)
            raise StopIteration(len(made))

        def requests() -> Iterator[tuple[bytes, bytes, Any]]:
            for number in range(100):
                made.append(number)
                yield echo, bytes(500_000), number

        with pytest.raises((StopIteration, RuntimeError)):
            Volley(client.connection, 30, note).send(requests())
        assert len(made) <= 4


def test_ctrl_c_at_any_instant_leaves_nothing_waited_for(client: lightlink.Client, echo: bytes) -> None:
    for instant in itertools.count(1):
        outcomes = Outcomes()
        try:
            with interrupt_at(instant):
                Volley(client.connection, 30, outcomes.note).send(numbered(echo, 3))
        except KeyboardInterrupt:
            eventually(lambda: len(client.connection.session.replies) == 0)
        else:
            break
    assert instant > 50
    eventually(lambda: len(outcomes.by_number) == 3)
