"""A token is good for one machine, once; what else is tried with it is refused and audited."""

from __future__ import annotations

import datetime
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import NameOID
from helpers.fleet import at_the_door, knock, why
from helpers.proxy import TcpProxy
from helpers.waiting import eventually

import lightlink
from lightlink.certs.certificate import load_certificates, to_pem
from lightlink.errors import FleetError, FleetRefused, InvalidOption, PermissionDenied
from lightlink.fleet import AgentFiles, enroll, keep_renewed, renew
from lightlink.fleet.admin import ask
from lightlink.fleet.enrolment import Token, make_key_pem, make_request

if TYPE_CHECKING:
    from pathlib import Path

    from helpers.fleet import FleetWorld

    from lightlink.fleet import Fleet


@pytest.fixture
def admin(fleet: FleetWorld) -> Fleet:
    return fleet.admin()


def csr(name: str, key: Any, *more: x509.GeneralName, common_name: str | None = None) -> str:
    names = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name or name)])
    builder = x509.CertificateSigningRequestBuilder().subject_name(names)
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(name), *more]), critical=False)
    algorithm = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return builder.sign(key, algorithm).public_bytes(serialization.Encoding.PEM).decode()


# What a token is for --------------------------------------------------------------------------------------------------


def test_a_machine_enrolls_and_works(
    fleet: FleetWorld, admin: Fleet, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    token = admin.token("a-0815", labels={"site": "berlin"})
    files = enroll(token, tmp_path / "agent")
    assert (files.name, files.labels, files.urls) == ("a-0815", {"site": "berlin"}, (fleet.url,))
    modes = {path.name: path.stat().st_mode & 0o777 for path in files.directory.iterdir()}
    assert modes == {"agent.pem": 0o600, "agent.json": 0o600, "ca.pem": 0o644}
    assert 29 < files.days_left(datetime.datetime.now(datetime.timezone.utc)) <= 30
    fleet.agent(files.name, tls=files.tls)
    assert fleet.manager.send("a-0815", "double", {"x": 21}).result(30) == 42
    (known,) = admin.identities()
    assert (known.name, known.labels, known.revoked) == ("a-0815", {"site": "berlin"}, False)
    assert [entry.what for entry in admin.audit()] == ["token", "enrolled"]
    assert "expires in" not in caplog.text  # it is renewed by itself


def test_a_token_opens_no_other_door(admin: Fleet, tmp_path: Path) -> None:
    token = admin.token("a")
    with at_the_door(token, tmp_path / "t") as client:
        for subject in ("ll.fleet.op.revoke", "ll.fleet.renew.a", "$SRV.a.b", "ll.fleet.enroll.b.1"):
            with pytest.raises(PermissionDenied):
                ask(client._connection, subject, {}, "attack")
        for subject in (">", "ll.>", "_INBOX.>"):
            with pytest.raises(PermissionDenied):
                client.subscribe(subject)


def test_a_token_is_used_once(admin: Fleet, tmp_path: Path) -> None:
    token = admin.token("a")
    enroll(token, tmp_path / "first")
    with pytest.raises(FleetRefused, match="has been used"):
        enroll(token, tmp_path / "second")
    with pytest.raises(InvalidOption, match="is there already"):
        enroll(token, tmp_path / "first")
    assert why(admin) == ["used"]


def test_of_many_that_use_a_token_at_once_one_gets_in(fleet: FleetWorld, admin: Fleet, tmp_path: Path) -> None:
    fleet.responder()
    token = admin.token("a")
    results: list[object] = []

    def run(number: int) -> None:
        try:
            results.append(enroll(token, tmp_path / str(number)))
        except FleetRefused as exc:
            results.append(exc.code)

    threads = [threading.Thread(target=run, args=[number]) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(str(type(each).__name__) for each in results) == ["AgentFiles"] + ["str"] * 5
    assert {each for each in results if isinstance(each, str)} == {"used"}


def test_a_machine_waits_for_a_server_that_is_busy(
    fleet: FleetWorld, admin: Fleet, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    target = urlsplit(fleet.url)
    with TcpProxy(str(target.hostname), target.port or 0) as link, ThreadPoolExecutor(1) as pool:
        token = admin.token("a", urls=[link.url.replace("nats://", "tls://")])
        link.refuse()
        enrolling = pool.submit(enroll, token, tmp_path / "a")
        eventually(lambda: "no server yet, waiting for one" in caplog.text)
        link.accept()
        assert enrolling.result(60).name == "a"
        link.refuse()
        with pytest.raises(lightlink.ConnectError):
            enroll(admin.token("b", urls=[link.url.replace("nats://", "tls://")]), tmp_path / "b", timeout=0.5)


def test_an_answer_that_was_lost_is_asked_for_again(admin: Fleet, tmp_path: Path) -> None:
    token = admin.token("a")
    key = make_key_pem()
    first, second = (knock(token, tmp_path / "t", make_request("a", key)) for _ in range(2))
    assert first["certificate"] == second["certificate"]
    with pytest.raises(FleetRefused, match="has been used"):
        knock(token, tmp_path / "t", make_request("a", make_key_pem()))


def test_an_expired_token_is_refused(fleet: FleetWorld, admin: Fleet, tmp_path: Path) -> None:
    token = admin.token("a", hours=6 / 3600)  # a slow machine needs some of that to get to the door
    request = make_request("a", make_key_pem())
    with at_the_door(token, tmp_path / "t") as client:  # in time, and then it waits
        eventually(lambda: fleet.token_has_expired(Token.read(token).id))
        with pytest.raises(FleetRefused) as caught:
            ask(client._connection, f"ll.fleet.enroll.a.{Token.read(token).id}", {"csr": request}, "enrolment")
    assert caught.value.code == "expired"
    with pytest.raises(lightlink.ConnectError):
        enroll(token, tmp_path / "late")


def test_a_name_in_use_gets_no_token_and_no_second_machine(admin: Fleet, tmp_path: Path) -> None:
    early, late = admin.token("a"), admin.token("a")
    enroll(early, tmp_path / "first")
    with pytest.raises(FleetRefused) as caught:
        enroll(late, tmp_path / "second")
    assert caught.value.code == "in_use"
    with pytest.raises(FleetRefused, match="in use"):
        admin.token("a")
    assert why(admin) == ["in_use", "in_use"]


BAD_REQUESTS = {
    "another name": (lambda: csr("b", ec.generate_private_key(ec.SECP256R1())), "other_name"),
    "another name besides": (
        lambda: csr("a", ec.generate_private_key(ec.SECP256R1()), x509.DNSName("ops")),
        "other_name",
    ),
    "an address besides": (
        lambda: csr("a", ec.generate_private_key(ec.SECP256R1()), x509.RFC822Name("a@b")),
        "other_name",
    ),
    "another common name": (lambda: csr("a", ec.generate_private_key(ec.SECP256R1()), common_name="ops"), "other_name"),
    "a short RSA key": (lambda: csr("a", rsa.generate_private_key(65537, 1024)), "weak_key"),
    "a long RSA key": (lambda: csr("a", rsa.generate_private_key(65537, 2048)), "weak_key"),
    "a small curve": (lambda: csr("a", ec.generate_private_key(ec.SECP192R1())), "weak_key"),
    "another kind of key": (lambda: csr("a", ed25519.Ed25519PrivateKey.generate()), "weak_key"),
    "junk": (lambda: "junk", "bad_request"),
    "nothing": (lambda: None, "bad_request"),
    "a list": (lambda: [1], "bad_request"),
    "far too much": (lambda: "x" * 100_000, "bad_request"),
    "a broken signature": (lambda: _broken(make_request("a", make_key_pem())), "bad_request"),
}


def _broken(pem: str) -> str:
    der = bytearray(x509.load_pem_x509_csr(pem.encode()).public_bytes(serialization.Encoding.DER))
    der[-1] ^= 1
    return x509.load_der_x509_csr(bytes(der)).public_bytes(serialization.Encoding.PEM).decode()


def test_bad_requests_are_refused_and_leave_the_token_good(admin: Fleet, tmp_path: Path) -> None:
    token = admin.token("a")
    for what, (make, code) in BAD_REQUESTS.items():
        with pytest.raises(FleetRefused) as caught:
            knock(token, tmp_path / "t", make())
        assert caught.value.code == code, what
    assert why(admin) == [code for _, code in BAD_REQUESTS.values()]
    enroll(token, tmp_path / "agent")


@pytest.mark.parametrize("text", ["", "junk", "lltoken1_", "lltoken1_AAAA", "lltoken1_" + "A" * 20_000, "lltoken1_é"])
def test_text_that_is_no_token_is_refused_unseen(text: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidOption) as caught:
        enroll(text, tmp_path / "agent")
    assert text[9:] == "" or text[9:] not in str(caught.value)


def test_a_token_that_is_cut_short_is_refused(admin: Fleet, tmp_path: Path) -> None:
    token = admin.token("a")
    for end in (10, 100, len(token) - 1):
        with pytest.raises(InvalidOption):
            enroll(token[:end], tmp_path / "agent")
    with pytest.raises((FleetRefused, lightlink.InvalidName)):
        admin.token("No Name")


# Somebody decides -----------------------------------------------------------------------------------------------------


def test_a_request_waits_until_its_fingerprint_is_accepted(admin: Fleet, tmp_path: Path) -> None:
    token = admin.token("a", approve=True)
    shown: list[str] = []
    done: list[AgentFiles] = []
    machine = threading.Thread(target=lambda: done.append(enroll(token, tmp_path / "agent", on_pending=shown.append)))
    machine.start()
    (waiting,) = eventually(admin.pending)
    eventually(lambda: shown)
    assert (waiting.name, waiting.fingerprint) == ("a", shown[0])
    admin.accept(shown[0])
    machine.join(30)
    assert [files.name for files in done] == ["a"]
    assert admin.pending() == []
    assert [entry.what for entry in admin.audit()] == ["token", "requested", "accepted", "enrolled"]


def test_a_rejected_request_gets_nothing(admin: Fleet, tmp_path: Path) -> None:
    token = admin.token("a", approve=True)
    request = make_request("a", make_key_pem())
    fingerprint = knock(token, tmp_path / "t", request)["pending"]
    admin.reject(fingerprint)
    with pytest.raises(FleetRefused) as caught:
        knock(token, tmp_path / "t", request)
    assert caught.value.code == "rejected"
    with pytest.raises(FleetRefused, match="nothing waits"):
        admin.accept(fingerprint)


def test_of_several_requests_of_one_key_none_is_decided_unnamed(admin: Fleet, tmp_path: Path) -> None:
    key = make_key_pem()
    tokens = [("a", admin.token("a", approve=True)), ("b", admin.token("b", approve=True))]
    tokens.append(("b", admin.token("b", approve=True)))
    for name, token in tokens:
        fingerprint = knock(token, tmp_path / "t", make_request(name, key))["pending"]
    a, b, other_b = admin.pending()
    for which, named in (({}, "a .*, b .*, b "), ({"name": "b"}, "b .*, b ")):
        with pytest.raises(FleetRefused, match=f"several wait with this fingerprint, name one: {named}") as caught:
            admin.accept(fingerprint, **which)
        assert caught.value.code == "several"
    with pytest.raises(FleetRefused, match="nothing waits for b with"):
        admin.accept(fingerprint, name="b", token=a.id)

    assert admin.accept(fingerprint, token=other_b.id).id == other_b.id
    assert admin.reject(fingerprint, name="b").id == b.id
    assert admin.accept(fingerprint).id == a.id  # it is the only one that waits
    assert admin.pending() == []


def test_a_request_whose_token_has_expired_is_not_decided(fleet: FleetWorld, admin: Fleet, tmp_path: Path) -> None:
    late, good, key = admin.token("a", approve=True), admin.token("b", approve=True), make_key_pem()
    fingerprint = knock(late, tmp_path / "t", make_request("a", key))["pending"]
    fleet.expire(Token.read(late).id)

    assert admin.pending() == []
    for decide in (admin.accept, admin.reject):
        with pytest.raises(FleetRefused, match="the token for a has expired; make another one") as caught:
            decide(fingerprint)
        assert caught.value.code == "expired"
    # It is not in the way of another.
    assert knock(good, tmp_path / "t", make_request("b", key)) == {"pending": fingerprint}
    assert admin.accept(fingerprint).name == "b"


def test_who_waits_in_vain_gives_up_and_may_come_again(admin: Fleet, tmp_path: Path) -> None:
    token = admin.token("a", approve=True)
    with pytest.raises(FleetError, match="nobody has accepted"):
        enroll(token, tmp_path / "agent", timeout=0.01)
    (waiting,) = admin.pending()
    admin.accept(waiting.fingerprint)
    assert enroll(token, tmp_path / "agent").name == "a"


# Signers --------------------------------------------------------------------------------------------------------------


def test_without_the_signer_nobody_is_enrolled_and_nothing_lost(
    fleet: FleetWorld, admin: Fleet, tmp_path: Path
) -> None:
    token = admin.token("a")
    key = fleet.directory / "responder" / "signer.key"
    kept = key.read_bytes()
    key.unlink()
    with pytest.raises(FleetError, match="signer is away"):
        enroll(token, tmp_path / "agent")
    key.write_bytes(kept)
    key.chmod(0o600)
    assert enroll(token, tmp_path / "agent").name == "a"


# Renewal --------------------------------------------------------------------------------------------------------------


def test_renewal_has_a_new_key_and_the_stolen_old_one_is_refused(
    fleet: FleetWorld, admin: Fleet, tmp_path: Path
) -> None:
    files = enroll(admin.token("a"), tmp_path / "agent")
    stolen = tmp_path / "stolen.pem"
    stolen.write_bytes((files.directory / "agent.pem").read_bytes())
    stolen.chmod(0o600)
    thief = lightlink.TLS(files.directory / "ca.pem", stolen, stolen)
    agent = fleet.agent("a", tls=files.tls)
    renew(agent.client, files)
    assert (files.directory / "agent.pem").read_bytes() != stolen.read_bytes()
    # Until the new one is used the old one counts: the answer could have been lost.
    lightlink.connect(fleet.url, tls=thief).close()
    lightlink.connect(fleet.url, tls=files.tls).close()
    eventually(lambda: not admin.identities()[0].previous)
    with pytest.raises(lightlink.AuthenticationError):
        lightlink.connect(fleet.url, tls=thief)
    assert "replaced" in why(admin)
    fleet.cut("a")
    assert fleet.manager.send("a", "double", {"x": 21}).result(30) == 42


def test_a_renewal_that_was_lost_locks_nobody_out(fleet: FleetWorld, admin: Fleet, tmp_path: Path) -> None:
    files = enroll(admin.token("a"), tmp_path / "agent")
    current = to_pem(load_certificates("certificate", files.directory / "agent.pem")[0]).decode()
    with lightlink.connect(fleet.url, tls=files.tls) as client:

        def renewal(name: str, csr: object) -> Any:
            return ask(client.connection, f"ll.fleet.renew.{name}", {"csr": csr, "certificate": current}, "renewal")

        for _ in range(3):  # signed, and the answers never came
            renewal("a", make_request("a", make_key_pem()))
        with pytest.raises(PermissionDenied):
            renewal("b", make_request("b", make_key_pem()))
        for bad in (make_request("b", make_key_pem()), "junk", None):
            with pytest.raises(FleetRefused):
                renewal("a", bad)
    with lightlink.connect(fleet.url, tls=files.tls) as client:
        renew(client, files)
    lightlink.connect(fleet.url, tls=files.tls).close()


def test_a_certificate_is_renewed_by_itself_when_it_is_due(fleet: FleetWorld, admin: Fleet, tmp_path: Path) -> None:
    files = enroll(admin.token("a"), tmp_path / "agent")
    before = (files.directory / "agent.pem").read_bytes()
    day = datetime.timedelta(days=1)
    now = datetime.datetime.now(datetime.timezone.utc)
    assert [files.is_due(now + count * day) for count in (1, 19, 21, 29)] == [False, False, True, True]
    with lightlink.connect(fleet.url, tls=files.tls) as client:
        idle = keep_renewed(client, files, interval=0.05)
        # As on the 25th day, by the server's clock.
        client._connection.clock._base += 25 * 86_400
        eventually(lambda: (files.directory / "agent.pem").read_bytes() != before)
        client._connection.clock._base -= 25 * 86_400
        idle.stop(5)
    assert "renewed" in [entry.what for entry in admin.audit()]


def test_a_revoked_name_can_be_enrolled_anew(fleet: FleetWorld, admin: Fleet, tmp_path: Path) -> None:
    old = enroll(admin.token("a"), tmp_path / "old")
    admin.revoke("a")
    with pytest.raises(lightlink.AuthenticationError):
        lightlink.connect(fleet.url, tls=old.tls)
    new = enroll(admin.token("a"), tmp_path / "new")
    lightlink.connect(fleet.url, tls=new.tls).close()
    with pytest.raises(lightlink.AuthenticationError):
        lightlink.connect(fleet.url, tls=old.tls)


def test_what_is_damaged_in_the_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidOption, match="no such file"):
        AgentFiles.load(tmp_path)
    (tmp_path / "agent.json").write_text(json.dumps({"name": "a"}))
    with pytest.raises(InvalidOption, match="damaged"):
        AgentFiles.load(tmp_path)
