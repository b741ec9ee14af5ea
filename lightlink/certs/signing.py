"""Build and sign certificates: what RFC 5280 and the TLS stacks of NATS peers want to see in them."""

from __future__ import annotations

import datetime
import ipaddress
import logging
import re
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from lightlink.certs.certificate import grant_extension, utc_now, wrong_time
from lightlink.errors import InvalidName, InvalidOption
from lightlink.protocol.edge import INNER_NAME
from lightlink.validators import integer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cryptography.hazmat.primitives.asymmetric import ec

    from lightlink.protocol.permissions import Grant

_MAX_DAYS = 36_500
# Clocks differ; a certificate made on this machine must be valid on the others at once.
_CLOCK_SKEW = datetime.timedelta(hours=1)
_HOST = re.compile(r"(\*\.(?=.*\.))?((?!-)[a-z0-9-]{1,63}(?<!-)\.)*(?!-)[a-z0-9-]{1,63}(?<!-)")

_log = logging.getLogger("lightlink")


def sign_authority(
    key: ec.EllipticCurvePrivateKey, name: str, days: int, *, intermediates: bool = False
) -> x509.Certificate:
    """Return a self-signed CA certificate; raises InvalidName, InvalidOption.

    It may sign leaf certificates, and with ``intermediates`` authorities that sign them.
    """
    subject = _authority_name(name)
    now = utc_now()
    return (
        _builder(subject, subject, key.public_key())
        .not_valid_before(now - _CLOCK_SKEW)
        .not_valid_after(now + _lifetime(days))
        .add_extension(x509.BasicConstraints(ca=True, path_length=int(intermediates)), critical=True)
        .add_extension(_key_usage(authority=True), critical=True)
        .sign(key, hashes.SHA256())
    )


def sign_intermediate(
    authority: x509.Certificate,
    authority_key: ec.EllipticCurvePrivateKey,
    public_key: ec.EllipticCurvePublicKey,
    name: str,
    days: int,
) -> x509.Certificate:
    """Return the certificate of an authority below another, which may sign leaf certificates of clients only.

    It does not outlive the one above. Raises InvalidName, InvalidOption.
    """
    now = utc_now()
    return (
        _builder(_authority_name(name), authority.subject, public_key)
        .not_valid_before(max(now - _CLOCK_SKEW, authority.not_valid_before_utc))
        .not_valid_after(min(now + _lifetime(days), authority.not_valid_after_utc))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(authority=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        .add_extension(_authority_key_identifier(authority), critical=False)
        .sign(authority_key, hashes.SHA256())
    )


def sign_leaf(
    authority: x509.Certificate,
    authority_key: ec.EllipticCurvePrivateKey,
    public_key: ec.EllipticCurvePublicKey,
    name: str,
    alternatives: x509.SubjectAlternativeName,
    grant: Grant | None,
    days: int,
    now: datetime.datetime | None = None,
) -> x509.Certificate:
    """Return a client certificate that carries ``grant``, or for None a server certificate, valid for ``days``.

    From ``now`` on, by default by this machine's clock. It does not outlive the authority. Raises InvalidOption when
    the authority has ended or ``days`` cannot be.
    """
    now = now or utc_now()
    if (wrong := wrong_time(authority.not_valid_before_utc, authority.not_valid_after_utc, now)) is not None:
        raise InvalidOption("CA certificate", wrong)
    end = now + _lifetime(days)
    if end > authority.not_valid_after_utc:
        end = authority.not_valid_after_utc
        _log.warning(
            "lightlink: the certificate of %s ends with its CA, in %d days and not in %d", name, (end - now).days, days
        )
    usage = ExtendedKeyUsageOID.SERVER_AUTH if grant is None else ExtendedKeyUsageOID.CLIENT_AUTH
    builder = (
        _builder(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]), authority.subject, public_key)
        .not_valid_before(max(now - _CLOCK_SKEW, authority.not_valid_before_utc))
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(authority=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        .add_extension(alternatives, critical=False)
        .add_extension(_authority_key_identifier(authority), critical=False)
    )
    if grant is not None:
        builder = builder.add_extension(grant_extension(grant), critical=False)
    return builder.sign(authority_key, hashes.SHA256())


def sign_token(
    authority: x509.Certificate,
    authority_key: ec.EllipticCurvePrivateKey,
    public_key: ec.EllipticCurvePublicKey,
    name: str,
    life: datetime.timedelta,
    now: datetime.datetime,
) -> x509.Certificate:
    """Return a client certificate without a role, for a name that is no identity's, with a short life from now on."""
    return (
        _builder(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "token")]), authority.subject, public_key)
        .not_valid_before(max(now - _CLOCK_SKEW, authority.not_valid_before_utc))
        .not_valid_after(min(now + life, authority.not_valid_after_utc))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(authority_key, hashes.SHA256())
    )


def _authority_name(name: str) -> x509.Name:
    if not 1 <= len(name) <= 64 or not name.isprintable():
        raise InvalidName("CA name", name, "must be 1 to 64 printable characters")
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def check_server(hosts: Sequence[str], days: int) -> None:
    """Raise InvalidName or InvalidOption for what a server's certificate cannot be made with."""
    host_names(hosts)
    _lifetime(days)


def host_names(hosts: Sequence[str]) -> x509.SubjectAlternativeName:
    """Return the alternative names for a server's host names and addresses; raises InvalidName or InvalidOption."""
    if isinstance(hosts, str) or not hosts:
        raise InvalidOption("hosts", "must be a list of at least one name or address", hosts)
    return x509.SubjectAlternativeName(dict.fromkeys(_host(host) for host in hosts))


def stands_for_inner_name(host: str) -> bool:
    """Tell whether a host name, or a wildcard, is the name by which clients know nats-server behind a gateway."""
    return host.lower() in (INNER_NAME, "*." + INNER_NAME.partition(".")[2])


def _host(host: Any) -> x509.GeneralName:
    if not isinstance(host, str):
        raise InvalidName("host", host, "must be a string")
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        pass
    name = host.lower()
    if len(name) > 253 or not _HOST.fullmatch(name):
        raise InvalidName("host", host, "is no IP address and no DNS name ('*' may stand for the first of three parts)")
    if name.rpartition(".")[2].isdigit():
        raise InvalidName("host", host, "looks like an IP address but is not a valid one")
    return x509.DNSName(name)


def _builder(subject: x509.Name, issuer: x509.Name, public_key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
    )


def _lifetime(days: Any) -> datetime.timedelta:
    integer("days", days, 1, _MAX_DAYS)
    return datetime.timedelta(days=days)


def _key_usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _authority_key_identifier(authority: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    identifier = authority.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier)
