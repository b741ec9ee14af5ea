"""Have a service, an agent, and a program that does what it is told judged by the wire format.

python samples/conformance.py [URL]
"""

from __future__ import annotations

import base64
import io
import itertools
import queue
from typing import TYPE_CHECKING, Any

from _server import nats_url

import lightlink
from lightlink.conformance import STEP_CHECKS, StepJudge, judge_agent, judge_service

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lightlink.conformance import Verdict

# How long to wait for what a step before has asked for.
SECONDS = 10.0


def make_service(client: lightlink.Client) -> lightlink.Service:
    """Return the service that docs/conformance.md describes."""
    service = lightlink.Service("conformance", client, version="1.0.0")

    @service.rpc
    def add(a: int, b: int) -> dict[str, int]:
        return {"sum": a + b}

    @service.rpc
    def echo(value: Any) -> dict[str, Any]:
        return {"value": value}

    @service.rpc
    def fail(text: str) -> None:
        raise ValueError(text)

    @service.rpc
    def hello() -> dict[str, str]:
        return {"hello": "world"}

    return service


def make_agent(client: lightlink.Client) -> lightlink.Agent:
    """Return the agent that docs/conformance.md describes."""
    # The streams are made for it where there are none yet; one check waits for a heartbeat.
    agent = lightlink.Agent("conformance", client, store=lightlink.StoreOptions(heartbeat=1.0))
    counted = itertools.count(1)

    @agent.command("add")
    def add(a: int, b: int) -> dict[str, int]:
        return {"sum": a + b}

    @agent.command("fail")
    def fail(text: str) -> None:
        raise ValueError(text)

    @agent.command("count")
    def count() -> dict[str, int]:
        return {"count": next(counted)}

    @agent.command("wait")
    def wait(seconds: float, context: lightlink.CommandContext) -> dict[str, float]:
        context.progress(0.5)
        context.cancelled.wait(seconds)
        context.check()
        return {"seconds": seconds}

    return agent


class Program:
    """Does what a judge of steps asks for: a method a step, whose arguments are the step's."""

    def __init__(self, client: lightlink.Client) -> None:
        self._client = client
        self._manager = lightlink.CommandManager(client)
        self._heard: dict[str, queue.SimpleQueue[Any]] = {}
        self._taken: dict[str, queue.SimpleQueue[dict[str, str]]] = {}
        self._services: list[lightlink.Service] = []

    def run(self) -> None:
        """Ask the judge for steps until there are no more."""
        while not (step := self._client.call("conformance", "next", timeout=60)).get("done"):
            self._client.call("conformance", "report", self.outcome(step), timeout=60)

    def outcome(self, step: dict[str, Any]) -> dict[str, Any]:
        """Do a step, and return what is to be reported of it."""
        do = getattr(self, step["do"], None)
        if do is None:
            return {"skip": True}
        try:
            return {"result": do(**step["args"])}
        except lightlink.LightLinkError as error:
            return {"error": str(error)}

    def close(self) -> None:
        """Stop what the steps have started."""
        for service in self._services:
            service.stop()
        self._manager.close()

    # Events ---------------------------------------------------------------------------------------------------------

    def publish(self, subject: str, data: Any) -> None:
        self._client.publish(subject, data)

    def publish_bytes(self, subject: str, base64: str) -> None:
        self._client.publish(subject, _bytes(base64))

    def subscribe(self, subject: str) -> None:
        heard = self._heard[subject] = queue.SimpleQueue()
        self._client.subscribe(subject, heard.put)
        self._client.flush()

    def received(self, subject: str, count: int) -> list[Any]:
        return _take(self._heard[subject], count)

    def store(self, subject: str, data: Any, event_id: str) -> None:
        self._client.publish_stored(subject, data, id=event_id)

    # State ----------------------------------------------------------------------------------------------------------

    def set(self, key: str, value: Any) -> int:
        return self._client.set_state(key, value)

    def get(self, key: str) -> Any:
        return self._client.get_state(key)

    def update(self, key: str, value: Any, revision: int) -> int:
        return self._client.update_state(key, value, revision=revision)

    def delete(self, key: str) -> None:
        self._client.delete_state(key)

    # Files ----------------------------------------------------------------------------------------------------------

    def upload(self, name: str, base64: str) -> str:
        return self._client.upload(io.BytesIO(_bytes(base64)), name=name).id

    def download(self, file_id: str) -> str:
        content = io.BytesIO()
        self._client.download(file_id, content)
        return base64.b64encode(content.getvalue()).decode()

    def send_file(self, name: str, base64: str, to: str) -> str:
        return self._client.send_file(io.BytesIO(_bytes(base64)), name=name, to=to).id

    def listen_for_files(self, service: str) -> None:
        taken = self._taken[service] = queue.SimpleQueue()
        serving = lightlink.Service(service, self._client)

        @serving.on_file
        def take(info: lightlink.FileInfo) -> None:
            taken.put({"file_id": info.id, "file_name": info.name})

        self._services.append(serving.start())

    def received_files(self, service: str, count: int) -> list[dict[str, str]]:
        return _take(self._taken[service], count)

    def delete_file(self, file_id: str) -> None:
        self._client.delete_file(file_id)

    # Managing -------------------------------------------------------------------------------------------------------

    def send(self, client_id: str, command_type: str, payload: Any, timeout: float) -> str:
        return self._manager.send(client_id, command_type, payload, timeout=timeout).command_id

    def status(self, command_id: str) -> str:
        return self._manager.get(command_id).status

    def result(self, command_id: str) -> Any:
        return self._manager.promise(command_id).result(SECONDS)

    def cancel(self, command_id: str, reason: str) -> None:
        self._manager.cancel(command_id, reason)

    def clients(self) -> list[str]:
        return [presence.client_id for presence in self._manager.clients()]

    def message(self, client_id: str, message_type: str, payload: Any) -> list[str]:
        return list(self._manager.message(client_id, message_type, payload).reached)


def _take(arrived: queue.SimpleQueue[Any], count: int) -> list[Any]:
    return [arrived.get(timeout=SECONDS) for _ in range(count)]


def _bytes(text: str) -> bytes:
    return base64.b64decode(text)


def main(url: str) -> None:
    """Be judged in everything."""
    with lightlink.connect(url) as client, lightlink.connect(url) as judge:
        with make_service(client):
            tell("service", judge_service(judge))
        with make_agent(client):
            tell("agent", judge_agent(judge))
        program = Program(client)
        for kind in STEP_CHECKS:
            with StepJudge(judge, kind) as steps:
                program.run()
                tell(kind, steps.verdicts())
        program.close()


def tell(what: str, verdicts: Iterable[Verdict]) -> None:
    """Print what became of the checks."""
    found = list(verdicts)
    for verdict in found:
        if verdict.fault:
            print(f"{what}: {verdict.name}: {verdict.fault}")
    print(f"{what}: {sum(not verdict.fault for verdict in found)} of {len(found)} hold")


if __name__ == "__main__":
    with nats_url() as url:
        main(url)
