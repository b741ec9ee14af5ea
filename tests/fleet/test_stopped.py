"""A server, a responder or a signer that is away, hangs, is slow or does its work twice: survived, and remembered."""

from __future__ import annotations

import contextlib
import datetime
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from helpers.fleet import knock, why
from helpers.process import stopped
from helpers.waiting import eventually

import lightlink
from lightlink.errors import FleetError, FleetRefused
from lightlink.fleet import AgentFiles, Fleet, enroll, renew
from lightlink.fleet.enrolment import make_key_pem, make_request
from lightlink.fleet.signer import Signer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from helpers.fleet import FleetWorld


@pytest.fixture
def admin(fleet: FleetWorld) -> Fleet:
    return fleet.admin()


@contextlib.contextmanager
def hanging_responder(fleet: FleetWorld) -> Iterator[None]:
    """Run another responder, in a process that is stopped: it gets its share of the requests."""
    command = [sys.executable, "-m", "lightlink.cli", "fleet", "auth", str(fleet.directory), f"--url={fleet.url}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as hung:
        try:
            assert hung.stdout is not None
            assert "answers" in hung.stdout.readline()
            hung.send_signal(signal.SIGSTOP)
            yield
        finally:
            hung.kill()


def held(monkeypatch: pytest.MonkeyPatch, method: str, wait: threading.Event | threading.Barrier) -> threading.Event:
    """Have the first of a signer's calls of a method wait; with a barrier, all. The event says that one does."""
    original, began = getattr(Signer, method), threading.Event()

    def slowly(*args: Any, **options: Any) -> Any:
        is_first = not began.is_set()
        began.set()
        if is_first or isinstance(wait, threading.Barrier):
            wait.wait(60)
        return original(*args, **options)

    monkeypatch.setattr(Signer, method, slowly)
    return began


# A server that stands still -------------------------------------------------------------------------------------------


def test_a_server_that_stands_still_disturbs_nobody(fleet: FleetWorld, admin: Fleet) -> None:
    fleet.authority.issue("a", "agent")
    fleet.authority.issue("web")
    fleet.agent("a")
    manager = fleet.manager
    with ThreadPoolExecutor() as pool:
        with stopped(fleet.server.pid):
            sent = pool.submit(manager.send, "a", "double", {"x": 4})
            # That nobody answers is no refusal, after which a link would be closed for good.
            with pytest.raises(lightlink.ConnectError) as caught:
                fleet.link("web", connect_timeout=0.5)
            assert not isinstance(caught.value, lightlink.AuthenticationError)
        assert sent.result(60).result(60) == 8
    admin.revoke("web")
    with pytest.raises(lightlink.AuthenticationError):
        fleet.link("web")
    assert [entry.what for entry in admin.audit()] == ["revoked", "refused"]


# Responders -----------------------------------------------------------------------------------------------------------


def test_operations_are_done_though_a_responder_hangs(fleet: FleetWorld) -> None:
    admin = Fleet(fleet.link("ops", timeout=30.0))
    names = {f"w-{number}" for number in range(6)}
    with hanging_responder(fleet):
        for name in names:
            admin.revoke(name)
            assert name in {each.name for each in admin.identities()}


def test_a_machine_that_waits_survives_its_responders(
    fleet: FleetWorld, admin: Fleet, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    token = admin.token("a", approve=True)
    shown: list[str] = []
    done: list[AgentFiles] = []
    machine = threading.Thread(target=lambda: done.append(enroll(token, tmp_path / "agent", on_pending=shown.append)))
    machine.start()
    eventually(lambda: shown)
    fleet.stop_responders()
    eventually(lambda: "asking again" in caplog.text)
    fleet.responder()
    admin.accept(shown[0])
    machine.join(60)
    assert [files.name for files in done] == ["a"]
    assert len(shown) == 1


# Signers --------------------------------------------------------------------------------------------------------------


def test_a_slow_signer_keeps_nobody_else_waiting(
    fleet: FleetWorld, admin: Fleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet.authority.issue("web")
    token, key = admin.token("a"), make_key_pem()
    release = threading.Event()
    began = held(monkeypatch, "_sign", release)
    with ThreadPoolExecutor() as pool:
        slow = pool.submit(knock, token, tmp_path / "t", make_request("a", key))
        try:
            assert began.wait(60)
            fleet.link("web").flush()
            admin.revoke("other")
            assert enroll(admin.token("b"), tmp_path / "b").name == "b"
        finally:
            release.set()
        assert slow.result(60)["certificate"]
    # Its machine, which may have given up, is given the same.
    assert knock(token, tmp_path / "t", make_request("a", key)) == slow.result()
    assert sorted(entry.name for entry in admin.audit() if entry.what == "enrolled") == ["a", "b"]


def test_two_that_sign_at_once_give_one_certificate(
    fleet: FleetWorld, admin: Fleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet.responder()
    token, key = admin.token("a"), make_key_pem()
    held(monkeypatch, "_sign", threading.Barrier(2))
    with ThreadPoolExecutor() as pool:
        asked = [pool.submit(knock, token, tmp_path / f"t{each}", make_request("a", key)) for each in range(2)]
        first, second = (each.result(60) for each in asked)
    assert first["certificate"] == second["certificate"]
    assert [entry.what for entry in admin.audit()].count("enrolled") == 1


def test_a_renewal_that_is_signed_late_locks_nobody_out(
    fleet: FleetWorld, admin: Fleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = enroll(admin.token("a"), tmp_path / "agent")
    impatient = lightlink.connect(fleet.url, tls=files.tls, timeout=0.2)
    release = threading.Event()
    held(monkeypatch, "_sign", release)
    with impatient, lightlink.connect(fleet.url, tls=files.tls) as patient:
        with pytest.raises(FleetError, match="no responder answered"):
            renew(impatient, files)
        renew(patient, files)  # has its answer, and is not used yet
        release.set()
        eventually(lambda: [entry.what for entry in admin.audit()].count("renewed") == 2)
    with lightlink.connect(fleet.url, tls=files.tls) as client:
        eventually(lambda: not admin.identities()[0].previous)
        renew(client, files)
    lightlink.connect(fleet.url, tls=files.tls).close()


def test_a_signer_that_is_away_is_in_the_audit(
    fleet: FleetWorld, admin: Fleet, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    token, request = admin.token("a"), make_request("a", make_key_pem())
    (fleet.directory / "responder" / "signer.key").unlink()
    for _ in range(2):
        with pytest.raises(FleetError, match="signer is away"):
            knock(token, tmp_path / "t", request)
    failed = eventually(lambda: [entry for entry in admin.audit() if entry.what == "failed"])
    assert [(entry.name, entry.why) for entry in failed] == [("a", "signing: the signer is away; try again later")]
    assert "nothing can be signed" in caplog.text


@pytest.mark.parametrize("off", [-20, 20])
def test_a_signer_s_clock_does_not_matter(
    fleet: FleetWorld, admin: Fleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, off: int
) -> None:
    now = datetime.datetime.now(datetime.timezone.utc)
    # Of what signs alone: the responder and the machine that enrolls are one process here.
    monkeypatch.setattr("lightlink.certs.signing.utc_now", lambda: now + datetime.timedelta(days=off))
    files = enroll(admin.token("a"), tmp_path / "agent")
    assert 29 < files.days_left(now) <= 30.01
    with lightlink.connect(fleet.url, tls=files.tls) as client:
        renew(client, files)
    lightlink.connect(fleet.url, tls=files.tls).close()
    assert 29 < files.days_left(now) <= 30.01


# Revocation -----------------------------------------------------------------------------------------------------------


def test_what_was_given_before_a_revocation_is_void(admin: Fleet, tmp_path: Path) -> None:
    used, unused, key = admin.token("a"), admin.token("a"), make_key_pem()
    knock(used, tmp_path / "t", make_request("a", key))
    admin.revoke("a", "stolen")
    for token, request in ((used, make_request("a", key)), (unused, make_request("a", make_key_pem()))):
        with pytest.raises(FleetRefused, match="before a was revoked"):
            knock(token, tmp_path / "t", request)
    assert why(admin) == ["revoked", "revoked"]
    assert [each.revoked for each in admin.identities()] == [True]
    assert enroll(admin.token("a"), tmp_path / "agent").name == "a"
