"""Prove who we are with a key: nkey seeds and credentials files (ADR-21 names both; signing: NATS protocol, nonce)."""

from __future__ import annotations

import base64
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightlink.errors import InvalidOption
from lightlink.protocol.text import text_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from lightlink.options import ConnectOptions

    Source = Path | str | Callable[[], str | bytes]

_JWT = re.compile(rb"-+BEGIN NATS USER JWT-+\s+([\w.-]+)\s+-+END NATS USER JWT-+")
_SEED = re.compile(rb"-+BEGIN USER NKEY SEED-+\s+(\w+)\s+-+END USER NKEY SEED-+")


def identity_settings(options: ConnectOptions) -> dict[str, Any]:
    """Return nats-py's settings for the identity in ``options``; raises InvalidOption for what holds none.

    Files are read, and functions asked, at each connect, so what is renewed counts from then on. A function is asked
    on the loop's thread.
    """
    if options.creds is not None:
        creds = options.creds
        _read_creds(creds)
        # nats-py's own reading never returns from a file without a JWT.
        return {
            "user_jwt_cb": lambda: _read_creds(creds)[0],
            "signature_cb": lambda nonce: _sign("creds", _named(creds), _read_creds(creds)[1], nonce),
        }
    if options.nkey is not None:
        nkey = options.nkey
        _sign("nkey", _named(nkey), _read("nkey", nkey).strip(), "")
        if isinstance(nkey, Path):
            return {"nkeys_seed": str(nkey)}
        return {"nkeys_seed_str": _read("nkey", nkey).strip().decode()}
    return {
        "user": options.user,
        "password": _asked("password", options.password),
        "token": _asked("token", options.token),
    }


def _asked(option: str, source: str | Callable[[], str] | None) -> str | Callable[[], str] | None:
    """Return a secret as nats-py takes it; a function's failure becomes an error of ours."""
    if source is None or isinstance(source, str):
        return source
    function = source

    def ask() -> str:
        return _read(option, function).decode()

    return ask


def _read_creds(source: Source) -> tuple[bytes, bytes]:
    """Return the user JWT and the seed in credentials."""
    content = _read("creds", source)
    jwt, seed = _JWT.search(content), _SEED.search(content)
    if jwt is None or seed is None:
        raise InvalidOption("creds", "does not hold a user JWT and its nkey seed", _named(source))
    return jwt[1], seed[1]


def _sign(option: str, where: str, seed: bytes, nonce: str) -> bytes:
    try:
        import nkeys  # type: ignore[import-untyped]  # noqa: PLC0415 - an extra, and slow to import
    except ImportError:
        raise InvalidOption(option, "needs the nkeys package: pip install 'lightlink[nkeys]'", where) from None
    try:
        pair = nkeys.from_seed(bytearray(seed))
        signature: bytes = pair.sign(nonce.encode())
        pair.wipe()
    except (nkeys.NkeysError, ValueError):
        # Its own message could show a part of the seed.
        raise InvalidOption(option, "does not hold an nkey seed", where) from None
    return base64.b64encode(signature)


def _named(source: Source) -> str:
    """Return what messages may say of a secret: where it is, and never what it is."""
    return str(source) if isinstance(source, Path) else "given as text" if isinstance(source, str) else "a function"


def _read(option: str, source: Source) -> bytes:
    if isinstance(source, str):
        return source.encode()
    if isinstance(source, Path):
        try:
            return source.read_bytes()
        except OSError as exc:
            raise InvalidOption(option, f"cannot be read: {exc.strerror}", str(source)) from exc
    try:
        told = source()
    except Exception as exc:
        raise InvalidOption(
            option, f"the function that was given failed: {type(exc).__name__}: {text_of(exc)}"
        ) from exc
    if not isinstance(told, (str, bytes)) or not told:
        raise InvalidOption(option, f"the function that was given returned {type(told).__name__}, not a text")
    return told.encode() if isinstance(told, str) else told
