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


# What it carries ------------------------------------------------------------------------------------------------------


def test_a_call_goes_through_it_with_mutual_tls_inside(gateway: Gateway, link: Link, serve: Serve) -> None:
    serve(url_of(gateway))
    before = gateway.counts.bytes_in
    assert double(link()) == 42
    eventually(lambda: gateway.counts.streams == 2)  # the last test's client may not have been heard leaving yet
    assert gateway.counts.bytes_in > before


def test_files_and_state_go_through_it(link: Link, tmp_path: Path, prefix: str) -> None:
    client = link("keeper")
    client.set_state(prefix, {"t": 21.5})
    assert client.get_state(prefix) == {"t": 21.5}
    content = bytes(range(256)) * 16 * 1024
    (tmp_path / "data").write_bytes(content)
    info = client.upload(tmp_path / "data")
    client.download(info.id, tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == content


# Bad links ------------------------------------------------------------------------------------------------------------


def test_a_change_of_address_is_not_noticed(gateway: Gateway, link: Link, serve: Serve) -> None:
    serve()
    moved = gateway.counts.migrations
    with UdpRelay(gateway.address[1]) as relay:
        client = link(url=relay.url)
        seen: list[lightlink.Status] = []
        client.on_status_change(seen.append)
        # qh3 alone loses its client at the fourth.
        for number in range(10):
            relay.move()
            assert double(client, number) == 2 * number
        assert not seen
        client.close()
    assert gateway.counts.migrations == moved + 10


def test_the_way_back_to_an_address_is_not_noticed(gateway: Gateway, link: Link, serve: Serve) -> None:
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


def test_loss_delay_and_reordering_do_no_harm(gateway: Gateway, link: Link, serve: Serve) -> None:
    serve()
    with UdpRelay(gateway.address[1]) as relay:
        relay.loss, relay.seconds, relay.jitter = 0.05, 0.002, 0.01
        client = link(url=relay.url)
        assert [double(client, number) for number in range(50)] == [2 * number for number in range(50)]
        client.close()


def test_a_gateway_that_was_killed_and_is_back_is_found_again(
    start_gateway: StartGateway, link: Link, serve: Serve, tmp_path: Path
) -> None:
    serve()
    first = start_gateway(reset_key=tmp_path / "reset.key")
    port = first.address[1]
    with UdpRelay(port) as relay:
        client = link(url=relay.url)
        assert double(client) == 42
        relay.is_open = False  # it says no good-bye
        first.stop()
        second = start_gateway(listen=f"127.0.0.1:{port}", reset_key=tmp_path / "reset.key")
        relay.is_open = True
        # By the reset alone: the path would be given up after 12 s of silence.
        eventually(lambda: client.status is lightlink.Status.CONNECTED and second.counts.streams == 1, timeout=30)
        assert second.counts.resets_sent > 0
        assert double(client) == 42
        client.close()


def test_an_end_of_the_gateway_is_heard_at_once(start_gateway: StartGateway, link: Link) -> None:
    gateway = start_gateway()
    client = link(url=url_of(gateway))
    gateway.stop()
    eventually(lambda: client.status is lightlink.Status.RECONNECTING)


# Who trusts whom ------------------------------------------------------------------------------------------------------


def test_a_gateway_that_plays_the_server_reads_nothing(
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


def test_another_authoritys_gateway_is_refused_by_the_outer_tls(
    tmp_path: Path, secured: EmbeddedServer, link: Link
) -> None:
    other = lightlink.certs.CertificateAuthority.create(tmp_path / "other")
    other.issue_gateway(["127.0.0.1"])
    with gateway_for(other.directory, secured.url) as rogue:
        error = refusal(link, url_of(rogue))
    assert isinstance(error, AuthenticationError)
    assert "the gateway's certificate was not accepted (QUIC, outer TLS)" in str(error)


def test_a_client_certificate_is_no_gateways(identities: Path, secured: EmbeddedServer) -> None:
    files = {"cert": identities / "web.pem", "key": identities / "web.key"}
    with pytest.raises(InvalidOption, match="is not the certificate of a server"):
        gateway_for(identities, secured.url, **files).start()


def test_a_gateway_with_the_inner_name_does_not_start(identities: Path, secured: EmbeddedServer) -> None:
    files = {"cert": identities / "server.pem", "key": identities / "server.key"}
    with pytest.raises(InvalidOption, match="a gateway must not have it"):
        gateway_for(identities, secured.url, **files).start()


def test_who_the_server_does_not_know_is_told_so(
    tmp_path: Path, gateway: Gateway, identities: Path, link: Link
) -> None:
    error = refusal(link, url_of(gateway), tls=tls_of(identities, None))
    assert isinstance(error, AuthenticationError)
    assert "the server wants a certificate of ours" in str(error)


def test_a_silent_port_is_told_with_the_fallback(link: Link) -> None:
    with UdpRelay(9) as relay:
        relay.is_open = False
        error = refusal(link, relay.url, connect_timeout=0.5)
    assert type(error) is ConnectError
    assert "UDP is blocked" in str(error)
    assert "quic://...,tls://..." in str(error)


def test_where_udp_is_blocked_the_fallback_is_taken(secured: EmbeddedServer, link: Link) -> None:
    with UdpRelay(9) as relay:
        relay.is_open = False
        client = link("keeper", f"{relay.url},{secured.url}", connect_timeout=30.0)
        client.set_state("fallback", 1)


def test_who_fell_back_comes_back_when_udp_is_free(
    gateway: Gateway, secured: EmbeddedServer, link: Link, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fallback, "FIRST_WAIT", 0.2)
    with UdpRelay(gateway.address[1]) as relay:
        relay.is_open = False
        client = link("keeper", f"{relay.url},{secured.url}", connect_timeout=30.0)
        streams = gateway.counts.accepted
        relay.is_open = True
        client.set_state("fallback", 2)
        # The try, and the connection itself.
        eventually(lambda: gateway.counts.accepted >= streams + 2 and client.status is lightlink.Status.CONNECTED)
        seen: list[lightlink.Status] = []
        client.on_status_change(seen.append)
        assert client.get_state("fallback") == 2
        relay.is_open = False  # and it is the gateway that it talks through
        with pytest.raises(lightlink.LightLinkError):
            client.flush(timeout=0.5)
        client.close(timeout=0.1)


def test_a_gateway_without_its_server_says_so(start_gateway: StartGateway, link: Link) -> None:
    error = refusal(link, url_of(start_gateway("nats://127.0.0.1:9")))
    assert "the gateway does not reach the NATS server behind it" in str(error)


def test_the_inner_name_must_not_be_the_gateways() -> None:
    with pytest.raises(InvalidOption, match="must not be the name of a gateway"):
        lightlink.connect("quic://edge.example", tls=lightlink.TLS(inner_hostname="edge.example"))
