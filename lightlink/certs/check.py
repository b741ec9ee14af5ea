"""Look at the files of a TLS client before they are used, and say what is wrong with which."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography.x509.oid import ExtendedKeyUsageOID

from lightlink.certs.certificate import (
    CertificateInfo,
    common_name,
    describe,
    dns_names,
    is_authority,
    is_for,
    load_certificates,
    load_key,
    utc_now,
    wrong_time,
)
from lightlink.certs.signing import stands_for_inner_name
from lightlink.errors import InvalidOption
from lightlink.protocol.edge import INNER_NAME

if TYPE_CHECKING:
    import os

    from cryptography import x509

_log = logging.getLogger("lightlink")


def identity_of(cert: str | os.PathLike[str]) -> str | None:
    """Return the identity of a client certificate, its first DNS name (SAN): the NATS user of ``verify_and_map``.

    None if it holds no such name. Raises InvalidOption if the file cannot be read.
    """
    names = dns_names(load_certificates("tls.cert", Path(cert))[0])
    return names[0] if names else None


def check_client_files(
    ca: str | os.PathLike[str] | None = None,
    cert: str | os.PathLike[str] | None = None,
    key: str | os.PathLike[str] | None = None,
) -> CertificateInfo | None:
    """Check the PEM files of a TLS client, and return what stands in its certificate, None without one.

    Raises InvalidOption, which names the file and the reason: it is missing, cannot be read, is not PEM, the key is
    open to other users, encrypted or does not match, a certificate has expired or is not valid yet, or is no client's.
    A certificate that ends within 30 days is logged as a warning.
    """
    if ca is not None:
        _check_authorities(Path(ca))
    if cert is None and key is None:
        return None
    if cert is None or key is None:
        present, missing = ("cert", "key") if key is None else ("key", "cert")
        raise InvalidOption("tls", f"{present} is given without {missing}", str(cert or key))
    return _check_pair(Path(cert), Path(key))


def check_server_files(cert: str | os.PathLike[str], key: str | os.PathLike[str]) -> CertificateInfo:
    """Check the PEM files of a TLS server, such as a gateway, and return what stands in its certificate.

    Raises InvalidOption like `check_client_files`, and for a gateway that has the inner name in its certificate.
    """
    info = _check_pair(Path(cert), Path(key), ExtendedKeyUsageOID.SERVER_AUTH)
    if any(stands_for_inner_name(host) for host in dns_names(load_certificates("cert", Path(cert))[0])):
        reason = f"holds the name {INNER_NAME}, by which clients know nats-server; a gateway must not have it"
        raise InvalidOption("cert", reason, str(cert))
    return info


def _check_authorities(path: Path) -> None:
    certificates = load_certificates("tls.ca", path)
    # A server's self-signed certificate may be trusted by itself.
    if not any(is_authority(each) or each.subject == each.issuer for each in certificates):
        raise InvalidOption("tls.ca", "holds no certificate of an authority", str(path))
    faults = [wrong_time(each.not_valid_before_utc, each.not_valid_after_utc) for each in certificates]
    if None not in faults:
        raise InvalidOption("tls.ca", str(faults[0]), str(path))


def _check_pair(
    cert: Path, key: Path, usage: x509.ObjectIdentifier = ExtendedKeyUsageOID.CLIENT_AUTH
) -> CertificateInfo:
    leaf, *chain = load_certificates("tls.cert", cert)
    if load_key("tls.key", key).public_key() != leaf.public_key():
        whose = (dns_names(leaf) or [common_name(leaf)])[0]
        raise InvalidOption("tls.key", f"does not match the certificate {cert} of {whose!r}", str(key))
    if is_authority(leaf) or not is_for(leaf, usage):
        whom = "client" if usage == ExtendedKeyUsageOID.CLIENT_AUTH else "server"
        raise InvalidOption("tls.cert", f"is not the certificate of a {whom} (extended key usage)", str(cert))
    info = describe(leaf, cert)
    if (wrong := wrong_time(info.not_before, info.not_after)) is not None:
        raise InvalidOption("tls.cert", wrong, str(cert))
    # What a fleet has signed comes with its authority, lives for weeks and is renewed by itself.
    is_early = bool(chain) and info.not_after - utc_now() > (info.not_after - info.not_before) / 4
    if info.warning and not is_early:
        _log.warning("lightlink: the certificate %s %s", cert, info.warning)
    return info
