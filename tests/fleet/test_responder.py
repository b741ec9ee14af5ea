"""Who is let in, who is put out, and what happens while nobody is there to decide."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest
from helpers.fleet import Sender
from helpers.pki import connect_to, tls_of
from helpers.waiting import eventually

import lightlink
from lightlink.certs import CertificateAuthority
from lightlink.commands import Agent
from lightlink.errors import FleetError, FleetRefused, InvalidName, NotReady, PermissionDenied
from lightlink.fleet import Fleet, Responder
from lightlink.fleet.records import Identities
from lightlink.fleet.resolver import Resolver

if TYPE_CHECKING:
    from pathlib import Path

    from helpers.fleet import FleetWorld


def start(fleet: FleetWorld, name: str, **options: Any) -> Agent:
    """Issue an agent's certificate by hand, and start it."""
    fleet.authority.issue(name, "agent")
    return fleet.agent(name, **options)


def test_a_revoked_agent_is_out_and_stays_out(fleet: FleetWorld, caplog: pytest.LogCaptureFixture) -> None:
    victim, other = start(fleet, "victim"), start(fleet, "other")
    admin = fleet.admin()
    with Sender(fleet.manager, "other") as sender:
        admin.revoke("victim", "stolen")
        eventually(lambda: victim.stage.value == "stopped")
        with pytest.raises(lightlink.AuthenticationError):
            fleet.link("victim")
        sender.goes_on()
    assert other.stage.value == "running"
    assert [record.getMessage() for record in caplog.records].count(
        "lightlink: connection to NATS lost; reconnecting"
    ) == 1
    (known,) = [each for each in admin.identities() if each.name == "victim"]
    assert (known.revoked, known.reason) == (True, "stolen")
    events = [(entry.what, entry.name) for entry in admin.audit()]
    assert ("revoked", "victim") in events
    assert ("refused", "victim") in events


def test_a_responder_runs_until_it_is_stopped(fleet: FleetWorld) -> None:
    responder = Responder(fleet.directory, fleet.url)
    with pytest.raises(NotReady):
        _ = responder.client
    running = threading.Thread(target=responder.run)
    running.start()
    eventually(lambda: responder.stage.value == "running")
    assert responder.client.is_responsive()
    with pytest.raises(NotReady, match="running already"):
        responder.start()
    responder.stop()
    running.join(30)
    assert not running.is_alive()
    assert responder.stage.value == "stopped"


def test_others_than_agents_are_put_out_too(fleet: FleetWorld) -> None:
    fleet.authority.issue("web")
    fleet.authority.issue("web.eu")
    lost: list[object] = []
    web, other = fleet.link("web", on_error=lost.append), fleet.link("web.eu", on_error=lost.append)
    fleet.admin().revoke("web")
    eventually(lambda: web.status is lightlink.Status.CLOSED)
    other.flush()
    assert other.status is lightlink.Status.CONNECTED
    with pytest.raises(lightlink.AuthenticationError):
        fleet.link("web")


