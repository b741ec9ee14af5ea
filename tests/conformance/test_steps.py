"""Programs, ours and strangers, good and broken in one rule each, before the judge of steps."""

from __future__ import annotations

import asyncio
import json
from threading import Thread
from typing import TYPE_CHECKING, Any, ClassVar

import pytest
from conformance.plain_program import PlainProgram, Refused, meta_subject
from helpers.docs import sample

import lightlink
from lightlink.cli import main
from lightlink.cli.terminal.exits import Exit
from lightlink.conformance import STEP_CHECKS, StepJudge

if TYPE_CHECKING:
    from helpers.raw import RawPeer
    from nats.aio.msg import Msg
    from nats.js.api import RawStreamMsg

KINDS = list(STEP_CHECKS)


def faults(judge: StepJudge) -> dict[str, str]:
    return {verdict.name: verdict.fault for verdict in judge.verdicts(timeout=20) if verdict.fault}


@pytest.mark.parametrize("kind", KINDS)
def test_we_hold_everything(kind: str, judging: lightlink.Client, quick_url: str) -> None:
    with lightlink.connect(quick_url) as client, StepJudge(judging, kind, timeout=20) as judge:
        program = sample("conformance").Program(client)
        program.run()
        assert faults(judge) == {}
        program.close()


@pytest.mark.parametrize("kind", KINDS)
def test_a_plain_program_holds_everything(kind: str, judging: lightlink.Client, stranger: RawPeer, prefix: str) -> None:
    with StepJudge(judging, kind, prefix, timeout=20) as judge:
        PlainProgram(stranger, prefix).run()
        assert faults(judge) == {}


# Events ---------------------------------------------------------------------------------------------------------------


class Pickles(PlainProgram):
    def encode(self, value: Any) -> bytes:
        return repr(value).encode()


class Sevens(PlainProgram):
    async def publish_bytes(self, subject: str, base64: str) -> None:
        await self.nc.publish(subject, base64.encode())


class HearsText(PlainProgram):
    def read_event(self, message: Msg) -> Any:
        return message.data.decode()


class FearsHeaders(PlainProgram):
    def read_event(self, message: Msg) -> Any:
        return "headers!" if message.headers else super().read_event(message)


class TakesNonsense(PlainProgram):
    def read_event(self, message: Msg) -> Any:
        try:
            return super().read_event(message)
        except ValueError:
            return None


class BareIds(PlainProgram):
    def message_id(self, subject: str, event_id: str) -> str:
        return event_id


# State ----------------------------------------------------------------------------------------------------------------


class FewKeys(PlainProgram):
    def key_subject(self, key: str) -> str:
        return super().key_subject(key.replace("/", "_"))


class NoRevision(PlainProgram):
    async def set(self, key: str, value: Any) -> int:
        await super().set(key, value)
        return 1


class ReadsText(PlainProgram):
    async def get(self, key: str) -> Any:
        return json.dumps(await super().get(key))


class NullIsNothing(PlainProgram):
    async def get(self, key: str) -> Any:
        found = await super().get(key)
        if found is None:
            raise Refused("nothing there")
        return found


class MissingIsNull(PlainProgram):
    async def get(self, key: str) -> Any:
        try:
            return await super().get(key)
        except Refused:
            return None


class ReadsMarkers(PlainProgram):
    def is_marker(self, message: RawStreamMsg) -> bool:
        message.data = message.data or b'"deleted"'
        return False


class DeletesByNull(PlainProgram):
    async def delete(self, key: str) -> None:
        await self.set(key, None)


class MarksWithBody(PlainProgram):
    async def delete(self, key: str) -> None:
        await self.put(self.key_subject(key), {"deleted": True}, {"KV-Operation": "DEL"})


class Overwrites(PlainProgram):
    def over(self, revision: int) -> dict[str, str]:
        return {}


class SwallowsConflicts(PlainProgram):
    async def update(self, key: str, value: Any, revision: int) -> int:
        try:
            return await super().update(key, value, revision)
        except Exception:
            return 0


# Files ----------------------------------------------------------------------------------------------------------------


class NamesAsIds(PlainProgram):
    def new_file_id(self) -> str:
        return f"data-{id(self)}.csv"


