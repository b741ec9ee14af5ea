"""Enrolment: a token that is good for one certificate, and the signing of what a machine asks for with it.

A token is a certificate of its own with a short life, so the machine comes over the same TLS as everybody, and may do
one thing: ask for a certificate, for one name.
"""

from __future__ import annotations

import base64
import binascii
import datetime
import hashlib
import re
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from lightlink.certs.certificate import describe, dns_names, make_key, to_pem
from lightlink.certs.signing import sign_leaf, sign_token
from lightlink.errors import FleetError, FleetRefused, InvalidName, InvalidOption
from lightlink.fleet.accounts import enrolling_name
from lightlink.protocol.permissions import identity_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lightlink.certs import CertificateInfo
    from lightlink.protocol.permissions import Grant

# What begins a token: it tells what the string is, to people and to scanners for secrets.
_PREFIX = "lltoken1_"
_MAX_TOKEN = 16 * 1024
_MAX_CSR = 16 * 1024
_CURVES = ("secp256r1", "secp384r1", "secp521r1")
_SERIAL = re.compile(r"[0-9a-f]{1,40}")


class _Parts(msgspec.Struct, array_like=True):
    urls: list[str]
    name: str
    key: bytes
    chain: list[bytes]
    authorities: list[bytes]


@attrs.frozen
class Token:
    """What stands in a token: where to go, the name it is for, and the certificate, as PEM, that opens the door."""

    urls: tuple[str, ...]
    name: str
    id: str
    key: bytes = attrs.field(repr=False)
    chain: bytes = attrs.field(repr=False)
    authorities: bytes = attrs.field(repr=False)

    @classmethod
    def read(cls, text: str) -> Token:
        """Return what stands in a token's text; raises InvalidOption, which does not show it."""
        bad = InvalidOption("token", "is damaged, or no token of lightlink fleet token")
        if not isinstance(text, str) or not text.strip().startswith(_PREFIX) or len(text) > _MAX_TOKEN:
            raise bad
        try:
            packed = base64.urlsafe_b64decode(text.strip().removeprefix(_PREFIX) + "==")
            parts = msgspec.msgpack.decode(zlib.decompress(packed, bufsize=_MAX_TOKEN), type=_Parts)
            key = serialization.load_der_private_key(parts.key, None)
            chain = [x509.load_der_x509_certificate(each) for each in parts.chain]
            authorities = [x509.load_der_x509_certificate(each) for each in parts.authorities]
            name, token_id = read_token_certificate(chain[0])
        except (ValueError, TypeError, IndexError, zlib.error, binascii.Error, msgspec.MsgspecError) as exc:
            raise bad from exc
        except FleetRefused as exc:
            raise bad from exc
        return cls(tuple(parts.urls), name, token_id, _key_pem(key), _join(chain), _join(authorities))


