"""What stands in a certificate: who it is for, until when, and what that identity may do.

A client certificate carries its grant itself, signed with the rest, in the comment extension that ``openssl x509
-text`` prints in plain text. So a role is written once, cannot be changed without the authority's key, and renewing
keeps it.
"""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING, Literal

import attrs
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from lightlink.certs.files import read_file
from lightlink.errors import InvalidOption
from lightlink.protocol.permissions import Grant

if TYPE_CHECKING:
    from pathlib import Path

    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

WARN_DAYS = 30

Kind = Literal["ca", "server", "client"]

# Netscape's certificate comment, an IA5String. OpenSSL shows it as text; TLS stacks ignore it.
_COMMENT = x509.ObjectIdentifier("2.16.840.1.113730.1.13")
_IA5_STRING = 0x16
_MARK = "LightLink"
# It goes over the wire in each handshake, which OpenSSL bounds at 100 KB.
_MAX_GRANT = 16 * 1024
_LISTS = ("publish", "subscribe", "calls", "state", "files", "streams", "consume", "inbox", "group")


@attrs.frozen
class CertificateInfo:
    """One certificate: its file, whom it is for, when it is valid (UTC) and what it grants.

    ``hosts`` are the names and addresses of a server. ``fault`` says why the certificate cannot be used with the
    authority of its directory, if it cannot.
    """

    name: str
    kind: Kind
    path: Path
    serial: int
    not_before: datetime.datetime
    not_after: datetime.datetime
    hosts: tuple[str, ...] = ()
    grant: Grant | None = None
    fault: str | None = None

    @property
    def role(self) -> str | None:
        """The role of a client certificate."""
        return self.grant.role if self.grant else None

    @property
    def days_left(self) -> int:
        """Whole days until the certificate ends, below 0 once it has ended."""
        return (self.not_after - utc_now()).days

    @property
    def warning(self) -> str | None:
        """What an operator should know: a fault, or that the certificate ends within 30 days or has ended."""
        if self.fault is not None:
            return self.fault
        if (wrong := wrong_time(self.not_before, self.not_after)) is not None:
            return wrong
        days = self.days_left
        if days >= WARN_DAYS:
            return None
        return f"expires in {days} day{'' if days == 1 else 's'}, on {_date(self.not_after)}"


def utc_now() -> datetime.datetime:
    """Return the time in whole seconds, as certificates hold it."""
    return datetime.datetime.now(datetime.timezone.utc).replace(microsecond=0)


def wrong_time(
    not_before: datetime.datetime, not_after: datetime.datetime, now: datetime.datetime | None = None
) -> str | None:
    """Say why a certificate is not valid ``now``, by default by this machine's clock; None if it is."""
    now = now or utc_now()
    if now > not_after:
        return f"expired on {_date(not_after)}"
    if now < not_before:
        return f"is not valid before {_date(not_before)}; this machine's clock says {_date(now)}"
    return None


def describe(certificate: x509.Certificate, path: Path, fault: str | None = None) -> CertificateInfo:
    """Return what stands in a certificate; raises InvalidOption for a grant that cannot be read.

    The name is the first DNS name of a client, the file's name of a server or an authority.
    """
    kind = _kind(certificate)
    names = dns_names(certificate)
    return CertificateInfo(
        name=path.stem if kind != "client" or not names else names[0],
        kind=kind,
        path=path,
        serial=certificate.serial_number,
        not_before=certificate.not_valid_before_utc,
        not_after=certificate.not_valid_after_utc,
        hosts=(*names, *_addresses(certificate)) if kind == "server" else (),
        # What an unknown authority signed is not worth reading.
        grant=_grant(certificate, path) if kind == "client" and fault is None else None,
        fault=fault,
    )


def load_certificates(option: str, path: Path) -> list[x509.Certificate]:
    """Return the certificates in a PEM file, in order; raises InvalidOption."""
    content = read_file(option, path)
    if b"-----BEGIN" not in content:
        raise InvalidOption(option, "is not PEM (no -----BEGIN CERTIFICATE-----)", str(path))
    if b"-----BEGIN CERTIFICATE-----" not in content:
        raise InvalidOption(option, "is PEM, but holds no certificate", str(path))
    try:
        return x509.load_pem_x509_certificates(content)
    except ValueError as exc:
        raise InvalidOption(option, "holds a damaged certificate", str(path)) from exc


