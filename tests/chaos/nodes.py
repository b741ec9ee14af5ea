"""Which server of a cluster does what."""

from __future__ import annotations

from typing import TYPE_CHECKING

import nats.errors
from helpers.raw import RawPeer
from helpers.waiting import eventually

if TYPE_CHECKING:
    from lightlink.server import EmbeddedCluster, EmbeddedServer


def leader_of(cluster: EmbeddedCluster, stream: str) -> EmbeddedServer:
    """Return the server that leads a stream, once there is one."""

    def find() -> EmbeddedServer | None:
        node = next(node for node in cluster.nodes if node.running)
        try:
            with RawPeer(node.url) as peer:
                info = peer.run(peer.nc.jetstream(timeout=5).stream_info(stream))  # nobody answers while they elect
        except nats.errors.Error:
            return None
        return cluster.node(info.cluster.leader) if info.cluster and info.cluster.leader else None

    return eventually(find, timeout=60)
