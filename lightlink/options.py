"""Settings as frozen values, checked at birth: from arguments, the environment or a NATS context file.

A setting given as an argument wins over the environment, and that over the selected NATS context (ADR-21). Secrets are
kept out of every repr.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, unquote, urlsplit

import attrs
from attrs import validators

from lightlink.errors import InvalidOption

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

DEFAULT_URL = "nats://127.0.0.1:4222"
DEFAULT_PORT = 4222


def _positive(_: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < float("inf"):
        raise InvalidOption(attribute.name, "must be a number above 0", value)


def _text_or_none(_: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
    if value is not None and not isinstance(value, str):
        raise InvalidOption(attribute.name, "must be a string", type(value).__name__)


def _optional_path(value: str | os.PathLike[str] | None) -> Path | None:
    return Path(value).expanduser() if value is not None else None


def seconds(option: str, value: Any) -> float:
    """Return a timeout in seconds; raises InvalidOption unless it is a number above 0."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < float("inf"):
        raise InvalidOption(option, "must be a number of seconds above 0", value)
    return float(value)


@attrs.frozen
class TLS:
    """Files for TLS: ``ca`` (PEM) verifies the server, ``cert`` and ``key`` (PEM) prove who we are.

    ``hostname`` is the name to verify in the server's certificate when it is not the one in the URL. Without ``ca`` the
    system's authorities count. Verification is never turned off.
    """

    ca: Path | None = attrs.field(default=None, converter=_optional_path)
    cert: Path | None = attrs.field(default=None, converter=_optional_path)
    key: Path | None = attrs.field(default=None, converter=_optional_path)
    hostname: str | None = attrs.field(default=None, validator=_text_or_none)

    def __attrs_post_init__(self) -> None:
        if (self.cert is None) != (self.key is None):
            present, missing = ("cert", "key") if self.key is None else ("key", "cert")
            raise InvalidOption("tls", f"{present} is given without {missing}", str(self.cert or self.key))


def _servers(value: str | Sequence[str]) -> tuple[str, ...]:
    """Return server URLs from one, several separated by commas, or a sequence."""
    parts = value.split(",") if isinstance(value, str) else list(value)
    servers = tuple(part.strip() for part in parts if isinstance(part, str) and part.strip())
    if not servers or len(servers) < len([part for part in parts if part != ""]):
        raise InvalidOption("url", "name at least one server, as text", value)
    return servers


@attrs.frozen(kw_only=True)
class ConnectOptions:
    """Everything a connection is made with. All times are in seconds, all sizes in bytes.

    ``timeout`` is the default for calls, flushes and state operations. The outbox holds what was published and not yet
    taken by the server: ``outbox_messages`` and ``outbox_bytes`` bound it, and a publisher that finds it full waits at
    most ``outbox_timeout``. ``workers`` threads run the handlers of subscriptions and watches.
    ``on_error`` is called, on a thread of the library, with every error that no caller is there to get.
    """

    servers: tuple[str, ...] = attrs.field(default=(DEFAULT_URL,), converter=_servers)
    name: str = attrs.field(default="client", validator=validators.instance_of(str))
    user: str | None = attrs.field(default=None, validator=_text_or_none)
    password: str | None = attrs.field(default=None, repr=False, validator=_text_or_none)
    token: str | None = attrs.field(default=None, repr=False, validator=_text_or_none)
    creds: Path | None = attrs.field(default=None, converter=_optional_path)
    nkey: Path | None = attrs.field(default=None, converter=_optional_path)
    tls: TLS | None = attrs.field(default=None)
    inbox_prefix: str | None = attrs.field(default=None, validator=_text_or_none)
    timeout: float = attrs.field(default=5.0, validator=_positive)
    connect_timeout: float = attrs.field(default=5.0, validator=_positive)
    reconnect_wait: float = attrs.field(default=0.1, validator=_positive)
    reconnect_wait_max: float = attrs.field(default=4.0, validator=_positive)
    ping_interval: float = attrs.field(default=10.0, validator=_positive)
    outbox_messages: int = attrs.field(default=65_536, validator=_positive)
    outbox_bytes: int = attrs.field(default=64 * 1024 * 1024, validator=_positive)
    outbox_timeout: float = attrs.field(default=5.0, validator=_positive)
    workers: int = attrs.field(default=8, validator=_positive)
    on_error: Callable[[Exception], object] | None = attrs.field(default=None, repr=False)

    def __attrs_post_init__(self) -> None:
        self._take_credentials_out_of_urls()
        if self.password is not None and self.user is None:
            raise InvalidOption("password", "is given without user")
        ways = [name for name in ("user", "token", "creds", "nkey") if getattr(self, name) is not None]
        if len(ways) > 1:
            raise InvalidOption(" and ".join(ways), "choose one way to prove who you are")
        if self.tls is not None and not isinstance(self.tls, TLS):
            raise InvalidOption("tls", "must be lightlink.TLS(...)", type(self.tls).__name__)
        for option in ("creds", "nkey"):
            path = getattr(self, option)
            if path is not None and not path.is_file():
                raise InvalidOption(option, "no such file", str(path))

    @property
    def wants_tls(self) -> bool:
        """Whether a server that does not speak TLS must be refused."""
        return self.tls is not None or any(server.startswith("tls://") for server in self.servers)

    @classmethod
    def resolve(
        cls, url: str | Sequence[str] | None = None, *, context: str | None = None, **settings: Any
    ) -> ConnectOptions:
        """Return options from arguments, else the environment, else the selected NATS context, else the defaults.

        ``context`` names a NATS context to use; a setting that is None counts as not given. Raises InvalidOption.
        """
        given = {name: value for name, value in settings.items() if value is not None}
        unknown = given.keys() - {field.name for field in attrs.fields(cls)}
        if unknown:
            raise InvalidOption(", ".join(sorted(unknown)), "no such setting")
        servers = url or os.environ.get("LIGHTLINK_URL") or os.environ.get("NATS_URL")
        from_file = read_context(context) if context or not servers else {}
        if servers:
            from_file.pop("servers", None)
            given["servers"] = servers
        if "tls" not in given and (tls := _tls_from_environment()):
            given["tls"] = tls
        if {"user", "token", "creds", "nkey"} & given.keys():
            from_file = {k: v for k, v in from_file.items() if k not in ("user", "password", "token", "creds", "nkey")}
        return cls(**{**from_file, **given})

    def _take_credentials_out_of_urls(self) -> None:
        """Move user and password, or a token, from the URLs to where no message shows them."""
        plain, found = zip(*(_split_url(server) for server in self.servers), strict=True)
        identities = {identity for identity in found if identity is not None}
        object.__setattr__(self, "servers", plain)
        if not identities:
            return
        if len(identities) > 1:
            raise InvalidOption("url", "the servers' URLs name different users; give user= and password= instead")
        if self.user is not None or self.token is not None:
            return
        user, password = identities.pop()
        if password is None:
            object.__setattr__(self, "token", user)
        else:
            object.__setattr__(self, "user", user)
            object.__setattr__(self, "password", password)


