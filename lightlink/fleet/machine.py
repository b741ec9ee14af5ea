"""The machine's side: enroll with a token, keep the certificate renewed.

An enrolled machine has three files in one folder: ``agent.pem`` (key, certificate and its authority, in one file so
that they are always replaced together), ``ca.pem`` (whom to believe) and ``agent.json`` (name, servers, labels).
"""

from __future__ import annotations

import contextlib
import json
import logging
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from lightlink.certs.certificate import load_certificates, to_pem
from lightlink.certs.files import PRIVATE, PUBLIC, already_there, private_directory, read_file, write_file
from lightlink.client import connect
from lightlink.concurrency.deadline import Deadline
from lightlink.concurrency.scheduler import every
from lightlink.errors import FleetError, FleetRefused, InvalidOption, LightLinkError
from lightlink.fleet.admin import ask
from lightlink.fleet.enrolment import Token, make_key_pem, make_request, read_chain
from lightlink.options import TLS
from lightlink.protocol.subjects import FLEET_ENROLL, FLEET_RENEW

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from typing_extensions import Self

    from lightlink.client import Client
    from lightlink.concurrency.scheduler import PeriodicJob

_log = logging.getLogger("lightlink")

_POLL_SECONDS = 2.0
# For so long a machine waits for a server: many enroll at once when a site is switched on.
_SERVER_SECONDS = 15.0
_RENEWAL_SECONDS = 3600.0
# Of a certificate's life, when it is renewed.
_DUE = 2 / 3


@attrs.frozen
class AgentFiles:
    """What an enrolled machine has, in ``directory``."""

    directory: Path
    name: str
    urls: tuple[str, ...]
    labels: dict[str, str]

    @classmethod
    def load(cls, directory: str | os.PathLike[str]) -> Self:
        """Read ``agent.json``; raises InvalidOption when the machine is not enrolled."""
        path = Path(directory).absolute()
        try:
            content = json.loads(read_file("agent", path / "agent.json"))
            return cls(path, content["name"], tuple(content["urls"]), dict(content.get("labels", {})))
        except (ValueError, KeyError, TypeError) as exc:
            if isinstance(exc, InvalidOption):
                raise
            raise InvalidOption("agent", "agent.json is damaged", str(path)) from exc

    @property
    def tls(self) -> TLS:
        """The files to connect with."""
        return TLS(self.directory / "ca.pem", self.directory / "agent.pem", self.directory / "agent.pem")

    def days_left(self, now: datetime) -> float:
        """Return how many days the certificate is valid still."""
        certificate = load_certificates("certificate", self.directory / "agent.pem")[0]
        return (certificate.not_valid_after_utc - now).total_seconds() / 86_400

    def is_due(self, now: datetime) -> bool:
        """Tell whether two thirds of the certificate's life are over."""
        certificate = load_certificates("certificate", self.directory / "agent.pem")[0]
        begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
        return now >= begin + (end - begin) * _DUE


def enroll(
    token: str,
    directory: str | os.PathLike[str],
    *,
    timeout: float | None = None,
    on_pending: Callable[[str], object] | None = None,
    force: bool = False,
) -> AgentFiles:
    """Enroll this machine with a token, and write its files into a directory, private to its user.

    Where somebody has to accept it, ``on_pending(fingerprint)`` is called once, and this waits ``timeout`` seconds at
    most (None: as long as it takes). A server that is not there yet, or has too much to do, is waited for 15 seconds,
    within ``timeout``. Called again after it broke off, it goes on with the same key. ``force`` replaces
    what an earlier enrolment has left. Raises FleetRefused, FleetError, ConnectError, InvalidOption.
    """
    read = Token.read(token)
    folder = Path(directory).absolute()
    private_directory(folder)
    if (folder / "agent.json").exists() and not force:
        raise already_there(folder / "agent.json")
    key = _key_for(folder, read.id)
    answer = _ask_until(read, make_request(read.name, key), timeout, on_pending or _keep_silent)
    _write(folder, read, key, answer)
    return AgentFiles.load(folder)


