"""The office that hands out certificates: tokens are made, used once, approved; certificates signed and replaced."""

from __future__ import annotations

import logging
from datetime import datetime
from typing import TYPE_CHECKING, Any

import attrs
import msgspec
from cryptography import x509

from lightlink.certs.certificate import grant_extension, load_certificates, to_pem
from lightlink.certs.files import read_file
from lightlink.errors import FleetError, FleetRefused, InvalidOption, RevisionConflict
from lightlink.fleet import enrolment
from lightlink.fleet.records import ANY_SERIAL, Identity, TokenRecord
from lightlink.protocol.permissions import Grant

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cryptography.hazmat.primitives.asymmetric import ec

    from lightlink.connection.clock import ServerClock
    from lightlink.fleet.audit import Audit
    from lightlink.fleet.directory import ResponderFiles
    from lightlink.fleet.records import Identities, Tokens

_log = logging.getLogger("lightlink")

CERTIFICATE_DAYS = 30
# Of the certificates signed for requests to renew one, how many may be the one that has arrived.
_MOST_UNSEEN = 5
_ENROLL = "enrolment"
_RENEW = "renewal"


class Signer:
    """Signs for agents, on behalf of one responder; every decision is stored before it is told.

    Each method raises FleetRefused, StateError when the records and FleetError when the signing key is away.
    """

    def __init__(
        self,
        files: ResponderFiles,
        identities: Identities,
        tokens: Tokens,
        audit: Audit,
        clock: ServerClock,
        days: int = CERTIFICATE_DAYS,
    ) -> None:
        self._files = files
        self._identities = identities
        self._tokens = tokens
        self._audit = audit
        self._clock = clock
        self._days = days

    # Tokens ---------------------------------------------------------------------------------------------------------

    def make_token(
        self,
        name: str,
        urls: Sequence[str],
        hours: float,
        labels: Mapping[str, str],
        approve: bool,
        grant: Grant,
        facts: Mapping[str, str],
    ) -> tuple[str, TokenRecord]:
        """Return a new token for a name, and what it may do, as text and as it is remembered.

        ``facts`` are for the audit.
        """
        rights = _rights(grant)
        self._refuse_in_use(name)
        certificate, key = self._authority()
        authorities = load_certificates("CA certificate", self._files.path / "ca.pem")
        grant_extension(grant)  # it is too long for a certificate now, or never
        text, token_id = enrolment.make_token(name, urls, hours, certificate, key, authorities, self._now())
        expires = self._clock.timestamp() + hours * 3600.0
        token = TokenRecord(
            id=token_id,
            name=name,
            expires=expires,
            labels=dict(labels),
            approve=approve,
            role=grant.role,
            rights=rights,
            made_at=self._now().isoformat(),
        )
        self._tokens.add(token)
        granted = {option: " ".join(values) for option, values in rights.items()} if grant.role != "agent" else {}
        granted |= {"role": grant.role, **facts}
        self._audit.note("token", name, token=token_id, approve=str(approve).lower(), **granted)
        return text, token

    def open_tokens(self) -> list[TokenRecord]:
        """Return the tokens that no machine has used and whose time is not over."""
        now = self._clock.timestamp()
        return [token for token in self._tokens.all() if not token.fingerprint and token.expires > now]

    def waiting(self) -> list[TokenRecord]:
        """Return the requests that can still be decided: the machine of one whose token has expired gets nothing."""
        return [token for token in self._tokens.all() if token.pending and not self._has_expired(token)]

    def decide(
        self, wanted: str, decision: str, facts: Mapping[str, str], name: str = "", token_id: str = ""
    ) -> TokenRecord:
        """Accept or reject the request that waits with a fingerprint; ``facts`` are for the audit.

        ``name`` or ``token_id`` tell which one is meant, as a key may be used with several tokens. Raises FleetRefused
        when nothing waits, when several do and none was named, and when the token has expired.
        """
        waiting = self._the_one(wanted, name, token_id)
        stored = self._tokens.get(waiting.id)
        if stored is None or not stored[0].pending:
            raise FleetRefused("decision", "somebody has decided meanwhile", "decided")
        token = msgspec.structs.replace(stored[0], decision=decision)
        self._tokens.update(token, stored[1])
        self._audit.note(decision, token.name, token=token.id, fingerprint=wanted, **facts)
        return token

    # Certificates ---------------------------------------------------------------------------------------------------

    def enroll(self, name: str, token_id: str, csr: object) -> dict[str, Any]:
        """Return what a machine gets for its token: a certificate, or that it has to wait for somebody to decide.

        A token belongs to the key that has used it first. That key may ask again, as when an answer was lost.
        """
        stored = self._tokens.get(token_id) if enrolment.is_token_id(token_id) else None
        if stored is None:
            raise FleetRefused(_ENROLL, "the token is unknown", "unknown")
        token, revision = stored
        if token.name != name:
            raise FleetRefused(_ENROLL, f"the token is for {token.name}, not for {name}", "other_name")
        key = enrolment.read_request(csr, token.name)
        mark = enrolment.fingerprint(key)
        if token.fingerprint not in ("", mark):
            raise FleetRefused(_ENROLL, "the token has been used", "used")
        if self._has_expired(token):
            raise FleetRefused(_ENROLL, "the token has expired", "expired")
        self._refuse_in_use(name, token)
        if not token.fingerprint:
            token = msgspec.structs.replace(token, fingerprint=mark, requested_at=self._now().isoformat())
            try:
                revision = self._tokens.update(token, revision)
            except RevisionConflict:
                # Another responder has the same request, or another machine was faster: the record tells which.
                return self.enroll(name, token_id, csr)
            if token.approve:
                self._audit.note("requested", name, token=token_id, fingerprint=mark)
        if token.decision == "rejected":
            raise FleetRefused(_ENROLL, "somebody has rejected it", "rejected")
        if token.pending:
            return {"pending": mark}
        return self._issue(token, revision, key)

    def renew(self, name: str, csr: object, current: object) -> dict[str, Any]:
        """Return a new certificate for an identity that is let in; the old one counts until the new one is seen.

        It may do what its ``current`` one says, which comes along.
        """
        key = enrolment.read_request(csr, name)
        old = enrolment.read_certificate(current, name, self._authorities())
        assert old.grant is not None
        grant, serial = old.grant, f"{old.serial:x}"
        certificate, chain = self._sign(name, key, grant)

        def replace(known: Identity | None) -> Identity:
            if known is not None and known.revoked:
                raise FleetRefused(_RENEW, f"{name} is revoked", "revoked")
            known = known or Identity(name=name, role=grant.role)
            if known.serial and serial not in (*known.newest, known.previous) and known.previous != ANY_SERIAL:
                raise FleetRefused(_RENEW, f"the certificate {serial} of {name} was replaced", "replaced")
            # While a new one has not been seen, the one that its agent has still is the one before it.
            previous = known.previous or known.serial or ANY_SERIAL
            return msgspec.structs.replace(
                known,
                previous=previous,
                unseen=known.newest[:_MOST_UNSEEN] if known.previous else [],
                renewed_at=self._now().isoformat(),
                **_facts(certificate),
            )

        self._identities.change(name, replace)
        self._audit.note("renewed", name, serial=f"{certificate.serial_number:x}")
        return {"certificate": chain.decode()}

    def confirm(self, name: str, serial: str) -> None:
        """Note that the new certificate of an identity is in use: the one before counts no more."""

        def forget(known: Identity | None) -> Identity:
            assert known is not None
            if serial not in known.newest:
                return known
            return msgspec.structs.replace(known, serial=serial, previous="", unseen=[])

        self._identities.change(name, forget)

    def revoke(self, name: str, reason: str, facts: Mapping[str, str]) -> Identity:
        """Note that an identity is not let in any more, whatever certificate it has; idempotent.

        ``facts`` are for the audit, which tells it once: who gets no answer within a second asks another responder.
        """

        def put_out(known: Identity | None) -> Identity:
            if known is not None and known.revoked:
                return known
            known = known or Identity(name=name, role="")
            return msgspec.structs.replace(known, revoked_at=self._now().isoformat(), reason=reason)

        revoked, is_new = self._identities.change(name, put_out)
        if is_new:
            self._audit.note("revoked", name, reason=reason, **facts)
        return revoked

    # ----------------------------------------------------------------------------------------------------------------

    def _the_one(self, wanted: str, name: str, token_id: str) -> TokenRecord:
        """Return the request that waits with a fingerprint, of a name and a token where these are given."""
        found = [
            token
            for token in self._tokens.all()
            if token.pending and token.fingerprint == wanted and name in ("", token.name) and token_id in ("", token.id)
        ]
        good = [token for token in found if not self._has_expired(token)]
        if len(good) == 1:
            return good[0]
        if good:
            several = ", ".join(f"{token.name} (token {token.id})" for token in good)
            raise FleetRefused("decision", f"several wait with this fingerprint, name one: {several}", "several")
        if found:
            raise FleetRefused("decision", f"the token for {found[0].name} has expired; make another one", "expired")
        named = f" for {name}" if name else ""
        raise FleetRefused("decision", f"nothing waits{named} with the fingerprint {wanted}", "unknown")

    def _issue(self, token: TokenRecord, revision: int, key: ec.EllipticCurvePublicKey) -> dict[str, Any]:
        token = self._with_certificate(token, revision, key)
        facts = _facts(x509.load_pem_x509_certificate(token.certificate.encode()))

        def enter(known: Identity | None) -> Identity:
            self._refuse_in_use(token.name, token, known)
            if known is not None and known.token == token.id:
                return known  # it may have been renewed since
            at = self._now().isoformat()
            entered = Identity(name=token.name, role=token.role, labels=token.labels, enrolled_at=at, token=token.id)
            return msgspec.structs.replace(entered, **facts)

        _, is_new = self._identities.change(token.name, enter)
        if is_new:
            self._audit.note("enrolled", token.name, token=token.id, serial=facts["serial"])
        authorities = read_file("CA certificate", self._files.path / "ca.pem")
        return {"certificate": token.certificate, "authorities": authorities.decode(), "labels": token.labels}

    def _with_certificate(self, token: TokenRecord, revision: int, key: ec.EllipticCurvePublicKey) -> TokenRecord:
        """Return a token with its certificate: the one that another responder has signed meanwhile, or a new one.

        Two would be wrong: of the one that was entered first its machine would be told that it was replaced.
        """
        if token.certificate:
            return token
        _, chain = self._sign(token.name, key, Grant.of(token.role, **token.rights))
        signed = msgspec.structs.replace(token, certificate=chain.decode())
        try:
            self._tokens.update(signed, revision)
        except RevisionConflict as exc:
            stored = self._tokens.get(token.id)
            if stored is None or not stored[0].certificate:
                raise FleetError(_ENROLL, "the token has changed meanwhile; try again") from exc
            return stored[0]
        return signed

    def _sign(self, name: str, key: ec.EllipticCurvePublicKey, grant: Grant) -> tuple[x509.Certificate, bytes]:
        signer, signer_key = self._authority()
        certificate = enrolment.sign_identity(signer, signer_key, key, name, grant, self._days, self._now())
        return certificate, to_pem(certificate) + to_pem(signer)

    def _authority(self) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
        """Read the signing authority each time: it may be away, and come back."""
        try:
            return self._files.signer()
        except InvalidOption as exc:
            _log.error("lightlink fleet: nothing can be signed: %s", exc)
            raise FleetError("signing", "the signer is away; try again later") from exc

    def _authorities(self) -> list[x509.Certificate]:
        """Return whose signatures count: those who sign here, and those who sign where the CA's key is."""
        return [self._authority()[0], *load_certificates("CA certificate", self._files.path / "ca.pem")]

    def _refuse_in_use(self, name: str, token: TokenRecord | None = None, stored: Identity | None = None) -> None:
        """Refuse a name that somebody has, and a token from before its name was revoked.

        Who has the name by the same token may have it again. ``stored`` is newer than what is known otherwise.
        """
        known = stored or self._identities.get(name)
        if known is None:
            return
        if known.revoked:
            if token is not None and _instant(token.made_at) <= _instant(known.revoked_at):
                raise FleetRefused(_ENROLL, f"the token is from before {name} was revoked", "revoked")
            return
        if not known.serial or (token is not None and known.token == token.id):
            return
        if known.not_after <= self._now().isoformat():
            return
        raise FleetRefused(_ENROLL, f"{name} is in use until {known.not_after}; revoke it first", "in_use")

    def _has_expired(self, token: TokenRecord) -> bool:
        return self._clock.timestamp() > token.expires

    def _now(self) -> datetime:
        return self._clock.now()


def _instant(text: str) -> float:
    """Return a time in seconds since 1970; what is none, or is left out, was long ago."""
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return 0.0


def _rights(grant: Grant) -> dict[str, list[str]]:
    return {
        option: [*value]
        for option, value in attrs.asdict(grant, recurse=False).items()
        if option != "role" and (value or option in ("publish", "calls"))
    }


def _facts(certificate: x509.Certificate) -> dict[str, str]:
    return {
        "serial": f"{certificate.serial_number:x}",
        "not_after": certificate.not_valid_after_utc.isoformat(),
    }
