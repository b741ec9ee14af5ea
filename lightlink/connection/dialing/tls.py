"""TLS contexts from the user's files, checked and read again for each connection. Verification is always on."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

import attrs

from lightlink.errors import InvalidOption

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from lightlink.options import TLS, ConnectOptions


def make_context(tls: TLS | None) -> ssl.SSLContext:
    """Return a client context (TLS 1.2 or later); raises InvalidOption, which names the file, for one that is unfit."""
    if tls is None:
        return _system_context()
    if tls.ca is not None or tls.cert is not None:
        from lightlink.certs import check_client_files  # noqa: PLC0415 - cryptography takes long to import

        check_client_files(tls.ca, tls.cert, tls.key)
    context = _system_context() if tls.ca is None else _context_for(tls.ca)
    if tls.cert is not None and tls.key is not None:
        try:
            # With a password of ours OpenSSL does not ask for one on the terminal, where nobody may be.
            context.load_cert_chain(tls.cert, tls.key, password="")
        except (OSError, ssl.SSLError) as exc:
            raise InvalidOption("tls.cert", f"is not fit together with its key: {_reason(exc)}", str(tls.cert)) from exc
    return context


def with_inbox_prefix(options: ConnectOptions) -> ConnectOptions:
    """Return options whose inbox prefix is that of the certificate's identity, unless one is given.

    A server configured for identities lets each listen to its own inboxes only; see
    `lightlink.protocol.permissions.inbox_prefix`.
    """
    if options.inbox_prefix is not None or options.tls is None or options.tls.cert is None:
        return options
    from lightlink.certs import identity_of  # noqa: PLC0415 - cryptography takes long to import
    from lightlink.protocol.permissions import inbox_prefix  # noqa: PLC0415

    try:
        name = identity_of(options.tls.cert)
    except InvalidOption:
        return options  # connecting says what is wrong with the file
    return options if name is None else attrs.evolve(options, inbox_prefix=inbox_prefix(name))


def whose(options: ConnectOptions) -> tuple[str, bool]:
    """Return the name of the identity that connects, empty if it has none here, and whether a certificate proves it."""
    if options.tls is not None and options.tls.cert is not None:
        from lightlink.certs import identity_of  # noqa: PLC0415 - cryptography takes long to import

        try:
            name = identity_of(options.tls.cert)
        except InvalidOption:
            name = None  # connecting says what is wrong with the file
        if name is not None:
            return name, True
    return options.user or "", False


class Contexts:
    """Makes the context for each handshake from the files as they are then, so that renewed ones count.

    When the files have become unfit, the last context that could be made stays, and ``report`` is told once.
    """

    def __init__(self, tls: TLS | None, report: Callable[[Exception], object]) -> None:
        self._tls = tls
        self._report = report
        self._last: ssl.SSLContext | None = None
        self._is_fresh = False
        self._reported = ""

    def check(self) -> None:
        """Raise InvalidOption, which names the file, when the files are not fit."""
        if self._tls is not None:
            self._last = make_context(self._tls)
            self._is_fresh = True

    def next(self) -> ssl.SSLContext:
        """Return the context for the next handshake."""
        if self._is_fresh and self._last is not None:
            self._is_fresh = False  # once is enough for the first; each reading may warn of a certificate's end
            return self._last
        try:
            self._last = make_context(self._tls)
        except InvalidOption as exc:
            if self._last is None:
                raise
            if str(exc) != self._reported:
                self._reported = str(exc)
                self._report(exc)
        else:
            self._reported = ""
        return self._last


def _system_context() -> ssl.SSLContext:
    return _at_least_1_2(ssl.create_default_context())


def _context_for(ca: Path) -> ssl.SSLContext:
    try:
        return _at_least_1_2(ssl.create_default_context(cafile=ca))
    except (OSError, ssl.SSLError) as exc:
        raise InvalidOption("tls.ca", f"cannot be used: {_reason(exc)}", str(ca)) from exc


def _at_least_1_2(context: ssl.SSLContext) -> ssl.SSLContext:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION  # no nats-server asks for it, and `TlsLayer` could not write meanwhile
    return context


def _reason(exc: OSError) -> str:
    return str(getattr(exc, "reason", None) or exc.strerror or exc)
