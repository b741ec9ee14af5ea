from __future__ import annotations

import copy
import pickle
from types import SimpleNamespace
from typing import Any

import pytest

import lightlink
from lightlink import errors

COMMAND = SimpleNamespace(
    command_id="c-1", command_type="restart", client_id="c9", status="failed", status_detail="rejected", error="boom"
)

EXAMPLES: list[tuple[Exception, list[str]]] = [
    (errors.ConnectError([("nats://a:1", "connection refused")], 2.5), ["nats://a:1", "connection refused", "2.5 s"]),
    (errors.ConnectError([], 2.5), ["no server was tried"]),
    (errors.AuthenticationError([("nats://a:1", "Authorization Violation")], 5.0), ["nats://a:1", "Authorization"]),
    (errors.ClosedError("the client"), ["the client is closed"]),
    (errors.NotReady("service 'x'", "is running already"), ["service 'x' is running already"]),
    (errors.PermissionDenied("publish", "a.b"), ["publish", "'a.b'"]),
    (errors.OutboxFull(7, 900, 0.5), ["7 messages", "900 bytes", "0.5 s", "not published"]),
    (errors.FlushTimeout(3.0, "reconnecting"), ["3 s", "reconnecting"]),
    (errors.FleetError("renewal", "no server answered"), ["renewal", "no server answered"]),
    (errors.NotStored("a.b", "no stream captures it", True), ["a.b", "no stream", "may be all the same"]),
    (errors.StreamError("ORDERS", "update", "it is full"), ["ORDERS", "update", "it is full"]),
    (errors.StreamNotFound("ORDERS"), ["ORDERS", "there is none"]),
    (errors.Later(5), ["5 s"]),
    (errors.BatchFailed({1: "odd"}), ["1 of a batch", "odd"]),  # type: ignore[dict-item]
    (errors.UndoRefused("c1", "it has failed"), ["c1", "it has failed"]),
    (errors.PlanInvalid("plan 'x'", [("steps[0].name", "is missing")]), ["plan 'x'", "steps[0].name", "is missing"]),
    (errors.RunNotFound("r1"), ["r1"]),
    (errors.RunRefused("r1", "approve", "it is running"), ["approve", "r1", "it is running"]),
    (errors.FleetRefused("enrolment", "the token has been used", "used"), ["enrolment", "has been used"]),
    (errors.NoMessage("a.b", 1.5), ["'a.b'", "1.5 s"]),
    (errors.LinkError("purge", "no such stream"), ["purge", "no such stream"]),
    (errors.CallTimeout("math", "add", 5.0), ["math.add", "5 s", "may have run"]),
    (errors.ServiceUnavailable("math", "add"), ["math.add", "no responders"]),
    (errors.RemoteError("math", "add", "odd", "text"), ["math.add", "text"]),
    (errors.MethodNotFound("math", "add", "method_not_found", "method not found: add"), ["method not found: add"]),
    (errors.InvalidRequest("math", "add", "invalid_request", "no envelope"), ["no envelope"]),
    (errors.InvalidArguments("math", "add", "invalid_arguments", "missing argument 'a'"), ["missing argument 'a'"]),
    (errors.ServiceBusy("math", "add", "busy", "1024 requests wait"), ["1024 requests wait"]),
    (errors.DeadlineExceeded("math", "add", "deadline_exceeded", "waited 3 s"), ["waited 3 s"]),
    (errors.HandlerError("math", "add", "handler_error", "ValueError: x"), ["ValueError: x"]),
    (errors.StateNotFound("bucket", "a.key"), ["'a.key'", "'bucket'"]),
    (errors.RevisionConflict("bucket", "a.key", 7), ["'a.key'", "'bucket'", "7"]),
    (errors.RevisionConflict("bucket", "a.key", 0), ["exists already"]),
    (errors.StateError("bucket", "set", "no leader", True), ["set", "'bucket'", "no leader", "outcome is unknown"]),
    (errors.StoredFileNotFound("files", "f-1"), ["'f-1'", "'files'"]),
    (errors.FileCorrupt("f-1", "digest differs"), ["'f-1'", "digest differs"]),
    (errors.TransferStalled("f-1", 10, 100, 2.0), ["'f-1'", "10 of 100 bytes", "2 s"]),
    (errors.DecodeError("a.b", "not JSON", b"<html>"), ["'a.b'", "not JSON", "<html>"]),
    (errors.EncodeError("the result", "a socket"), ["the result", "a socket"]),
    (errors.InvalidName("subject", "a b", "white space"), ["subject", "'a b'", "white space"]),
    (errors.InvalidOption("workers", "must be above 0", -1), ["workers", "-1", "must be above 0"]),
    (errors.InvalidOption("token", "is empty"), ["token", "is empty"]),
    (errors.PayloadTooLarge("a.b", 2000, 1000), ["'a.b'", "2000", "1000"]),
    (
        errors.UnsupportedSchema("math", "add: argument 'a'", "'not' has no type"),
        ["math.add: argument 'a'", "'not' has"],
    ),
    (errors.ServerError("no nats-server found"), ["no nats-server found"]),
    (errors.CommandFailed(COMMAND), ["c-1", "restart", "c9", "rejected", "boom"]),
    (errors.CommandCancelled(COMMAND), ["c-1", "restart", "c9"]),
    (errors.CommandTimeout(COMMAND), ["c-1", "restart", "c9", "timed out"]),
    (errors.CommandTimeout(COMMAND, 4.0), ["c-1", "still failed", "4 s"]),
    (errors.CommandNotFound("c-1"), ["c-1"]),
    (errors.AgentInUse("c9", "i-7"), ["'c9'", "i-7"]),
]

