from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import nats.errors
import nats.js.errors
import pytest
from helpers.raw import RawPeer
from helpers.waiting import eventually

from lightlink.errors import InvalidOption, NotReady, ServerError
from lightlink.server import EmbeddedCluster

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from nats.aio.msg import Msg

    from lightlink.server import EmbeddedServer


@pytest.fixture
def cluster() -> Iterator[EmbeddedCluster]:
    with EmbeddedCluster() as running:
        yield running


def read(node: EmbeddedServer) -> bytes | None:
    """Return what a server, or another of the cluster on its behalf, has stored; any replica answers."""
    with RawPeer(node.url) as peer:
        try:
            return peer.run(peer.nc.request("$JS.API.DIRECT.GET.KV_facts.$KV.facts.fact", timeout=1)).data
        except (nats.errors.NoRespondersError, nats.errors.TimeoutError):
            return None


def test_a_question_at_one_server_is_answered_from_another(cluster: EmbeddedCluster) -> None:
    async def answer(message: Msg) -> None:
        await message.respond(b"yes")

    with RawPeer(cluster.urls[0]) as first, RawPeer(cluster.urls[2]) as third:
        third.run(third.nc.subscribe("question", cb=answer))

        def ask() -> bytes | None:
            try:
                return first.run(first.nc.request("question", timeout=30)).data
            except nats.errors.NoRespondersError:
                return None  # that somebody listens is told from server to server

        assert eventually(ask) == b"yes"


def test_data_on_three_servers_outlives_each_of_them(cluster: EmbeddedCluster) -> None:
    first, second, _ = cluster.nodes
    with RawPeer(first.url) as peer:
        bucket = peer.run(peer.nc.jetstream().create_key_value(bucket="facts", replicas=3, direct=True))

        def put() -> int | None:
            try:
                return peer.run(bucket.put("fact", b"kept"))
            except nats.js.errors.NoStreamResponseError:
                return None  # that another server leads the stream is told from server to server

        eventually(put)
    first.kill()
    assert eventually(lambda: read(second), timeout=30) == b"kept"
    first.start()
    cluster.wait_ready(60)
    with RawPeer(second.url) as peer:  # the server that places streams has heard of the first one again
        peer.run(peer.nc.jetstream().add_stream(name="MORE", subjects=["more"], num_replicas=3))
    second.kill()
    assert eventually(lambda: read(first), timeout=30) == b"kept"


def test_a_server_tells_its_clients_of_the_others(cluster: EmbeddedCluster) -> None:
    with RawPeer(cluster.urls[0]) as peer:
        assert set(cluster.urls[1:]) <= {server.uri.geturl() for server in peer.nc._server_pool}


def test_what_keeps_a_server_from_being_ready_is_said(cluster: EmbeddedCluster) -> None:
    first, second, third = cluster.nodes
    second.kill()
    third.kill()
    first.restart()
    with pytest.raises(ServerError, match=r"node-1 was not ready within 0\.2 s: .*JetStream"):
        cluster.wait_ready(0.2)


def test_all_have_the_configuration_in_common() -> None:
    with EmbeddedCluster(size=2, config="max_payload: 12345") as cluster:
        for node in cluster.nodes:
            with RawPeer(node.url) as peer:
                assert peer.nc.max_payload == 12345


def test_it_has_no_servers_before_the_start_and_after_the_end() -> None:
    cluster = EmbeddedCluster()
    with pytest.raises(NotReady):
        _ = cluster.urls
    cluster.start()
    nodes = cluster.nodes
    assert cluster.start() is cluster
    assert cluster.nodes is nodes
    cluster.stop()
    cluster.stop()
    assert not any(node.running for node in nodes)
    with pytest.raises(NotReady):
        _ = cluster.nodes


def test_the_ports_begin_where_it_is_told() -> None:
    for attempt in range(10):
        with socket.create_server(("127.0.0.1", 0)) as held:
            port = held.getsockname()[1]
        try:
            cluster = EmbeddedCluster(size=2, port=port).start()
        except ServerError:  # another test was quicker
            assert attempt < 9
            continue
        with cluster:
            assert [node.port for node in cluster.nodes] == [port, port + 1]
        return


def test_a_port_that_is_taken_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as held:
        cluster = EmbeddedCluster(size=2, port=held.getsockname()[1])
        with pytest.raises(ServerError, match="address already in use"):
            cluster.start()


def test_one_server_is_no_cluster() -> None:
    with pytest.raises(InvalidOption, match="at least two"):
        EmbeddedCluster(size=1)


def test_servers_share_no_folder_and_wait_for_no_nan(tmp_path: Path) -> None:
    for config in (f'jetstream {{ store_dir: "{tmp_path}" }}', f"jetstream {{\n  store = {tmp_path}\n}}"):
        with pytest.raises(InvalidOption, match="overwrite what the others have written"):
            EmbeddedCluster(config=config)
    with pytest.raises(InvalidOption, match="ready_timeout"):
        EmbeddedCluster(ready_timeout=float("nan"))


def test_bad_configuration_is_an_error_that_quotes_the_server() -> None:
    with pytest.raises(ServerError, match="no_such_setting"):
        EmbeddedCluster(config="no_such_setting: 5").start()
