"""Keys of NATS's decentralized security: nkeys, made, read and derived (ADR-14)."""

from __future__ import annotations

import hashlib
import hmac
import os
from typing import TYPE_CHECKING, Any, Literal

import attrs

from lightlink.errors import InvalidOption

if TYPE_CHECKING:
    from typing_extensions import Self

Kind = Literal["operator", "account", "user"]

# The version bytes of nkeys: base32 makes O, A and U of them.
_PREFIXES: dict[Kind, int] = {"operator": 14 << 3, "account": 0, "user": 20 << 3}


@attrs.frozen(eq=False)
class Key:
    """An nkey: ``public`` names it, ``seed`` is the secret that signs for it."""

    public: str
    seed: bytes = attrs.field(repr=False)

    @classmethod
    def make(cls, kind: Kind) -> Self:
        """Return a new key."""
        return cls._of(kind, os.urandom(32))

    @classmethod
    def read(cls, seed: str | bytes) -> Self:
        """Return the key of a seed; raises InvalidOption for what is no seed."""
        secret = seed.encode() if isinstance(seed, str) else seed
        nkeys = _library()
        try:
            return cls(nkeys.from_seed(bytearray(secret)).public_key.decode(), secret)
        except (nkeys.NkeysError, ValueError):
            # Its own message could show a part of the seed.
            raise InvalidOption("nkey", "is not an nkey seed") from None

    @classmethod
    def derive(cls, master: bytes, name: str) -> Self:
        """Return the account key of an agent: a function of a master secret and its name, so nothing is stored."""
        return cls._of("account", hmac.new(master, b"lightlink account\0" + name.encode(), hashlib.sha256).digest())

    @classmethod
    def _of(cls, kind: Kind, secret: bytes) -> Self:
        return cls.read(bytes(_library().encode_seed(secret, _PREFIXES[kind])))

    def sign(self, data: bytes) -> bytes:
        """Return the Ed25519 signature of bytes."""
        signature: bytes = _library().from_seed(bytearray(self.seed)).sign(data)
        return signature


def _library() -> Any:
    try:
        import nkeys  # type: ignore[import-untyped]  # noqa: PLC0415 - an extra, and slow to import
    except ImportError:
        raise InvalidOption("fleet", "needs the nkeys package: pip install 'lightlink[fleet]'") from None
    return nkeys
