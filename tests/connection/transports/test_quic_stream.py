"""A stream as an asyncio transport: nothing that comes early is lost, and who writes too much waits."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from lightlink.connection.transports.quic_stream import QuicStream

if TYPE_CHECKING:
    from collections.abc import Coroutine


class Link:
    """The connection that a stream is of: it says what the test wants to hear."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.waiting = 0
        self.calls: list[Any] = []

    def extra_info(self) -> dict[str, Any]:
        return {"peername": ("127.0.0.1", 1)}

    def send(self, _number: int, data: bytes) -> None:
        self.sent.append(bytes(data))
        self.waiting += len(data)

    def unsent(self, _number: int) -> int:
        return self.waiting

    def finish(self, _number: int) -> None:
        self.calls.append("finish")

    def reset(self, _number: int, code: int) -> None:
        self.calls.append(code)

    def forget(self, _number: int) -> None:
        self.calls.append("forget")


class Speaker(asyncio.Protocol):
    def __init__(self) -> None:
        self.told: list[Any] = []

    def data_received(self, data: bytes) -> None:
        self.told.append(data)

    def eof_received(self) -> bool:
        self.told.append("eof")
        return False

    def pause_writing(self) -> None:
        self.told.append("pause")

    def resume_writing(self) -> None:
        self.told.append("resume")

    def connection_lost(self, exc: Exception | None) -> None:
        self.told.append(exc)


def run(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(scenario)


async def turn() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


def test_what_comes_before_there_is_a_protocol_is_kept() -> None:
    async def scenario() -> None:
        stream, speaker = QuicStream(Link(), 0), Speaker()
        stream.receive(b"early ", is_last=False)
        stream.deliver()
        stream.receive(b"words", is_last=True)
        stream.deliver()
        stream.set_protocol(speaker)
        await turn()
        assert speaker.told == [b"early words", "eof", None]

    run(scenario())


def test_an_early_loss_is_told_to_who_comes_later() -> None:
    async def scenario() -> None:
        stream, speaker = QuicStream(Link(), 0), Speaker()
        reason = ConnectionResetError("gone")
        stream.lose(reason)
        stream.set_protocol(speaker)
        await turn()
        assert speaker.told == [reason]

    run(scenario())


def test_a_paused_reader_gets_nothing_and_loses_nothing() -> None:
    async def scenario() -> None:
        stream, speaker = QuicStream(Link(), 0), Speaker()
        stream.set_protocol(speaker)
        stream.pause_reading()
        for data in (b"a", b"b"):
            stream.receive(data, is_last=False)
            stream.deliver()
        assert speaker.told == []
        assert not stream.is_reading()
        stream.resume_reading()
        await turn()
        assert speaker.told == [b"ab"]

    run(scenario())


def test_who_writes_more_than_leaves_waits_until_enough_has_left() -> None:
    async def scenario() -> None:
        link, speaker = Link(), Speaker()
        stream = QuicStream(link, 0)
        stream.set_protocol(speaker)
        stream.set_write_buffer_limits(high=100, low=20)
        stream.write(b"x" * 100)
        assert speaker.told == []
        stream.write(b"x")
        assert speaker.told == ["pause"]
        assert stream.get_write_buffer_size() == 101
        for left, told in ((21, ["pause"]), (20, ["pause", "resume"])):
            link.waiting = left
            stream.look_at_buffer()
            assert speaker.told == told

    run(scenario())


def test_a_protocol_that_fails_ends_its_stream_alone() -> None:
    async def scenario() -> None:
        link = Link()
        stream, speaker = QuicStream(link, 0), Speaker()
        fault = ValueError("no good")

        def fail(data: bytes) -> None:
            raise fault

        speaker.data_received = fail  # type: ignore[method-assign]
        stream.set_protocol(speaker)
        stream.receive(b"words", is_last=False)
        stream.deliver()
        await turn()
        assert link.calls == [0, "forget"]
        assert speaker.told == [fault]

    run(scenario())


def test_a_closed_stream_sends_what_waits_and_nothing_more() -> None:
    async def scenario() -> None:
        link, speaker = Link(), Speaker()
        stream = QuicStream(link, 0)
        stream.set_protocol(speaker)
        stream.write(b"last")
        stream.close()
        stream.write(b"late")
        stream.close()
        await turn()
        assert (link.sent, link.calls, speaker.told) == ([b"last"], ["finish", "forget"], [None])

    run(scenario())


def test_a_closed_stream_delivers_nothing_more() -> None:
    async def scenario() -> None:
        link, speaker = Link(), Speaker()
        stream = QuicStream(link, 0)
        stream.set_protocol(speaker)
        stream.close()
        stream.receive(b"late", is_last=True)
        stream.deliver()
        await turn()
        assert speaker.told == [None]

    run(scenario())