class Described(PlainProgram):
    """Describes what it stores otherwise than it is."""

    otherwise: ClassVar[dict[str, Any]] = {}

    def describe(self, meta: dict[str, Any]) -> dict[str, Any]:
        return {**meta, **self.otherwise}


class ForgetsName(Described):
    otherwise: ClassVar[dict[str, Any]] = {"description": "a file", "metadata": {}}


class WrongSize(Described):
    otherwise: ClassVar[dict[str, Any]] = {"size": 1}


class WrongChunks(Described):
    otherwise: ClassVar[dict[str, Any]] = {"chunks": 1}


class HexDigest(Described):
    otherwise: ClassVar[dict[str, Any]] = {"digest": "SHA-256=abc"}


class LosesChunks(PlainProgram):
    async def put_file(self, name: str, content: bytes) -> dict[str, Any]:
        meta = await super().put_file(name, content)
        await self.js.purge_stream("OBJ_light_link_files", subject=f"$O.light_link_files.C.{meta['nuid']}", keep=1)
        return meta


class ReadsOneChunk(PlainProgram):
    async def read_meta(self, file_id: str) -> dict[str, Any]:
        return {**await super().read_meta(file_id), "chunks": 1}

    def check(self, meta: dict[str, Any], content: bytes) -> None:
        pass


class ChecksNothing(PlainProgram):
    def check(self, meta: dict[str, Any], content: bytes) -> None:
        pass


class ChecksDigestAlone(PlainProgram):
    def check(self, meta: dict[str, Any], content: bytes) -> None:
        super().check({**meta, "size": len(content)}, content)


class MissingIsEmpty(PlainProgram):
    async def download(self, file_id: str) -> str:
        try:
            return await super().download(file_id)
        except Refused:
            return ""


class LeavesChunks(PlainProgram):
    async def delete_file(self, file_id: str) -> None:
        meta = await self.read_meta(file_id)
        await self.put(meta_subject(file_id), {**meta, "deleted": True}, {"Nats-Rollup": "sub"})


class LeavesDescription(PlainProgram):
    async def delete_file(self, file_id: str) -> None:
        meta = await self.read_meta(file_id)
        await self.js.purge_stream("OBJ_light_link_files", subject=f"$O.light_link_files.C.{meta['nuid']}")


class AnnouncesNothing(PlainProgram):
    async def announce(self, told: dict[str, Any]) -> None:
        pass


class AnnouncesCamels(PlainProgram):
    async def announce(self, told: dict[str, Any]) -> None:
        await super().announce({"fileId": told.pop("file_id"), **told})


class TakesAll(PlainProgram):
    def is_for(self, service: str, to: str | None) -> bool:
        return True


class TakesOwn(PlainProgram):
    def is_for(self, service: str, to: str | None) -> bool:
        return to == service

    async def received_files(self, service: str, count: int) -> list[Any]:
        return [await asyncio.wait_for(self.heard[service].get(), 1) for _ in range(count)]


# Managing -------------------------------------------------------------------------------------------------------------


class LocalTimes(PlainProgram):
    def request(self, given: dict[str, Any]) -> dict[str, Any]:
        return {**super().request(given), "created_at": "27.11.2026 08:00"}


class Milliseconds(PlainProgram):
    def request(self, given: dict[str, Any]) -> dict[str, Any]:
        return super().request({**given, "timeout": 1000 * given["timeout"]})


class OtherIds(PlainProgram):
    def request(self, given: dict[str, Any]) -> dict[str, Any]:
        return super().request({**given, "command_type": "restart"})


class DottedIds(PlainProgram):
    async def send(self, **given: Any) -> str:
        return f"command.{await super().send(**given)}"


class NoConsumer(PlainProgram):
    async def make_consumer(self, client_id: str) -> None:
        pass


class WideConsumer(PlainProgram):
    async def make_consumer(self, client_id: str) -> None:
        await self.js.pull_subscribe("ll.commands.*.*", durable=f"agent-{client_id}", stream="LIGHTLINK_COMMANDS")


class Optimist(PlainProgram):
    async def status(self, command_id: str) -> str:
        status, revision = await self.status_of(command_id)
        return status["status"] if revision else "executing"


class NeverLooks(PlainProgram):
    async def status(self, command_id: str) -> str:
        return "pending"


class NoErrors(PlainProgram):
    async def result(self, command_id: str) -> Any:
        return (await self.status_of(command_id))[0].get("result")


