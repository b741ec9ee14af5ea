from __future__ import annotations

import dataclasses
import datetime
import enum
import json
import uuid
from typing import Any

import attrs
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nats.aio.client import Client as NatsClient

from lightlink.errors import DecodeError, EncodeError, InvalidName
from lightlink.protocol import codec

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda children: st.lists(children) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), children),
    max_leaves=20,
)
line = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n\v\f"))


class Colour(enum.Enum):
    RED = "red"


@attrs.define
class Point:
    x: int
    y: int = 0


@dataclasses.dataclass
class Path:
    points: list[Point]


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


@settings(max_examples=50)
@given(json_values)
def test_every_json_value_comes_back_as_it_was(value: Any) -> None:
    body = codec.encode(value)
    assert codec.decode(body, "s") == value
    assert json.loads(body) == value


@given(st.binary())
def test_bytes_are_published_as_they_are(value: bytes) -> None:
    assert codec.encode(value) == value
    assert codec.encode(bytearray(value)) == value
    assert codec.encode(memoryview(value)) == value


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Point(1), '{"x":1,"y":0}'),
        (Path([Point(1, 2)]), '{"points":[{"x":1,"y":2}]}'),
        (Colour.RED, '"red"'),
        (datetime.datetime(2024, 1, 2, tzinfo=datetime.timezone.utc), '"2024-01-02T00:00:00Z"'),
        (uuid.UUID(int=1), '"00000000-0000-0000-0000-000000000001"'),
        ({"a": {1}}, '{"a":[1]}'),
        ((1, 2), "[1,2]"),
        ({1: "one"}, '{"1":"one"}'),
        ({"a": b"\x00\xff"}, '{"a":"AP8="}'),
        (float("nan"), "null"),
        ([float("inf"), -float("inf")], "[null,null]"),
    ],
)
def test_other_values_become_the_json_one_would_expect(value: Any, text: str) -> None:
    assert codec.encode(value) == text.encode()


@pytest.mark.parametrize("value", [object(), print, {(1, 2): 3}, "\ud800", nested(100_000), [1, {2: iter([])}], 1j])
def test_a_value_json_cannot_carry_is_named_in_the_error(value: Any) -> None:
    with pytest.raises(EncodeError) as caught:
        codec.encode(value, "the message for 'a.b'")
    assert caught.value.what == "the message for 'a.b'"
    assert isinstance(caught.value, TypeError)


@given(st.binary() | st.text().map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_arbitrary_bytes_are_decoded_or_refused_and_nothing_else(data: bytes) -> None:
    for decode in (
        lambda: codec.decode(data, "s"),
        lambda: codec.decode(data, "s", Point),
        lambda: codec.decoder(list[int])(data, "s"),
        lambda: codec.decode_request(data, "s"),
        lambda: codec.decode_response(data, "s"),
    ):
        refusal = None
        try:
            decode()
        except DecodeError as exc:
            refusal = exc
        assert refusal is None or (refusal.subject, refusal.start, bool(refusal.reason)) == ("s", data[:64], True)
    request_id = codec.peek_request_id(data)
    assert request_id is None or isinstance(request_id, str)
    headers = codec.decode_headers(data)
    assert all(isinstance(name, str) and isinstance(value, str) for name, value in headers.items())


@pytest.mark.parametrize("data", [b"", b"{", b"[1,]", b"\xff", b"nan", b"1 2", b"[" * 100_000, b'"\\ud800"'])
def test_bytes_that_are_not_json_are_shown_in_the_error(data: bytes) -> None:
    with pytest.raises(DecodeError) as caught:
        codec.decode(data, "a.b")
    assert caught.value.subject == "a.b"
    assert caught.value.start == data[:64]


def test_a_value_can_be_decoded_into_a_type() -> None:
    assert codec.decode(b'{"points":[{"x":1}]}', "s", Path) == Path([Point(1)])
    assert codec.decoder(Path)(b'{"points":[{"x":1}]}', "s") == Path([Point(1)])
    with pytest.raises(DecodeError, match=r"`\$\.points\[0\]\.x`"):
        codec.decode(b'{"points":[{"x":"1"}]}', "s", Path)


def test_an_impossible_type_is_found_out_before_any_message() -> None:
    with pytest.raises(TypeError):
        codec.decoder(Point | Path)


@settings(max_examples=50)
@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), json_values))
def test_a_request_is_the_envelope_of_the_wire_format(args: dict[str, Any]) -> None:
    body = codec.encode_request("id-1", "add", args)
    assert json.loads(body) == {"id": "id-1", "method": "add", "args": args}
    request = codec.decode_request(body, "s")
    assert (request.id, request.method) == ("id-1", "add")
    assert codec.decode(bytes(request.args), "s") == args


@settings(max_examples=50)
@given(json_values)
def test_a_success_is_the_envelope_of_the_wire_format(result: Any) -> None:
    body = codec.encode_success("id-1", result)
    assert json.loads(body) == {"id": "id-1", "success": True, "result": result}
    response = codec.decode_response(body, "s")
    assert (response.id, response.success) == ("id-1", True)
    assert codec.decode(bytes(response.result), "s") == result


