"""Patience with who has no leader, or does not answer."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import pytest
from helpers.waiting import eventually

import lightlink
from lightlink.connection.connection import NoReply
from lightlink.jetstream import api
from lightlink.jetstream.errors import JetStreamError
from lightlink.jetstream.retry import RetryBudget, retry_seconds, while_electing

if TYPE_CHECKING:
    from collections.abc import Iterator

    from helpers.raw import RawPeer
    from nats.aio.msg import Msg

    from lightlink.connection.connection import Connection


@pytest.fixture
def connection(url: str) -> Iterator[Connection]:
    with lightlink.connect(url) as client:
        yield client._connection


def no_responders(exc: Exception) -> bool:
    return isinstance(exc, JetStreamError) and exc.no_responders


def test_what_has_no_leader_is_asked_again_until_it_has_one(connection: Connection, peer: RawPeer, prefix: str) -> None:
    asked = threading.Event()

    def ask(limit: float) -> int:
        asked.set()
        return api.publish(connection, prefix, f"{prefix}.a".encode(), b"", limit).seq

    def lead() -> None:
        assert asked.wait(30)
        peer.run(peer.nc.jetstream().add_stream(name=prefix, subjects=[f"{prefix}.*"]))

    leading = threading.Thread(target=lead)
    leading.start()
    assert while_electing(ask, 20, no_responders) == 1
    leading.join()


def test_the_unanswered_is_repeated_only_if_that_is_safe(connection: Connection, peer: RawPeer, prefix: str) -> None:
    asked: list[bytes] = []

    async def answer_the_third(message: Msg) -> None:
        asked.append(message.data)
        if len(asked) >= 3:
            await message.respond(b"yes")

    peer.run(peer.nc.subscribe(prefix, cb=answer_the_third))
    peer.run(peer.nc.flush())

    def ask(limit: float) -> bytes:
        return connection.request(prefix.encode(), b"", limit).data

    with pytest.raises(NoReply):
        while_electing(ask, 1.0, no_responders)
    eventually(lambda: asked)  # the peer may be slower than we wait
    peer.run(peer.nc.flush())
    assert len(asked) == 1
    assert while_electing(ask, 20, no_responders, repeatable=True) == b"yes"
    assert len(asked) >= 3  # a slow peer's answer comes after the next attempt


def test_the_error_tells_the_whole_time_and_what_has_left(connection: Connection, peer: RawPeer, prefix: str) -> None:
    peer.run(peer.nc.subscribe(prefix))
    peer.run(peer.nc.flush())
    started = time.monotonic()
    with pytest.raises(NoReply) as caught:
        while_electing(
            lambda limit: connection.request(prefix.encode(), b"", limit), 0.4, no_responders, repeatable=True
        )
    assert (caught.value.timeout, caught.value.sent) == (0.4, True)
    assert time.monotonic() - started >= 0.4


def test_another_error_is_raised_at_once(connection: Connection) -> None:
    asked: list[float] = []

    def refuse(limit: float) -> None:
        asked.append(limit)
        raise JetStreamError("any", 400, 10003, "bad request")

    with pytest.raises(JetStreamError):
        while_electing(refuse, 20, no_responders, repeatable=True)
    assert len(asked) == 1


def test_a_server_that_does_not_lead_is_asked_again() -> None:
    answers: list[BaseException | int] = [JetStreamError("any", 503, 10009, "not the leader"), 7]

    def ask(limit: float) -> int:
        answer = answers.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        return answer

    assert while_electing(ask, 20) == 7


def test_an_election_does_not_use_up_the_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    electing = JetStreamError("any", 503, 10008, "no leader")

    def elect(limit: float) -> None:
        raise electing

    asked: list[float] = []

    def ask(limit: float) -> int:
        asked.append(limit)
        if len(asked) < 3:
            raise electing
        return 7

    with pytest.raises(JetStreamError):
        while_electing(elect, 0.05)
    assert while_electing(ask, 0.15, through_election=True) == 7
    monkeypatch.setattr("lightlink.jetstream.retry.ELECTION_SECONDS", 0.0)
    with pytest.raises(JetStreamError):
        while_electing(elect, 0.05, through_election=True)


def test_a_write_is_repeated_as_long_as_its_error_is_worth() -> None:
    leaderless = lightlink.StoreUnavailable("writing", "no leader")
    leaderless.__cause__ = JetStreamError("any", 503, 0, "nobody listens")
    unknown = lightlink.StoreUnavailable("writing", "no answer", unknown=True)
    refused = lightlink.StoreUnavailable("writing", "full")
    assert [retry_seconds(each, 5.0) for each in (leaderless, unknown, refused)] == [15.0, 10.0, 0.0]
    assert RetryBudget(5.0).allows(unknown)
    assert not RetryBudget(5.0).allows(refused)