def renew(client: Client, files: AgentFiles) -> None:
    """Have a new certificate for a new key; the old one counts until the new one is used, at the next connect.

    Raises FleetRefused, FleetError.
    """
    key = make_key_pem()
    current = to_pem(load_certificates("certificate", files.directory / "agent.pem")[0]).decode()
    body = {"csr": make_request(files.name, key), "certificate": current}
    answer = ask(client.connection, f"{FLEET_RENEW}.{files.name}", body, "renewal")
    chain = read_chain(answer.get("certificate"), key)
    write_file(files.directory / "agent.pem", key + chain, mode=PRIVATE, replace=True)
    _log.info("lightlink: the certificate of %s is renewed", files.name)


def keep_renewed(client: Client, files: AgentFiles, *, interval: float = _RENEWAL_SECONDS) -> PeriodicJob:
    """Renew the certificate when two thirds of its life are over; look every ``interval`` seconds, until stopped."""

    def look() -> None:
        if not files.is_due(client.connection.clock.now()):
            return
        try:
            renew(client, files)
        except LightLinkError as exc:
            left = files.days_left(client.connection.clock.now())
            _log.warning(
                "lightlink: the certificate of %s, good for %.1f days, is not renewed: %s", files.name, left, exc
            )

    return every(interval, look)


def _keep_silent(_: str) -> None:
    """Tell nobody that somebody has to accept."""


def _key_for(folder: Path, token: str) -> bytes:
    """Return the key that a token is used with: the same one again when an attempt before broke off."""
    file = folder / f"enrolling-{token[:16]}.key"
    with contextlib.suppress(InvalidOption):
        write_file(file, make_key_pem(), mode=PRIVATE, replace=False)
    return read_file("key", file, secret=True)


def _ask_until(token: Token, csr: str, timeout: float | None, on_pending: Callable[[str], object]) -> Mapping[str, Any]:
    """Return the certificate, when it is decided that there is one."""
    deadline = Deadline(timeout)
    pending = ""
    with tempfile.TemporaryDirectory(prefix="lightlink-enroll-") as temporary:
        folder = Path(temporary)
        write_file(folder / "token.pem", token.key + token.chain, mode=PRIVATE, replace=False)
        write_file(folder / "ca.pem", token.authorities, mode=PUBLIC, replace=False)
        tls = TLS(folder / "ca.pem", folder / "token.pem", folder / "token.pem")
        with connect(token.urls, tls=tls, name="enroll", wait=min(deadline.remaining(), _SERVER_SECONDS)) as client:
            while True:
                subject = f"{FLEET_ENROLL}.{token.name}.{token.id}"
                try:
                    answer: dict[str, Any] = ask(client.connection, subject, {"csr": csr}, "enrolment")
                except FleetRefused:
                    raise
                except FleetError as exc:
                    # Who waits for somebody to decide does not give up as responders are started again.
                    if not pending:
                        raise
                    _log.warning("lightlink: %s; asking again", exc)
                else:
                    if "pending" not in answer:
                        return answer
                    if not pending:
                        pending = str(answer["pending"])
                        on_pending(pending)
                if deadline.is_over:
                    raise FleetError("enrolment", f"nobody has accepted {pending} in time")
                time.sleep(_POLL_SECONDS)


def _write(folder: Path, token: Token, key: bytes, answer: Mapping[str, Any]) -> None:
    chain = read_chain(answer.get("certificate"), key)
    # What the fleet says of itself comes over a connection that the token's authorities have vouched for.
    write_file(folder / "ca.pem", str(answer["authorities"]).encode(), mode=PUBLIC, replace=True)
    write_file(folder / "agent.pem", key + chain, mode=PRIVATE, replace=True)
    content = {"name": token.name, "urls": list(token.urls), "labels": answer.get("labels", {})}
    # Last: with it the machine is enrolled.
    write_file(folder / "agent.json", json.dumps(content, indent=1).encode() + b"\n", mode=PRIVATE, replace=True)
    for left in folder.glob("enrolling-*.key"):
        left.unlink(missing_ok=True)
