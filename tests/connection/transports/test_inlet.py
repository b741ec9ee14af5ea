from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from lightlink.connection.transports.inlet import Inlet

if TYPE_CHECKING:
    from collections.abc import Coroutine


def run(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(scenario, 30))


class Taker:
    """Takes lower case from the front, and leaves the rest."""

    def __init__(self) -> None:
        self.taken = b""

    def __call__(self, data: bytes) -> bytes:
        left = data.lstrip(b"abcdefghijklmnopqrstuvwxyz")
        self.taken += data[: len(data) - len(left)]
        return left


async def reading(inlet: Inlet) -> asyncio.Task[bytes]:
    """Return a read that waits."""
    task = asyncio.ensure_future(inlet.read(100))
    await asyncio.sleep(0)
    return task


def test_what_comes_while_a_read_waits_is_taken_at_once() -> None:
    async def scenario() -> None:
        taker = Taker()
        inlet = Inlet(taker, 1024)
        read = await reading(inlet)
        inlet.feed_data(b"one")
        inlet.feed_data(b"two")
        assert taker.taken == b"onetwo"
        assert not read.done()
        inlet.feed_eof()
        assert await read == b""

    run(scenario())


def test_nothing_is_taken_past_what_waits_to_be_read() -> None:
    async def scenario() -> None:
        taker = Taker()
        inlet = Inlet(taker, 1024)
        inlet.feed_data(b"early")
        read = await reading(inlet)
        assert await read == b"early"
        read = await reading(inlet)
        inlet.feed_data(b"taken, LEFT")
        inlet.feed_data(b"behind")
        assert await read == b", LEFTbehind"
        inlet.feed_data(b"late")
        assert taker.taken == b"taken"
        assert await inlet.read(100) == b"late"

    run(scenario())


def test_a_read_that_was_given_up_takes_nothing_more() -> None:
    async def scenario() -> None:
        taker = Taker()
        inlet = Inlet(taker, 1024)
        read = await reading(inlet)
        read.cancel()
        await asyncio.wait({read})
        inlet.feed_data(b"kept")
        assert taker.taken == b""
        assert await inlet.readexactly(4) == b"kept"

    run(scenario())
