"""The directory of a fleet: its authority, its keys, and the part of it that responders take along.

``ca.pem``, ``ca.key``, ``server.pem``, ``server.key`` and identities issued by hand are those of a certificate
directory (`lightlink.certs`); ``operator.seed`` is the operator's own key. Neither ``ca.key`` nor ``operator.seed`` is
needed at run time. ``responder/`` holds what is: an intermediate authority that signs agents, the keys of the accounts,
and the responders' own way to the server.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from lightlink.certs import CertificateAuthority
from lightlink.certs.certificate import key_to_pem, load_certificates, load_key, make_key, to_pem
from lightlink.certs.files import PRIVATE, PUBLIC, already_there, private_directory, read_file, write_file
from lightlink.certs.signing import host_names, sign_intermediate
from lightlink.errors import InvalidOption
from lightlink.fleet import jwt
from lightlink.fleet.keys import Key
from lightlink.options import TLS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec
    from typing_extensions import Self

SIGNER_DAYS = 1825
_VERSION = 1
_KEYS = ("signing", "system", "home", "auth", "enroll", "responder", "sentinel")


@attrs.frozen
class Secrets:
    """The keys of a fleet that are needed at run time.

    ``operator`` is the operator's JWT and ``signing`` its signing key; ``system``, ``home``, ``auth`` and ``enroll``
    are accounts, ``responder`` and ``sentinel`` users of AUTH; agents' accounts are derived from ``master``.
    """

    operator: str
    signing: Key
    system: Key
    home: Key
    auth: Key
    enroll: Key
    responder: Key
    sentinel: Key
    master: bytes = attrs.field(repr=False)

    def agent_account(self, name: str) -> Key:
        """Return the account of an agent."""
        return Key.derive(self.master, name)


@attrs.frozen
class FleetDirectory:
    """A fleet's directory; `create` makes one, `load` opens it."""

    path: Path

    @classmethod
    def create(
        cls, directory: str | os.PathLike[str], hosts: Sequence[str], *, certs: str | os.PathLike[str] | None = None
    ) -> Self:
        """Make the authority, the keys and the responders' part of a new fleet; ``hosts`` are those of the server.

        ``certs`` is a certificate directory that is in use: its server certificate goes on being the server's, and the
        identities it has issued are let in with what they have. Raises InvalidOption, also when there is a fleet in the
        directory already.
        """
        path = Path(directory).absolute()
        if (path / "responder").exists():
            raise already_there(path / "responder")
        host_names(hosts)
        old = None if certs is None else CertificateAuthority.load(certs)
        authority = CertificateAuthority.create(path, name="LightLink fleet CA", intermediates=True)
        if old is None:
            authority.issue_server(hosts)
        else:
            _take_over(old, path)
        fleet = cls(path)
        private_directory(fleet.responder)
        fleet._make_signer(authority)
        fleet._make_keys()
        authority.issue("fleet-responder", "client", publish=(), calls=())
        for suffix in ("pem", "key"):
            (path / f"fleet-responder.{suffix}").rename(fleet.responder / f"responder.{suffix}")
        return fleet

    @classmethod
    def load(cls, directory: str | os.PathLike[str]) -> Self:
        """Open the fleet in a directory; raises InvalidOption if there is none."""
        path = Path(directory).absolute()
        if not (path / "responder" / "fleet.json").exists():
            raise InvalidOption("fleet", "there is none (lightlink fleet init)", str(path))
        return cls(path)

    @property
    def responder(self) -> Path:
        """The part that responders take along."""
        return self.path / "responder"

    def _make_signer(self, authority: CertificateAuthority) -> None:
        key = make_key()
        root_key = load_key("CA key", authority.directory / "ca.key")
        signer = sign_intermediate(
            authority.certificate,
            root_key,  # type: ignore[arg-type]  # it was made a moment ago
            key.public_key(),
            "LightLink fleet signer",
            SIGNER_DAYS,
        )
        write_file(self.responder / "signer.key", key_to_pem(key), mode=PRIVATE, replace=False)
        write_file(self.responder / "signer.pem", to_pem(signer), mode=PUBLIC, replace=False)
        authorities = read_file("CA certificate", self.path / "authorities.pem") if self._has_bundle else b""
        roots = authorities or to_pem(authority.certificate)
        write_file(self.responder / "ca.pem", roots, mode=PUBLIC, replace=False)

    @property
    def _has_bundle(self) -> bool:
        return (self.path / "authorities.pem").exists()

    def _make_keys(self) -> None:
        operator = Key.make("operator")
        keys = {
            name: Key.make("operator" if name == "signing" else "user" if name in _KEYS[-2:] else "account")
            for name in _KEYS
        }
        token = jwt.operator(operator, keys["system"].public, [keys["signing"].public])
        content: dict[str, Any] = {"version": _VERSION, "operator": token, "master": os.urandom(32).hex()}
        content |= {name: key.seed.decode() for name, key in keys.items()}
        write_file(self.path / "operator.seed", operator.seed + b"\n", mode=PRIVATE, replace=False)
        text = json.dumps(content, indent=1).encode() + b"\n"
        write_file(self.responder / "fleet.json", text, mode=PRIVATE, replace=False)
        user = Key.make("user")
        for name, key, account in (("auth", keys["responder"], "auth"), ("system", user, "system")):
            creds = jwt.credentials(jwt.user(key.public, "fleet-responder", keys[account]), key)
            write_file(self.responder / f"{name}.creds", creds, mode=PRIVATE, replace=False)


