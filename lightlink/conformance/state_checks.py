"""Checks of state: what is written to the bucket ``light_link_state``, and read from it (ADR-8)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lightlink.conformance.checks import (
    Checks,
    Script,
    Step,
    Wire,
    error_of,
    expected_of,
    fresh,
    need,
    read_json,
    result_of,
    same,
)
from lightlink.conformance.event_checks import VALUE
from lightlink.jetstream import api
from lightlink.state.options import BucketOptions

if TYPE_CHECKING:
    from collections.abc import Generator

    Steps = Generator[Step, dict[str, Any], None]

BUCKET = "light_link_state"
_STREAM = f"KV_{BUCKET}"


def _prepare(wire: Wire) -> None:
    api.create_stream(wire.client.connection, BucketOptions().stream_config(BUCKET), wire.timeout)


STATE: Checks[Script] = Checks(_prepare)

_VALUE = "a value is JSON under a key that NATS allows."
_REVISION = "its revision is the sequence of its message in the stream `KV_<bucket>`."
_NULL = "`null` is a value, and not the lack of one."
_OVER = (
    "A write over a revision carries it in the header `Nats-Expected-Last-Subject-Sequence`, and is refused where "
    "another came first."
)
_DELETED = "A deleted key has an empty message with the header `KV-Operation`, `DEL` or `PURGE`, and reads as missing."


def _subject(key: str) -> str:
    return f"$KV.{BUCKET}.{key}"


def _set(wire: Wire, key: str, value: Any) -> int:
    return wire.put(_STREAM, _subject(key), value)


@STATE("writes a value as JSON", _VALUE)
def writes_json(wire: Wire) -> Steps:
    """Have a value written."""
    key = fresh("key")
    result_of((yield Step("set", {"key": key, "value": VALUE})), "set")
    same(read_json(wire.stored(_STREAM, _subject(key)).data, "the value"), VALUE, "the value")


@STATE("takes every key that NATS allows", _VALUE)
def takes_keys(wire: Wire) -> Steps:
    """Have a key written and read that has all kinds of characters."""
    key = f"{fresh('Key')}.a/b=c_d-e.7"
    result_of((yield Step("set", {"key": key, "value": 1})), "set")
    wire.stored(_STREAM, _subject(key))
    same(result_of((yield Step("get", {"key": key})), "get"), 1, "the value")


@STATE("tells the revision of what it wrote", _REVISION)
def tells_revision(wire: Wire) -> Steps:
    """Compare the revision told with the one stored."""
    key = fresh("key")
    outcome = yield Step("set", {"key": key, "value": 1})
    same(result_of(outcome, "set"), wire.stored(_STREAM, _subject(key)).seq, "the revision")


@STATE("reads what another wrote", _VALUE)
def reads(wire: Wire) -> Steps:
    """Write a value, and have it read."""
    key = fresh("key")
    _set(wire, key, VALUE)
    same(result_of((yield Step("get", {"key": key})), "get"), VALUE, "the value")


@STATE("takes null for a value", _NULL)
def reads_null(wire: Wire) -> Steps:
    """Write null, and have it read."""
    key = fresh("key")
    _set(wire, key, None)
    same(result_of((yield Step("get", {"key": key})), "get of null"), None, "the value")


@STATE("finds no value where there is none", _DELETED)
def reads_missing(wire: Wire) -> Steps:  # noqa: ARG001 - all checks are called alike
    """Have a key read that was never written."""
    error_of((yield Step("get", {"key": fresh("never")})), "get of a key that was never written")


@STATE("finds no value where another deleted it", _DELETED)
def reads_deleted(wire: Wire) -> Steps:
    """Delete a key as ADR-8 has it, and have it read."""
    key = fresh("key")
    _set(wire, key, 1)
    wire.put(_STREAM, _subject(key), b"", headers={"KV-Operation": "DEL"})
    error_of((yield Step("get", {"key": key})), "get of a deleted key")


@STATE("deletes with a marker", _DELETED)
def deletes(wire: Wire) -> Steps:
    """Have a key deleted."""
    key = fresh("key")
    _set(wire, key, 1)
    result_of((yield Step("delete", {"key": key})), "delete")
    marker = wire.stored(_STREAM, _subject(key))
    found = marker.headers.get("KV-Operation")
    need(found in ("DEL", "PURGE"), f"the header KV-Operation of the last message is {found!r}")
    need(not marker.data, f"the marker has the body {marker.data[:40]!r}")


@STATE("writes over the revision that is the last", _OVER)
def updates(wire: Wire) -> Steps:
    """Have a key updated by its last revision."""
    key = fresh("key")
    revision = _set(wire, key, 1)
    result_of((yield Step("update", {"key": key, "value": 2, "revision": revision})), "update")
    message = wire.stored(_STREAM, _subject(key))
    same(read_json(message.data, "the value"), 2, "the value")
    same(expected_of(message), str(revision), "the header Nats-Expected-Last-Subject-Sequence")


@STATE("does not write over a revision that is not the last", _OVER)
def refuses(wire: Wire) -> Steps:
    """Have a key updated by a revision that another writer has replaced."""
    key = fresh("key")
    revision = _set(wire, key, 1)
    last = _set(wire, key, 2)
    outcome = yield Step("update", {"key": key, "value": 3, "revision": revision})
    same(wire.stored(_STREAM, _subject(key)).seq, last, "the last revision")
    error_of(outcome, "update over a revision that is not the last")
