"""A peer in another program that knows nothing of LightLink: nats-py, JSON and what docs/wire.md says of subjects.

It does what peers in Go, C# and Python were seen to do: errors with an empty id, capitals in them, details of a
validation in the result, announcements of files that leave out what may be left out, methods with dots, results that
have to be objects, and a registry that it reads.
"""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any

import pytest
from helpers.waiting import eventually

import lightlink
from lightlink.errors import InvalidArguments, MethodNotFound, RemoteError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import StartPython
    from helpers.process import PythonProcess

pytestmark = pytest.mark.interop

# One JSON value a line: what it has heard, and what its calls came to.
PEER = """
import asyncio, json, sys
import nats

async def main(url, name, ours):
    nc = await nats.connect(url)
    objects = nc.jetstream()

    def tell(*told):
        print("told", json.dumps(told), flush=True)

    async def serve(message):
        body = json.loads(message.data)
        method = message.subject.split(".", 2)[2]
        assert method == body["method"]
        failure = {"id": "", "success": False, "result": None}
        answers = {
            "echo": {"id": body["id"], "success": True, "result": {"args": body["args"]}},
            "backup.create": {"id": body["id"], "success": True, "result": {"created": body["args"].get("what")}},
            "bad": {**failure, "error": "bad thing"},
            "strict": {**failure, "error": "invalid", "result": {
                "type": "validation_error", "parameter_name": "n", "expected_type": "int", "actual_type": "str",
                "message": "n must be a number"}},
        }
        unknown = {**failure, "error": f"Method not found: {method}"}
        await message.respond(json.dumps(answers.get(method, unknown)).encode())

    async def call(method, args):
        body = {"id": "7", "method": method, "args": args}
        answer = await nc.request(f"$SRV.{ours}.{method}", json.dumps(body).encode(), timeout=20)
        return json.loads(answer.data)

    async def registered(message):
        body = json.loads(message.data)
        if body["service"] == ours:
            tell(message.subject, sorted(body["metadata"]["methods"]))

    await nc.subscribe(f"$SRV.{name}.>", queue="q", cb=serve)
    await nc.subscribe("$LL.register.*", cb=registered)
    ping = json.dumps({"id": "0", "method": "echo", "args": {}}).encode()
    while True:  # a flush of nats-py may overtake what it is to confirm
        try:
            await nc.request(f"$SRV.{name}.echo", ping, timeout=20)
            break
        except nats.errors.NoRespondersError:
            pass
    tell("ready")
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        what, *given = json.loads(line)
        if what == "call":
            tell(await call(*given))
        elif what == "announce":
            store = await objects.object_store("light_link_files")
            info = await store.put("0123", b"content")
            told = {"file_id": "0123", "file_name": given[0], "to": ours}
            await nc.publish("file.transfer", json.dumps(told).encode())
            tell("announced")
    await nc.drain()

asyncio.run(main(*sys.argv[1:]))
"""


class Peer:
    """The program: what it is told to do, and what it tells."""

    def __init__(self, process: PythonProcess) -> None:
        self._process = process
        assert self.told() == ["ready"]

    def do(self, *what: Any) -> Any:
        """Have it do something, and return what came of it."""
        self._process.send_line(json.dumps(what))
        return self.told()[0]

    def told(self) -> Any:
        """Return the next thing that it tells."""
        return json.loads(self._process.wait_line("told ", 30))


@pytest.fixture
def client(url: str) -> Iterator[lightlink.Client]:
    with lightlink.connect(url) as connected:
        yield connected


@pytest.fixture
def peer(python: StartPython, url: str, prefix: str) -> Peer:
    return Peer(python(PEER, url, f"{prefix}-theirs", prefix))


def test_its_errors_say_what_it_says(client: lightlink.Client, peer: Peer, prefix: str) -> None:
    theirs = f"{prefix}-theirs"
    assert client.call(theirs, "echo", {"text": "Jürgen"}) == {"args": {"text": "Jürgen"}}
    with pytest.raises(RemoteError, match="bad thing"):
        client.call(theirs, "bad")
    with pytest.raises(MethodNotFound, match="nothing"):
        client.call(theirs, "nothing")
    with pytest.raises(InvalidArguments, match="argument 'n': n must be a number"):
        client.call(theirs, "strict", {"n": "x"})


def test_methods_with_dots_are_called_both_ways(client: lightlink.Client, url: str, peer: Peer, prefix: str) -> None:
    assert client.service(f"{prefix}-theirs").backup.create(what="all") == {"created": "all"}
    service = lightlink.Service(prefix, url, registry=True)

    @service.rpc(name="backup.create", wrap="value")
    def create(what: str) -> int:
        return len(what)

    with service:
        assert peer.told() == [f"$LL.register.{prefix}", ["backup.create"]]
        assert peer.do("call", "backup.create", {"what": "all"}) == {"id": "7", "success": True, "result": {"value": 3}}
        refused = peer.do("call", "backup.create", {"what": 5})
        assert (refused["id"], refused["success"], refused["code"]) == ("7", False, "invalid_arguments")
        assert "'what'" in refused["error"]
        assert peer.do("call", "nothing", {})["code"] == "method_not_found"


def test_a_file_that_it_announces_has_the_name_that_it_says(
    client: lightlink.Client, url: str, peer: Peer, prefix: str
) -> None:
    client.upload(__file__)  # the bucket is made as ours are
    got: list[tuple[str, bytes]] = []
    service = lightlink.Service(prefix, url)

    @service.on_file
    def take(file: lightlink.FileInfo) -> None:
        content = io.BytesIO()
        service.client.download(file.id, content)
        got.append((file.name, content.getvalue()))

    with service:
        assert peer.do("announce", "naïve name.bin") == "announced"
        eventually(lambda: got)
    assert got == [("naïve name.bin", b"content")]
