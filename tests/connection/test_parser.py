from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nats.errors import ProtocolError
from nats.protocol.parser import Parser

from lightlink.connection.parser import WireParser

Seen = list[tuple[Any, ...]]


class Client:
    """What a parser needs of nats-py's client; notes what it is told."""

    def __init__(self) -> None:
        self.seen: Seen = []
        self.on_ping: Any = None
        self.reads = False

    async def _process_msg(self, *message: Any) -> None:
        self.seen.append(message)

    async def _process_ping(self) -> None:
        self.seen.append(("PING",))
        if self.on_ping:
            self.on_ping()

    async def _process_pong(self) -> None:
        self.seen.append(("PONG",))

    async def _process_err(self, text: str) -> None:
        self.seen.append(("-ERR", text))

    async def _process_info(self, info: dict[str, Any]) -> None:
        self.seen.append(("INFO", info))


def feed(parser: Any, *pieces: bytes, offered: bool = False) -> None:
    """Have pieces parsed, or what is left of them when they were offered to be taken at once."""

    async def parse() -> None:
        for piece in pieces:
            left = parser.take(piece) if offered else piece
            if left or not offered:
                await parser.parse(left)

    asyncio.run(parse())


def wire_parser() -> tuple[WireParser, Client]:
    """A parser whose messages with an odd subscription id are taken at once."""
    client = Client()

    def deliver(*message: Any) -> bool:
        if message[0] % 2:
            client.seen.append(message)
        return bool(message[0] % 2)

    return WireParser(client, deliver, lambda: client.seen.append(("END",)) if client.reads else None), client


def cut(stream: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(min(place, len(stream)) for place in places), len(stream)]
    return [stream[a:b] for a, b in itertools.pairwise(edges)]


words = st.text("abcDEF.$_-0123456789é", min_size=1).map(str.encode)
payloads = st.binary(max_size=60)
spaces = st.sampled_from([b" ", b"  ", b"\t"])


@st.composite
def messages(draw: Any) -> bytes:
    subject, sid, body = draw(words), b"%d" % draw(st.integers(1, 9)), draw(payloads)
    reply = draw(st.lists(words, max_size=1))
    block = draw(st.none() | st.binary(max_size=20))
    if block is None:
        line = [b"MSG", subject, sid, *reply, b"%d" % len(body)]
        return draw(spaces).join(line) + b"\r\n" + body + b"\r\n"
    block = b"NATS/1.0" + block  # a block that began with a digit would be taken for a size by nats-py
    line = [b"HMSG", subject, sid, *reply, b"%d" % len(block), b"%d" % (len(block) + len(body))]
    return draw(spaces).join(line) + b"\r\n" + block + body + b"\r\n"


others = st.sampled_from([b"PING\r\n", b"PONG\r\n", b"+OK\r\n", b"-ERR 'no such thing'\r\n", b'INFO {"port":4222}\r\n'])


@given(st.lists(st.one_of(messages(), others), max_size=8), st.lists(st.integers(0, 400), max_size=12), st.booleans())
def test_a_stream_cut_anywhere_is_understood_as_by_nats_py(
    parts: list[bytes], places: list[int], offered: bool
) -> None:
    ours, seen = wire_parser()
    feed(ours, *cut(b"".join(parts), places), offered=offered)
    reference = Client()
    feed(Parser(reference), b"".join(parts))
    assert seen.seen == reference.seen


# What a server never says, and words of which it is made.
WORDS = (
    "MSG|HMSG|MSG a 1 |HMSG a 1 3 |HMSG a 1 12 14\r\nNATS/1.0|PING|PONG|+OK|-ERR|INFO|-ERR 'x'|INFO {}|'|{|}|{\"a\":1}|"
    "MAGIC a 1 2\r\n|HELLO a 1 2 2\r\n|ping|1|2|-1|0|1_0|+1|99999999999999999999| |\t|\r\n|\r|\n|a|é|\0"
)
fragments = st.sampled_from(WORDS.split("|")).map(str.encode)


def outcome(pieces: list[bytes], offered: bool = False) -> tuple[Seen, type[Exception] | None]:
    parser, client = wire_parser()
    try:
        feed(parser, *pieces, offered=offered)
    except Exception as exc:
        return client.seen, type(exc)
    return client.seen, None


@given(
    st.lists(fragments | messages() | st.binary(max_size=5), max_size=20), st.lists(st.integers(0, 200)), st.booleans()
)
def test_what_is_not_the_protocol_is_understood_alike(parts: list[bytes], places: list[int], offered: bool) -> None:
    stream = b"".join(parts)
    assert outcome(cut(stream, places), offered) == outcome([stream])


@pytest.mark.parametrize(
    "line",
    [
        b"MSG a\r\n",
        b"MSG a one 3\r\n",
        b"MSG a 1 -5\r\nabc\r\n",
        b"HMSG a 1 9 5\r\n12345\r\n",
        b"MSG\r\n",
        b"MSG a 1 %d\r\nabc" % 2**31,
        b"MSG a 1 " + b"9" * 10_000 + b"\r\n",
        b"MSG a 1 nan\r\n",
        b"MAGIC a 1 2\r\nok\r\n",
        b"HELLO a 1 2 2\r\nok\r\n",
        b"NONSENSE\r\n",
        b"NONSENSE" * 1000 + b"\r\n",
        b"a line without end " * 100_000,
    ],
)
def test_what_is_not_the_protocol_is_an_error(line: bytes) -> None:
    parser, _ = wire_parser()
    with pytest.raises(ProtocolError):
        feed(parser, line)


def test_a_reset_forgets_the_begin_of_a_message() -> None:
    parser, client = wire_parser()
    feed(parser, b"MSG a 1 10\r\nhalf")
    parser.reset()
    feed(parser, b"MSG b 1 2\r\nok\r\n")
    assert client.seen == [(1, b"b", b"", b"ok", None)]


def test_what_follows_after_a_connections_end_is_dropped() -> None:
    parser, client = wire_parser()
    client.on_ping = parser.reset
    feed(parser, b"PING\r\nMSG a 1 2\r\nno\r\n")
    assert client.seen == [("PING",)]


def test_the_end_of_each_read_is_told_whatever_it_was() -> None:
    parser, client = wire_parser()
    client.reads = True
    with pytest.raises(ProtocolError):
        feed(parser, b"MSG a 1 2\r\nok\r\nMSG b 1 2\r\nok\r\nMSG c", b" 1 2\r\nok\r\n", b"NONSENSE\r\n")
    assert [what[-2] if len(what) > 1 else "end" for what in client.seen] == [b"ok", b"ok", "end", b"ok", "end", "end"]


def test_a_large_message_in_many_pieces_arrives_whole() -> None:
    parser, client = wire_parser()
    body = bytes(range(256)) * 4096
    stream = b"MSG big 1 answer %d\r\n%b\r\nPING\r\n" % (len(body), body)
    feed(parser, *cut(stream, list(range(0, len(stream), 1000))))
    assert client.seen == [(1, b"big", b"answer", body, None), ("PING",)]
