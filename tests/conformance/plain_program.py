"""A program on plain nats-py that does what a judge of steps asks for, written by docs/wire.md.

A test makes it wrong in one rule by overriding a method.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import uuid
from collections import defaultdict
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import nats.errors
import nats.js.errors

if TYPE_CHECKING:
    from collections.abc import Mapping

    from helpers.raw import RawPeer
    from nats.aio.msg import Msg
    from nats.js.api import RawStreamMsg

STATE = "KV_light_link_state"
FILES = "OBJ_light_link_files"
REQUESTS = "LIGHTLINK_COMMANDS"
STATUS = "KV_lightlink_command_status"
AGENTS = "KV_lightlink_agents"
ENDED = ("completed", "failed", "timeout")
SECONDS = 10.0


def now() -> datetime:
    return datetime.now(timezone.utc)


def meta_subject(file_id: str) -> str:
    return f"$O.light_link_files.M.{base64.urlsafe_b64encode(file_id.encode()).decode()}"


class Refused(Exception):
    """What a step is answered with as an error."""


class PlainProgram:
    """Has a method for each step, with the step's arguments."""

    def __init__(self, peer: RawPeer, service: str) -> None:
        self.peer = peer
        self.nc = peer.nc
        self.js = peer.nc.jetstream()
        self.service = service
        self.heard: dict[str, asyncio.Queue[Any]] = defaultdict(asyncio.Queue)
        self.sent: dict[str, str] = {}  # the client of each command

    def run(self) -> None:
        """Ask for steps until there are no more."""
        self.peer.run(self._run(), timeout=120)

    async def _run(self) -> None:
        while not (step := await self._call("next", {})).get("done"):
            do = getattr(self, step["do"], None)
            await self._call("report", {"skip": True} if do is None else await self._outcome(do, step["args"]))

    async def _call(self, method: str, args: dict[str, Any]) -> dict[str, Any]:
        body = json.dumps({"id": str(uuid.uuid4()), "method": method, "args": args}).encode()
        while True:
            try:
                answered = await self.nc.request(f"$SRV.{self.service}.{method}", body, timeout=60)
                break
            except nats.errors.NoRespondersError:
                await asyncio.sleep(0.05)  # the judge is not there yet
        result: dict[str, Any] = json.loads(answered.data)["result"]
        return result

    async def _outcome(self, do: Any, args: dict[str, Any]) -> dict[str, Any]:
        try:
            return {"result": await do(**args)}
        except (Refused, nats.errors.Error, asyncio.TimeoutError) as error:
            return {"error": str(error) or type(error).__name__}

    async def last(self, stream: str, subject: str) -> RawStreamMsg | None:
        try:
            return await self.js.get_last_msg(stream, subject)
        except nats.js.errors.NotFoundError:
            return None

    def over(self, revision: int) -> dict[str, str]:
        """Return the header of a write over a revision."""
        return {"Nats-Expected-Last-Subject-Sequence": str(revision)}

    def encode(self, value: Any) -> bytes:
        return json.dumps(value).encode()

    async def put(self, subject: str, body: Any, headers: Mapping[str, str] | None = None) -> int:
        data = body if isinstance(body, bytes) else self.encode(body)
        return (await self.js.publish(subject, data, headers=dict(headers or {}))).seq

    # Events ---------------------------------------------------------------------------------------------------------

    async def publish(self, subject: str, data: Any) -> None:
        await self.nc.publish(subject, self.encode(data))

    async def publish_bytes(self, subject: str, base64: str) -> None:
        await self.nc.publish(subject, from_base64(base64))

    async def subscribe(self, subject: str) -> None:
        async def take(message: Msg) -> None:
            try:
                data = self.read_event(message)
            except ValueError:
                return
            self.heard[subject].put_nowait(data)

        await self.nc.subscribe(subject, cb=take)
        await self.nc.flush()

    def read_event(self, message: Msg) -> Any:
        return json.loads(message.data)

    async def received(self, subject: str, count: int) -> list[Any]:
        return [await asyncio.wait_for(self.heard[subject].get(), SECONDS) for _ in range(count)]

    async def store(self, subject: str, data: Any, event_id: str) -> None:
        await self.put(subject, data, {"Nats-Msg-Id": self.message_id(subject, event_id)})

    def message_id(self, subject: str, event_id: str) -> str:
        return f"{subject}|{event_id}"

    # State ----------------------------------------------------------------------------------------------------------

    def key_subject(self, key: str) -> str:
        return f"$KV.light_link_state.{key}"

    async def set(self, key: str, value: Any) -> int:
        return await self.put(self.key_subject(key), value)

    async def get(self, key: str) -> Any:
        found = await self.last(STATE, self.key_subject(key))
        if found is None or self.is_marker(found):
            raise Refused(f"no such key: {key}")
        assert found.data is not None
        return json.loads(found.data)

    def is_marker(self, message: RawStreamMsg) -> bool:
        return "KV-Operation" in (message.headers or {})

    async def update(self, key: str, value: Any, revision: int) -> int:
        return await self.put(self.key_subject(key), value, self.over(revision))

    async def delete(self, key: str) -> None:
        await self.put(self.key_subject(key), b"", {"KV-Operation": "DEL"})

    # Files ----------------------------------------------------------------------------------------------------------

    def new_file_id(self) -> str:
        return str(uuid.uuid4())

    def describe(self, meta: dict[str, Any]) -> dict[str, Any]:
        """Return how an object is described."""
        return meta

    async def upload(self, name: str, base64: str) -> str:
        return (await self.put_file(name, from_base64(base64)))["name"]

    async def put_file(self, name: str, content: bytes) -> dict[str, Any]:
        meta = self.describe(new_meta(self.new_file_id(), name, content))
        for piece in pieces(content):
            await self.put(f"$O.light_link_files.C.{meta['nuid']}", piece)
        await self.put(meta_subject(meta["name"]), meta, {"Nats-Rollup": "sub"})
        return meta

    async def read_meta(self, file_id: str) -> dict[str, Any]:
        found = await self.last(FILES, meta_subject(file_id))
        meta = {} if found is None or found.data is None else json.loads(found.data)
        if not meta or meta.get("deleted"):
            raise Refused(f"no such file: {file_id}")
        return meta

    async def download(self, file_id: str) -> str:
        meta = await self.read_meta(file_id)
        subscription = await self.js.subscribe(f"$O.light_link_files.C.{meta['nuid']}", ordered_consumer=True)
        content = b""
        for _ in range(meta["chunks"]):
            content += (await subscription.next_msg(SECONDS)).data
        await subscription.unsubscribe()
        self.check(meta, content)
        return base64.b64encode(content).decode()

    def check(self, meta: dict[str, Any], content: bytes) -> None:
        if len(content) != meta["size"] or digest_of(content) != meta["digest"]:
            raise Refused("the file is corrupt")

    async def send_file(self, name: str, base64: str, to: str) -> str:
        meta = await self.put_file(name, from_base64(base64))
        told = {"file_id": meta["name"], "file_name": name, "file_size": meta["size"], "chunk_num": meta["chunks"]}
        await self.announce({**told, "from": "plain", "to": to})
        return str(meta["name"])

    async def announce(self, told: dict[str, Any]) -> None:
        await self.nc.publish("file.transfer", self.encode(told))

    async def listen_for_files(self, service: str) -> None:
        async def take(message: Msg) -> None:
            told = json.loads(message.data)
            if self.is_for(service, told.get("to")):
                self.heard[service].put_nowait({"file_id": told["file_id"], "file_name": told["file_name"]})

        await self.nc.subscribe("file.transfer", cb=take)
        await self.nc.flush()

    def is_for(self, service: str, to: str | None) -> bool:
        return not to or to == service

    async def received_files(self, service: str, count: int) -> list[Any]:
        return await self.received(service, count)

    async def delete_file(self, file_id: str) -> None:
        meta = await self.read_meta(file_id)
        gone = {**meta, "deleted": True, "size": 0, "chunks": 0}
        await self.put(meta_subject(file_id), gone, {"Nats-Rollup": "sub"})
        await self.js.purge_stream(FILES, subject=f"$O.light_link_files.C.{meta['nuid']}")

    # Managing -------------------------------------------------------------------------------------------------------

    def request(self, given: dict[str, Any]) -> dict[str, Any]:
        """Return how a request is stored."""
        return {"command_id": str(uuid.uuid4()), "created_at": now().isoformat(), **given}

    async def send(self, **given: Any) -> str:
        await self.make_consumer(given["client_id"])
        request = self.request(given)
        subject = f"ll.commands.{request['client_id']}.{request['command_id']}"
        await self.put(subject, request, self.over(0))
        self.sent[request["command_id"]] = request["client_id"]
        return str(request["command_id"])

    async def make_consumer(self, client_id: str) -> None:
        filtered = f"ll.commands.{client_id}.*"
        await self.js.pull_subscribe(filtered, durable=f"agent-{client_id}", stream=REQUESTS)

    async def status_of(self, command_id: str) -> tuple[dict[str, Any], int]:
        found = await self.last(STATUS, await self.status_subject(command_id))
        if found is None or found.data is None or found.seq is None:
            return {"status": "pending"}, 0
        return json.loads(found.data), found.seq

    async def status_subject(self, command_id: str) -> str:
        return f"$KV.lightlink_command_status.{(await self.stored(command_id))['client_id']}.{command_id}"

    async def stored(self, command_id: str) -> dict[str, Any]:
        found = await self.last(REQUESTS, f"ll.commands.*.{command_id}")
        assert found is not None
        assert found.data is not None
        request: dict[str, Any] = json.loads(found.data)
        return request

    async def status(self, command_id: str) -> str:
        status, _ = await self.status_of(command_id)
        request = await self.stored(command_id)
        over = datetime.fromisoformat(request["created_at"]) + timedelta(seconds=request["timeout"])
        return "timeout" if status["status"] not in ENDED and now() > over else status["status"]

    async def result(self, command_id: str) -> Any:
        status, _ = await self.status_of(command_id)
        if status["status"] == "completed":
            return status["result"]
        raise Refused(status.get("error", ""))

    async def cancel(self, command_id: str, reason: str) -> None:
        status, revision = await self.status_of(command_id)
        if status["status"] in ENDED:
            raise Refused(f"it is {status['status']} already")
        told = {"at": now().isoformat(), "by": "plain", "cancel_reason": reason}
        if revision:
            wish = {**status, **told, "cancel_requested": True}
        else:
            wish = {"status": "failed", "status_detail": "cancelled", "completed_at": now().isoformat(), **told}
        await self.put(await self.status_subject(command_id), wish, self.over(revision))

    async def clients(self) -> list[str]:
        info = await self.js.stream_info(AGENTS, subjects_filter="$KV.lightlink_agents.>")
        found = [(subject, await self.last(AGENTS, subject)) for subject in info.state.subjects or {}]
        return [subject.rpartition(".")[2] for subject, last in found if last is not None and not self.is_marker(last)]

    def compose(self, message_type: str, payload: Any) -> dict[str, Any]:
        msg_id = uuid.uuid4().hex
        return {"msg_id": msg_id, "type": message_type, "payload": payload, "sent_at": now().isoformat()}

    async def message(self, client_id: str, message_type: str, payload: Any) -> list[str]:
        message = self.compose(message_type, payload)
        acks = await self.nc.subscribe(f"ll.acks.{client_id}.*")
        await self.nc.flush()
        await self.nc.publish(f"ll.messages.{client_id}", self.encode(message))
        return await self.acknowledged(client_id, acks)

    async def acknowledged(self, client_id: str, acks: Any) -> list[str]:
        try:
            await acks.next_msg(0.5)
        except nats.errors.TimeoutError:
            raise Refused(f"{client_id} is not there") from None
        return [client_id]


def from_base64(text: str) -> bytes:
    return base64.b64decode(text)


def pieces(content: bytes) -> list[bytes]:
    return [content[at : at + 65536] for at in range(0, len(content), 65536)]


def digest_of(content: bytes) -> str:
    return f"SHA-256={base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode()}"


def new_meta(file_id: str, name: str, content: bytes) -> dict[str, Any]:
    return {
        "name": file_id,
        "bucket": "light_link_files",
        "nuid": uuid.uuid4().hex,
        "size": len(content),
        "chunks": len(pieces(content)),
        "digest": digest_of(content),
        "description": name,
        "metadata": {"file_name": name},
    }
