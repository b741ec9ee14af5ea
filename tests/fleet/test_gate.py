"""Decisions about who comes in: by the server's clock, whatever the responder's says."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from helpers.pki import SetClock

from lightlink.certs import CertificateAuthority
from lightlink.errors import FleetRefused
from lightlink.fleet import FleetDirectory, jwt
from lightlink.fleet.directory import ResponderFiles
from lightlink.fleet.gate import Gate
from lightlink.fleet.keys import Key
from lightlink.fleet.records import Identity

if TYPE_CHECKING:
    from pathlib import Path

DAY = 86_400.0


class Door:
    """A gate of a fleet's own, and the requests of its identities as a server makes them."""

    def __init__(self, folder: Path) -> None:
        FleetDirectory.create(folder / "fleet", ["127.0.0.1"])
        self.authority = CertificateAuthority.load(folder / "fleet")
        self.known: dict[str, Identity] = {}
        secrets = ResponderFiles.load(folder / "fleet").secrets()
        self.gate = Gate(secrets, self.known.get, 3600.0)
        self.now = datetime.datetime.now(datetime.timezone.utc).timestamp()

    def request(self, name: str, **more: Any) -> dict[str, Any]:
        pem = (self.authority.directory / f"{name}.pem").read_text()
        made = {
            "user_nkey": Key.make("user").public,
            "server_id": {"id": "N"},
            "client_tls": {"verified_chains": [[pem]]},
        }
        return made | more


@pytest.fixture
def door(tmp_path: Path) -> Door:
    return Door(tmp_path)


def claims(token: str) -> dict[str, Any]:
    return jwt.decode(token.encode())


def test_an_agent_is_held_to_its_name_and_account(door: Door) -> None:
    door.authority.issue("a", "agent")
    entrant = door.gate.decide(door.request("a"), door.now)
    found = claims(entrant.token)
    assert (entrant.name, entrant.role, found["name"]) == ("a", "agent", "a")
    assert "ll.progress.a.*" in found["nats"]["pub"]["allow"]
    assert found["iss"].startswith("A")
    assert door.now + 0.7 * 3600 < found["exp"] <= door.now + 3600


@pytest.mark.parametrize("off", [-2 * DAY, 2 * DAY, 400 * DAY])
def test_a_responder_s_clock_does_not_matter(door: Door, set_clock: SetClock, off: float) -> None:
    door.authority.issue("a", "agent", days=10)
    set_clock(datetime.datetime.fromtimestamp(door.now + off, datetime.timezone.utc))
    found = claims(door.gate.decide(door.request("a"), door.now).token)
    assert door.now < found["exp"] <= door.now + 3600


def test_nobody_stays_longer_than_the_certificate(door: Door) -> None:
    info = door.authority.issue("a", "agent", days=1)
    end = info.not_after.timestamp()
    assert claims(door.gate.decide(door.request("a"), end - 60).token)["exp"] == int(end)
    with pytest.raises(FleetRefused) as caught:
        door.gate.decide(door.request("a"), end + 1)
    assert caught.value.code == "ended"


def test_what_the_fleet_remembers_takes_away(door: Door) -> None:
    serial = f"{door.authority.issue('a', 'agent').serial:x}"
    cases = {
        "revoked": Identity(name="a", serial=serial, revoked_at="2026-01-01"),
        "replaced": Identity(name="a", serial="1"),
    }
    for code, known in cases.items():
        door.known["a"] = known
        with pytest.raises(FleetRefused) as caught:
            door.gate.decide(door.request("a"), door.now)
        assert caught.value.code == code
    for confirms, known in (
        (False, Identity(name="a", serial=serial)),
        (True, Identity(name="a", serial=serial, previous="1")),
    ):
        door.known["a"] = known
        assert door.gate.decide(door.request("a"), door.now).confirms == confirms
    for known in (Identity(name="a", serial="1", previous=serial), Identity(name="a", serial="1", previous="*")):
        door.known["a"] = known
        assert not door.gate.decide(door.request("a"), door.now).confirms


@pytest.mark.parametrize(
    "tls",
    [
        None,
        {},
        {"verified_chains": []},
        {"verified_chains": [[]]},
        {"verified_chains": [["junk"]]},
        {"verified_chains": [[7]]},
        {"certs": ["unverified"]},
    ],
)
def test_without_a_verified_certificate_nobody_comes_in(door: Door, tls: Any) -> None:
    door.authority.issue("a", "agent")
    with pytest.raises(FleetRefused) as caught:
        door.gate.decide(door.request("a", client_tls=tls), door.now)
    assert caught.value.code == "no_certificate"


def test_a_certificate_without_a_role_is_refused(door: Door) -> None:
    for name in ("server", "ca"):
        with pytest.raises(FleetRefused) as caught:
            door.gate.decide(door.request(name), door.now)
        assert caught.value.code == "no_role"
    x509.load_pem_x509_certificate((door.authority.directory / "ca.pem").read_bytes())
