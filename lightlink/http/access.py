"""Who may do what: bearer tokens (RFC 6750), each with a name and a scope."""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import attrs
import msgspec

from lightlink.errors import DecodeError, InvalidOption
from lightlink.protocol import codec

if TYPE_CHECKING:
    from collections.abc import Iterable

_log = logging.getLogger("lightlink")

READ, SEND, PLAN, APPROVE, FLEET = "read", "send", "plan", "approve", "fleet"
CALL, DATA, EDIT = "call", "data", "edit"
SCOPES = (READ, SEND, PLAN, APPROVE, FLEET, CALL, DATA, EDIT)
_NAME = re.compile(r"[A-Za-z0-9_.@-]{1,64}")
_SECRET = re.compile(r"[!-~]+")  # what a header can carry
_MIN_SECRET = 16


def _patterns(value: Any) -> tuple[str, ...]:
    if isinstance(value, str) or not all(isinstance(item, str) and item for item in value):
        raise InvalidOption("patterns", "must be a list of texts such as 'berlin-*'", value)
    return tuple(value)


def _name(_: Any, __: Any, value: Any) -> None:
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise InvalidOption("token name", "use 1 to 64 letters, digits and _ . @ - only", value)


def _scopes(values: Iterable[str]) -> frozenset[str]:
    return frozenset(values)


def _scope(_: Any, __: Any, value: Any) -> None:
    if not value or not value <= {*SCOPES}:
        raise InvalidOption("token scope", f"must be some of {', '.join(SCOPES)}", sorted(map(str, value)))


def _rate(_: Any, __: Any, value: Any) -> None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0):
        raise InvalidOption("token rate", "must be a number of requests a second above 0", value)


@attrs.frozen(kw_only=True)
class Token:
    """Whom a bearer token stands for, without the secret itself.

    ``name`` is what commands and the audit say issued them. ``scope`` holds some of ``read``, ``send``,
    ``plan`` (start runs and decide about them), ``approve`` (answer at their gates), ``fleet`` (accept machines, put
    identities out), ``call`` (call services, publish events), ``data`` (look at streams, state and files) and ``edit``
    (change them).
    ``command_types`` (of commands and messages) and ``clients`` are patterns as in a shell: ``*``, ``?``, ``[abc]``.
    ``rate`` is requests a second, when it is not the app's.
    """

    name: str = attrs.field(validator=_name)
    scope: frozenset[str] = attrs.field(converter=_scopes, validator=_scope)
    command_types: tuple[str, ...] = attrs.field(default=("*",), converter=_patterns)
    clients: tuple[str, ...] = attrs.field(default=("*",), converter=_patterns)
    rate: float | None = attrs.field(default=None, validator=_rate)

    def may_address(self, client_id: str) -> bool:
        """Tell whether the token is good for an agent."""
        return any(fnmatchcase(client_id, pattern) for pattern in self.clients)

    def may_use(self, command_type: str) -> bool:
        """Tell whether the token is good for a type of command or message."""
        return any(fnmatchcase(command_type, pattern) for pattern in self.command_types)

    @property
    def addresses_all(self) -> bool:
        """Whether the token is good for every agent."""
        return "*" in self.clients

    @property
    def is_limited(self) -> bool:
        """Whether there are commands that the token is not good for."""
        return not (self.addresses_all and "*" in self.command_types)


class TokenSource(Protocol):
    """Anything that knows tokens: called with what a request brought, it returns a Token, or None if it is not good."""

    def __call__(self, secret: str, /) -> Token | None:
        """Return whom a secret stands for."""


# In a file ------------------------------------------------------------------------------------------------------------


class _Entry(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    name: str
    scope: list[Literal["read", "send", "plan", "approve", "fleet", "call", "data", "edit"]]
    token: str | None = None
    sha256: str | None = None
    command_types: tuple[str, ...] = ("*",)
    clients: tuple[str, ...] = ("*",)
    rate: float | None = None


class _File(msgspec.Struct, forbid_unknown_fields=True):
    tokens: list[_Entry]


class FileTokens:
    """The tokens in a JSON file, which is read again when it has changed.

    ``{"tokens": [{"name", "scope": ["read", "send"], "token" or "sha256", "command_types"?, "clients"?, "rate"?}]}``;
    ``sha256`` is that of the token, in hexadecimal. Raises InvalidOption when the file cannot be used.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._seen = self._stamp()
        self._entries = self._load()

    def __call__(self, secret: str, /) -> Token | None:
        """Return the token with this secret; every entry is compared, in constant time."""
        self._reload()
        digest = hashlib.sha256(secret.encode("utf-8", "surrogateescape")).digest()
        found = None
        for expected, token in self._entries:
            if hmac.compare_digest(expected, digest):
                found = token
        return found

    def named(self, name: str, /) -> tuple[bytes, Token] | None:
        """Return the SHA-256 of a token's secret and the token, by its name."""
        self._reload()
        return next((entry for entry in self._entries if entry[1].name == name), None)

    def _stamp(self) -> tuple[int, int, int] | None:
        try:
            status = self.path.stat()
        except OSError:
            return None
        return status.st_mtime_ns, status.st_size, status.st_ino

    def _reload(self) -> None:
        stamp = self._stamp()
        if stamp == self._seen:
            return
        self._seen = stamp
        try:
            self._entries = self._load()
        except InvalidOption as exc:
            # What was revoked in a file that cannot be read must not stay good.
            self._entries = []
            _log.error("lightlink: no token is good until the file is: %s", exc)

    def _load(self) -> list[tuple[bytes, Token]]:
        try:
            content = codec.decode(self.path.read_bytes(), str(self.path), _File)
        except OSError as exc:
            raise InvalidOption("tokens", f"cannot be read: {exc.strerror}", str(self.path)) from exc
        except DecodeError as exc:
            raise InvalidOption("tokens", exc.reason, str(self.path)) from None
        if not content.tokens:
            raise InvalidOption("tokens", "holds none", str(self.path))
        entries = [(self._digest(entry), self._token(entry)) for entry in content.tokens]
        for what in ([token.name for _, token in entries], [digest for digest, _ in entries]):
            if len(set(what)) < len(what):
                raise InvalidOption("tokens", "two tokens share a name or a secret", str(self.path))
        if self.path.stat().st_mode & 0o004:
            _log.warning("lightlink: everybody on this machine can read the tokens in %s", self.path)
        return entries

    def _digest(self, entry: _Entry) -> bytes:
        if (entry.token is None) == (entry.sha256 is None):
            raise InvalidOption("tokens", f"{entry.name}: give either token or sha256", str(self.path))
        if entry.token is None:
            digest = entry.sha256 or ""
            if not re.fullmatch("[0-9a-fA-F]{64}", digest):
                raise InvalidOption("tokens", f"{entry.name}: sha256 has 64 hexadecimal digits", str(self.path))
            return bytes.fromhex(digest)
        if not _SECRET.fullmatch(entry.token):
            raise InvalidOption("tokens", f"{entry.name}: use ASCII without spaces for the token", str(self.path))
        if len(entry.token) < _MIN_SECRET:
            reason = f"{entry.name}: the token is shorter than {_MIN_SECRET} characters, so that it could be guessed"
            raise InvalidOption("tokens", reason, str(self.path))
        return hashlib.sha256(entry.token.encode()).digest()

    def _token(self, entry: _Entry) -> Token:
        facts = {name: getattr(entry, name) for name in ("name", "scope", "command_types", "clients", "rate")}
        try:
            return Token(**facts)
        except InvalidOption as exc:
            raise InvalidOption("tokens", str(exc), str(self.path)) from None