def test_who_could_not_be_put_out_is_once_that_can_be_done(
    fleet: FleetWorld, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As while no server answers: whoever followed the revocation said so, and let it be."""
    monkeypatch.setattr("lightlink.fleet.responder._AGAIN_SECONDS", 0.1)
    answers, real = threading.Event(), Resolver.put_out

    def put_out(resolver: Resolver, names: list[str]) -> int:
        if names and not answers.is_set():
            raise FleetError("deleting accounts", "no server answered")
        return real(resolver, names)

    monkeypatch.setattr(Resolver, "put_out", put_out)
    fleet.stop_responders()
    responders = fleet.responder(), fleet.responder()  # either may be the one that is asked, the other follows
    fleet.authority.issue("web")
    web = fleet.link("web")

    def still_in() -> set[str]:
        return {name for each in responders for name in each.health()["still_in"]}

    with pytest.raises(FleetError, match="no server answered"):
        fleet.admin().revoke("web")
    eventually(lambda: still_in() == {"web"})
    eventually(lambda: "web could not be put out, and is tried again" in caplog.text)
    assert web.status is lightlink.Status.CONNECTED
    answers.set()
    eventually(lambda: web.status is lightlink.Status.CLOSED)
    eventually(lambda: not still_in())


def test_a_lone_responder_goes_on_putting_out_whom_it_revoked(
    fleet: FleetWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It does not follow its own revocation, when its answer comes first."""
    monkeypatch.setattr("lightlink.fleet.responder._AGAIN_SECONDS", 0.1)
    monkeypatch.setattr(Identities, "_follow", lambda *_: None)
    answers, real = threading.Event(), Resolver.put_out

    def put_out(resolver: Resolver, names: list[str]) -> int:
        if names and not answers.is_set():
            raise FleetError("deleting accounts", "no server answered")
        return real(resolver, names)

    fleet.authority.issue("web")
    web = fleet.link("web")
    fleet.stop_responders()
    responder = fleet.responder()
    monkeypatch.setattr(Resolver, "put_out", put_out)
    with pytest.raises(FleetError, match="no server answered"):
        fleet.admin().revoke("web")
    assert responder.health()["still_in"] == ["web"]
    answers.set()
    eventually(lambda: web.status is lightlink.Status.CLOSED)
    eventually(lambda: responder.health()["still_in"] == [])


def test_every_responder_knows_who_was_revoked(fleet: FleetWorld) -> None:
    fleet.authority.issue("web")
    first = fleet.responder()
    fleet.admin().revoke("web")
    # One that comes later, and is the only one then.
    fleet.stop_responders()
    assert first.health()["connections"] == {}
    fleet.responder()
    with pytest.raises(lightlink.AuthenticationError):
        fleet.link("web")
    fleet.link("manager").flush()


def test_without_responders_the_connected_go_on(fleet: FleetWorld) -> None:
    agent = start(fleet, "a", connect_timeout=1.0, wait=30)
    fleet.authority.issue("b", "agent")
    manager = fleet.manager
    fleet.stop_responders()
    with Sender(manager, "a"):
        with pytest.raises(lightlink.ConnectError):
            fleet.link("b", connect_timeout=1.0)
        # Its connection breaks, and it is not let in again before somebody decides.
        status = agent.client.status
        fleet.cut("a")
        eventually(lambda: agent.client.status is not status)
        waiting = agent.client.status
        fleet.responder()
        eventually(lambda: agent.client.status is lightlink.Status.CONNECTED)
    assert waiting is lightlink.Status.RECONNECTING
    fleet.link("b")


def test_nothing_is_delivered_where_a_lost_connection_listened(fleet: FleetWorld) -> None:
    agent = start(fleet, "a")
    seen: list[lightlink.Status] = []
    agent.client.on_status_change(seen.append)
    for cuts in range(1, 5):
        assert fleet.manager.send("a", "double", {"x": cuts}).result(30) == 2 * cuts
        fleet.cut("a")
        eventually(lambda: seen.count(lightlink.Status.CONNECTED) == cuts)  # noqa: B023 - awaited within the round
    for x in range(10):
        assert fleet.manager.send("a", "double", {"x": x}).result(30) == 2 * x
    with connect_to(fleet.server, fleet.directory, "ops") as admin:
        delivered = admin.run(lambda nc: nc.jetstream().consumer_info("LIGHTLINK_COMMANDS", "agent-a")).delivered
    assert delivered.consumer_seq == delivered.stream_seq == 14, "some were delivered to nobody"


def test_users_that_expire_are_let_in_again_and_no_command_fails(fleet: FleetWorld) -> None:
    fleet.stop_responders()
    responder = fleet.responder(life=5.0)  # a connection that takes longer than that is refused as one that has ended
    start(fleet, "a")
    with Sender(fleet.manager, "a") as sender:
        eventually(lambda: responder.health()["admitted"] >= 3)
        sender.goes_on()


def test_responders_share_the_work_and_one_may_die(fleet: FleetWorld) -> None:
    second = fleet.responder()
    fleet.authority.issue("web")
    eventually(lambda: bool(fleet.link("web")) and second.health()["admitted"])
    fleet.stop_responders(1)
    for _ in range(10):
        fleet.link("web").flush()


def test_a_certificate_of_another_authority_is_refused(fleet: FleetWorld, tmp_path: Path) -> None:
    other = CertificateAuthority.create(tmp_path / "other")
    other.issue("ops", "admin")
    tls = lightlink.TLS(fleet.directory / "ca.pem", other.directory / "ops.pem", other.directory / "ops.key")
    with pytest.raises(lightlink.AuthenticationError):
        lightlink.connect(fleet.url, tls=tls)


@pytest.mark.parametrize("name", ["responder/responder", "server"])
def test_a_certificate_without_a_role_gets_nobody_in(fleet: FleetWorld, name: str) -> None:
    tls = lightlink.TLS(fleet.directory / "ca.pem", fleet.directory / f"{name}.pem", fleet.directory / f"{name}.key")
    if name == "server":
        with pytest.raises(lightlink.AuthenticationError):
            lightlink.connect(fleet.url, tls=tls)
        return
    # The responders' own is a client's that may do nothing.
    with lightlink.connect(fleet.url, tls=tls) as client, pytest.raises(PermissionDenied):
        client.call("a", "b")


def test_only_admins_may_ask(fleet: FleetWorld) -> None:
    fleet.authority.issue("web")
    start(fleet, "a")
    for name in ("manager", "web", "a"):
        with pytest.raises(PermissionDenied):
            Fleet(fleet.link(name)).revoke("manager")
        with connect_to(fleet.server, fleet.directory, name) as peer:
            # Nor by an answer that is sent elsewhere.
            peer.run(peer.nc.publish("$JS.API.INFO", b"", reply="ll.fleet.op.revoke"))
    assert not [each for each in fleet.admin().identities() if each.revoked]


def test_bad_operations_are_refused_and_audited(fleet: FleetWorld) -> None:
    admin = fleet.admin()
    for name in ("", "A", "a.b/c", "../ca", 7):
        with pytest.raises((FleetRefused, InvalidName)):
            admin.revoke(name)  # type: ignore[arg-type]
    with pytest.raises(FleetRefused) as caught:
        admin.accept("no:such")
    assert caught.value.code == "unknown"
    with pytest.raises(FleetRefused):
        admin.audit(0)
    assert [entry.what for entry in admin.audit()] == ["refused"] * 7


def test_a_revocation_that_is_asked_for_twice_is_audited_once(fleet: FleetWorld) -> None:
    admin = fleet.admin()
    for reason in ("lost", "asked again"):
        admin.revoke("a", reason)
    assert [(each.what, each.name, each.facts["reason"]) for each in admin.audit()] == [("revoked", "a", "lost")]


def test_a_list_that_fits_into_no_message_is_listed_whole(fleet: FleetWorld) -> None:
    admin, names = fleet.admin(), [f"n{number}" for number in range(5)]
    labels = {"note": "x" * 300_000}
    for name in names:
        admin.token(name, labels=labels)
        admin.revoke(name, labels["note"])
    assert [each.name for each in admin.tokens()] == names
    assert [each.name for each in admin.identities()] == names
    assert [(each.what, each.name) for each in admin.audit()] == [(w, n) for n in names for w in ("token", "revoked")]
    assert [each.name for each in admin.audit(2)] == ["n4", "n4"]


def test_without_a_responder_an_operation_says_so(fleet: FleetWorld) -> None:
    client = fleet.link("ops", timeout=0.5)
    fleet.stop_responders()
    with pytest.raises(FleetError, match="responder"):
        Fleet(client).identities()


def test_the_files_of_a_fleet_are_private_and_not_overwritten(fleet: FleetWorld) -> None:
    modes = {
        path.relative_to(fleet.directory).as_posix(): path.stat().st_mode & 0o777 for path in fleet.directory.rglob("*")
    }
    assert {modes[name] for name in ("ca.key", "operator.seed", "responder/fleet.json", "responder/signer.key")} == {
        0o600
    }
    assert {modes[f"responder/{name}.creds"] for name in ("auth", "system")} == {0o600}
    assert modes["responder"] == 0o700
    before = {path: path.read_bytes() for path in fleet.directory.rglob("*") if path.is_file()}
    with pytest.raises(lightlink.InvalidOption, match="is there already"):
        type(fleet).create(fleet.directory)
    assert {path: path.read_bytes() for path in fleet.directory.rglob("*") if path.is_file()} == before
    assert tls_of(fleet.directory, "ops").cert is not None


def test_a_responder_that_hangs_keeps_nobody_out_for_long(fleet: FleetWorld) -> None:
    fleet.authority.issue("web")
    command = [sys.executable, "-m", "lightlink.cli", "fleet", "auth", str(fleet.directory), f"--url={fleet.url}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as hung:
        try:
            assert hung.stdout is not None
            assert "answers" in hung.stdout.readline()
            hung.send_signal(signal.SIGSTOP)

            def comes_in() -> bool:
                try:
                    lightlink.connect(fleet.url, tls=tls_of(fleet.directory, "web"), connect_timeout=1.0).close()
                except lightlink.AuthenticationError:
                    raise  # it is no refusal: who is connected already would try again
                except lightlink.ConnectError:
                    return False
                return True

            for _ in range(3):
                eventually(comes_in)
        finally:
            hung.kill()
