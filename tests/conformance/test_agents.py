"""Agents, ours and strangers, good and broken in one rule each, before the judge."""

from __future__ import annotations

import asyncio
import json
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from conformance.plain_agent import PlainAgent
from helpers.docs import sample

import lightlink
from lightlink.cli import main
from lightlink.cli.terminal.exits import Exit
from lightlink.conformance import AGENT, judge_agent
from lightlink.errors import InvalidOption

if TYPE_CHECKING:
    from helpers.raw import RawPeer
    from nats.aio.msg import Msg

NAMES = [check.name for check in AGENT.all]


def faults(verdicts: Any) -> dict[str, str]:
    return {verdict.name: verdict.fault for verdict in verdicts if verdict.fault}


def test_our_agent_holds_everything(judging: lightlink.Client, quick_url: str) -> None:
    with lightlink.connect(quick_url) as client, sample("conformance").make_agent(client):
        verdicts = list(judge_agent(judging, timeout=20))
    assert [verdict.name for verdict in verdicts] == NAMES
    assert faults(verdicts) == {}


def test_a_plain_agent_holds_everything(judging: lightlink.Client, stranger: RawPeer, prefix: str) -> None:
    with lightlink.CommandManager(judging) as manager:
        manager.store.ensure_consumers([prefix])
    PlainAgent(stranger, prefix).start()
    assert faults(judge_agent(judging, prefix, timeout=20)) == {}


class NoPresence(PlainAgent):
    async def live(self) -> None:
        pass


class NoInstance(PlainAgent):
    def presence(self) -> dict[str, Any]:
        return {**super().presence(), "instance": ""}


class OddTimes(PlainAgent):
    def presence(self) -> dict[str, Any]:
        return {**super().presence(), "last_heartbeat": "just now"}


class Overwrites(PlainAgent):
    def over(self, revision: int) -> dict[str, str]:
        return {}


class OverwritesEnds(PlainAgent):
    def over(self, revision: int) -> dict[str, str]:
        return super().over(revision) if revision == 0 else {}


class NoResult(PlainAgent):
    async def run(self, request: dict[str, Any]) -> dict[str, Any]:
        return {**await super().run(request), "result": None}


class OwnConsumer(PlainAgent):
    async def take(self) -> None:
        subject = f"ll.commands.{self.client_id}.*"
        pulling = await self.js.pull_subscribe(subject, durable=f"mine-{self.client_id}")
        while True:
            for message in await pulling.fetch(1, timeout=60):
                await self.take_one(message)


class ClaimsWithoutInstance(PlainAgent):
    async def write(self, command_id: str, status: dict[str, Any], revision: int) -> int:
        return await super().write(command_id, {**status, "instance": ""}, revision)


class RunsFirst(PlainAgent):
    """Runs, and writes down only the end."""

    async def process(self, message: Msg, request: dict[str, Any]) -> None:
        end = await self.run(request)
        _, revision = await self.read(request["command_id"])
        await self.write(request["command_id"], {**end, "attempt": 1}, revision)
        await message.ack()


class AcksFirst(PlainAgent):
    async def process(self, message: Msg, request: dict[str, Any]) -> None:
        await message.ack()
        message.ack = self.tell_nobody  # type: ignore[method-assign]
        await super().process(message, request)

    async def tell_nobody(self) -> None:
        pass


class NeverAcks(AcksFirst):
    async def process(self, message: Msg, request: dict[str, Any]) -> None:
        message.ack = self.tell_nobody  # type: ignore[method-assign]
        await PlainAgent.process(self, message, request)


class HidesErrors(PlainAgent):
    async def run(self, request: dict[str, Any]) -> dict[str, Any]:
        return {**await super().run(request), "error": "something went wrong"}


class LeavesUnknown(PlainAgent):
    async def process(self, message: Msg, request: dict[str, Any]) -> None:
        if request["command_type"].startswith("unknown"):
            await message.ack()
        else:
            await super().process(message, request)


class RefusesFields(PlainAgent):
    async def process(self, message: Msg, request: dict[str, Any]) -> None:
        if "later" not in request:
            await super().process(message, request)


class Stumbles(PlainAgent):
    async def take_one(self, message: Msg) -> None:
        self.beside(self.process(message, json.loads(message.data)))


class RunsEnded(PlainAgent):
    async def read(self, command_id: str) -> tuple[dict[str, Any] | None, int]:
        status, revision = await super().read(command_id)
        ended_before = status is not None and status["by"] == "judge" and status["status"] == "failed"
        return (None, revision) if ended_before else (status, revision)


class RunsOthers(PlainAgent):
    async def read(self, command_id: str) -> tuple[dict[str, Any] | None, int]:
        status, revision = await super().read(command_id)
        return (None, revision) if status is not None and status["instance"] == "gone" else (status, revision)


class NoDeadlines(PlainAgent):
    def deadline(self, request: dict[str, Any], stored: Any) -> Any:
        return super().deadline({**request, "timeout": 10_000}, stored)


class NoDeadlinesButLate(NoDeadlines):
    async def process(self, message: Msg, request: dict[str, Any]) -> None:
        await asyncio.sleep(0.5 if request["timeout"] == 10 else 0)  # others that came later run before it
        await super().process(message, request)


class Believes(PlainAgent):
    def deadline(self, request: dict[str, Any], stored: Any) -> Any:
        created = datetime.fromisoformat(request["created_at"].replace("Z", "+00:00"))
        return created + timedelta(seconds=request["timeout"])


