"""Servers of a cluster leave, in peace or not, and those who talked to them talk to the others."""

from __future__ import annotations

from typing import TYPE_CHECKING

import lightlink

if TYPE_CHECKING:
    from lightlink.server import EmbeddedCluster


def test_a_client_that_was_told_of_one_server_finds_the_others_when_that_is_killed(cluster: EmbeddedCluster) -> None:
    with lightlink.connect(cluster.urls[0], reconnect_wait=0.01) as client:
        cluster.nodes[0].kill()
        client.publish("any", 1)
        client.flush(timeout=10)