class OddResults(PlainProgram):
    async def result(self, command_id: str) -> Any:
        return json.dumps(await super().result(command_id))


class NoCancels(PlainProgram):
    async def cancel(self, command_id: str, reason: str) -> None:
        pass


class EndsAll(PlainProgram):
    """Cancels by writing an end, whatever the status is."""

    async def cancel(self, command_id: str, reason: str) -> None:
        _, revision = await self.status_of(command_id)
        end = {"status": "failed", "status_detail": "cancelled", "cancel_reason": reason}
        await self.put(await self.status_subject(command_id), end, self.over(revision))


class ShowsAll(PlainProgram):
    async def clients(self) -> list[str]:
        info = await self.js.stream_info("KV_lightlink_agents", subjects_filter="$KV.lightlink_agents.>")
        return [subject.rpartition(".")[2] for subject in info.state.subjects or {}]


class ShowsNobody(PlainProgram):
    async def clients(self) -> list[str]:
        return []


class DottedMessages(PlainProgram):
    def compose(self, message_type: str, payload: Any) -> dict[str, Any]:
        return {**super().compose(message_type, payload), "msg_id": "a.b"}


class KindOfMessages(PlainProgram):
    def compose(self, message_type: str, payload: Any) -> dict[str, Any]:
        message = super().compose(message_type, payload)
        return {"kind": message.pop("type"), **message}


class Hopes(PlainProgram):
    async def acknowledged(self, client_id: str, acks: Any) -> list[str]:
        return [client_id]


BROKEN: list[tuple[str, str, type[PlainProgram], str]] = [
    ("events", "publishes a value as JSON", Pickles, "the body is not JSON"),
    ("events", "publishes bytes as they are", Sevens, "the body begins with b'AAECAwQFBgcICQoL'"),
    ("events", "hears values in their order", HearsText, "what it heard is "),
    ("events", "hears values with headers it does not know", FearsHeaders, 'what it heard is ["headers!"]'),
    ("events", "goes on behind a body that is not JSON", TakesNonsense, 'what it heard is [{"n":1},null]'),
    ("events", "stores an event under its id", BareIds, 'the header Nats-Msg-Id is "order-7"'),
    ("state", "writes a value as JSON", Pickles, "the value is not JSON"),
    ("state", "takes every key that NATS allows", FewKeys, "nothing is stored on $KV.light_link_state.Key-"),
    ("state", "tells the revision of what it wrote", NoRevision, "the revision is 1, not "),
    ("state", "reads what another wrote", ReadsText, "the value is "),
    ("state", "takes null for a value", NullIsNothing, "get of null failed: nothing there"),
    ("state", "finds no value where there is none", MissingIsNull, "that was never written gave null, not an error"),
    ("state", "finds no value where another deleted it", MissingIsNull, "a deleted key gave null, not an error"),
    ("state", "finds no value where another deleted it", ReadsMarkers, 'a deleted key gave "deleted", not an error'),
    ("state", "deletes with a marker", DeletesByNull, "the header KV-Operation of the last message is None"),
    ("state", "deletes with a marker", MarksWithBody, "the marker has the body"),
    ("state", "writes over the revision that is the last", Overwrites, "Nats-Expected-Last-Subject-Sequence is null"),
    ("state", "does not write over a revision that is not the last", Overwrites, "the last revision is "),
    ("state", "does not write over a revision that is not the last", SwallowsConflicts, "gave 0, not an error"),
    ("files", "names the object by a UUID", NamesAsIds, "not a UUID"),
    ("files", "keeps the file's own name", ForgetsName, 'the original name is "a file"'),
    ("files", "tells size and chunks", WrongSize, "size is 1, not "),
    ("files", "tells size and chunks", WrongChunks, "chunks is 1, not "),
    ("files", "stores the content in chunks", LosesChunks, "that are not the content of 307207"),
    ("files", "tells the digest", HexDigest, 'digest is "SHA-256=abc"'),
    ("files", "reads what another stored", ReadsOneChunk, "what it read is 100000 bytes"),
    ("files", "hands out nothing whose digest is another", ChecksNothing, "another digest gave "),
    ("files", "hands out nothing that lacks a chunk", ChecksNothing, "without its last bytes gave "),
    ("files", "hands out nothing that lacks a chunk", ChecksDigestAlone, "without its last bytes gave "),
    ("files", "finds no file where there is none", MissingIsEmpty, 'a file that is not there gave "", not an error'),
    ("files", "deletes description and chunks", LeavesChunks, "chunks are left"),
    ("files", "deletes description and chunks", LeavesDescription, "does not say deleted: true"),
    ("files", "announces a file that it sends", AnnouncesNothing, "the announcement did not come"),
    ("files", "announces a file that it sends", AnnouncesCamels, "the announcement's file_id is null"),
    ("files", "takes files that are for it", TakesAll, "what it took is "),
    ("files", "takes files that are for it", TakesOwn, "received_files failed: TimeoutError"),
    ("manager", "sends a command", LocalTimes, "created_at of the request is "),
    ("manager", "sends a command", Milliseconds, "timeout is 60000, not 60"),
    ("manager", "sends a command", OtherIds, 'command_type is "restart"'),
    ("manager", "sends a command", DottedIds, "not one token of a subject"),
    ("manager", "writes a request where there is none", Overwrites, "Nats-Expected-Last-Subject-Sequence is null"),
    ("manager", "makes the agent's consumer", NoConsumer, "there is no consumer agent-"),
    ("manager", "makes the agent's consumer", WideConsumer, 'its filter is "ll.commands.*.*"'),
    ("manager", "shows a command without a status as pending", Optimist, 'what it shows is "executing"'),
    ("manager", "shows what the agent has stored", NeverLooks, 'what it shows is "pending"'),
    ("manager", "shows what is over as timeout", NeverLooks, 'what it shows is "pending"'),
    ("manager", "hands on the result", OddResults, "the result is "),
    ("manager", "hands on the error", NoErrors, "a command that failed gave null, not an error"),
    ("manager", "cancels a pending command by creating its end", NoCancels, "no status is stored"),
    ("manager", "cancels a pending command by creating its end", Overwrites, "Last-Subject-Sequence is null"),
    ("manager", "asks the agent to cancel what runs", EndsAll, 'the status is {"status":"failed"'),
    ("manager", "asks the agent to cancel what runs", Overwrites, "Last-Subject-Sequence is null"),
    ("manager", "adds nothing to what has ended", EndsAll, "the last status is "),
    ("manager", "shows who is online", ShowsAll, "has left and is shown"),
    ("manager", "shows who is online", ShowsNobody, "is online and not shown"),
    ("manager", "sends a message, and takes the acknowledgement", DottedMessages, "msg_id is not one token"),
    ("manager", "sends a message, and takes the acknowledgement", KindOfMessages, 'type is null, not "note"'),
    ("manager", "tells that nobody has acknowledged a message", Hopes, "have it"),
]