class HeedsNoCancel(PlainAgent):
    async def on_status(self, message: Msg) -> None:
        pass


class Silent(PlainAgent):
    async def on_message(self, message: Msg) -> None:
        pass


class NoBroadcasts(PlainAgent):
    async def on_message(self, message: Msg) -> None:
        if message.subject != "ll.broadcast":
            await super().on_message(message)


class TellsNothing(PlainAgent):
    async def on_message(self, message: Msg) -> None:
        msg_id = json.loads(message.data)["msg_id"]
        await self.nc.publish(f"ll.acks.{self.client_id}.{msg_id}", b"{}")


class Percents(PlainAgent):
    async def tell_progress(self, command_id: str) -> None:
        await self.nc.publish(f"ll.progress.{self.client_id}.{command_id}", b'{"fraction": 50}')


BROKEN: list[tuple[str, type[PlainAgent], str]] = [
    ("tells that it is online", NoPresence, "nothing is stored on $KV.lightlink_agents."),
    ("tells that it is online", NoInstance, "instance is missing"),
    ("tells that it is online", OddTimes, 'last_heartbeat of the presence is "just now", not a time of RFC 3339'),
    ("renews its presence over the last", Overwrites, "the header Nats-Expected-Last-Subject-Sequence of the second"),
    ("completes a command", NoResult, 'result is null, not {"sum":3}'),
    ("takes its work from its consumer", OwnConsumer, "has delivered nothing"),
    ("claims a command by creating its status", Overwrites, "Nats-Expected-Last-Subject-Sequence of the first"),
    ("claims a command by creating its status", ClaimsWithoutInstance, "the first status names no instance"),
    ("claims a command by creating its status", RunsFirst, "the first status is 'completed'"),
    ("writes each status over the one before", OverwritesEnds, "over which sequence 'completed' is written"),
    ("says executing while it runs", RunsFirst, "the command is completed, not executing"),
    ("holds the delivery until the end is stored", AcksFirst, "is acknowledged while the command runs"),
    ("acknowledges the delivery when the end is stored", NeverAcks, "the delivery is not acknowledged"),
    ("tells how a command failed", HidesErrors, 'error is "something went wrong"'),
    ("rejects a type that it does not know", LeavesUnknown, "the command is pending: no status is stored"),
    ("ignores fields that it does not know", RefusesFields, "the command is pending: no status is stored"),
    ("goes on behind a request that it cannot read", Stumbles, "the command is pending: no status is stored"),
    ("does not run what was ended before", RunsEnded, "how often the handler has run is 3, not 2"),
    ("does not run what another instance has begun", RunsOthers, "how often the handler has run is 3, not 2"),
    ("does not run what is over", NoDeadlines, "how often the handler has run is 3, not 2"),
    ("does not run what is over", NoDeadlinesButLate, "how often the handler has run is 3, not 2"),
    ("does not believe a time of an hour ago", Believes, "not completed"),
    ("ends a command that is cancelled while it runs", HeedsNoCancel, "the command is executing, not completed or"),
    ("ends a command that is cancelled while it runs", OverwritesEnds, "over which sequence the end is written"),
    ("acknowledges a message", Silent, "the acknowledgement did not come"),
    ("acknowledges a broadcast", NoBroadcasts, "the acknowledgement did not come"),
    ("tells of its commands", TellsNothing, "commands is null, without add"),
    ("tells how far a command has come", Percents, "fraction is 50, not from 0 to 1"),
]


def test_every_rule_of_agents_has_an_agent_that_breaks_it() -> None:
    assert {name for name, _, _ in BROKEN} == set(NAMES)


# Of these the judge waits for something in vain, after other things have come.
MISSED = (NoPresence, NeverAcks, RunsFirst, HeedsNoCancel)
IDS = [f"{kind.__name__}-{name.replace(' ', '-')}" for name, kind, _ in BROKEN]


@pytest.mark.parametrize(("name", "kind", "fault"), BROKEN, ids=IDS)
def test_a_broken_agent_is_told_by_name(
    name: str, kind: type[PlainAgent], fault: str, judging: lightlink.Client, stranger: RawPeer, prefix: str
) -> None:
    with lightlink.CommandManager(judging) as manager:
        manager.store.ensure_consumers([prefix])
    kind(stranger, prefix).start()
    # What never comes need not be waited for as long as what comes late on a busy machine.
    timeout = 1.5 if "pending" in fault or "did not come" in fault else 3.0 if kind in MISSED else 30.0
    (verdict,) = judge_agent(judging, prefix, timeout=timeout, only=[name])
    assert fault in verdict.fault
    assert verdict.is_failure == (verdict.level == "must")


def test_the_command_tells_of_an_agent_that_is_not_there(
    quick_url: str, prefix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = ["--only", "tells that it is online", "--only", "tells of its commands"]
    line = ["conformance", "agent", prefix, f"--url={quick_url}", "--timeout=1", *wanted]
    assert main(line) == Exit.FAILED
    assert "0 hold, 1 should and do not, 1 must and do not" in capsys.readouterr().out
    assert main([*line, "--json"]) == Exit.FAILED
    first, _ = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert first["name"] == "tells that it is online"
    assert first["why"].startswith("A presence is JSON: `client_id`")


def test_a_check_that_there_is_not_is_refused(judging: lightlink.Client, prefix: str) -> None:
    with pytest.raises(InvalidOption, match="there is no check of this name"):
        list(judge_agent(judging, prefix, only=["flies"]))
