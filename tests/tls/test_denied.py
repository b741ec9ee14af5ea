"""Who was refused what, and what would allow it: an error that can be acted on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from helpers.pki import tls_of

import lightlink
from lightlink.cli.certs import certs
from lightlink.cli.terminal.exits import run
from lightlink.protocol.permissions import grant_for

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from conftest import StartServer

    from lightlink.certs import CertificateAuthority

USES: dict[str, tuple[Callable[[lightlink.Client], object], str]] = {
    "call": (lambda client: client.call("bank", "pay", timeout=30), "--call bank"),
    "state": (lambda client: client.set_state("a", 1, timeout=30), "--state"),
    "bucket": (lambda client: client.state("stock").set("a", 1, timeout=30), "--state-bucket stock"),
    "subscribe": (lambda client: client.subscribe("events.more"), "--subscribe events.more"),
    "files": (lambda client: client.files(), "--files"),
}


@pytest.mark.parametrize("use", USES)
def test_the_grant_that_is_named_is_the_one_that_helps(
    fresh_server: StartServer, authority: CertificateAuthority, use: str
) -> None:
    function, grant = USES[use]
    folder = authority.directory
    authority.issue_server(["127.0.0.1"])
    authority.issue("web", "client", calls=["math"], publish=["events.x"])
    server = fresh_server(tls=folder)
    client = lightlink.connect(server.url, tls=tls_of(folder, "web"))
    with client, pytest.raises(lightlink.PermissionDenied) as caught:
        function(client)
    assert (caught.value.identity, caught.value.grant) == ("web", grant)
    assert f"'web' may not {caught.value.operation} to" in str(caught.value)
    assert f"lightlink certs issue {grant}" in str(caught.value)
    # To the letter.
    assert run(certs, ["issue", str(folder), "web", "--force", *grant.split()]) == 0
    server.stop()
    again = fresh_server(tls=folder)
    with lightlink.connect(again.url, tls=tls_of(folder, "web")) as client:
        try:
            function(client)
        except lightlink.PermissionDenied:
            raise
        except lightlink.LightLinkError:
            pass  # nobody serves the bank


@pytest.mark.parametrize(
    ("operation", "subject", "grant"),
    [
        ("publish", "events.x", "--publish events.x"),
        ("publish", "$SRV.INFO.math", "--call math"),
        ("subscribe", "$SRV.math.>", "--role service, for an identity named math"),
        ("publish", "$JS.API.STREAM.INFO.KV_light_link_state", "--state"),
        ("publish", "$JS.API.DIRECT.GET.KV_stock.$KV.stock.a", "--state-bucket stock"),
        ("publish", "$O.media.C.x", "--files-bucket media"),
        ("publish", "$JS.API.STREAM.INFO.OBJ_light_link_files", "--files"),
        ("publish", "file.transfer", "--files"),
        ("publish", "ll.commands.a.b", "--role manager"),
        ("publish", "$JS.API.STREAM.CREATE.LIGHTLINK_COMMANDS", "--role manager"),
        ("publish", "$KV.lightlink_agents.a", "--role manager"),
        ("publish", "$JS.API.STREAM.LIST", "--role admin"),
        ("publish", "$SRV", "--role admin"),
    ],
)
def test_each_kind_of_subject_has_its_grant(operation: str, subject: str, grant: str) -> None:
    assert grant_for(operation, subject) == grant


def test_a_user_is_named_and_an_unknown_one_is_not(fresh_server: StartServer) -> None:
    config = 'authorization { users = [{user: app, password: p, permissions: {subscribe: {deny: "secret"}}}] }'
    client = lightlink.connect(fresh_server(config=config).url, user="app", password="p")
    with client, pytest.raises(lightlink.PermissionDenied, match=r"'app' may not subscribe to 'secret'$"):
        client.subscribe("secret")


def test_what_a_module_says_wins_over_the_environment(
    fresh_server: StartServer, authority: CertificateAuthority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lightlink.cli.terminal.options import Link

    folder = authority.directory
    authority.issue_server(["127.0.0.1"])
    authority.issue("math", "service")
    authority.issue("web", "client")
    for part in ("ca", "cert", "key"):
        name = folder / ("ca.pem" if part == "ca" else f"web.{'pem' if part == 'cert' else 'key'}")
        monkeypatch.setenv(f"LIGHTLINK_TLS_{part.upper()}", str(name))
    assert "tls" not in Link().settings()
    given = Link(tls_cert=folder / "math.pem", tls_key=folder / "math.key").settings()["tls"]
    assert (given.ca, given.cert) == (folder / "ca.pem", folder / "math.pem")
    server = fresh_server(tls=folder)
    service = lightlink.Service("math", server.url, tls=tls_of(folder, "math"))
    with service:
        assert service.client.options.tls is not None
        assert service.client.options.tls.cert == folder / "math.pem"
