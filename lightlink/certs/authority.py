"""A certificate authority in a directory: one CA, server certificates, and a client certificate for each identity."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import attrs
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec

from lightlink.certs.certificate import (
    WARN_DAYS,
    CertificateInfo,
    describe,
    is_authority,
    key_to_pem,
    load_certificates,
    load_key,
    make_key,
    to_pem,
    utc_now,
)
from lightlink.certs.files import PRIVATE, PUBLIC, already_there, private_directory, read_file, write_file
from lightlink.certs.signing import host_names, sign_authority, sign_leaf, stands_for_inner_name
from lightlink.errors import InvalidName, InvalidOption
from lightlink.protocol.edge import INNER_NAME
from lightlink.protocol.permissions import Grant, identity_name

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from typing_extensions import Self

CA_DAYS = 3650
LEAF_DAYS = 365
_REVOKED = "revoked"

_ORDER = {"ca": 0, "server": 1, "client": 2}
# In the class below, `list` is a method.
_Certificates = list[CertificateInfo]


@attrs.frozen
class CertificateAuthority:
    """A CA and what it issued, as files in one directory: ``ca``, ``server`` and one name for each identity.

    Each has a certificate ``<name>.pem`` and an EC P-256 key ``<name>.key`` (mode 0600). There is nothing else: whom a
    certificate is for and what it grants stands in the certificate. An identity whose certificate is taken out of the
    directory (`revoke`) has no place in the next server configuration. Only issuing and renewing read ``ca.key``.
    """

    directory: Path
    certificate: x509.Certificate = attrs.field(repr=False)

    @classmethod
    def create(
        cls,
        directory: str | os.PathLike[str],
        *,
        name: str = "LightLink CA",
        days: int = CA_DAYS,
        intermediates: bool = False,
        force: bool = False,
    ) -> Self:
        """Make a CA that is valid for ``days``, in a directory that becomes private and is made if need be.

        With ``intermediates`` it may sign other authorities, which sign for it where its own key is not.
        ``force`` replaces the CA that is there; what that one issued is worthless from then on.
        Raises InvalidOption or InvalidName.
        """
        key = make_key()
        certificate = sign_authority(key, name, days, intermediates=intermediates)
        folder = Path(directory).absolute()
        private_directory(folder)
        _write_pair(folder / "ca.pem", certificate, key, force)
        return cls(folder, certificate)

    @classmethod
    def load(cls, directory: str | os.PathLike[str]) -> Self:
        """Open the CA in a directory; raises InvalidOption if there is none."""
        path = Path(directory).absolute() / "ca.pem"
        certificate = load_certificates("CA certificate", path)[0]
        if not is_authority(certificate):
            raise InvalidOption("CA certificate", "is not that of a certificate authority", str(path))
        return cls(path.parent, certificate)

    @property
    def info(self) -> CertificateInfo:
        """What stands in the CA's own certificate, under the name ``ca``."""
        return describe(self.certificate, self.directory / "ca.pem")

    def issue_server(
        self, hosts: Sequence[str], *, name: str = "server", days: int = LEAF_DAYS, force: bool = False
    ) -> CertificateInfo:
        """Make a server's certificate and key; ``hosts`` are the names and addresses by which clients reach it.

        Beside them it holds the name by which clients know it behind a gateway. Raises InvalidName, and InvalidOption
        if the files are there and ``force`` is not set.
        """
        host_names(hosts)
        return self._issue(_file_name(name), host_names([*hosts, INNER_NAME]), None, days, force)

    def issue_gateway(
        self, hosts: Sequence[str], *, name: str = "gateway", days: int = LEAF_DAYS, force: bool = False
    ) -> CertificateInfo:
        """Make the certificate and key of a QUIC gateway that clients reach by ``hosts``.

        A gateway never gets the name of nats-server behind it, with which it could read what it carries. Raises like
        `issue_server`.
        """
        names = host_names(hosts)
        for host in hosts:
            if stands_for_inner_name(host):
                raise InvalidName("host", host, "is the name of nats-server behind gateways, which no gateway may have")
        return self._issue(_file_name(name), names, None, days, force)

    def issue(
        self,
        name: str,
        role: str = "client",
        *,
        days: int = LEAF_DAYS,
        publish: Sequence[str] | None = None,
        subscribe: Sequence[str] = (),
        calls: Sequence[str] | None = None,
        state: bool | Sequence[str] = False,
        files: bool | Sequence[str] = False,
        streams: Sequence[str] = (),
        consume: Sequence[str] = (),
        inbox: Sequence[str] = (),
        group: Sequence[str] = (),
        force: bool = False,
    ) -> CertificateInfo:
        """Make an identity's certificate and key, valid for ``days`` but no longer than the CA.

        ``role`` is service, client, agent, manager or admin. ``publish`` and ``subscribe`` are event subjects with
        wildcards, ``calls`` the services it may call (``*``: all), ``state`` and ``files`` the buckets it may use
        (True: LightLink's own), ``streams`` the streams that it may make and replay, ``consume`` those whose events it
        may handle; None leaves the choice to the role. ``inbox=["plain"]`` and ``group=["none"]`` are for peers in
        other languages: see certs/README.md. Raises InvalidName, and InvalidOption, also if the files are there and
        ``force`` is not set.
        """
        grant = Grant.of(
            role,
            publish=publish,
            subscribe=subscribe,
            calls=calls,
            state=state,
            files=files,
            streams=streams,
            consume=consume,
            inbox=inbox,
            group=group,
        )
        names = x509.SubjectAlternativeName([x509.DNSName(identity_name(name, role))])
        return self._issue(name, names, grant, days, force)

    def renew(self, name: str, *, days: int = LEAF_DAYS, new_key: bool = False) -> CertificateInfo:
        """Replace a certificate by one with the same name, hosts and grant that is valid for ``days`` from now.

        It keeps the key, which need not be here, so that one file changes and nobody finds a pair that does not match;
        ``new_key`` makes another. The old certificate stays valid until its end. Raises InvalidOption or InvalidName.
        """
        path = self.directory / f"{_file_name(name)}.pem"
        old = load_certificates("certificate", path)[0]
        info = self._describe(old, path)
        if info.fault is not None:
            raise InvalidOption("certificate", f"cannot be renewed: it {info.fault}", str(path))
        names = old.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        key = make_key() if new_key else None
        public_key = key.public_key() if key else old.public_key()
        assert isinstance(public_key, ec.EllipticCurvePublicKey)
        renewed = self._sign(name, public_key, names, info.grant, days)
        if key is not None:
            write_file(path.with_suffix(".key"), key_to_pem(key), mode=PRIVATE, replace=True)
        write_file(path, to_pem(renewed), mode=PUBLIC, replace=True)
        return describe(renewed, path)

    def revoke(self, name: str) -> CertificateInfo:
        """Take an identity out of the directory: its certificate goes to ``revoked``, its key is removed.

        The server puts it out when its configuration was made again (`remake_config`) and it was told
        (`reload_server`). The name cannot be issued again before the certificate has ended, as that would let it in.
        Raises InvalidOption or InvalidName.
        """
        path = self.directory / f"{_file_name(name)}.pem"
        info = describe(load_certificates("certificate", path)[0], path)
        if info.kind != "client":
            raise InvalidOption("certificate", "is a server's, which clients would go on believing", str(path))
        folder = self.directory / _REVOKED
        private_directory(folder)
        kept = folder / f"{name}.{info.serial:x}.pem"
        write_file(kept, read_file("certificate", path), mode=PUBLIC, replace=True)
        # First the certificate: it is what lets in.
        for file in (path, path.with_suffix(".key")):
            file.unlink(missing_ok=True)
        return attrs.evolve(info, path=kept)

    def revoked(self) -> _Certificates:
        """Return what was revoked and has not ended, by name; not that of an earlier CA, which lets nobody in."""
        paths = (self.directory / _REVOKED).glob("*.pem")
        loaded = [(load_certificates("certificate", path)[0], path) for path in paths]
        found = [describe(certificate, path) for certificate, path in loaded if self._has_issued(certificate)]
        return sorted((info for info in found if info.not_after > utc_now()), key=lambda info: info.name)

    def list(self) -> _Certificates:
        """Return the CA, the servers and the identities of the directory, in this order, each sorted by name.

        Raises InvalidOption for a file ``*.pem`` that holds no certificate.
        """
        paths = [path for path in self.directory.glob("*.pem") if path.name != "ca.pem"]
        found = [self._describe(load_certificates("certificate", path)[0], path) for path in paths]
        return [self.info, *sorted(found, key=lambda info: (_ORDER[info.kind], info.name))]

    def expiring(self, days: int = WARN_DAYS) -> _Certificates:
        """Return the certificates that end within ``days`` or have ended."""
        return [info for info in self.list() if info.days_left < days]

    def _has_issued(self, certificate: x509.Certificate) -> bool:
        try:
            certificate.verify_directly_issued_by(self.certificate)
        except (InvalidSignature, ValueError, TypeError):
            return False
        return True

    def _describe(self, certificate: x509.Certificate, path: Path) -> CertificateInfo:
        if not self._has_issued(certificate):
            return describe(certificate, path, fault="was not issued by the CA of this directory")
        info = describe(certificate, path)
        if info.name != path.stem:
            return attrs.evolve(info, fault=f"is for {info.name} and must be named {info.name}.pem")
        if info.kind == "client" and info.grant is None:
            return attrs.evolve(info, fault="carries no role")
        return info

    def _issue(
        self, name: str, names: x509.SubjectAlternativeName, grant: Grant | None, days: int, force: bool
    ) -> CertificateInfo:
        path = self.directory / f"{name}.pem"
        for info in self.revoked():
            if info.name == name:
                until = f"{info.not_after:%Y-%m-%d}"
                raise InvalidName(
                    "identity", name, f"was revoked, and that certificate lasts until {until}; take another"
                )
        kind = "server" if grant is None else "client"
        if force and path.exists() and describe(load_certificates("certificate", path)[0], path).kind != kind:
            raise InvalidName("identity", name, "is taken: one name is not for both a server and an identity")
        key = make_key()
        certificate = self._sign(name, key.public_key(), names, grant, days)
        _write_pair(path, certificate, key, force)
        return describe(certificate, path)

    def _sign(
        self,
        name: str,
        public_key: ec.EllipticCurvePublicKey,
        names: x509.SubjectAlternativeName,
        grant: Grant | None,
        days: int,
    ) -> x509.Certificate:
        path = self.directory / "ca.key"
        key = load_key("CA key", path)
        if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != self.certificate.public_key():
            raise InvalidOption("CA key", "does not belong to ca.pem", str(path))
        return sign_leaf(self.certificate, key, public_key, name, names, grant, days)


def _file_name(name: str) -> str:
    """Return the name of a server or an identity, which is a path's part too."""
    return name if name == "server" else identity_name(name)


def _write_pair(path: Path, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey, force: bool) -> None:
    key_path = path.with_suffix(".key")
    for file in (path, key_path):
        if not force and file.exists():
            raise already_there(file)
    # The key first: a certificate without its key would look like an identity that works.
    write_file(key_path, key_to_pem(key), mode=PRIVATE, replace=force)
    write_file(path, to_pem(certificate), mode=PUBLIC, replace=force)
