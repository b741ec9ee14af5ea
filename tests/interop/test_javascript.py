"""The official JavaScript clients as judges of what we publish, store and answer; `make interop` installs them."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from helpers.commands import FAST, World
from helpers.process import ROOT
from helpers.waiting import eventually

import lightlink
from lightlink.rpc.stub import write_stub

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import StartServer

pytestmark = pytest.mark.interop

PACKAGES = Path(os.environ.get("LIGHTLINK_NODE_MODULES", ROOT / "build" / "javascript" / "node_modules"))
PRELUDE = """
const {connect, headers} = require("@nats-io/transport-node");
const {jetstream} = require("@nats-io/jetstream");
const {Kvm} = require("@nats-io/kv");
const {Objm} = require("@nats-io/obj");
const {Svcm} = require("@nats-io/services");
const [url, name] = process.argv.slice(1);
const print = (value) => console.log(JSON.stringify(value));
const all = async (iterator) => {
  const found = [];
  for await (const each of iterator) found.push(each);
  return found;
};
(async () => {
  const nc = await connect({servers: url});
"""
END = """
  await nc.drain();
})().catch((error) => { console.error(error); process.exit(1); });
"""


class Script:
    """JavaScript in a process of its own, with a connection ``nc``. It prints one JSON value a line."""

    def __init__(self, code: str, *args: str) -> None:
        node = shutil.which("node")
        if node is None or not (PACKAGES / "@nats-io" / "transport-node").is_dir():
            pytest.skip("Node or its @nats-io packages are not there; `make interop` installs the packages")
        self._process = subprocess.Popen(
            [node, "-e", PRELUDE + code + END, *args],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "NODE_PATH": str(PACKAGES)},
        )

    def line(self) -> Any:
        """Return the next value it prints."""
        assert self._process.stdout is not None
        text = self._process.stdout.readline()
        assert text, self._process.communicate(timeout=30)[1]
        return json.loads(text)

    def end(self) -> list[Any]:
        """Wait for its end and return the values it printed that were not read."""
        output, errors = self._process.communicate(timeout=30)
        assert self._process.returncode == 0, errors
        return [json.loads(line) for line in output.splitlines()]

    def __enter__(self) -> Script:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate(timeout=30)


@pytest.fixture
def client(url: str) -> Iterator[lightlink.Client]:
    with lightlink.connect(url) as connected:
        yield connected


@pytest.fixture
def service(url: str, prefix: str) -> Iterator[lightlink.Service]:
    running = lightlink.Service(prefix, url, version="1.2.3", description="for the tests")

    @running.rpc
    def add(a: int, b: int) -> dict[str, int]:
        """Add two numbers."""
        return {"sum": a + b}

    with running:
        yield running


def test_it_calls_our_service_and_reads_results_and_errors(service: lightlink.Service, url: str, prefix: str) -> None:
    with Script(
        """
        const ask = async (method, args) => {
          const body = JSON.stringify({id: "js-1", method, args});
          const answer = await nc.request(`$SRV.${name}.${method}`, body, {timeout: 5000});
          const code = answer.headers?.get("Nats-Service-Error-Code") ?? "";
          print([answer.json(), code]);
        };
        await ask("add", {a: 2, b: 3});
        await ask("add", {a: 2});
        await ask("divide", {});
        """,
        url,
        prefix,
    ) as script:
        (result, no_code), (refusal, code), (missing, missing_code) = script.end()
    assert (result, no_code) == ({"id": "js-1", "success": True, "result": {"sum": 5}}, "")
    assert (refusal["id"], refusal["success"], refusal["code"], code) == ("js-1", False, "invalid_arguments", "400")
    assert (missing["error"], missing["code"]) == ("method not found: divide", "method_not_found")
    assert missing_code == "404"


def test_its_service_client_discovers_ours(service: lightlink.Service, url: str, prefix: str) -> None:
    with Script(
        """
        const services = new Svcm(nc).client({maxWait: 5000, strategy: "stall"});
        print(await all(await services.ping(name)));
        print(await all(await services.info(name)));
        print(await all(await services.stats(name)));
        """,
        url,
        prefix,
    ) as script:
        (ping,), (info,), (stats,) = script.end()
    assert (ping["name"], ping["id"], ping["version"]) == (prefix, service.instance, "1.2.3")
    assert info["description"] == "for the tests"
    assert [endpoint["subject"] for endpoint in info["endpoints"]] == [f"$SRV.{prefix}.add"]
    assert stats["endpoints"][0]["num_requests"] == 0
    told = info["endpoints"][0]["metadata"]
    assert told["description"] == "Add two numbers."
    assert json.loads(told["arguments"])["required"] == ["a", "b"]
    assert json.loads(told["result"]) == {"type": "object", "additionalProperties": {"type": "integer"}}


def test_their_client_finds_and_understands_a_service(client: lightlink.Client, url: str, prefix: str) -> None:
    with Script(
        """
        const services = new Svcm(nc);
        const service = await services.add({name, version: "2.1.0", description: "greetings", queue: "q"});
        const schema = {type: "object", properties: {whom: {type: "string"}}, required: ["whom"]};
        service.addEndpoint("greet", {
          subject: `$SRV.${name}.greet`,
          metadata: {description: "Greet somebody.", arguments: JSON.stringify(schema), other: "mine"},
          handler: (_, message) => {
            const {id, args} = message.json();
            message.respond(JSON.stringify({id, success: true, result: `Hallo ${args.whom}`}));
          },
        });
        await nc.flush();
        print("ready");
        await nc.closed();
        """,
        url,
        prefix,
    ) as script:
        assert script.line() == "ready"
        assert client.wait_for(prefix, "greet", version=">=2").description == "greetings"
        assert client.service(prefix).greet(whom="Jürgen") == "Hallo Jürgen"
        [found] = client.services(prefix)
        stub = write_stub(client.service(prefix).info())

    greet = found.methods["greet"]
    assert (found.versions, greet.stats.requests, greet.metadata) == (("2.1.0",), 1, {"other": "mine"})
    assert greet.description.text == "Greet somebody."
    assert str(greet.signature) == "(*, whom: str, **arguments)"
    assert "def greet(self, *, whom: str, **arguments: Any) -> Any:" in stub


def test_headers_with_several_values_are_what_it_sends_and_reads(
    client: lightlink.Client, url: str, prefix: str
) -> None:
    received = client.subscribe(f"{prefix}.back")
    with Script(
        """
        const subscription = nc.subscribe(`${name}.there`, {max: 1});
        await nc.flush();
        print("ready");
        for await (const message of subscription) {
          print(message.headers.values("Via"));
          const given = headers();
          given.append("Via", "x");
          given.append("Via", "y");
          nc.publish(`${name}.back`, "1", {headers: given});
        }
        """,
        url,
        prefix,
    ) as script:
        assert script.line() == "ready"
        client.publish(f"{prefix}.there", 1, headers={"Via": ["a", "b"]})
        assert script.end() == [["a", "b"]]
    assert received.get(timeout=30).header_values("Via") == ["x", "y"]


def test_our_client_calls_a_service_written_in_javascript(client: lightlink.Client, url: str, prefix: str) -> None:
    with Script(
        """
        nc.subscribe(`$SRV.${name}.*`, {queue: "q", callback: (_, message) => {
          const {id, method, args} = message.json();
          const failure = {id: "", success: false, result: null};
          const answers = {
            greet: {id, success: true, result: {text: `Hallo ${args.whom}`}},
            bad: {...failure, error: "bad thing"},
            strict: {...failure, error: "invalid", result: {
              type: "validation_error", parameter_name: "n", expected_type: "int", actual_type: "str"}},
          };
          message.respond(JSON.stringify(answers[method] ?? {...failure, error: `Method not found: ${method}`}));
        }});
        await nc.flush();
        print("ready");
        await nc.closed();
        """,
        url,
        prefix,
    ) as script:
        assert script.line() == "ready"
        assert client.call(prefix, "greet", {"whom": "Jürgen"}) == {"text": "Hallo Jürgen"}
        with pytest.raises(lightlink.MethodNotFound, match="Method not found: nothing"):
            client.call(prefix, "nothing")
        with pytest.raises(lightlink.RemoteError, match="bad thing"):
            client.call(prefix, "bad")
        with pytest.raises(lightlink.InvalidArguments, match="argument 'n': expected int, got str"):
            client.call(prefix, "strict", {"n": "x"})


def test_events_go_both_ways(client: lightlink.Client, url: str, prefix: str) -> None:
    received = client.subscribe(f"{prefix}.back")
    with Script(
        """
        const subscription = nc.subscribe(`${name}.there`, {max: 1});
        await nc.flush();
        print("ready");
        for await (const message of subscription) {
          print([message.json(), message.headers.get("Trace")]);
          nc.publish(`${name}.back`, JSON.stringify({"größe": [1, 2.5, null]}));
        }
        """,
        url,
        prefix,
    ) as script:
        assert script.line() == "ready"
        client.publish(f"{prefix}.there", {"town": "Zürich"}, headers={"Trace": "t-1"})
        assert script.end() == [[{"town": "Zürich"}, "t-1"]]
    assert received.get(timeout=30).data == {"größe": [1, 2.5, None]}


def test_state_is_read_written_and_watched_by_both(client: lightlink.Client, url: str, prefix: str) -> None:
    bucket = client.state(prefix)
    bucket.set("from.python", {"n": 1})
    bucket.set("gone", 1)
    bucket.delete("gone")
    code = """
        const bucket = await new Kvm(nc).open(name);
        const entry = await bucket.get("from.python");
        print([entry.json(), entry.revision, entry.operation, (await bucket.get("gone")).operation]);
        print((await all(await bucket.keys())).sort());
        print(await bucket.put("from.javascript", JSON.stringify({n: 2})));
        await bucket.update("from.python", JSON.stringify({n: 3}), entry.revision);
        await bucket.delete("from.javascript");
        """
    with bucket.watch() as watch, Script(code, url, prefix) as script:
        (read, keys, revision) = script.end()
        changes = [(change.key, change.value) for _, change in zip(range(4), watch, strict=False)]
    assert read == [{"n": 1}, 1, "PUT", "DEL"]
    assert keys == ["from.python"]
    assert revision == 4
    assert changes == [
        ("from.python", {"n": 1}),
        ("from.javascript", {"n": 2}),
        ("from.python", {"n": 3}),
        ("from.javascript", None),
    ]
    assert bucket.get("from.python") == {"n": 3}


def test_files_are_fetched_and_stored_by_both(client: lightlink.Client, url: str, prefix: str) -> None:
    content = os.urandom(300_000)
    store = client.file_store(prefix)
    ours = store.upload(io.BytesIO(content), name="grüße.bin")
    with Script(
        """
        const store = await new Objm(nc).open(name);
        const id = process.argv[3];
        const content = await store.getBlob(id);  // it checks the digest
        const info = await store.info(id);
        print([Buffer.from(content).toString("hex"), info.description, info.size]);
        const stored = await store.putBlob({name: "from-javascript"}, Buffer.from(content).reverse());
        print(stored.name);
        """,
        url,
        prefix,
        ours.id,
    ) as script:
        (read, stored) = script.end()
    assert (bytes.fromhex(read[0]), read[1], read[2]) == (content, "grüße.bin", 300_000)
    target = io.BytesIO()
    store.download(stored, target)
    assert target.getvalue() == content[::-1]


def test_an_agent_written_in_javascript_takes_a_command(fresh_server: StartServer, prefix: str) -> None:
    url = fresh_server().url
    with World(url, FAST) as world:
        manager = world.manager()
        promise = manager.send(prefix, "reverse", {"text": "regal"}, timeout=30)
        with Script(
            """
            const js = jetstream(nc);
            const consumer = await js.consumers.get("LIGHTLINK_COMMANDS", `agent-${name}`);
            const message = await consumer.next({expires: 5000});
            const request = message.json();
            const statuses = await new Kvm(nc).open("lightlink_command_status");
            const key = `${request.client_id}.${request.command_id}`;
            const claim = {status: "executing", at: new Date().toISOString(), instance: "js", attempt: 1};
            const revision = await statuses.create(key, JSON.stringify(claim));
            const result = [...request.payload.text].reverse().join("");
            const end = {...claim, status: "completed", at: new Date().toISOString(), result};
            end.completed_at = end.at;
            await statuses.update(key, JSON.stringify(end), revision);
            message.ack();
            print(request.command_type);
            """,
            url,
            prefix,
        ) as script:
            assert script.end() == ["reverse"]
        assert promise.result(30) == "lager"
        command = manager.get(promise.command_id)
    assert (command.status, command.instance, command.attempt) == ("completed", "js", 1)


def test_it_reads_and_stores_durable_events_among_ours(fresh_server: StartServer) -> None:
    url = fresh_server().url
    with lightlink.connect(url) as client:
        client.stream("ORDERS", ["orders.>"])
        client.publish_stored("orders.new", {"town": "Zürich"}, id="1", headers={"Trace": "t-1"})
        with Script(
            """
            const js = jetstream(nc);
            const manager = await js.jetstreamManager();
            await manager.consumers.add("ORDERS", {durable_name: "theirs", ack_policy: "explicit"});
            const message = await (await js.consumers.get("ORDERS", "theirs")).next({expires: 5000});
            print([message.subject, message.seq, message.json(), message.headers.get("Trace")]);
            await message.ackAck();
            for (const id of ["1", "2"]) {
              const ack = await js.publish("orders.new", JSON.stringify({id}), {msgID: `orders.new|${id}`});
              print([ack.stream, ack.seq, ack.duplicate]);
            }
            """,
            url,
        ) as script:
            read, again, stored = script.end()
        assert read == ["orders.new", 1, {"town": "Zürich"}, "t-1"]
        assert again[:2] == ["ORDERS", 1]
        assert again[2]  # our ids are theirs
        assert stored[:2] == ["ORDERS", 2]
        assert client.publish_stored("orders.new", {}, id="2").duplicate
        with client.consumer("ORDERS", "theirs") as consumer:  # their consumer by our hand
            (message,) = consumer.fetch(1)
            assert message.data == {"id": "2"}
            message.done()


def test_it_works_a_consumer_of_ours_and_reads_its_dead_letters(fresh_server: StartServer) -> None:
    url = fresh_server().url
    with lightlink.connect(url) as client:
        client.stream("ORDERS", ["orders.>"])

        def bill(order: Any) -> None:
            raise lightlink.Reject(f"no such customer: {order['customer']}")

        client.consume("orders.>", name="billing")(bill)
        client.publish_stored("orders.new", {"customer": 7}, headers={"Trace": "t-1"})
        letters = client.dead_letters("ORDERS", "billing")
        eventually(lambda: len(letters.list()) == 1)
    with lightlink.connect(url) as client:
        client.publish_stored("orders.new", {"customer": 8})
        with Script(
            """
            const js = jetstream(nc);
            const message = await (await js.consumers.get("ORDERS", "billing")).next({expires: 5000});
            print(message.json());
            await message.ackAck();
            const manager = await js.jetstreamManager();
            const letter = await manager.streams.getMessage("LIGHTLINK_DEAD", {last_by_subj: "ll.dead.ORDERS.billing"});
            print([letter.json(), Object.fromEntries([...letter.header].map(([key, values]) => [key, values[0]]))]);
            """,
            url,
        ) as script:
            taken, (dead, told) = script.end()
        lag = client.consumer("ORDERS", "billing").lag()
    assert (taken, dead) == ({"customer": 8}, {"customer": 7})
    assert told["Trace"] == "t-1"
    assert (lag.waiting, lag.in_flight) == (0, 0)
