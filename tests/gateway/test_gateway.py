from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from helpers.edge import UdpRelay, gateway_for, url_of
from helpers.pki import tls_of
from helpers.waiting import eventually

import lightlink
from lightlink.connection import fallback
from lightlink.errors import AuthenticationError, ConnectError, InvalidOption
from lightlink.protocol.edge import INNER_NAME

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import StartServer
    from helpers.edge import Link, Serve, StartGateway

    from lightlink.gateway import Gateway
    from lightlink.server import EmbeddedServer


def double(client: lightlink.Client, number: int = 21) -> int:
    result: int = client.call("user-service", "double", {"number": number}, timeout=20)
    return result


def refusal(link: Link, url: str, **options: Any) -> ConnectError:
    with pytest.raises(ConnectError) as caught:
        link(url=url, **({"connect_timeout": 30.0} | options))
    return caught.value


# Traffic --------------------------------------------------------------------------------------------------------------


def test_calls_pass_a_gateway_with_mutual_tls_inside(gateway: Gateway, link: Link, serve: Serve) -> None:
    serve(url_of(gateway))
    before = gateway.counts.bytes_in
    assert double(link()) == 42
    eventually(lambda: gateway.counts.streams == 2)  # a client of the previous test may still be open
    assert gateway.counts.bytes_in > before