@attrs.frozen
class ResponderFiles:
    """What a responder has of a fleet: the folder ``responder`` of its directory, wherever that was copied."""

    path: Path

    @classmethod
    def load(cls, directory: str | os.PathLike[str]) -> Self:
        """Open the folder, or that of the fleet's directory around it; raises InvalidOption if there is none."""
        path = Path(directory).absolute()
        for folder in (path, path / "responder"):
            if (folder / "fleet.json").exists():
                return cls(folder)
        raise InvalidOption("fleet", "holds no fleet.json (lightlink fleet init)", str(path))

    @property
    def tls(self) -> TLS:
        """The files with which a responder passes the server's TLS; who it is stands in its credentials."""
        return TLS(self.path / "ca.pem", self.path / "responder.pem", self.path / "responder.key")

    def secrets(self) -> Secrets:
        """Read the keys; raises InvalidOption."""
        file = self.path / "fleet.json"
        try:
            content = json.loads(read_file("fleet", file, secret=True))
            if content["version"] != _VERSION:
                raise InvalidOption("fleet", f"is of version {content['version']}, this is {_VERSION}", str(file))
            keys = {name: Key.read(content[name]) for name in _KEYS}
            return Secrets(operator=content["operator"], master=bytes.fromhex(content["master"]), **keys)
        except (ValueError, KeyError, TypeError) as exc:
            if isinstance(exc, InvalidOption):
                raise
            raise InvalidOption("fleet", "is damaged", str(file)) from exc

    def signer(self) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
        """Read the authority that signs agents; raises InvalidOption when its files are away or do not match."""
        certificate = load_certificates("signer", self.path / "signer.pem")[0]
        key = load_key("signer key", self.path / "signer.key")
        if key.public_key() != certificate.public_key():
            raise InvalidOption("signer key", "does not belong to signer.pem", str(self.path / "signer.key"))
        return certificate, key  # type: ignore[return-value]  # its certificate is EC P-256


def _take_over(old: CertificateAuthority, path: Path) -> None:
    """Let a directory of certificates that is in use go on: its server's certificate, and whom it has issued."""
    for name, mode in (("server.pem", PUBLIC), ("server.key", PRIVATE)):
        content = read_file("server certificate", old.directory / name, secret=mode == PRIVATE)
        write_file(path / name, content, mode=mode, replace=False)
    both = to_pem(old.certificate) + read_file("CA certificate", path / "ca.pem")
    write_file(path / "authorities.pem", both, mode=PUBLIC, replace=False)