TREE = {
    "ConnectError": ["LightLinkError"],
    "AuthenticationError": ["ConnectError"],
    "ClosedError": ["LightLinkError", "RuntimeError"],
    "NotReady": ["LightLinkError", "RuntimeError"],
    "PermissionDenied": ["LightLinkError"],
    "OutboxFull": ["LightLinkError", "TimeoutError"],
    "FlushTimeout": ["LightLinkError", "TimeoutError"],
    "NoMessage": ["LightLinkError", "TimeoutError"],
    "LinkError": ["LightLinkError"],
    "CallError": ["LightLinkError"],
    "CallTimeout": ["CallError", "TimeoutError"],
    "ServiceUnavailable": ["CallError"],
    "RemoteError": ["CallError"],
    "MethodNotFound": ["RemoteError"],
    "InvalidRequest": ["RemoteError"],
    "InvalidArguments": ["RemoteError"],
    "ServiceBusy": ["RemoteError"],
    "DeadlineExceeded": ["RemoteError"],
    "HandlerError": ["RemoteError"],
    "StateNotFound": ["LightLinkError", "KeyError"],
    "RevisionConflict": ["LightLinkError"],
    "StateError": ["LightLinkError"],
    "StoredFileNotFound": ["LightLinkError", "FileNotFoundError"],
    "FileCorrupt": ["LightLinkError"],
    "TransferStalled": ["LightLinkError", "TimeoutError"],
    "DecodeError": ["LightLinkError"],
    "EncodeError": ["LightLinkError", "TypeError"],
    "InvalidName": ["LightLinkError", "ValueError"],
    "InvalidOption": ["LightLinkError", "ValueError"],
    "PayloadTooLarge": ["LightLinkError", "ValueError"],
    "ServerError": ["LightLinkError"],
    "CommandError": ["LightLinkError"],
    "CommandFailed": ["CommandError"],
    "CommandCancelled": ["CommandFailed"],
    "CommandTimeout": ["CommandError", "TimeoutError"],
    "CommandNotFound": ["CommandError"],
    "AgentInUse": ["CommandError"],
}


def all_errors() -> dict[str, type[Exception]]:
    return {
        name: kind
        for name, kind in vars(errors).items()
        if isinstance(kind, type) and issubclass(kind, errors.LightLinkError) and kind is not errors.LightLinkError
    }


def test_every_error_has_its_place_and_is_a_public_name() -> None:
    found = {name: [base.__name__ for base in kind.__bases__] for name, kind in all_errors().items()}
    assert {name: bases for name, bases in found.items() if name in TREE} == TREE
    assert [name for name in found if getattr(lightlink, name, None) is not vars(errors)[name]] == []
    assert [name for name in found if name not in lightlink.__all__] == []


def test_the_tree_in_the_docstring_names_every_error() -> None:
    assert errors.__doc__ is not None
    assert [name for name in all_errors() if name not in errors.__doc__] == []


def test_every_error_with_facts_has_an_example_here() -> None:
    abstract = {"CallError", "CommandError"}
    shown = {type(error).__name__ for error, _ in EXAMPLES}
    assert set(TREE) - shown == abstract


@pytest.mark.parametrize(("error", "words"), EXAMPLES, ids=lambda value: type(value).__name__)
def test_a_message_names_the_thing_and_the_numbers(error: Exception, words: list[str]) -> None:
    assert [word for word in words if word not in str(error)] == []


@pytest.mark.parametrize("error", [error for error, _ in EXAMPLES], ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("clone", [copy.copy, lambda error: pickle.loads(pickle.dumps(error))], ids=["copy", "pickle"])
def test_an_error_survives_copying_and_pickling_with_its_facts(error: Exception, clone: Any) -> None:
    cloned = clone(error)
    assert type(cloned) is type(error)
    assert str(cloned) == str(error)
    assert {name: value for name, value in vars(cloned).items() if name != "command"} == {
        name: value for name, value in vars(error).items() if name != "command"
    }


@pytest.mark.parametrize("error", [error for error, _ in EXAMPLES], ids=lambda error: type(error).__name__)
def test_an_error_can_be_raised_compared_and_put_in_a_set(error: Exception) -> None:
    with pytest.raises(type(error)) as caught:
        raise error
    assert caught.value is error
    assert len({error, copy.copy(error)}) == 2


def test_the_facts_are_in_its_repr() -> None:
    assert repr(errors.FlushTimeout(3.0, "reconnecting")) == "FlushTimeout(timeout=3.0, status='reconnecting')"
    assert repr(errors.LinkError("purge", "no such stream")) == "LinkError(operation='purge', reason='no such stream')"
    assert repr(errors.LightLinkError("plain")) == "LightLinkError('plain')"


def test_the_facts_are_attributes() -> None:
    timeout = errors.CallTimeout("math", "add", 5.0)
    assert (timeout.service, timeout.method, timeout.timeout) == ("math", "add", 5.0)
    connect = errors.ConnectError([("nats://a:1", "x"), ("nats://b:2", "y")], 1.0)
    assert connect.servers == ["nats://a:1", "nats://b:2"]
    large = errors.PayloadTooLarge("a", 2, 1)
    assert (large.subject, large.size, large.limit) == ("a", 2, 1)
    decode = errors.DecodeError("a", "r", b"start")
    assert (decode.subject, decode.start) == ("a", b"start")


def test_every_error_is_shown_as_one_of_lightlink_errors() -> None:
    assert {each.__module__ for name, each in vars(errors).items() if name in errors.__all__} == {"lightlink.errors"}