def make_token(
    name: str,
    urls: Sequence[str],
    hours: float,
    signer: x509.Certificate,
    signer_key: ec.EllipticCurvePrivateKey,
    authorities: Sequence[x509.Certificate],
    now: datetime.datetime,
) -> tuple[str, str]:
    """Return the text of a new token for a name and its id, good from now on; raises InvalidName, InvalidOption."""
    identity_name(name, "agent")
    if isinstance(hours, bool) or not isinstance(hours, (int, float)) or not 0 < hours <= 24 * 30:
        raise InvalidOption("hours", "must be a number above 0, and at most 720", hours)
    key = make_key()
    life = datetime.timedelta(hours=hours)
    certificate = sign_token(signer, signer_key, key.public_key(), enrolling_name(name), life, now)
    der = serialization.Encoding.DER
    secret = key.private_bytes(der, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    parts = _Parts(
        urls=[*urls],
        name=name,
        key=secret,
        chain=[certificate.public_bytes(der), signer.public_bytes(der)],
        authorities=[each.public_bytes(der) for each in authorities],
    )
    packed = base64.urlsafe_b64encode(zlib.compress(msgspec.msgpack.encode(parts), 9)).decode().rstrip("=")
    return _PREFIX + packed, f"{certificate.serial_number:x}"


def read_token_certificate(certificate: x509.Certificate) -> tuple[str, str]:
    """Return the name that a token's certificate is for, and the token's id; raises FleetRefused."""
    names = dns_names(certificate)
    name = names[0].removeprefix("_enroll.") if len(names) == 1 else ""
    try:
        if not name or names != [enrolling_name(identity_name(name, "agent"))]:
            raise FleetRefused("enrolment", "the certificate is not that of a token", "bad_token")
    except InvalidName as exc:
        raise FleetRefused("enrolment", f"the certificate is not that of a token: {exc}", "bad_token") from exc
    return name, f"{certificate.serial_number:x}"


def is_token_id(text: str) -> bool:
    """Tell whether text could be the id of a token."""
    return _SERIAL.fullmatch(text) is not None


# What a machine asks for --------------------------------------------------------------------------------------------


def make_key_pem() -> bytes:
    """Return a new private key as PEM."""
    return _key_pem(make_key())


def make_request(name: str, key_pem: bytes) -> str:
    """Return a request to sign a certificate for a name and a key (CSR, RFC 2986), as PEM."""
    key = serialization.load_pem_private_key(key_pem, None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


def read_chain(pem: object, key_pem: bytes) -> bytes:
    """Return the certificates that were signed for a key, as PEM; raises FleetError for anything else."""
    try:
        chain = x509.load_pem_x509_certificates(str(pem).encode())
        key = serialization.load_pem_private_key(key_pem, None)
    except ValueError as exc:
        raise FleetError("certificate", "what came back is no certificate") from exc
    if chain[0].public_key() != key.public_key():
        raise FleetError("certificate", "what came back is for another key")
    return _join(chain)


def read_request(pem: object, name: str) -> ec.EllipticCurvePublicKey:
    """Return the public key in a request for a name; raises FleetRefused for junk, another name and weak keys."""
    if not isinstance(pem, str) or len(pem) > _MAX_CSR:
        raise FleetRefused("enrolment", "no request for a certificate (CSR) came along", "bad_request")
    try:
        request = x509.load_pem_x509_csr(pem.encode())
        valid = request.is_signature_valid
        key = request.public_key()
    except (ValueError, TypeError, UnsupportedAlgorithm, InvalidSignature) as exc:
        raise FleetRefused("enrolment", "the request for a certificate cannot be read", "bad_request") from exc
    if not valid:
        raise FleetRefused("enrolment", "the request is not signed with its own key", "bad_request")
    if _names_in(request) != {name}:
        raise FleetRefused("enrolment", f"the request is not for {name} alone", "other_name")
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name not in _CURVES:
        raise FleetRefused("enrolment", "the key is weak or of another kind; EC P-256 is wanted", "weak_key")
    return key


def fingerprint(key: ec.EllipticCurvePublicKey) -> str:
    """Return the SHA-256 of a public key, as people compare it: hexadecimal in groups of four."""
    der = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    digits = hashlib.sha256(der).hexdigest()
    return ":".join(digits[at : at + 4] for at in range(0, len(digits), 4))


def sign_identity(
    signer: x509.Certificate,
    signer_key: ec.EllipticCurvePrivateKey,
    key: ec.EllipticCurvePublicKey,
    name: str,
    grant: Grant,
    days: int,
    now: datetime.datetime,
) -> x509.Certificate:
    """Return the certificate of an identity from now on; raises InvalidOption for a grant too long for one."""
    names = x509.SubjectAlternativeName([x509.DNSName(name)])
    return sign_leaf(signer, signer_key, key, name, names, grant, days, now)


def read_certificate(pem: object, name: str, authorities: Sequence[x509.Certificate]) -> CertificateInfo:
    """Return what stands in an identity's certificate that one of some authorities has signed; raises FleetRefused."""
    try:
        certificate = x509.load_pem_x509_certificate(str(pem).encode())
        info = describe(certificate, Path("client.pem"))
    except (ValueError, InvalidOption) as exc:
        reason = "the certificate that is to be renewed did not come along"
        raise FleetRefused("renewal", reason, "bad_request") from exc
    if not any(_has_signed(each, certificate) for each in authorities):
        raise FleetRefused("renewal", "the certificate is of another authority", "bad_certificate")
    if info.kind != "client" or info.grant is None or info.name != name:
        raise FleetRefused("renewal", f"the certificate is not that of {name}", "other_name")
    return info


def _has_signed(authority: x509.Certificate, certificate: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _names_in(request: x509.CertificateSigningRequest) -> set[str]:
    """Return every name that a request asks for, in whatever form."""
    names = {str(each.value) for each in request.subject}
    for extension in request.extensions:
        if isinstance(extension.value, x509.SubjectAlternativeName):
            names |= {str(each.value) for each in extension.value}
        else:
            names.add(f"extension {extension.oid.dotted_string}")
    return names


def _key_pem(key: object) -> bytes:
    return key.private_bytes(  # type: ignore[attr-defined,no-any-return]
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _join(certificates: Sequence[x509.Certificate]) -> bytes:
    return b"".join(map(to_pem, certificates))