def test_files_and_state_pass_a_gateway(link: Link, tmp_path: Path, prefix: str) -> None:
    client = link("keeper")
    client.set_state(prefix, {"t": 21.5})
    assert client.get_state(prefix) == {"t": 21.5}
    content = bytes(range(256)) * 16 * 1024
    (tmp_path / "data").write_bytes(content)
    info = client.upload(tmp_path / "data")
    client.download(info.id, tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == content


# Bad links ------------------------------------------------------------------------------------------------------------


def test_a_client_does_not_notice_that_its_address_changes(gateway: Gateway, link: Link, serve: Serve) -> None:
    serve()
    moved = gateway.counts.migrations
    with UdpRelay(gateway.address[1]) as relay:
        client = link(url=relay.url)
        seen: list[lightlink.Status] = []
        client.on_status_change(seen.append)
        # qh3 alone loses its client at the fourth change.
        for number in range(10):
            relay.move()
            assert double(client, number) == 2 * number
        assert not seen
        client.close()
    assert gateway.counts.migrations == moved + 10


def test_a_client_does_not_notice_a_return_to_an_address(gateway: Gateway, link: Link, serve: Serve) -> None:
    serve()
    with UdpRelay(gateway.address[1]) as relay:
        client = link(url=relay.url)
        seen: list[lightlink.Status] = []
        client.on_status_change(seen.append)
        for number in range(4):
            relay.swap()
            assert double(client, number) == 2 * number
        assert not seen
        client.close()


def test_calls_survive_loss_delay_and_reordering(gateway: Gateway, link: Link, serve: Serve) -> None:
    serve()
    with UdpRelay(gateway.address[1]) as relay:
        relay.loss, relay.seconds, relay.jitter = 0.05, 0.002, 0.01
        client = link(url=relay.url)
        assert [double(client, number) for number in range(50)] == [2 * number for number in range(50)]
        client.close()


def test_a_client_reconnects_to_a_restarted_gateway(
    start_gateway: StartGateway, link: Link, serve: Serve, tmp_path: Path
) -> None:
    serve()
    first = start_gateway(reset_key=tmp_path / "reset.key")
    port = first.address[1]
    with UdpRelay(port) as relay:
        client = link(url=relay.url)
        assert double(client) == 42
        relay.is_open = False  # as if killed: its close does not arrive
        first.stop()
        second = start_gateway(listen=f"127.0.0.1:{port}", reset_key=tmp_path / "reset.key")
        relay.is_open = True
        # By the stateless reset alone: the client would give up the silent path only after 12 s.
        eventually(lambda: client.status is lightlink.Status.CONNECTED and second.counts.streams == 1, timeout=30)
        assert second.counts.resets_sent > 0
        assert double(client) == 42
        client.close()


def test_a_client_notices_at_once_that_its_gateway_stops(start_gateway: StartGateway, link: Link) -> None:
    gateway = start_gateway()
    client = link(url=url_of(gateway))
    gateway.stop()
    eventually(lambda: client.status is lightlink.Status.RECONNECTING)


# Authentication and fallback ------------------------------------------------------------------------------------------


def test_a_gateway_that_impersonates_the_server_is_refused(
    identities: Path, fresh_server: StartServer, start_gateway: StartGateway, link: Link
) -> None:
    config = f"""
        listen: 127.0.0.1:-1
        tls {{ cert_file: {identities}/gateway.pem, key_file: {identities}/gateway.key, ca_file: {identities}/ca.pem }}
    """
    impostor = fresh_server(config=config, jetstream=False)
    error = refusal(link, url_of(start_gateway(f"nats://127.0.0.1:{impostor.port}")))
    assert isinstance(error, AuthenticationError)
    assert f"'{INNER_NAME}'" in str(error)


def test_a_server_without_tls_behind_a_gateway_is_refused(
    fresh_server: StartServer, start_gateway: StartGateway, link: Link
) -> None:
    error = refusal(link, url_of(start_gateway(fresh_server().url)))
    assert "the server does not offer TLS" in str(error)


def test_the_outer_tls_refuses_a_gateway_of_another_ca(tmp_path: Path, secured: EmbeddedServer, link: Link) -> None:
    other = lightlink.certs.CertificateAuthority.create(tmp_path / "other")
    other.issue_gateway(["127.0.0.1"])
    with gateway_for(other.directory, secured.url) as rogue:
        error = refusal(link, url_of(rogue))
    assert isinstance(error, AuthenticationError)
    assert "the gateway's certificate was not accepted (QUIC, outer TLS)" in str(error)


def test_a_gateway_does_not_start_with_a_client_certificate(identities: Path, secured: EmbeddedServer) -> None:
    files = {"cert": identities / "web.pem", "key": identities / "web.key"}
    with pytest.raises(InvalidOption, match="is not the certificate of a server"):
        gateway_for(identities, secured.url, **files).start()


def test_a_gateway_with_the_inner_name_does_not_start(identities: Path, secured: EmbeddedServer) -> None:
    files = {"cert": identities / "server.pem", "key": identities / "server.key"}
    with pytest.raises(InvalidOption, match="a gateway must not have it"):
        gateway_for(identities, secured.url, **files).start()


def test_a_client_without_a_certificate_is_told_so(
    tmp_path: Path, gateway: Gateway, identities: Path, link: Link
) -> None:
    error = refusal(link, url_of(gateway), tls=tls_of(identities, None))
    assert isinstance(error, AuthenticationError)
    assert "the server wants a certificate of ours" in str(error)


def test_the_error_for_a_silent_port_suggests_a_fallback(link: Link) -> None:
    with UdpRelay(9) as relay:
        relay.is_open = False
        error = refusal(link, relay.url, connect_timeout=0.5)
    assert type(error) is ConnectError
    assert "UDP is blocked" in str(error)
    assert "quic://...,tls://..." in str(error)


def test_a_client_falls_back_where_udp_is_blocked(secured: EmbeddedServer, link: Link) -> None:
    with UdpRelay(9) as relay:
        relay.is_open = False
        client = link("keeper", f"{relay.url},{secured.url}", connect_timeout=30.0)
        client.set_state("fallback", 1)


def test_a_client_returns_to_quic_when_udp_works_again(
    gateway: Gateway, secured: EmbeddedServer, link: Link, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fallback, "FIRST_WAIT", 0.2)
    with UdpRelay(gateway.address[1]) as relay:
        relay.is_open = False
        client = link("keeper", f"{relay.url},{secured.url}", connect_timeout=30.0)
        streams = gateway.counts.accepted
        relay.is_open = True
        client.set_state("fallback", 2)
        # One for the probe, one for the connection itself.
        eventually(lambda: gateway.counts.accepted >= streams + 2 and client.status is lightlink.Status.CONNECTED)
        seen: list[lightlink.Status] = []
        client.on_status_change(seen.append)
        assert client.get_state("fallback") == 2
        relay.is_open = False  # without the gateway nothing gets through: it is in use
        with pytest.raises(lightlink.LightLinkError):
            client.flush(timeout=0.5)
        client.close(timeout=0.1)


def test_a_gateway_reports_that_its_server_is_unreachable(start_gateway: StartGateway, link: Link) -> None:
    error = refusal(link, url_of(start_gateway("nats://127.0.0.1:9")))
    assert "the gateway does not reach the NATS server behind it" in str(error)


def test_the_inner_name_must_not_be_that_of_the_gateway() -> None:
    with pytest.raises(InvalidOption, match="must not be the name of a gateway"):
        lightlink.connect("quic://edge.example", tls=lightlink.TLS(inner_hostname="edge.example"))
