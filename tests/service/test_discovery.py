"""Service discovery (ADR-32), asked for by raw requests, by nats-py's micro framework and by the nats command."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
import threading
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from helpers.waiting import eventually

import lightlink

if TYPE_CHECKING:
    from collections.abc import Iterator

    from helpers.raw import RawPeer
    from nats.aio.msg import Msg


@pytest.fixture
def service(url: str, prefix: str) -> Iterator[lightlink.Service]:
    made = lightlink.Service(
        prefix,
        url,
        version="1.2.3",
        description="for the tests",
        metadata={"site": "berlin"},
        workers=2,
        describe=False,
    )
    made.register("add", lambda a, b: a + b, idempotent=True, metadata={"unit": "none"})
    made.register("fail", lambda: 1 // 0)
    with made:
        yield made


@pytest.fixture
def client(url: str) -> Iterator[lightlink.Client]:
    with lightlink.connect(url) as connected:
        yield connected


def ask_all(peer: RawPeer, subject: str, number: int) -> list[Any]:
    """Send one request and return so many replies."""

    async def ask() -> list[Msg]:
        inbox = peer.nc.new_inbox()
        subscription = await peer.nc.subscribe(inbox)
        await peer.nc.publish(subject, b"", reply=inbox)
        replies = [await subscription.next_msg(timeout=30) for _ in range(number)]
        await subscription.unsubscribe()
        return replies

    return [json.loads(reply.data) for reply in peer.run(ask())]


@pytest.mark.interop
@pytest.mark.parametrize("form", ["$SRV.PING.{name}", "$SRV.PING.{name}.{instance}"])
def test_a_ping_is_answered_by_name_and_by_instance(
    form: str, service: lightlink.Service, peer: RawPeer, prefix: str
) -> None:
    assert ask_all(peer, form.format(name=prefix, instance=service.instance), 1) == [
        {
            "type": "io.nats.micro.v1.ping_response",
            "name": prefix,
            "id": service.instance,
            "version": "1.2.3",
            "metadata": {"site": "berlin"},
        }
    ]


@pytest.mark.parametrize("verb", ["PING", "INFO", "STATS"])
def test_a_question_to_all_services_is_answered_by_each_instance(
    verb: str, service: lightlink.Service, url: str, peer: RawPeer, prefix: str
) -> None:
    with lightlink.Service(prefix, url) as other:
        answers = {answer["id"] for answer in ask_all(peer, f"$SRV.{verb}.{prefix}", 2)}
        assert answers == {service.instance, other.instance}
        everybody: set[str] = set()

        async def note(message: Msg) -> None:
            everybody.add(json.loads(message.data)["id"])

        async def ask() -> None:
            inbox = peer.nc.new_inbox()
            await peer.nc.subscribe(inbox, cb=note)
            await peer.nc.publish(f"$SRV.{verb}", b"", reply=inbox)

        peer.run(ask())
        eventually(lambda: everybody >= answers)


def test_an_instance_id_is_new_for_each_instance(url: str, prefix: str) -> None:
    assert lightlink.Service(prefix, url).instance != lightlink.Service(prefix, url).instance


@pytest.mark.interop
def test_info_lists_the_methods_with_subject_group_and_metadata(
    service: lightlink.Service, peer: RawPeer, prefix: str
) -> None:
    (info,) = ask_all(peer, f"$SRV.INFO.{prefix}", 1)
    assert info["type"] == "io.nats.micro.v1.info_response"
    assert (info["name"], info["id"], info["version"]) == (prefix, service.instance, "1.2.3")
    assert (info["description"], info["metadata"]) == ("for the tests", {"site": "berlin"})
    assert info["endpoints"] == [
        {
            "name": "add",
            "subject": f"$SRV.{prefix}.add",
            "queue_group": "q",
            "metadata": {"idempotent": "true", "unit": "none"},
        },
        {"name": "fail", "subject": f"$SRV.{prefix}.fail", "queue_group": "q", "metadata": {}},
    ]


@pytest.mark.interop
def test_stats_count_requests_errors_and_time_of_each_method(
    service: lightlink.Service, client: lightlink.Client, peer: RawPeer, prefix: str
) -> None:
    for n in range(3):
        client.call(prefix, "add", {"a": n, "b": 0})
    with pytest.raises(lightlink.InvalidArguments):
        client.call(prefix, "add", {"a": 1})
    with pytest.raises(lightlink.HandlerError):
        client.call(prefix, "fail")
    (stats,) = ask_all(peer, f"$SRV.STATS.{prefix}.{service.instance}", 1)
    assert stats["type"] == "io.nats.micro.v1.stats_response"
    started = datetime.fromisoformat(stats["started"].replace("Z", "+00:00"))
    assert abs((datetime.now(timezone.utc) - started).total_seconds()) < 3600
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", stats["started"])
    add, fail = stats["endpoints"]
    assert (add["name"], add["num_requests"], add["num_errors"]) == ("add", 4, 1)
    assert add["last_error"] == "add: missing argument 'b'"
    assert add["processing_time"] > 0
    assert add["average_processing_time"] == add["processing_time"] // 4
    assert add["average_processing_time"] < add["data"]["p99_processing_time"] <= add["processing_time"]
    assert add["data"]["requests_per_second"] > fail["data"]["requests_per_second"] > 0
    assert (fail["num_requests"], fail["num_errors"]) == (1, 1)
    assert fail["last_error"].startswith("ZeroDivisionError")


def test_a_service_whose_workers_are_all_busy_still_answers(
    service: lightlink.Service, url: str, client: lightlink.Client, peer: RawPeer, prefix: str
) -> None:
    go = threading.Event()
    busy = lightlink.Service(f"{prefix}_busy", url, workers=1, max_pending=1)
    busy.register("wait", lambda: go.wait(30))
    with busy:
        future = client.submit(f"{prefix}_busy", "wait", timeout=30)
        eventually(lambda: busy._calls._held == 1)
        (answer,) = ask_all(peer, f"$SRV.PING.{prefix}_busy", 1)
        assert answer["id"] == busy.instance
        go.set()
        assert future.result(30) is True


def test_a_question_without_a_reply_subject_is_ignored(
    service: lightlink.Service, client: lightlink.Client, peer: RawPeer, prefix: str
) -> None:
    peer.run(peer.nc.publish(f"$SRV.PING.{prefix}", b""))
    assert client.call(prefix, "add", {"a": 1, "b": 2}) == 3


def test_a_stopped_service_is_found_no_more(service: lightlink.Service, peer: RawPeer, prefix: str) -> None:
    from nats.errors import NoRespondersError

    service.stop()
    with pytest.raises(NoRespondersError):
        peer.run(peer.nc.request(f"$SRV.PING.{prefix}", b"", timeout=30))


@pytest.mark.interop
def test_nats_pys_micro_framework_reads_every_answer(service: lightlink.Service, peer: RawPeer, prefix: str) -> None:
    from nats.micro.service import ServiceInfo, ServicePing, ServiceStats

    async def ask() -> list[Any]:
        answers = await asyncio.gather(
            *(peer.nc.request(f"$SRV.{verb}.{prefix}", b"", timeout=30) for verb in ("PING", "INFO", "STATS"))
        )
        return [json.loads(answer.data) for answer in answers]

    ping, info, stats = peer.run(ask())
    assert ServicePing.from_dict(ping).id == service.instance
    assert [endpoint.name for endpoint in ServiceInfo.from_dict(info).endpoints] == ["add", "fail"]
    assert [endpoint.num_requests for endpoint in ServiceStats.from_dict(stats).endpoints] == [0, 0]


@pytest.mark.interop
@pytest.mark.filterwarnings("ignore:datetime.datetime.utcnow:DeprecationWarning")
def test_our_client_calls_a_service_of_nats_pys_micro_framework(
    client: lightlink.Client, peer: RawPeer, prefix: str
) -> None:
    """Its services live on subjects of their own; one that takes ours answers in our envelope or in headers alone."""
    import nats.micro

    async def handler(request: Any) -> None:
        envelope = json.loads(request.data)
        if envelope["args"].get("wrong"):
            await request.respond_error("409", "out of stock")
        else:
            answer = {"id": envelope["id"], "success": True, "result": envelope["args"]}
            await request.respond(json.dumps(answer).encode())

    async def serve() -> None:
        service = await nats.micro.add_service(peer.nc, name=prefix, version="1.0.0")
        await service.add_endpoint(name="order", subject=f"$SRV.{prefix}.order", handler=handler)

    peer.run(serve())
    peer.run(peer.nc.flush())
    assert client.call(prefix, "order", {"item": "tea"}) == {"item": "tea"}
    with pytest.raises(lightlink.RemoteError) as caught:
        client.call(prefix, "order", {"wrong": True})
    assert (caught.value.code, caught.value.message) == ("409", "out of stock")


@pytest.mark.interop
def test_the_nats_command_lists_and_inspects_our_service(
    service: lightlink.Service, client: lightlink.Client, url: str, prefix: str
) -> None:
    command = shutil.which("nats") or shutil.which("nats", path=str(Path.home() / "go" / "bin"))
    if command is None:
        pytest.skip("the nats command is not installed")

    def nats(*args: str) -> str:
        done = subprocess.run(
            [command, f"--server={url}", "--timeout=1s", "micro", *args],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    client.call(prefix, "add", {"a": 1, "b": 2})
    assert service.instance in nats("ls", prefix)
    info = nats("info", prefix, service.instance)
    for word in (prefix, "1.2.3", "for the tests", "berlin", f"$SRV.{prefix}.add"):
        assert word in info
    assert "add" in nats("stats", prefix)
    assert service.instance in nats("ping", prefix)
    told = lightlink.Service(f"{prefix}-told", url)
    told.register("add", _add)
    with told:
        info = nats("info", f"{prefix}-told", told.instance)
        assert "Add two numbers." in info
        assert '"type":"integer"' in info


def _add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def test_a_service_registers_where_peers_look_for_it(
    client: lightlink.Client, url: str, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lightlink.service.registry.HEARTBEAT_SECONDS", 0.05)
    service = lightlink.Service(prefix, url, version="1.2.3", description="Adds.", registry=True)

    @service.rpc
    def add(a: int, b: int) -> int:
        """Add."""
        return a + b

    with client.subscribe("$LL.*.*") as heard:
        client.flush()
        with service:
            told = heard.get(timeout=30)
            assert told.subject == f"$LL.register.{prefix}"
            assert (told.data["service"], told.data["version"]) == (prefix, "1.2.3")
            assert told.data["metadata"]["description"] == "Adds."
            assert told.data["metadata"]["methods"]["add"]["description"] == "Add."
            assert told.data["instance_info"]["id"] == service.instance
            beat = heard.get(timeout=30)
            assert (beat.subject, "metadata" in beat.data) == (f"$LL.heartbeat.{prefix}", False)
    quiet = lightlink.Service(f"{prefix}-quiet", url)
    with client.subscribe(f"$LL.*.{prefix}-quiet") as heard:
        client.flush()
        with quiet:
            client.ping()
        with pytest.raises(lightlink.NoMessage):
            heard.get(timeout=0.1)
