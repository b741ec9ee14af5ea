"""What there is, asked for by a caller: services, ours and others', their methods, and proxies that explain them."""

from __future__ import annotations

import inspect
import json
import pydoc
import threading
from typing import TYPE_CHECKING, Any

import pytest

import lightlink
from lightlink.errors import CallTimeout, InvalidName, InvalidOption, ServiceUnavailable
from lightlink.rpc.discovery import Requirement

if TYPE_CHECKING:
    from collections.abc import Iterator

    from helpers.raw import RawPeer
    from nats.aio.msg import Msg


@pytest.fixture
def client(url: str) -> Iterator[lightlink.Client]:
    with lightlink.connect(url) as connected:
        yield connected


def math(name: str, url: str, version: str = "1.2.3", **options: Any) -> lightlink.Service:
    service = lightlink.Service(name, url, version=version, description="sums", **options)

    @service.rpc(idempotent=True)
    def add(a: int, b: int = 2) -> int:
        """Add two numbers."""
        return a + b

    @service.rpc
    def fail() -> None:
        raise RuntimeError("on purpose")

    return service


# What runs ------------------------------------------------------------------------------------------------------------


def test_services_are_found_with_instances_methods_and_counts(client: lightlink.Client, url: str, prefix: str) -> None:
    with math(prefix, url) as one, math(prefix, url, "1.10.0") as other:
        for _ in range(3):
            client.call(prefix, "add", {"a": 1})
        with pytest.raises(lightlink.HandlerError):
            client.call(prefix, "fail")
        [found] = client.services(prefix)

    assert (found.name, found.description, found.versions) == (prefix, "sums", ("1.2.3", "1.10.0"))
    assert {each.id for each in found.instances} == {one.instance, other.instance}
    assert found.requests == 4
    add, fail = found.methods["add"], found.methods["fail"]
    assert (add.subject, add.metadata, add.description.text) == (
        f"$SRV.{prefix}.add",
        {"idempotent": "true"},
        "Add two numbers.",
    )
    assert (add.stats.requests, add.stats.errors) == (3, 0)
    assert (fail.stats.requests, fail.stats.errors) == (1, 1)
    assert fail.stats.last_error == "RuntimeError: on purpose"
    assert add.stats.processing_time > 0
    # Three requests and one are few: the slowest is the 99th of 100, and each is of the last minute.
    assert add.stats.p99 is not None
    assert 0 < add.stats.p99 <= add.stats.processing_time
    assert add.stats.rate > fail.stats.rate > 0
    assert str(add.signature) == "(*, a: int, b: int = 2) -> int"
    assert len(found.hosts) == 1
    assert all(each.started is not None for each in found.instances)
    assert prefix in found._repr_html_()


def test_all_services_are_among_those_found(client: lightlink.Client, url: str, prefix: str) -> None:
    with math(f"{prefix}-a", url), math(f"{prefix}-b", url):
        names = [each.name for each in client.services()]
    assert {f"{prefix}-a", f"{prefix}-b"} <= set(names)
    assert names == sorted(names)


def test_expecting_so_many_ends_the_wait(client: lightlink.Client, url: str, prefix: str) -> None:
    with math(prefix, url), math(prefix, url):
        [found] = client.services(prefix, expect=2, timeout=30)
        assert len(found.instances) == 2
    with pytest.raises(InvalidOption, match="expect"):
        client.services(prefix, expect=0)
    with pytest.raises(InvalidName):
        client.services("two words")


def test_where_nothing_runs_nothing_is_found_at_once(client: lightlink.Client, prefix: str) -> None:
    assert client.services(prefix, timeout=1000) == []


def test_a_digest_of_a_service_is_that_of_its_methods(client: lightlink.Client, url: str, prefix: str) -> None:
    with math(f"{prefix}-a", url), math(f"{prefix}-b", url), math(f"{prefix}-c", url, describe=False):
        one, same, untold = (client.services(f"{prefix}-{each}")[0].digest for each in "abc")
    assert one == same != untold == ""


class Foreign:
    """A service of another implementation, which answers discovery as it likes."""

    def __init__(self, peer: RawPeer, name: str, **answers: Any) -> None:
        self._peer = peer
        self._name = name
        self._answers = answers
        peer.run(self._serve())

    async def _serve(self) -> None:
        for verb, answer in self._answers.items():
            await self._peer.nc.subscribe(f"$SRV.{verb.upper()}.{self._name}", cb=self._answering(answer))
        await self._peer.nc.flush()

    def _answering(self, answer: Any) -> Any:
        async def answer_it(message: Msg) -> None:
            await self._peer.nc.publish(
                message.reply, answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            )

        return answer_it