def test_what_a_program_does_not_do_is_skipped(
    quick_url: str, stranger: RawPeer, prefix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    program = PlainProgram(stranger, prefix)
    program.store = None  # type: ignore[assignment]
    done = Thread(target=program.run)
    done.start()
    assert main(["conformance", "steps", "events", prefix, f"--url={quick_url}"]) == Exit.DONE
    done.join(30)
    told = capsys.readouterr().out
    assert "skip  stores an event under its id: the program under test has no such thing (`Nats-Msg-Id` is" in told
    assert "5 hold, 0 should and do not, 0 must and do not, 1 skipped" in told


def test_every_rule_of_steps_has_a_program_that_breaks_it() -> None:
    names = {(kind, check.name) for kind, checks in STEP_CHECKS.items() for check in checks.all}
    assert {(kind, name) for kind, name, _, _ in BROKEN} == names


IDS = [f"{program.__name__}-{name.replace(' ', '-')}" for _, name, program, _ in BROKEN]


@pytest.mark.parametrize(("kind", "name", "program", "fault"), BROKEN, ids=IDS)
def test_a_broken_program_is_told_by_name(
    kind: str,
    name: str,
    program: type[PlainProgram],
    fault: str,
    judging: lightlink.Client,
    stranger: RawPeer,
    prefix: str,
) -> None:
    timeout = 1.5 if "did not come" in fault else 10.0
    with StepJudge(judging, kind, prefix, timeout=timeout, only=[name]) as judge:
        program(stranger, prefix).run()
        (verdict,) = judge.verdicts(timeout=20)
    assert verdict.name == name
    assert fault in verdict.fault
    assert verdict.is_failure
