"""Machines are accepted, and identities put out, over HTTP."""

from __future__ import annotations

import concurrent.futures
from typing import TYPE_CHECKING, Any

import pytest
from helpers.fleet import knock
from helpers.http import Browser
from helpers.waiting import eventually

import lightlink
from lightlink.commands import CommandManager
from lightlink.errors import FleetRefused
from lightlink.fleet import enroll
from lightlink.fleet.enrolment import make_key_pem, make_request
from lightlink.http import Token, create_app

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from helpers.fleet import FleetWorld
    from werkzeug.test import TestResponse

    from lightlink.fleet import Fleet

TOKENS = {
    "boss": Token(name="boss", scope={"read", "fleet"}),
    "berlin": Token(name="berlin", scope={"fleet"}, clients=["berlin-*"]),
    "reader": Token(name="reader", scope={"read", "send", "plan", "approve"}),
}
NOBODY = ":".join(["0000"] * 16)


class Api:
    """The calls of one token, as JSON."""

    def __init__(self, browser: Browser, token: str) -> None:
        self._browser = browser
        self._headers = {"Authorization": f"Bearer {token}"}

    def get(self, path: str) -> TestResponse:
        return self._browser.get(path, headers=self._headers)

    def post(self, path: str, **body: Any) -> TestResponse:
        return self._browser.post(path, json=body, headers=self._headers)

    def waiting(self) -> list[dict[str, Any]]:
        """Return the machines that wait, once there are any."""
        return eventually(lambda: self.get("/api/fleet/requests").json["requests"])  # type: ignore[index]


@pytest.fixture
def browser(fleet: FleetWorld) -> Iterator[Browser]:
    _ = fleet.manager  # it makes the streams
    with CommandManager(fleet.link("ops"), sweep_interval=None) as manager:
        yield Browser(create_app(manager, tokens=TOKENS.get))


@pytest.fixture
def boss(browser: Browser) -> Api:
    return Api(browser, "boss")


@pytest.fixture
def admin(fleet: FleetWorld) -> Fleet:
    return fleet.admin()


@pytest.fixture
def machines() -> Iterator[concurrent.futures.ThreadPoolExecutor]:
    with concurrent.futures.ThreadPoolExecutor() as pool:
        yield pool


def test_a_machine_waits_until_it_is_accepted(
    boss: Api, admin: Fleet, machines: concurrent.futures.ThreadPoolExecutor, tmp_path: Path
) -> None:
    assert boss.get("/api/fleet/requests").json == {"success": True, "requests": []}
    told: list[str] = []
    made = boss.post("/api/fleet/tokens", name="a-0815", labels={"site": "berlin"}, approve=True).json
    assert made is not None
    token = made["token"]
    (unused,) = boss.get("/api/fleet/tokens").json["tokens"]  # type: ignore[index]
    assert (unused["name"], unused["role"], unused["approve"]) == ("a-0815", "agent", True)
    assert token not in str(unused)
    enrolling = machines.submit(enroll, token, tmp_path / "agent", timeout=60, on_pending=told.append)
    (request,) = boss.waiting()
    assert (request["name"], request["labels"], request["decision"]) == ("a-0815", {"site": "berlin"}, "")
    assert request["fingerprint"] == eventually(lambda: told)[0]
    accepted = boss.post("/api/fleet/accept", fingerprint=request["fingerprint"])
    assert (accepted.status_code, accepted.json["request"]["decision"]) == (200, "accepted")  # type: ignore[index]
    assert enrolling.result(30).name == "a-0815"
    assert boss.get("/api/fleet/tokens").json["tokens"] == []  # type: ignore[index]
    assert boss.get("/api/fleet/requests").json["requests"] == []  # type: ignore[index]
    assert boss.post("/api/fleet/accept", fingerprint=request["fingerprint"]).status_code == 404
    (known,) = boss.get("/api/fleet/identities").json["identities"]  # type: ignore[index]
    assert (known["name"], known["role"], known["revoked"]) == ("a-0815", "agent", False)
    entry = next(each for each in admin.audit() if each.what == "accepted")
    assert entry.facts["by"] == "boss"
    assert next(each for each in admin.audit() if each.what == "token").facts["by"] == "boss"


def test_a_machine_that_is_rejected_gets_nothing(
    boss: Api, admin: Fleet, machines: concurrent.futures.ThreadPoolExecutor, tmp_path: Path
) -> None:
    enrolling = machines.submit(enroll, admin.token("a", approve=True), tmp_path / "agent", timeout=60)
    (request,) = boss.waiting()
    rejected = boss.post("/api/fleet/reject", fingerprint=request["fingerprint"])
    assert rejected.json["request"]["decision"] == "rejected"  # type: ignore[index]
    with pytest.raises(FleetRefused, match="rejected"):
        enrolling.result(30)
    assert boss.get("/api/fleet/identities").json["identities"] == []  # type: ignore[index]


