"""Prove who we are with a key: nkey seeds and credentials files (ADR-21 names both; signing: NATS protocol, nonce)."""

from __future__ import annotations

import base64
import re
from typing import TYPE_CHECKING, Any

from lightlink.errors import InvalidOption

if TYPE_CHECKING:
    from pathlib import Path

    from lightlink.options import ConnectOptions

_JWT = re.compile(rb"-+BEGIN NATS USER JWT-+\s+([\w.-]+)\s+-+END NATS USER JWT-+")
_SEED = re.compile(rb"-+BEGIN USER NKEY SEED-+\s+(\w+)\s+-+END USER NKEY SEED-+")


def identity_settings(options: ConnectOptions) -> dict[str, Any]:
    """Return nats-py's settings for the identity in ``options``; raises InvalidOption for a file that holds none.

    Key files are read again at each connect, so a renewed one counts from then on.
    """
    if options.creds is not None:
        creds = options.creds
        _read_creds(creds)
        # nats-py's own reading never returns from a file without a JWT.
        return {
            "user_jwt_cb": lambda: _read_creds(creds)[0],
            "signature_cb": lambda nonce: _sign("creds", creds, _read_creds(creds)[1], nonce),
        }
    if options.nkey is not None:
        _sign("nkey", options.nkey, _read("nkey", options.nkey).strip(), "")
        return {"nkeys_seed": str(options.nkey)}
    return {"user": options.user, "password": options.password, "token": options.token}


def _read_creds(path: Path) -> tuple[bytes, bytes]:
    """Return the user JWT and the seed in a credentials file."""
    content = _read("creds", path)
    jwt, seed = _JWT.search(content), _SEED.search(content)
    if jwt is None or seed is None:
        raise InvalidOption("creds", "does not hold a user JWT and its nkey seed", str(path))
    return jwt[1], seed[1]


def _sign(option: str, path: Path, seed: bytes, nonce: str) -> bytes:
    try:
        import nkeys  # type: ignore[import-untyped]  # noqa: PLC0415 - an extra, and slow to import
    except ImportError:
        raise InvalidOption(option, "needs the nkeys package: pip install 'lightlink[nkeys]'", str(path)) from None
    try:
        pair = nkeys.from_seed(bytearray(seed))
        signature: bytes = pair.sign(nonce.encode())
        pair.wipe()
    except (nkeys.NkeysError, ValueError):
        # Its own message could show a part of the seed.
        raise InvalidOption(option, "does not hold an nkey seed", str(path)) from None
    return base64.b64encode(signature)


def _read(option: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as exc:
        raise InvalidOption(option, f"cannot be read: {exc.strerror}", str(path)) from exc
