"""The JWTs of NATS's decentralized security: operator, account, user and the answer of an auth callout.

Sources: the claims of https://github.com/nats-io/jwt (version 2), ADR-14 and ADR-26. Only what a fleet needs is here;
docs/decisions/0016 says why no package does it.
"""

from __future__ import annotations

import base64
import hashlib
import json
import time
from typing import TYPE_CHECKING, Any

from lightlink.errors import DecodeError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lightlink.fleet.keys import Key
    from lightlink.protocol.permissions import Permissions

_UNLIMITED = {"subs": -1, "data": -1, "payload": -1}
_ACCOUNT_LIMITS = {**_UNLIMITED, "imports": -1, "exports": -1, "wildcards": True, "conn": -1, "leaf": -1}
_JETSTREAM_LIMITS = {"mem_storage": -1, "disk_storage": -1, "streams": -1, "consumer": -1}
_NOBODY = {"deny": [">"]}


def operator(key: Key, system: str, signing: Sequence[str]) -> str:
    """Return the JWT of an operator; ``system`` is the system account's public key, ``signing`` who signs for it."""
    claims = {"type": "operator", "system_account": system, "signing_keys": [*signing]}
    return _encode(key.public, "LightLink", claims, key)


def account(public: str, name: str, signer: Key, *, jetstream: bool = False, **claims: Any) -> str:
    """Return the JWT of an account; ``claims`` are exports, imports, signing_keys, authorization."""
    limits = _ACCOUNT_LIMITS | (_JETSTREAM_LIMITS if jetstream else {})
    body = {"type": "account", "limits": limits, "default_permissions": {"pub": {}, "sub": {}}, **claims}
    return _encode(public, name, body, signer)


def user(
    public: str,
    name: str,
    signer: Key,
    *,
    allowed: Permissions | None = None,
    account: str | None = None,
    expires: float | None = None,
) -> str:
    """Return the JWT of a user who may do what is ``allowed`` (None: everything in its account).

    ``account`` is the public key of the account when ``signer`` is only a signing key of it; ``expires`` is in seconds
    as `time.time` counts.
    """
    claims: dict[str, Any] = {"type": "user", **_UNLIMITED, "pub": {}, "sub": {}}
    if allowed is not None:
        claims |= {"pub": _allow(allowed.publish), "sub": _allow(allowed.subscribe)}
    if account is not None:
        claims["issuer_account"] = account
    return _encode(public, name, claims, signer, expires)


def sentinel(public: str, signer: Key) -> str:
    """Return the JWT that sends a client without one to the auth callout; it allows nothing by itself."""
    claims = {"type": "user", **_UNLIMITED, "pub": _NOBODY, "sub": _NOBODY, "bearer_token": True}
    return _encode(public, "sentinel", claims, signer)


def auth_response(request: Mapping[str, Any], signer: Key, *, granted: str = "", error: str = "") -> str:
    """Return the answer to an authorization request: the JWT of the user it is granted, or why it is refused."""
    claims: dict[str, Any] = {"type": "authorization_response"}
    claims |= {"error": error} if error else {"jwt": granted}
    return _encode(request["user_nkey"], "", claims, signer, audience=request["server_id"]["id"])


def accounts_to_delete(operator_key: str, accounts: Sequence[str], signer: Key) -> str:
    """Return the order to a resolver to delete accounts."""
    return _encode(operator_key, "", {"type": "generic", "accounts": [*accounts]}, signer)


def decode(token: bytes) -> dict[str, Any]:
    """Return what stands in a JWT that a server has sent over its own subjects; its signature is not looked at.

    Raises DecodeError.
    """
    try:
        body = token.split(b".")[1]
        claims = json.loads(base64.urlsafe_b64decode(body + b"=" * (-len(body) % 4)))
    except (IndexError, ValueError):
        raise DecodeError("jwt", "is no JWT", token[:64]) from None
    if not isinstance(claims, dict) or not isinstance(claims.get("nats"), dict):
        raise DecodeError("jwt", "holds no claims of NATS", token[:64])
    return claims


def credentials(token: str, key: Key) -> bytes:
    """Return the content of a credentials file, as nsc makes them."""
    lines = [
        "-----BEGIN NATS USER JWT-----",
        token,
        "------END NATS USER JWT------",
        "",
        "-----BEGIN USER NKEY SEED-----",
        key.seed.decode(),
        "------END USER NKEY SEED------",
    ]
    return ("\n".join(lines) + "\n").encode()


def _allow(subjects: Sequence[str]) -> dict[str, list[str]]:
    # An empty list would allow everything.
    return {"allow": [*subjects]} if subjects else _NOBODY


def _encode(
    subject: str,
    name: str,
    claims: Mapping[str, Any],
    signer: Key,
    expires: float | None = None,
    audience: str = "",
) -> str:
    body: dict[str, Any] = {"iss": signer.public, "sub": subject, "iat": int(time.time())}
    body |= {"name": name} if name else {}
    body |= {"aud": audience} if audience else {}
    body |= {"exp": int(expires)} if expires is not None else {}
    body["nats"] = {"version": 2, **claims}
    body["jti"] = base64.b32encode(hashlib.sha256(json.dumps(body).encode()).digest()).decode().rstrip("=")
    signed = ".".join((_part({"typ": "JWT", "alg": "ed25519-nkey"}), _part(body)))
    return f"{signed}.{_base64(signer.sign(signed.encode()))}"


def _part(value: Mapping[str, Any]) -> str:
    return _base64(json.dumps(value, separators=(",", ":")).encode())


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")