def read_context(name: str | None = None) -> dict[str, Any]:
    """Return settings from a NATS context file (ADR-21): the named one, else the selected one, else none.

    Contexts live in ``$XDG_CONFIG_HOME/nats/context/<name>.json``; ``NATS_CONTEXT`` or ``nats/context.txt`` selects one.
    Raises InvalidOption when a context that was asked for cannot be read.
    """
    folder = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "nats"
    selected = name or os.environ.get("NATS_CONTEXT")
    if not selected:
        try:
            selected = (folder / "context.txt").read_text().strip()
        except OSError:
            return {}
        if not selected:
            return {}
    if "/" in selected or selected.startswith("."):
        raise InvalidOption("context", "is not a name", selected)
    path = folder / "context" / f"{selected}.json"
    try:
        content = json.loads(path.read_text())
    except OSError as exc:
        raise InvalidOption("context", f"cannot read {path}: {exc.strerror}", selected) from exc
    except ValueError as exc:
        raise InvalidOption("context", f"{path} is not JSON: {exc}", selected) from exc
    if not isinstance(content, dict):
        raise InvalidOption("context", f"{path} does not hold a JSON object", selected)
    return _from_context(content)


def _from_context(content: Mapping[str, Any]) -> dict[str, Any]:
    names = {"url": "servers", "user": "user", "password": "password", "token": "token", "creds": "creds"}
    names |= {"nkey": "nkey", "inbox_prefix": "inbox_prefix"}
    settings = {ours: content[theirs] for theirs, ours in names.items() if content.get(theirs)}
    if "user" in settings and "password" not in settings:
        settings["token"] = settings.pop("user")
    files = {name: content[name] for name in ("ca", "cert", "key") if content.get(name)}
    if files:
        settings["tls"] = TLS(**files)
    return settings


def _tls_from_environment() -> TLS | None:
    files = {name: os.environ.get(f"LIGHTLINK_TLS_{name.upper()}") for name in ("ca", "cert", "key")}
    given = {name: value for name, value in files.items() if value}
    return TLS(**given) if given else None


def _split_url(server: str) -> tuple[str, tuple[str, str | None] | None]:
    """Return a server's URL with scheme and port and without credentials, and the credentials."""
    # Nothing of the user information may reach a message: it may hold a password.
    shown = server.rpartition("@")[2]
    try:
        parts: SplitResult = urlsplit(server if "://" in server else f"nats://{server}")
        port = parts.port
    except ValueError as exc:
        raise InvalidOption("url", "is not a URL such as nats://host:4222", shown) from exc
    if parts.scheme not in ("nats", "tls"):
        raise InvalidOption("url", "must start with nats:// or tls://", shown)
    if not parts.hostname or parts.path not in ("", "/") or parts.query:
        raise InvalidOption("url", "must be of the form nats://host:port", shown)
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    plain = f"{parts.scheme}://{host}:{port or DEFAULT_PORT}"
    if parts.username is None:
        return plain, None
    password = None if parts.password is None else unquote(parts.password)
    return plain, (unquote(parts.username), password)
