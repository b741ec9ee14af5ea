"""An agent on plain nats-py, written by docs/wire.md; a test makes it wrong in one rule by overriding a method."""

from __future__ import annotations

import asyncio
import json
import logging
from collections import defaultdict
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import nats.errors
import nats.js.errors

if TYPE_CHECKING:
    from helpers.raw import RawPeer
    from nats.aio.msg import Msg

_log = logging.getLogger(__name__)

STATUS = "KV_lightlink_command_status"
ENDED = ("completed", "failed", "timeout")


def now() -> datetime:
    return datetime.now(timezone.utc)


class PlainAgent:
    """Takes the commands that docs/conformance.md describes, one task each."""

    def __init__(self, peer: RawPeer, client_id: str) -> None:
        self.peer = peer
        self.nc = peer.nc
        self.js = peer.nc.jetstream()
        self.client_id = client_id
        self.instance = "plain-1"
        self.counted = 0
        # A wish may come before what is to heed it.
        self.cancelled: dict[str, asyncio.Event] = defaultdict(asyncio.Event)
        self.tasks: set[asyncio.Task[Any]] = set()

    def start(self) -> None:
        self.peer.run(self._start())

    async def _start(self) -> None:
        await self.nc.subscribe(f"ll.messages.{self.client_id}", cb=self.on_message)
        await self.nc.subscribe("ll.broadcast", cb=self.on_message)
        await self.nc.subscribe(f"ll.status.{self.client_id}.*", cb=self.on_status)
        self.beside(self.live())
        self.beside(self.take())

    def beside(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tell_failure)

    @staticmethod
    def tell_failure(task: asyncio.Task[Any]) -> None:
        """Log what went wrong, which nobody waits for."""
        if not task.cancelled() and (failure := task.exception()) is not None:
            _log.error("the plain agent: %r", failure, exc_info=failure)

    # What it says of itself -----------------------------------------------------------------------------------------

    def presence(self) -> dict[str, Any]:
        at = now().isoformat()
        return {"client_id": self.client_id, "instance": self.instance, "connected_at": at, "last_heartbeat": at}

    async def live(self) -> None:
        revision = 0
        while True:
            body = json.dumps(self.presence()).encode()
            subject = f"$KV.lightlink_agents.{self.client_id}"
            revision = (await self.js.publish(subject, body, headers=self.over(revision))).seq
            await asyncio.sleep(0.2)

    async def on_message(self, message: Msg) -> None:
        body = json.loads(message.data)
        answer: dict[str, Any] = {"commands": {"add": {}}} if body["type"] == "_describe" else {}
        await self.nc.publish(f"ll.acks.{self.client_id}.{body['msg_id']}", json.dumps(answer).encode())

    # Commands -------------------------------------------------------------------------------------------------------

    def over(self, revision: int) -> dict[str, str]:
        """Return the header of a write over a revision."""
        return {"Nats-Expected-Last-Subject-Sequence": str(revision)}

    async def take(self) -> None:
        consumer = f"agent-{self.client_id}"
        pulling = await self.js.pull_subscribe_bind(consumer, stream="LIGHTLINK_COMMANDS")
        while True:
            try:
                messages = await pulling.fetch(16, timeout=1)
            except nats.errors.ConnectionClosedError:
                return
            except (nats.errors.Error, asyncio.TimeoutError):  # nothing has come; nats-py says so in two ways
                await asyncio.sleep(0)
                continue
            for message in messages:
                await self.take_one(message)

    async def take_one(self, message: Msg) -> None:
        try:
            request = json.loads(message.data)
        except ValueError:
            await message.term()
            return
        self.beside(self.process(message, request))

    def deadline(self, request: dict[str, Any], stored: datetime) -> datetime:
        """Return when a command is over: its own time counts unless it cannot be."""
        created = datetime.fromisoformat(request["created_at"].replace("Z", "+00:00"))
        if not stored - timedelta(minutes=1) <= created <= stored + timedelta(seconds=2):
            created = stored
        return created + timedelta(seconds=request["timeout"])

    async def process(self, message: Msg, request: dict[str, Any]) -> None:
        status, revision = await self.read(request["command_id"])
        if status is not None and status["status"] in ENDED:
            await message.ack()
            return
        if now() > self.deadline(request, message.metadata.timestamp):
            end: dict[str, Any] = {"status": "timeout", "status_detail": "delivery_timeout"}
        elif status is not None:
            end = {"status": "failed", "status_detail": "interrupted", "outcome_unknown": True}
        else:
            claim = {"status": "executing", "attempt": 1, "started_at": now().isoformat()}
            revision = await self.write(request["command_id"], claim, revision)
            end = await self.run(request)
            _, revision = await self.read(request["command_id"])
        await self.write(request["command_id"], {**end, "attempt": 1, "completed_at": now().isoformat()}, revision)
        await message.ack()

    async def read(self, command_id: str) -> tuple[dict[str, Any] | None, int]:
        subject = f"$KV.lightlink_command_status.{self.client_id}.{command_id}"
        try:
            stored = await self.js.get_last_msg(STATUS, subject)
        except nats.js.errors.NotFoundError:
            return None, 0
        assert stored.data is not None
        assert stored.seq is not None
        return json.loads(stored.data), stored.seq

    async def write(self, command_id: str, status: dict[str, Any], revision: int) -> int:
        body = {"at": now().isoformat(), "by": self.instance, "instance": self.instance, **status}
        subject = f"$KV.lightlink_command_status.{self.client_id}.{command_id}"
        return (await self.js.publish(subject, json.dumps(body).encode(), headers=self.over(revision))).seq

    async def run(self, request: dict[str, Any]) -> dict[str, Any]:
        """Run a command, and return its end."""
        payload, command_type = request.get("payload") or {}, request["command_type"]
        if command_type == "add":
            return {"status": "completed", "result": {"sum": payload["a"] + payload["b"]}}
        if command_type == "count":
            self.counted += 1
            return {"status": "completed", "result": {"count": self.counted}}
        if command_type == "fail":
            return {"status": "failed", "error": payload["text"]}
        if command_type == "wait":
            return await self.wait(request["command_id"], payload["seconds"])
        return {"status": "failed", "status_detail": "rejected", "error": f"unknown type: {command_type}"}

    async def wait(self, command_id: str, seconds: float) -> dict[str, Any]:
        cancelled = self.cancelled[command_id]
        await self.tell_progress(command_id)
        try:
            await asyncio.wait_for(cancelled.wait(), seconds)
        except asyncio.TimeoutError:
            return {"status": "completed", "result": {"seconds": seconds}}
        return {"status": "failed", "status_detail": "cancelled", "error": "cancelled"}

    async def tell_progress(self, command_id: str) -> None:
        await self.nc.publish(f"ll.progress.{self.client_id}.{command_id}", b'{"fraction": 0.5}')

    async def on_status(self, message: Msg) -> None:
        if json.loads(message.data).get("cancel_requested"):
            self.cancelled[message.subject.rpartition(".")[2]].set()