@pytest.mark.parametrize(
    ("info", "methods"),
    [
        ({"endpoints": [{"name": "add"}]}, ["add"]),
        ({"endpoints": [{"name": "add", "metadata": None, "subject": "math.add"}], "metadata": None}, ["add"]),
        ({"endpoints": None, "description": None, "version": None}, []),
        ({}, []),
        ({"endpoints": [{"name": "add", "metadata": {"n": 5, "arguments": "no schema"}}]}, ["add"]),
    ],
)
def test_answers_that_leave_things_out_are_understood(
    client: lightlink.Client, peer: RawPeer, prefix: str, info: dict[str, Any], methods: list[str]
) -> None:
    # Others tell in the data what they like.
    add = {"name": "add", "num_requests": 7, "data": {"requests_per_second": "fast", "p99_processing_time": -1}}
    stats = {"name": prefix, "id": "x1", "started": None, "endpoints": [add]}
    Foreign(peer, prefix, info={"name": prefix, "id": "x1", **info}, stats=stats)
    [found] = client.services(prefix)
    assert [each.id for each in found.instances] == ["x1"]
    assert list(found.methods) == methods
    assert found.requests == 7 * len(methods)
    assert all((each.stats.rate, each.stats.p99) == (0.0, None) for each in found.methods.values())


def test_a_service_without_stats_is_found_too(client: lightlink.Client, peer: RawPeer, prefix: str) -> None:
    Foreign(peer, prefix, info={"name": prefix, "id": "x1", "version": "2.0.0"}, stats=b"not JSON")
    [found] = client.services(prefix)
    assert (found.versions, found.requests, found.digest) == (("2.0.0",), 0, "")


@pytest.mark.interop
@pytest.mark.filterwarnings("ignore:datetime.datetime.utcnow:DeprecationWarning")
def test_a_service_of_nats_pys_micro_framework_is_found(client: lightlink.Client, peer: RawPeer, prefix: str) -> None:
    import nats.micro

    async def handler(request: Any) -> None:
        await request.respond(b"{}")

    async def serve() -> None:
        service = await nats.micro.add_service(peer.nc, name=prefix, version="1.0.0", description="theirs")
        await service.add_endpoint(name="order", subject=f"$SRV.{prefix}.order", handler=handler, metadata={"a": "b"})
        await peer.nc.flush()

    peer.run(serve())
    found = client.service(prefix).info()
    assert (found.description, found.versions) == ("theirs", ("1.0.0",))
    assert found.methods["order"].metadata == {"a": "b"}
    assert str(found.methods["order"].signature) == "(**arguments)"


# Proxies --------------------------------------------------------------------------------------------------------------


def test_a_proxy_completes_and_explains_the_remote_methods(client: lightlink.Client, url: str, prefix: str) -> None:
    with math(prefix, url):
        proxy = client.service(prefix)
        assert dir(proxy) == ["add", "fail", "info", "ping", "stats"]
        assert str(inspect.signature(proxy.add)) == "(*, a: int, b: int = 2) -> int"
        text = pydoc.plain(pydoc.render_doc(proxy.add))
        assert f"{prefix}.add(*, a: int, b: int = 2) -> int" in text
        assert "Add two numbers." in text
        assert proxy.add(a=1) == 3
        assert proxy["add"](a=1) == 3
        assert (proxy.add.__name__, repr(proxy.add)) == ("add", f"<remote method {prefix}.add>")


def test_calls_through_a_proxy_ask_for_nothing_else(
    client: lightlink.Client, url: str, peer: RawPeer, prefix: str
) -> None:
    asked: list[str] = []

    async def note(message: Msg) -> None:
        asked.append(message.subject)

    async def listen() -> None:
        for verb in ("INFO", "STATS", "PING"):
            await peer.nc.subscribe(f"$SRV.{verb}.{prefix}", cb=note)
        await peer.nc.flush()

    with math(prefix, url):
        peer.run(listen())
        proxy = client.service(prefix)
        for _ in range(3):
            proxy.add(a=1)
        repr(proxy)
        client.flush()
        peer.run(peer.nc.flush())
        assert asked == []
        dir(proxy)
        dir(proxy)
        _ = proxy.add.__doc__
        client.flush()
        peer.run(peer.nc.flush())
        assert sorted(asked) == [f"$SRV.INFO.{prefix}", f"$SRV.STATS.{prefix}"]


