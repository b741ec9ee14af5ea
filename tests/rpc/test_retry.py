from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Any

import pytest
from helpers.waiting import eventually

import lightlink
from lightlink import Retry
from lightlink.errors import (
    CallError,
    CallTimeout,
    DeadlineExceeded,
    HandlerError,
    InvalidOption,
    MethodNotFound,
    RemoteError,
    ServiceBusy,
    ServiceUnavailable,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from conftest import StartProxy
    from helpers.raw import RawPeer
    from nats.aio.client import Client as NatsClient
    from nats.aio.msg import Msg

QUICK: dict[str, Any] = {"attempts": 3, "backoff": 0.001}


@pytest.fixture
def client(url: str) -> Iterator[lightlink.Client]:
    with lightlink.connect(url) as connected:
        yield connected


class Flaky:
    """A service whose method ``work`` counts its runs, and fails those that ``fails`` says."""

    def __init__(self, url: str, name: str, **registering: Any) -> None:
        self.runs = 0
        self.fails: Callable[[int], object] = lambda run: None
        self.service = lightlink.Service(name, url, workers=1, max_pending=1)
        self.service.register("work", self.work, **registering)

    def work(self) -> int:
        self.runs += 1
        self.fails(self.runs)
        return self.runs


@pytest.fixture
def flaky(url: str, prefix: str) -> Iterator[Flaky]:
    made = Flaky(url, prefix)
    with made.service:
        yield made


@pytest.fixture
def harmless(url: str, prefix: str) -> Iterator[Flaky]:
    """One that says of its method that running it twice does no harm."""
    made = Flaky(url, prefix, idempotent=True)
    with made.service:
        yield made


def fail(run: int) -> None:
    raise ValueError(run)


# The policy itself --------------------------------------------------------------------------------------------------


def test_by_default_only_calls_that_did_not_run_are_made_again() -> None:
    retry = Retry()
    assert retry.wants(ServiceUnavailable("s", "m"), 1)
    assert retry.wants(ServiceBusy("s", "m", "busy", ""), 2)
    assert not retry.wants(ServiceUnavailable("s", "m"), 3)
    for error in (CallTimeout("s", "m", 1.0), *(kind("s", "m", "", "") for kind in (HandlerError, MethodNotFound))):
        assert not retry.wants(error, 1)


def test_one_error_or_several_can_be_named() -> None:
    assert Retry(on=CallTimeout).on == (CallTimeout,)
    assert Retry(on=[CallTimeout, ServiceBusy]).wants(ServiceBusy("s", "m", "", ""), 1)
    assert Retry(on=RemoteError).wants(MethodNotFound("s", "m", "", ""), 1)


def test_pauses_double_up_to_a_cap_and_are_jittered() -> None:
    retry = Retry(attempts=99, backoff=0.1, backoff_max=1.0)
    for attempt, longest in ((1, 0.1), (2, 0.2), (4, 0.8), (5, 1.0), (98, 1.0)):
        pauses = [retry.pause(attempt) for _ in range(200)]
        assert longest / 2 <= min(pauses)
        assert max(pauses) <= longest
        assert max(pauses) - min(pauses) > longest / 4
    assert Retry(backoff=0).pause(5) == 0


@pytest.mark.parametrize(
    "settings",
    [
        {"attempts": 0},
        {"attempts": 1.5},
        {"attempts": True},
        {"backoff": -1},
        {"backoff": "1"},
        {"backoff_max": float("inf")},
        {"on": (ValueError,)},
        {"on": ("busy",)},
        {"on": 429},
    ],
)
def test_a_policy_that_cannot_be_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(InvalidOption, match=next(iter(settings))):
        Retry(**settings)


def test_what_is_no_policy_is_refused_before_the_call_is_made(url: str, prefix: str) -> None:
    with lightlink.connect(url) as client, pytest.raises(InvalidOption, match="retry"):
        client.call(prefix, "any", retry=3)  # type: ignore[call-overload]


# Calls that did not run ---------------------------------------------------------------------------------------------


def test_a_call_is_repeated_until_there_is_a_service(client: lightlink.Client, url: str, prefix: str) -> None:
    retry = Retry(attempts=1000, backoff=0.01, backoff_max=0.01)
    with pytest.raises(ServiceUnavailable):
        client.call(prefix, "work", retry=Retry(**QUICK))
    answers: list[Any] = []
    calling = threading.Thread(target=lambda: answers.append(client.call(prefix, "work", retry=retry)))
    calling.start()
    flaky = Flaky(url, prefix)
    with flaky.service:
        calling.join(10)
    assert answers == [1]
    assert flaky.runs == 1


def test_attempts_are_counted_and_the_last_error_is_raised(
    client: lightlink.Client, peer: RawPeer, prefix: str
) -> None:
    asked: list[bytes] = []

    async def refuse(nc: NatsClient) -> None:
        async def answer(request: Msg) -> None:
            asked.append(request.data)
            await request.respond(b'{"success": false, "code": "busy", "error": "no. %d"}' % len(asked))

        await nc.subscribe(f"$SRV.{prefix}.*", queue="q", cb=answer)
        await nc.flush()

    peer.run(refuse)
    with pytest.raises(ServiceBusy, match=r"no\. 3"):
        client.call(prefix, "work", retry=Retry(**QUICK))
    assert len(asked) == 3
    with pytest.raises(ServiceBusy, match=r"no\. 4"):
        client.call(prefix, "work")


def test_a_busy_service_is_called_again_until_it_has_room(client: lightlink.Client, flaky: Flaky, prefix: str) -> None:
    go_on = threading.Event()
    flaky.fails = lambda run: go_on.wait(30)
    held = [client.submit(prefix, "work", timeout=30) for _ in range(2)]
    assert eventually(lambda: flaky.runs == 1)
    with pytest.raises(ServiceBusy):
        client.call(prefix, "work")
    patient = threading.Timer(0.05, go_on.set)
    patient.start()
    assert client.call(prefix, "work", retry=Retry(attempts=1000, backoff=0.01, backoff_max=0.01)) == 3
    assert [each.result(30) for each in held] == [1, 2]
    patient.join()


def test_a_call_during_an_outage_is_repeated_after_it(
    proxy: StartProxy, flaky: Flaky, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = proxy()
    failed: list[float] = []

    with lightlink.connect(link.url) as client:

        def come_back(seconds: float) -> None:
            # Between two attempts: one that left just before its time is over would not be made again.
            failed.append(seconds)
            if len(failed) == 2:
                link.accept()
                assert client.wait_connected(30)

        monkeypatch.setattr("lightlink.rpc.caller.pause", come_back)
        link.refuse()
        link.cut()
        assert eventually(lambda: client.status is lightlink.Status.RECONNECTING)
        assert client.call(prefix, "work", timeout=1.0, retry=Retry(attempts=1000)) == 1
    assert len(failed) >= 2
    assert flaky.runs == 1


def test_a_call_that_waited_in_the_service_may_be_made_again(
    client: lightlink.Client, peer: RawPeer, prefix: str
) -> None:
    asked: list[bytes] = []

    async def answer_late(nc: NatsClient) -> None:
        async def answer(request: Msg) -> None:
            asked.append(request.data)
            reply = {"id": json.loads(request.data)["id"], "success": True, "result": 1}
            if len(asked) < 3:
                reply = {"success": False, "code": "deadline_exceeded", "error": "too late"}
            await request.respond(json.dumps(reply).encode())

        await nc.subscribe(f"$SRV.{prefix}.*", queue="q", cb=answer)
        await nc.flush()

    peer.run(answer_late)
    assert client.call(prefix, "work", retry=Retry(**QUICK, on=DeadlineExceeded)) == 1


# Calls that ran, or may have ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("on", [HandlerError, RemoteError, CallError])
def test_a_call_that_ran_is_not_made_again(
    on: type[CallError], client: lightlink.Client, flaky: Flaky, prefix: str
) -> None:
    flaky.fails = fail
    with pytest.raises(HandlerError):
        client.call(prefix, "work", retry=Retry(**QUICK, on=on))
    assert flaky.runs == 1


def test_a_call_that_may_have_run_is_not_made_again(client: lightlink.Client, flaky: Flaky, prefix: str) -> None:
    go_on = threading.Event()
    flaky.fails = lambda run: go_on.wait(30)
    with pytest.raises(CallTimeout):
        client.call(prefix, "work", timeout=0.5, retry=Retry(**QUICK, on=CallTimeout))
    go_on.set()
    assert client.call(prefix, "work") == 2


def test_a_caller_who_knows_that_it_does_no_harm_may_say_so(
    client: lightlink.Client, flaky: Flaky, prefix: str
) -> None:
    flaky.fails = lambda run: fail(run) if run < 3 else None
    assert client.call(prefix, "work", retry=Retry(**QUICK, on=HandlerError, idempotent=True)) == 3


def test_a_service_that_knows_that_it_does_no_harm_may_say_so(
    client: lightlink.Client, harmless: Flaky, prefix: str
) -> None:
    harmless.fails = lambda run: fail(run) if run < 3 else None
    assert client.call(prefix, "work", retry=Retry(**QUICK, on=HandlerError)) == 3


def test_a_declared_method_is_repeated_after_a_timeout(client: lightlink.Client, harmless: Flaky, prefix: str) -> None:
    """Its only worker is at the first call still: what it says of itself needs no worker."""
    go_on = threading.Event()
    harmless.fails = lambda run: go_on.wait(30)

    def let_go() -> None:
        eventually(lambda: harmless.service.stats.held == 2)  # it is here again, beside the first, which runs
        go_on.set()

    letting_go = threading.Thread(target=let_go)
    letting_go.start()
    assert client.call(prefix, "work", timeout=1.0, retry=Retry(attempts=50, backoff=0.01, on=CallError)) >= 2
    letting_go.join()


def test_what_is_said_of_another_method_does_not_count(client: lightlink.Client, url: str, prefix: str) -> None:
    flaky = Flaky(url, prefix)
    flaky.fails = fail
    flaky.service.register("other", lambda: None, idempotent=True)
    with flaky.service, pytest.raises(HandlerError):
        client.call(prefix, "work", retry=Retry(**QUICK, on=HandlerError))
    assert flaky.runs == 1


def test_what_an_earlier_version_said_does_not_count(client: lightlink.Client, url: str, prefix: str) -> None:
    retry = Retry(**QUICK, on=HandlerError)
    for declared, runs in ((True, 3), (False, 1), (True, 3)):
        flaky = Flaky(url, prefix, idempotent=declared)
        flaky.fails = fail
        with flaky.service, pytest.raises(HandlerError):
            client.call(prefix, "work", retry=retry)
        assert flaky.runs == runs


def test_a_peer_that_declares_nothing_is_called_once(client: lightlink.Client, peer: RawPeer, prefix: str) -> None:
    asked: list[bytes] = []

    async def keep_silent(nc: NatsClient) -> None:
        async def note(request: Msg) -> None:
            asked.append(request.data)

        await nc.subscribe(f"$SRV.{prefix}.*", queue="q", cb=note)
        await nc.flush()

    peer.run(keep_silent)
    with pytest.raises(CallTimeout):
        client.call(prefix, "work", timeout=0.5, retry=Retry(**QUICK, on=CallTimeout))
    eventually(lambda: asked)  # the peer may be slower than the caller waits
    client.flush()
    peer.run(peer.nc.flush())
    assert len(asked) == 1


# Where it can be said -----------------------------------------------------------------------------------------------


def test_a_call_that_may_have_run_says_so_whatever_follows(
    client: lightlink.Client, peer: RawPeer, prefix: str
) -> None:
    async def hear_one(nc: NatsClient) -> None:
        await (await nc.subscribe(f"$SRV.{prefix}.*", queue="q")).unsubscribe(limit=1)
        await nc.flush()

    peer.run(hear_one)
    retry = Retry(on=(CallTimeout, ServiceUnavailable), idempotent=True, **QUICK)
    with pytest.raises(CallTimeout) as caught:
        client.call(prefix, "work", timeout=0.5, retry=retry)
    assert isinstance(caught.value.__cause__, ServiceUnavailable)


def test_a_proxy_repeats_calls_as_it_is_told(client: lightlink.Client, harmless: Flaky, prefix: str) -> None:
    harmless.fails = lambda run: fail(run) if run < 3 else None
    service = client.service(prefix, retry=Retry(**QUICK, on=HandlerError))
    assert service.work() == 3


def test_what_is_no_call_error_is_never_repeated(client: lightlink.Client, prefix: str) -> None:
    client.close()
    with pytest.raises(lightlink.ClosedError):
        client.call(prefix, "work", retry=Retry(attempts=5, backoff=60))
