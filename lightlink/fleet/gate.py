"""Who is let in: the answer to a server's authorization request (ADR-26).

The server has verified the client's certificate, and sends it along. Whom it is for and what it grants stands in the
certificate, so nothing needs to be looked up; what the fleet remembers only takes away: identities that were revoked,
and certificates that were replaced.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
from cryptography import x509

from lightlink.certs.certificate import describe, dns_names
from lightlink.errors import FleetRefused, InvalidName, InvalidOption
from lightlink.fleet import accounts, jwt
from lightlink.fleet.enrolment import read_token_certificate
from lightlink.fleet.records import ANY_SERIAL
from lightlink.protocol.permissions import identity_name

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from lightlink.certs import CertificateInfo
    from lightlink.fleet.directory import Secrets
    from lightlink.fleet.keys import Key
    from lightlink.fleet.records import Identity

# How long a machine that enrolls may stay, in seconds.
_ENROLLING_SECONDS = 120.0
_WHAT = "authorization"


@attrs.frozen
class Entrant:
    """Somebody who is let in: ``token`` is the JWT of their user. Agents have an account to be pushed first.

    ``confirms`` tells that their certificate is seen for the first time, so the one before counts no more.
    """

    name: str
    role: str
    serial: str
    token: str
    confirms: bool = False


class Gate:
    """Decides about requests; ``find(name)`` returns what the fleet remembers of an identity.

    A user expires ``life`` seconds after it was let in, at most: that bounds what a missed order to put it out leaves.
    """

    def __init__(self, secrets: Secrets, find: Callable[[str], Identity | None], life: float) -> None:
        self._secrets = secrets
        self._find = find
        self._life = life

    def decide(self, request: Mapping[str, Any], now: float) -> Entrant:
        """Return the entrant of a request's claims; ``now`` is the server's time. Raises FleetRefused."""
        leaf = _leaf(request)
        if (names := dns_names(leaf)) and names[0] == accounts.enrolling_name(names[0].partition(".")[2]):
            return self._enrolling(leaf, request, now)
        try:
            info = describe(leaf, Path("client.pem"))
            if info.kind != "client" or info.grant is None:
                raise FleetRefused(_WHAT, "the certificate carries no role", "no_role")
            identity_name(info.name, info.grant.role)
        except (InvalidOption, InvalidName) as exc:
            raise FleetRefused(_WHAT, str(exc), "bad_certificate") from exc
        serial = f"{info.serial:x}"
        confirms = self._check(info, serial, now)
        return Entrant(info.name, info.grant.role, serial, self._user(info, request, now), confirms)

    def _check(self, info: CertificateInfo, serial: str, now: float) -> bool:
        """Tell whether a certificate is seen for the first time; raises FleetRefused for one that does not count."""
        if info.not_after.timestamp() <= now:
            raise FleetRefused(_WHAT, f"the certificate of {info.name} has ended", "ended")
        known = self._find(info.name)
        if known is None:
            return False
        if known.revoked:
            raise FleetRefused(_WHAT, f"{info.name} is revoked since {known.revoked_at}", "revoked")
        if not known.serial or serial in known.newest:
            return bool(known.previous)
        if known.previous not in (serial, ANY_SERIAL):
            raise FleetRefused(_WHAT, f"the certificate {serial} of {info.name} was replaced", "replaced")
        return False

    def _user(self, info: CertificateInfo, request: Mapping[str, Any], now: float) -> str:
        assert info.grant is not None
        secrets = self._secrets
        account = secrets.agent_account(info.name) if info.grant.role == "agent" else secrets.home
        # Those who came together shall not all come again together.
        expires = min(now + self._life * random.uniform(0.75, 1.0), info.not_after.timestamp())  # noqa: S311
        return self._sign(request, info.name, account, accounts.allowed(info.name, info.grant), expires)

    def _enrolling(self, leaf: x509.Certificate, request: Mapping[str, Any], now: float) -> Entrant:
        name, token = read_token_certificate(leaf)
        allowed = accounts.allowed_to_enroll(name, token)
        user = self._sign(request, f"enroll {name}", self._secrets.enroll, allowed, now + _ENROLLING_SECONDS)
        return Entrant(name, "enroll", token, user)

    def _sign(self, request: Mapping[str, Any], name: str, account: Key, allowed: Any, expires: float) -> str:
        return jwt.user(request["user_nkey"], name, account, allowed=allowed, expires=expires)


def _leaf(request: Mapping[str, Any]) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(request["client_tls"]["verified_chains"][0][0].encode())
    except (KeyError, IndexError, TypeError, AttributeError, ValueError) as exc:
        raise FleetRefused(_WHAT, "no verified certificate came with the connection", "no_certificate") from exc
