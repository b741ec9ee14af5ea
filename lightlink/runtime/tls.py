"""TLS contexts from the user's files. Verification is always on."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

from lightlink.errors import InvalidOption

if TYPE_CHECKING:
    from pathlib import Path

    from lightlink.options import TLS


def make_context(tls: TLS | None) -> ssl.SSLContext:
    """Return a client context (TLS 1.2 or later); raises InvalidOption, which names the file, for one that is unfit."""
    ca = None if tls is None or tls.ca is None else _readable("tls.ca", tls.ca)
    try:
        context = ssl.create_default_context(cafile=ca)
    except ssl.SSLError as exc:
        raise InvalidOption("tls.ca", f"is not a PEM certificate: {exc.reason or exc}", ca) from exc
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if tls is not None and tls.cert is not None and tls.key is not None:
        cert, key = _readable("tls.cert", tls.cert), _readable("tls.key", tls.key)
        try:
            # With a password of ours OpenSSL does not ask for one on the terminal, where nobody may be.
            context.load_cert_chain(cert, key, password="")
        except ssl.SSLError as exc:
            raise InvalidOption("tls", f"certificate and key are not fit: {exc.reason or exc}", str(tls.cert)) from exc
    return context


def _readable(option: str, path: Path) -> str:
    try:
        with path.open("rb"):
            return str(path)
    except OSError as exc:
        raise InvalidOption(option, f"cannot be read: {exc.strerror}", str(path)) from exc
