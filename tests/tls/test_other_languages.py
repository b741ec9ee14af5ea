"""Peers that are not LightLink, under our certificates: clients with NATS's own inboxes, services without a group."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from helpers.pki import connect_to, is_refused, tls_of

import lightlink
from lightlink.certs import CertificateAuthority, server_config
from lightlink.errors import InvalidOption
from lightlink.protocol.permissions import Grant
from lightlink.server import EmbeddedServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from nats.aio.client import Client

PLAIN = {"inbox_prefix": "_INBOX"}


@pytest.fixture
def authority(tmp_path: Path) -> CertificateAuthority:
    made = CertificateAuthority.create(tmp_path / "certs")
    made.issue_server(["127.0.0.1"])
    made.issue("web", "client")
    made.issue("math", "service")
    made.issue("go-web", "client", inbox=["plain"])
    made.issue("go-math", "service", inbox=["plain"], group=["none"])
    return made


@pytest.fixture
def server(authority: CertificateAuthority, tmp_path: Path) -> Iterator[EmbeddedServer]:
    config = tmp_path / "nats.conf"
    config.write_text(server_config(authority.directory, store_dir=None))
    with EmbeddedServer(config=config) as running:
        yield running


async def serve(nc: Client) -> None:
    """Answer calls as a peer does that knows of no queue group."""

    async def answer(request: Any) -> None:
        asked = json.loads(request.data)
        await request.respond(json.dumps({"id": asked["id"], "success": True, "result": {"by": "go"}}).encode())

    await nc.subscribe("$SRV.go-math.>", cb=answer)
    await nc.flush()


def test_a_client_with_inboxes_of_nats_calls_our_service(
    server: EmbeddedServer, authority: CertificateAuthority
) -> None:
    service = lightlink.Service("math", server.url, tls=tls_of(authority.directory, "math"))
    service.register("check", lambda: {"ok": True})
    with service, connect_to(server, authority.directory, "go-web", **PLAIN) as peer:
        answer = peer.run(
            lambda nc: nc.request("$SRV.math.check", b'{"id":"1","method":"check","args":{}}', timeout=30)
        )
        assert json.loads(answer.data)["result"] == {"ok": True}
    with connect_to(server, authority.directory, "web", **PLAIN) as peer:
        assert is_refused(peer, "subscribe", "_INBOX.x.*")


def test_a_service_without_a_group_answers_our_client(server: EmbeddedServer, authority: CertificateAuthority) -> None:
    with (
        connect_to(server, authority.directory, "go-math", **PLAIN) as peer,
        lightlink.connect(server.url, tls=tls_of(authority.directory, "web")) as client,
    ):
        peer.run(serve)
        assert client.call("go-math", "add") == {"by": "go"}
        assert client.call("go-math", "add.twice") == {"by": "go"}
    with connect_to(server, authority.directory, "math") as ours:
        assert is_refused(ours, "subscribe", "$SRV.math.>")
        assert not is_refused(ours, "subscribe", "$SRV.math.> q")


def test_the_grant_stays_in_the_certificate_and_is_shown(authority: CertificateAuthority) -> None:
    renewed = authority.renew("go-math")
    assert renewed.grant is not None
    assert (renewed.grant.inbox, renewed.grant.group) == (("plain",), ("none",))


def test_what_is_no_such_grant_is_refused() -> None:
    with pytest.raises(InvalidOption, match="may be plain"):
        Grant.of("client", inbox=["other"])
    with pytest.raises(InvalidOption, match="for the role service"):
        Grant.of("client", group=["none"])
    with pytest.raises(InvalidOption, match="is fixed"):
        Grant.of("agent", inbox=["plain"])