def test_a_proxy_of_what_is_not_there_asks_again(client: lightlink.Client, url: str, prefix: str) -> None:
    proxy = client.service(prefix)
    assert dir(proxy) == ["info", "ping", "stats"]
    assert proxy.add.__doc__ == f"{prefix}.add(**arguments)"
    with pytest.raises(ServiceUnavailable):
        proxy.info()
    with pytest.raises(ServiceUnavailable):
        proxy.ping()
    with math(prefix, url):
        assert "add" in dir(proxy)
        assert proxy.ping() > 0
        assert proxy.stats()["add"].requests == 0


def test_a_ping_that_nobody_answers_times_out(client: lightlink.Client, peer: RawPeer, prefix: str) -> None:
    async def ignore(_: Msg) -> None: ...

    async def listen() -> None:
        await peer.nc.subscribe(f"$SRV.PING.{prefix}", cb=ignore)
        await peer.nc.flush()

    peer.run(listen())
    with pytest.raises(CallTimeout):
        client.service(prefix).ping(timeout=0.1)


def test_a_proxy_knows_what_an_info_has_no_room_for(client: lightlink.Client, url: str, prefix: str) -> None:
    service = lightlink.Service(prefix, url)

    def long(a: int) -> int:
        return a

    long.__doc__ = "word " * 800
    for number in range(20):
        service.register(f"long{number}", long)
    with service:
        found = client.service(prefix).info()
    assert {str(each.signature) for each in found.methods.values()} == {"(*, a: int) -> int"}


# Waiting --------------------------------------------------------------------------------------------------------------


def test_waiting_ends_when_the_service_and_its_methods_are_there(
    client: lightlink.Client, url: str, prefix: str
) -> None:
    found: list[lightlink.RunningService] = []
    waiting = threading.Thread(
        target=lambda: found.append(client.wait_for(prefix, "add", "fail", version=">=1.2,<2", timeout=60))
    )
    waiting.start()
    with math(prefix, url, "1.1.0"), math(prefix, url, "1.2.0"):
        waiting.join(60)
    assert [each.name for each in found] == [prefix]


@pytest.mark.parametrize(
    ("wanted", "says"),
    [
        ({"methods": ["sub"]}, "missing sub"),
        ({"methods": ["add"], "version": ">=2"}, r"0 of 1 instances of version >=2 were there \(found 1.2.3\)"),
        ({"methods": [], "instances": 2}, "1 of 2 instances"),
    ],
)
def test_what_does_not_come_is_named(
    client: lightlink.Client, url: str, prefix: str, wanted: dict[str, Any], says: str
) -> None:
    methods = wanted.pop("methods")
    with math(prefix, url), pytest.raises(ServiceUnavailable, match=says):
        client.wait_for(prefix, *methods, timeout=0.5, **wanted)
    with pytest.raises(ServiceUnavailable, match="no instance has answered"):
        client.wait_for(f"{prefix}-absent", timeout=0.1)


@pytest.mark.parametrize(
    ("required", "takes", "refuses"),
    [
        ("", ["0.0.0", "9.9.9", "nonsense"], []),
        (">=1.2", ["1.2.0", "1.10.0", "2.0.0", "1.2.0-rc1"], ["1.1.9", "", "0.9"]),
        (">=1.2,<2", ["1.2.0", "1.99.0"], ["2.0.0", "1.1.0"]),
        ("==1.4.0", ["1.4.0", "1.4"], ["1.4.1"]),
        ("!=1.4.0, >1", ["1.4.1"], ["1.4.0", "1.0.0"]),
        ("<=1", ["1.0.0"], ["1.0.1"]),
    ],
)
def test_a_version_is_held_against_what_is_required(required: str, takes: list[str], refuses: list[str]) -> None:
    requirement = Requirement(required)
    assert all(requirement.takes(version) for version in takes)
    assert not any(requirement.takes(version) for version in refuses)


@pytest.mark.parametrize("wrong", ["1.2", "~=1.2", ">=x", ">=1,,<2", 5, None])
def test_a_requirement_that_is_none_is_refused(client: lightlink.Client, prefix: str, wrong: Any) -> None:
    with pytest.raises(InvalidOption, match="version"):
        client.wait_for(prefix, version=wrong)