def load_key(option: str, path: Path) -> PrivateKeyTypes:
    """Return the private key in a PEM file that only its owner and group may access; raises InvalidOption."""
    content = read_file(option, path, secret=True)
    if b"-----BEGIN" not in content:
        raise InvalidOption(option, "is not PEM (no -----BEGIN PRIVATE KEY-----)", str(path))
    try:
        return serialization.load_pem_private_key(content, password=None)
    except TypeError:
        # Python's ssl module would stop and ask for the passphrase on the terminal.
        raise InvalidOption(option, "is encrypted; a key without a passphrase is needed", str(path)) from None
    except (ValueError, UnsupportedAlgorithm):
        # The cause is left out: what a parser says about a key could hold a part of it.
        raise InvalidOption(option, "holds no private key, or a damaged one", str(path)) from None


def dns_names(certificate: x509.Certificate) -> list[str]:
    """Return the DNS names among the subject alternative names."""
    names = _alternatives(certificate)
    return names.get_values_for_type(x509.DNSName) if names else []


def common_name(certificate: x509.Certificate) -> str:
    """Return the common name, "" if there is none."""
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(names[0].value) if names else ""


def is_authority(certificate: x509.Certificate) -> bool:
    """Tell whether the certificate may sign others."""
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False


def is_for(certificate: x509.Certificate, usage: x509.ObjectIdentifier) -> bool:
    """Tell whether the extended key usage allows this, which it does when there is none."""
    try:
        return usage in certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return True


def make_key() -> ec.EllipticCurvePrivateKey:
    """Return a new EC P-256 key."""
    return ec.generate_private_key(ec.SECP256R1())


def key_to_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Return a private key as PKCS #8."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def to_pem(certificate: x509.Certificate) -> bytes:
    """Return a certificate as PEM."""
    return certificate.public_bytes(serialization.Encoding.PEM)


def grant_extension(grant: Grant) -> x509.UnrecognizedExtension:
    """Return the extension that carries a grant."""
    words = [_MARK, f"role={grant.role}"]
    for option in _LISTS:
        words += [f"{option}={value}" for value in getattr(grant, option)]
    content = " ".join(words).encode("ascii")
    if len(content) > _MAX_GRANT:
        raise InvalidOption("grant", f"takes {len(content)} bytes, a certificate carries {_MAX_GRANT}; use wildcards")
    return x509.UnrecognizedExtension(_COMMENT, bytes([_IA5_STRING]) + _der_length(len(content)) + content)


def _der_length(size: int) -> bytes:
    if size < 128:
        return bytes([size])
    digits = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([0x80 | len(digits)]) + digits


def _grant(certificate: x509.Certificate, path: Path) -> Grant | None:
    try:
        extension = certificate.extensions.get_extension_for_oid(_COMMENT).value
    except x509.ExtensionNotFound:
        return None
    assert isinstance(extension, x509.UnrecognizedExtension)
    mark, *words = extension.value.partition(_MARK.encode())[2].decode("ascii", "replace").split(" ")
    if not words:
        return None
    values: dict[str, list[str]] = {}
    for word in words:
        option, _, value = word.partition("=")
        values.setdefault(option, []).append(value)
    role = values.pop("role", [])
    if mark or len(role) != 1 or values.keys() - set(_LISTS):
        raise InvalidOption("certificate", "holds a grant that this version does not know", str(path))
    return Grant(role[0], **{option: tuple(items) for option, items in values.items()})


def _kind(certificate: x509.Certificate) -> Kind:
    if is_authority(certificate):
        return "ca"
    return "client" if is_for(certificate, ExtendedKeyUsageOID.CLIENT_AUTH) else "server"


def _addresses(certificate: x509.Certificate) -> list[str]:
    names = _alternatives(certificate)
    return [str(address) for address in names.get_values_for_type(x509.IPAddress)] if names else []


def _alternatives(certificate: x509.Certificate) -> x509.SubjectAlternativeName | None:
    try:
        return certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return None


def _date(time: datetime.datetime) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC")