@given(
    st.none() | st.text(st.characters(exclude_categories=["Cs"])),
    st.sampled_from(sorted(codec.STATUS_OF_CODE)),
    st.text(),
)
def test_a_failure_is_the_envelope_of_the_wire_format(request_id: str | None, code: str, error: str) -> None:
    body = codec.encode_failure(request_id, code, error)
    response = codec.decode_response(body, "s")
    assert (response.success, response.id, response.code) == (False, request_id, code)
    assert set(json.loads(body)) == {"success", "id", "code", "error"}


def test_peers_may_leave_out_fields_and_add_their_own() -> None:
    request = codec.decode_request(b'{"id":"1","method":"m","trace":7}', "s")
    assert bytes(request.args) == b"{}"
    response = codec.decode_response(b'{"id":"1","success":false,"error":"no","more":[]}', "s")
    assert (response.error, response.code) == ("no", None)


@pytest.mark.parametrize(
    "body", [b"[]", b"1", b"null", b"{}", b'{"id":1,"method":"m"}', b'{"id":"1"}', b'{"method":"m"}', b'{"id":null}']
)
def test_a_body_that_is_not_an_envelope_is_refused(body: bytes) -> None:
    with pytest.raises(DecodeError):
        codec.decode_request(body, "s")


@pytest.mark.parametrize(
    ("body", "expected"),
    [(b'{"id":"x","method":3}', "x"), (b'{"id":5}', None), (b"[1]", None), (b"{", None), (b'{"id":"y"', None)],
)
def test_the_id_of_a_bad_request_is_found_if_there_is_one(body: bytes, expected: str | None) -> None:
    assert codec.peek_request_id(body) == expected


@given(st.dictionaries(st.from_regex(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+", fullmatch=True), line, max_size=5))
def test_headers_come_back_and_are_what_nats_py_reads(headers: dict[str, str]) -> None:
    block = codec.encode_headers(codec.checked_headers(headers))
    stripped = {name: value.strip(" \t") for name, value in headers.items()}
    assert codec.decode_headers(block) == stripped
    assert NatsClient._parse_header_lines(block.removeprefix(b"NATS/1.0\r\n")) == stripped


def test_all_values_of_a_name_come_back_in_order() -> None:
    given = {"A": ["1", "2"], "B": ("3",), "C": [], "D": "4"}
    headers = codec.decode_headers(codec.encode_headers(codec.checked_headers(given)))
    assert headers == {"A": "2", "B": "3", "D": "4"}
    assert [headers.values_of(name) for name in "ABCD"] == [["1", "2"], ["3"], [], ["4"]]


@pytest.mark.parametrize("name", ["", "a b", "a:b", "ä", "a\r\n", "a\nb", 1, None, b"x"])
def test_a_header_name_that_nats_would_refuse_is_refused(name: Any) -> None:
    with pytest.raises(InvalidName, match="header name"):
        codec.checked_headers({name: "x"})


@pytest.mark.parametrize("value", ["a\r\nInjected: yes", "a\nb", "\r", 1, None, b"x", "\ud800", ["a", 1], [["a"]]])
def test_a_header_value_that_would_break_the_block_is_refused(value: Any) -> None:
    with pytest.raises(InvalidName, match="header value"):
        codec.checked_headers({"X": value})


@pytest.mark.parametrize(
    ("block", "headers"),
    [
        (None, {}),
        (b"", {}),
        (b"NATS/1.0\r\n\r\n", {}),
        (b"NATS/1.0 503\r\n\r\n", {}),
        (b"NATS/1.0 404 No Messages\r\nStatus: mine\r\n\r\n", {"Status": "mine"}),
        (b"NATS/1.0\r\nA:b\r\nC:  d \r\n\r\n", {"A": "b", "C": "d"}),
        (b"NATS/1.0\r\nA: 1\r\nA: 2\r\nno colon\r\n\r\n", {"A": "2"}),
        (
            b"NATS/1.0 100 Idle Heartbeat\r\nX: a:b\r\n\r\n",
            {"X": "a:b"},
        ),
        (b"NATS/1.0 five hundred\r\n\r\n", {}),
        (b"NATS/1.0 " + b"5" * 5000 + b"\r\nA: b\r\n\r\n", {"A": "b"}),
        (b"HTTP/1.1 200 OK\r\nA: b\r\n\r\n", {"A": "b"}),
        (b"NNats-Stream: KV\r\nA: b\r\n\r\n", {"A": "b"}),
        (b"NATS/1.0\nA: b\n\n", {}),
    ],
)
def test_a_header_block_is_read_as_adr_4_says(block: bytes | None, headers: dict[str, str]) -> None:
    assert codec.decode_headers(block) == headers


@pytest.mark.parametrize(
    ("data", "headers", "expected"),
    [
        (b"", b"NATS/1.0 503\r\n\r\n", True),
        (b"", b"NATS/1.0 503 No Responders\r\n\r\n", True),
        (b"x", b"NATS/1.0 503\r\n\r\n", False),
        (b"", b"NATS/1.0 404\r\n\r\n", False),
        (b"", b"NATS/1.0\r\nStatus: 503\r\n\r\n", False),
        (b"", None, False),
    ],
)
def test_only_the_servers_own_word_counts_as_no_responders(data: bytes, headers: bytes | None, expected: bool) -> None:
    assert codec.is_no_responders(data, headers) is expected


def test_a_struct_can_be_published_too() -> None:
    class Reading(msgspec.Struct):
        t: float

    assert codec.encode(Reading(21.5)) == b'{"t":21.5}'
