"""Services, clients and managers enroll by token too, may do what the token says, and keep it when they renew."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

import lightlink
from lightlink.certs import CertificateAuthority
from lightlink.certs.certificate import load_certificates
from lightlink.commands import CommandManager
from lightlink.errors import FleetRefused, InvalidName, PermissionDenied
from lightlink.fleet import AgentFiles, enroll, keep_renewed, renew
from lightlink.fleet.admin import ask
from lightlink.fleet.enrolment import make_key_pem, make_request

if TYPE_CHECKING:
    from pathlib import Path

    from helpers.fleet import FleetWorld

    from lightlink.fleet import Fleet


@pytest.fixture
def admin(fleet: FleetWorld) -> Fleet:
    return fleet.admin()


def link(fleet: FleetWorld, files: AgentFiles) -> lightlink.Client:
    return fleet.link(files.name, tls=files.tls)


def test_a_service_and_its_client_enroll_and_talk(fleet: FleetWorld, admin: Fleet, tmp_path: Path) -> None:
    math = enroll(admin.token("math", role="service"), tmp_path / "math")
    web = enroll(admin.token("web", role="client", rights={"calls": ["math"]}), tmp_path / "web")
    service = lightlink.Service("math", link(fleet, math))
    service.register("add", lambda a, b: a + b)
    with service:
        client = link(fleet, web)
        assert client.call("math", "add", {"a": 1, "b": 2}) == 3
        with pytest.raises(PermissionDenied):
            client.call("secret", "read")
        with pytest.raises(PermissionDenied):
            client.state().set("a", 1)
    assert {each.name: each.role for each in admin.identities()} == {"math": "service", "web": "client"}
    entry = next(each for each in admin.audit() if each.what == "token" and each.name == "web")
    assert (entry.facts["role"], entry.facts["calls"]) == ("client", "math")


def test_a_manager_enrolls_and_sends(fleet: FleetWorld, admin: Fleet, tmp_path: Path) -> None:
    agent = enroll(admin.token("a"), tmp_path / "agent")
    fleet.agent("a", tls=agent.tls)
    files = enroll(admin.token("boss", role="manager"), tmp_path / "boss")
    with CommandManager(link(fleet, files)) as manager:
        assert manager.send("a", "double", {"x": 4}).result(30) == 8
    with pytest.raises(PermissionDenied):
        ask(link(fleet, files).connection, "ll.fleet.op.list", {}, "list")


def test_what_is_renewed_may_do_what_it_could(fleet: FleetWorld, admin: Fleet, tmp_path: Path) -> None:
    files = enroll(admin.token("web", role="client", rights={"publish": ["shop.>"], "calls": []}), tmp_path / "web")
    client = link(fleet, files)
    renew(client, files)
    renewed = link(fleet, files)
    renewed.publish("shop.sold", {})
    renewed.flush()
    with pytest.raises(PermissionDenied):
        renewed.call("math", "add")
    with pytest.raises(PermissionDenied):
        ask(renewed.connection, "ll.fleet.renew.ops", {}, "renewal")


def test_one_whose_certificate_was_made_by_hand_renews_it(fleet: FleetWorld, admin: Fleet, tmp_path: Path) -> None:
    folder = tmp_path / "made"
    folder.mkdir()
    manager, here = folder / "agent.pem", fleet.directory
    manager.write_bytes((here / "manager.key").read_bytes() + (here / "manager.pem").read_bytes())
    manager.chmod(0o600)
    (folder / "ca.pem").write_bytes((here / "ca.pem").read_bytes())
    files = AgentFiles(folder, "manager", (fleet.url,), {})
    keep_renewed(link(fleet, files), files, interval=3600).stop(5)
    renew(link(fleet, files), files)
    with CommandManager(link(fleet, files)) as renewed:
        assert renewed.clients() == []
    assert [(each.name, each.role) for each in admin.identities()] == [("manager", "manager")]


def test_nobody_renews_with_what_is_not_its_own(fleet: FleetWorld, admin: Fleet, tmp_path: Path) -> None:
    files = enroll(admin.token("web", role="client"), tmp_path / "web")
    foreign = CertificateAuthority.create(tmp_path / "foreign")
    foreign.issue("web", "admin")
    client = link(fleet, files)

    def knock(certificate: object) -> Any:
        body = {"csr": make_request("web", make_key_pem()), "certificate": certificate}
        return ask(client.connection, "ll.fleet.renew.web", body, "renewal")

    def pem(certificate: x509.Certificate) -> str:
        return certificate.public_bytes(Encoding.PEM).decode()

    ops, ca = (pem(load_certificates("x", fleet.directory / f"{name}.pem")[0]) for name in ("ops", "ca"))
    cases = {
        None: "did not come along",
        "junk": "did not come along",
        (tmp_path / "foreign" / "web.pem").read_text(): "another authority",
        ops: "not that of web",
        ca: "not that of web",
    }
    for certificate, reason in cases.items():
        with pytest.raises(FleetRefused, match=reason):
            knock(certificate)
    first = pem(load_certificates("x", files.directory / "agent.pem")[0])
    renew(client, files)
    second = link(fleet, files)
    renew(second, files)
    link(fleet, files).flush()
    with pytest.raises(FleetRefused, match="was replaced"):
        knock(first)


@pytest.mark.parametrize(
    ("role", "rights", "reason"),
    [
        ("admin", {}, "where the key of the CA is"),
        ("king", {}, "must be one of"),
        ("agent", {"calls": ["math"]}, "is fixed"),
        ("client", {"call": ["math"]}, "must be among"),
        ("client", {"publish": [">"]}, "would cover inboxes"),
        ("client", {"publish": ["x" * 200 + str(each) for each in range(200)]}, "carries"),
    ],
)
def test_a_token_for_what_cannot_be_granted_is_refused(
    admin: Fleet, role: str, rights: dict[str, list[str]], reason: str
) -> None:
    with pytest.raises(FleetRefused, match=reason):
        admin.token("web", role=role, rights=rights)


def test_who_enrolls_has_a_name_of_one_token(admin: Fleet) -> None:
    with pytest.raises((FleetRefused, InvalidName), match="no dot"):
        admin.token("web.shop", role="client")
