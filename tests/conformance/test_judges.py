"""Services and clients, good and bad, before the judges."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any

import pytest

import lightlink
from lightlink.cli import main
from lightlink.cli.terminal.exits import Exit
from lightlink.conformance import ClientJudge, Vectors, judge_service
from lightlink.protocol import codec

if TYPE_CHECKING:
    from collections.abc import Iterator

    from helpers.raw import RawPeer
    from nats.aio.msg import Msg

    from lightlink.conformance import Verdict

DISCOVERY = {"answers PING", "answers INFO", "answers STATS", "shares its calls in the queue group q"}
SHOULD = {vector.name for vector in Vectors.load().services if vector.level == "should"}


@pytest.fixture
def client(url: str) -> Iterator[lightlink.Client]:
    with lightlink.connect(url) as connected:
        yield connected


def faults(verdicts: list[Verdict]) -> dict[str, str]:
    return {verdict.name: verdict.fault for verdict in verdicts if verdict.fault}


def serve_plainly(peer: RawPeer, name: str) -> None:
    """Serve the methods as the plainest peer would: no codes, no headers, no discovery."""

    async def answer(message: Msg) -> None:
        reply: dict[str, Any] = {"id": "", "success": False}
        try:
            body = json.loads(message.data)
            reply["id"] = body["id"]
            reply["result"], reply["success"] = METHODS[body["method"]](**body.get("args", {})), True
        except Exception as error:
            reply["error"] = str(error)
        await message.respond(json.dumps(reply).encode())

    async def subscribe(nc: Any) -> None:
        await nc.subscribe(f"$SRV.{name}.*", "q", answer)
        await nc.flush()

    peer.run(subscribe)


def fail(text: str) -> None:
    raise ValueError(text)


METHODS: dict[str, Any] = {
    "add": lambda a, b: {"sum": a + b},
    "echo": lambda value: {"value": value},
    "fail": fail,
    "hello": lambda: {"hello": "world"},
}


def test_a_plain_peer_holds_what_must_but_for_discovery(client: lightlink.Client, peer: RawPeer, prefix: str) -> None:
    serve_plainly(peer, prefix)
    verdicts = list(judge_service(client, prefix, timeout=20))
    assert {verdict.name for verdict in verdicts if verdict.is_failure} == DISCOVERY
    assert set(faults(verdicts)) == DISCOVERY | SHOULD
    assert faults(verdicts)["tells a missing method by its code"] == "code is missing"


def test_a_service_that_answers_nonsense_is_told_so(client: lightlink.Client, peer: RawPeer, prefix: str) -> None:
    async def subscribe(nc: Any) -> None:
        async def answer(message: Msg) -> None:
            await message.respond(b"{no json")

        await nc.subscribe(f"$SRV.{prefix}.*", "q", answer)
        await nc.flush()

    peer.run(subscribe)
    found = faults(list(judge_service(client, prefix, timeout=20)))
    assert found["answers a call"].startswith("the reply is not JSON: ")
    assert set(found) == {vector.name for vector in Vectors.load().services}


def test_a_service_that_is_not_there_fails_all(url: str, prefix: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["conformance", "service", prefix, f"--url={url}", "--json"]) == Exit.FAILED
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(told) == len(Vectors.load().services)
    assert all(verdict["fault"].startswith("no answer: ") for verdict in told)


class Driver:
    """A client under test on plain nats-py; what it does wrong is set from outside."""

    def __init__(self, peer: RawPeer, service: str) -> None:
        self._peer = peer
        self._service = service
        self.ids = (f"id-{number}" for number in range(1000))
        self.args_of: Any = lambda args: args

    def call(self, method: str, args: Any) -> Any:
        body = json.dumps({"id": next(self.ids), "method": method, "args": args}).encode()
        subject = f"$SRV.{self._service}.{method}"
        return self._peer.run(lambda nc: nc.request(subject, body, timeout=20)).data

    def run(self) -> None:
        """Do what docs/conformance.md asks of a client."""
        while not (step := json.loads(self.call("next", {}))["result"]).get("done"):
            answered = self.call(step["method"], self.args_of(step["args"]))
            self.call("report", self.outcome(answered))

    def outcome(self, answered: bytes) -> dict[str, Any]:
        try:
            reply = json.loads(answered)
        except ValueError as error:
            return {"error": str(error), "code": None}
        return {"result": reply["result"]} if reply["success"] else {"error": reply["error"], "code": reply.get("code")}


@pytest.fixture
def judged(client: lightlink.Client, peer: RawPeer, prefix: str) -> Iterator[tuple[ClientJudge, Driver]]:
    with ClientJudge(client, prefix) as judge:
        yield judge, Driver(peer, prefix)


def test_a_plain_client_holds_everything(judged: tuple[ClientJudge, Driver]) -> None:
    judge, driver = judged
    driver.run()
    verdicts = list(judge.verdicts(timeout=20))
    assert len(verdicts) == len(Vectors.load().clients)
    assert faults(verdicts) == {}


def test_a_client_that_uses_an_id_twice_is_told_so(judged: tuple[ClientJudge, Driver]) -> None:
    judge, driver = judged
    driver.ids = (identifier for identifier in ["same"] * 1000)
    driver.run()
    first, *others = judge.verdicts(timeout=20)
    assert first.fault == ""
    assert {verdict.fault for verdict in others} == {"the request's id is missing, or was used before"}


def test_a_client_that_sends_other_arguments_is_told_where(judged: tuple[ClientJudge, Driver]) -> None:
    judge, driver = judged
    driver.args_of = list
    driver.run()
    found = faults(list(judge.verdicts(timeout=20)))
    assert found["returns an object"] == 'request.args is ["a","b"], not an object'


def test_a_client_that_takes_errors_for_results_is_told_so(judged: tuple[ClientJudge, Driver]) -> None:
    judge, driver = judged
    driver.outcome = lambda answered: {"result": answered.decode(), "error": answered.decode()}  # type: ignore[method-assign]
    driver.run()
    found = faults(list(judge.verdicts(timeout=20)))
    assert found["hands on the text of an error"] == "the client takes an error for a result"
    assert found["returns null"].startswith("outcome.result is ")


def test_a_client_that_reports_without_a_call_is_told_so(judged: tuple[ClientJudge, Driver]) -> None:
    judge, driver = judged
    driver.call("next", {})
    driver.call("report", {"result": {"sum": 3}})
    assert next(judge.verdicts(timeout=20)).fault == "the client reports, and has not called"


def test_a_client_that_stops_is_not_waited_for_for_ever(judged: tuple[ClientJudge, Driver]) -> None:
    judge, driver = judged
    driver.call("next", {})
    with pytest.raises(TimeoutError, match=r"has not gone on for 0\.01 s"):
        next(judge.verdicts(timeout=0.01))


def test_nonsense_is_answered_and_judges_nothing(
    judged: tuple[ClientJudge, Driver], peer: RawPeer, prefix: str
) -> None:
    judge, driver = judged
    answered = peer.run(lambda nc: nc.request(f"$SRV.{prefix}.other", b"{no json", timeout=20))
    assert json.loads(answered.data)["code"] == codec.METHOD_NOT_FOUND
    with contextlib.suppress(TimeoutError):
        pytest.fail(f"judged {next(judge.verdicts(timeout=0.01))}")
    driver.run()
    assert faults(list(judge.verdicts(timeout=20))) == {}