def test_an_identity_is_put_out_and_stays_out(fleet: FleetWorld, boss: Api, admin: Fleet, tmp_path: Path) -> None:
    files = enroll(admin.token("a-1"), tmp_path / "agent")
    fleet.agent("a-1", tls=files.tls)
    assert fleet.manager.send("a-1", "double", {"x": 1}).result(30) == 2
    answer = boss.post("/api/fleet/revoke", name="a-1", reason="stolen")
    assert answer.json == {"success": True, "name": "a-1"}
    with pytest.raises(lightlink.AuthenticationError):
        fleet.link("a-1", tls=files.tls)
    (known,) = boss.get("/api/fleet/identities").json["identities"]  # type: ignore[index]
    assert (known["revoked"], known["reason"]) == (True, "stolen")
    entry = next(each for each in admin.audit() if each.what == "revoked")
    assert entry.facts == {"reason": "stolen", "by": "boss"}


def test_only_the_scope_fleet_may(browser: Browser) -> None:
    reader = Api(browser, "reader")
    answers = [
        reader.get("/api/fleet/requests"),
        reader.get("/api/fleet/identities"),
        reader.get("/api/fleet/tokens"),
        reader.post("/api/fleet/tokens", name="a-1"),
        reader.post("/api/fleet/accept", fingerprint=NOBODY),
        reader.post("/api/fleet/reject", fingerprint=NOBODY),
        reader.post("/api/fleet/revoke", name="ops"),
    ]
    assert {(each.status_code, each.json["error"]) for each in answers} == {  # type: ignore[index]
        (403, "token 'reader' may not fleet")
    }


def test_a_token_for_some_names_knows_nothing_of_others(
    browser: Browser, boss: Api, admin: Fleet, machines: concurrent.futures.ThreadPoolExecutor, tmp_path: Path
) -> None:
    berlin = Api(browser, "berlin")
    enrolling = machines.submit(enroll, admin.token("munich-1", approve=True), tmp_path / "agent", timeout=60)
    (request,) = boss.waiting()
    assert berlin.get("/api/fleet/requests").json["requests"] == []  # type: ignore[index]
    boss.post("/api/fleet/tokens", name="munich-2")
    assert berlin.get("/api/fleet/tokens").json["tokens"] == []  # type: ignore[index]
    assert berlin.post("/api/fleet/tokens", name="munich-3").status_code == 403
    assert berlin.post("/api/fleet/accept", fingerprint=request["fingerprint"]).status_code == 404
    assert berlin.post("/api/fleet/revoke", name="munich-1").status_code == 403
    boss.post("/api/fleet/accept", fingerprint=request["fingerprint"])
    enrolling.result(30)
    assert berlin.get("/api/fleet/identities").json["identities"] == []  # type: ignore[index]


@pytest.mark.parametrize("fingerprint", ["", "x", "*", "0000:" * 15 + "000G", NOBODY + ":0000"])
def test_what_is_no_fingerprint_is_refused_by_name(boss: Api, fingerprint: str) -> None:
    answer = boss.post("/api/fleet/accept", fingerprint=fingerprint)
    assert answer.status_code == 400
    assert "fingerprint" in answer.json["error"]  # type: ignore[index]


def test_a_server_that_is_no_admin_says_so(fleet: FleetWorld) -> None:
    boss = Api(Browser(create_app(fleet.manager, tokens=TOKENS.get)), "boss")
    answer = boss.get("/api/fleet/requests")
    assert answer.status_code == 501
    assert "is no admin of the fleet" in answer.json["error"]  # type: ignore[index]


def test_without_responders_it_says_what_is_missing(fleet: FleetWorld, boss: Api) -> None:
    fleet.stop_responders()
    answer = boss.get("/api/fleet/requests")
    assert answer.status_code == 503
    assert "responder" in answer.json["error"]  # type: ignore[index]


def test_of_one_key_for_two_names_only_the_tokens_own_is_decided(
    browser: Browser, boss: Api, admin: Fleet, tmp_path: Path
) -> None:
    """Whoever holds a token of another site's machine may use the key of one of his own with it."""
    berlin = Api(browser, "berlin")
    key = make_key_pem()
    others, own = admin.token("athens-1", approve=True), admin.token("berlin-1", approve=True)
    fingerprint = knock(others, tmp_path / "a", make_request("athens-1", key))["pending"]
    assert berlin.post("/api/fleet/accept", fingerprint=fingerprint).status_code == 404
    assert knock(own, tmp_path / "b", make_request("berlin-1", key))["pending"] == fingerprint

    for which in ({"name": "athens-1"}, {"id": boss.waiting()[0]["id"]}):
        assert berlin.post("/api/fleet/accept", fingerprint=fingerprint, **which).status_code == 404
    refused = boss.post("/api/fleet/accept", fingerprint=fingerprint)
    accepted = berlin.post("/api/fleet/accept", fingerprint=fingerprint).json

    assert refused.status_code == 409
    assert "give a name or an id: athens-1 (id " in refused.json["error"]  # type: ignore[index]
    assert accepted is not None
    assert accepted["request"]["name"] == "berlin-1"
    assert "certificate" in knock(own, tmp_path / "b", make_request("berlin-1", key))
    assert knock(others, tmp_path / "a", make_request("athens-1", key)) == {"pending": fingerprint}
    assert [each.name for each in admin.identities()] == ["berlin-1"]
