"""Operator, account and user of NATS's decentralized security, as `nsc` makes them: keys, JWTs, a creds file."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import nkeys

if TYPE_CHECKING:
    from pathlib import Path


class Key(NamedTuple):
    """An nkey: ``public`` names it, ``seed`` signs for it."""

    public: str
    seed: bytes

    @classmethod
    def make(cls, prefix: int) -> Key:
        seed = bytes(nkeys.encode_seed(os.urandom(32), prefix))
        return cls(nkeys.from_seed(bytearray(seed)).public_key.decode(), seed)

    def sign(self, data: bytes) -> bytes:
        signature: bytes = nkeys.from_seed(bytearray(self.seed)).sign(data)
        return signature


def user_key() -> Key:
    """Return a new user's key."""
    return Key.make(nkeys.PREFIX_BYTE_USER)


class Operator:
    """An operator with one account; ``config`` makes a server trust it."""

    def __init__(self) -> None:
        self._operator = Key.make(nkeys.PREFIX_BYTE_OPERATOR)
        self._account = Key.make(nkeys.PREFIX_BYTE_ACCOUNT)
        operator = _jwt(self._operator, self._operator.public, {"type": "operator"})
        unlimited = {"subs": -1, "conn": -1, "leaf": -1, "imports": -1, "exports": -1, "data": -1, "payload": -1}
        account = _jwt(self._operator, self._account.public, {"type": "account", "limits": unlimited})
        self.config = f"""
        operator: {operator}
        resolver: MEMORY
        resolver_preload: {{ {self._account.public}: {account} }}
        """

    def write_creds(self, path: Path) -> Path:
        """Write the credentials file of a new user."""
        user = user_key()
        limits = {"subs": -1, "data": -1, "payload": -1}
        jwt = _jwt(self._account, user.public, {"type": "user", **limits})
        path.write_text(
            f"-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n"
            "************************* IMPORTANT *************************\n\n"
            f"-----BEGIN USER NKEY SEED-----\n{user.seed.decode()}\n------END USER NKEY SEED------\n"
        )
        return path


def _jwt(issuer: Key, subject: str, claims: dict[str, Any]) -> str:
    body = {"iat": int(time.time()), "iss": issuer.public, "name": "test", "sub": subject}
    body["nats"] = {"version": 2, **claims}
    digest = hashlib.new("sha512_256", json.dumps(body).encode()).digest()
    body["jti"] = base64.b32encode(digest).decode().rstrip("=")
    parts = [_encode({"typ": "JWT", "alg": "ed25519-nkey"}), _encode(body)]
    signature = issuer.sign(".".join(parts).encode())
    return ".".join([*parts, base64.urlsafe_b64encode(signature).decode().rstrip("=")])


def _encode(value: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")
