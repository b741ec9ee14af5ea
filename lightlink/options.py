"""Settings as frozen values, checked at birth: from arguments, the environment or a NATS context file.

A setting given as an argument, or by a NATS context that is named (ADR-21), wins over the environment, and that over
the context that is selected. Secrets are kept out of every repr and message.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, unquote, urlsplit

import attrs

from lightlink.errors import InvalidOption
from lightlink.protocol import edge
from lightlink.validators import FOR_EVER, field, functions, integer, number, seconds_or_zero, string

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from typing import TypeAlias

    from lightlink.middleware import Middleware

    # A secret as text, or a function that is asked for it at each connect.
    Secret: TypeAlias = str | Callable[[], str]
    # A key's file, its text, or a function that is asked for that at each connect.
    Key: TypeAlias = Path | str | Callable[[], str | bytes]

DEFAULT_URL = "nats://127.0.0.1:4222"
DEFAULT_JETSTREAM_API = "$JS.API"
DEFAULT_PORTS = {"nats": 4222, "tls": 4222, "quic": edge.DEFAULT_PORT}

# Seeds (ADR-21), and what stands around them in credentials; no path looks so.
_KEY_TEXT = re.compile(r"-----BEGIN |[\r\n]|^\s*S[A-Z2-7]{40,}\s*$")
_IDENTITY = frozenset({"user", "password", "token", "creds", "nkey"})
_TOKEN = re.compile(r"[^\s.*>\x00-\x1f\x7f\ud800-\udfff]+")
_PREFIX = re.compile(rf"{_TOKEN.pattern}(\.{_TOKEN.pattern})*")


def _bounded(value: float) -> float:
    return min(value, FOR_EVER) if isinstance(value, (int, float)) and value < float("inf") else value


def _time(default: float) -> Any:
    return attrs.field(default=default, converter=_bounded, validator=field(number))


def _text_or_none(_: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
    if value is not None and not isinstance(value, str):
        raise InvalidOption(attribute.name, "must be a string", type(value).__name__)


def _subject_or_none(_: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
    if value is not None and (not isinstance(value, str) or not _PREFIX.fullmatch(value) or len(value) > 256):
        raise InvalidOption(attribute.name, "must be a subject without wildcards, of 256 characters at most", value)


def _token_or_none(_: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
    if value is not None and (not isinstance(value, str) or not _TOKEN.fullmatch(value) or len(value) > 256):
        raise InvalidOption(attribute.name, "must be one token of a subject, without wildcards", value)


def _flag(_: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
    if not isinstance(value, bool):
        raise InvalidOption(attribute.name, "must be True or False", value)


def _callable_or_none(_: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
    if value is not None and not callable(value):
        raise InvalidOption(attribute.name, "is not callable", type(value).__name__)


def _optional_path(value: str | os.PathLike[str] | None) -> Path | None:
    try:
        # The files are read again later, when the program may have gone to another folder.
        return None if value is None else Path(value).expanduser().absolute()
    except (TypeError, RuntimeError) as exc:  # not a path, or one in the home of nobody
        raise InvalidOption("file", f"is not a path: {exc}", value) from exc


def _text_or_function(_: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
    if value is not None and not isinstance(value, str) and not callable(value):
        raise InvalidOption(attribute.name, "must be a string, or a function that returns one", type(value).__name__)


def _key(value: Any) -> Key | None:
    """Return where a key is: text that is one is told from a path by how it looks."""
    if callable(value) or (isinstance(value, str) and _KEY_TEXT.search(value)):
        return value  # type: ignore[no-any-return]
    return _optional_path(value)


def _shown(value: Key | None) -> str:
    return repr(value) if value is None or isinstance(value, Path) else "..."


def _middleware(value: Any) -> tuple[Middleware, ...]:
    return functions("middleware", value)


@attrs.frozen
class TLS:
    """Files for TLS: ``ca`` (PEM) verifies the server, ``cert`` and ``key`` (PEM) prove who we are.

    They are checked and read again for each connection, so that renewed ones count; a key that all users may access is
    refused. With a certificate, replies go to the inboxes of its identity unless ``inbox_prefix`` is given.
    ``hostname`` is the name to verify in the server's certificate when it is not the one in the URL. Without ``ca`` the
    system's authorities count. Verification is never turned off.
    Through a gateway (``quic://``) ``ca`` verifies the gateway, by the URL's host, and nats-server behind it by
    ``inner_hostname``, a name that no gateway may have in its certificate.
    """

    ca: Path | None = attrs.field(default=None, converter=_optional_path)
    cert: Path | None = attrs.field(default=None, converter=_optional_path)
    key: Path | None = attrs.field(default=None, converter=_optional_path)
    hostname: str | None = attrs.field(default=None, validator=_text_or_none)
    inner_hostname: str = attrs.field(default=edge.INNER_NAME, validator=field(string))

    def __attrs_post_init__(self) -> None:
        if (self.cert is None) != (self.key is None):
            present, missing = ("cert", "key") if self.key is None else ("key", "cert")
            raise InvalidOption("tls", f"{present} is given without {missing}", str(self.cert or self.key))


def _servers(value: str | Sequence[str]) -> tuple[str, ...]:
    """Return server URLs from one, several separated by commas, or a sequence."""
    # What was given is not in these messages: it may hold a password.
    if not isinstance(value, (str, list, tuple)):
        raise InvalidOption("url", "must be a URL or a list of URLs", type(value).__name__)
    parts = value.split(",") if isinstance(value, str) else value
    if not all(isinstance(part, str) for part in parts):
        raise InvalidOption("url", "each URL must be a string")
    servers = tuple(part.strip() for part in parts if part.strip())
    if not servers:
        raise InvalidOption("url", "name at least one server")
    return servers


@attrs.frozen(kw_only=True)
class ConnectOptions:
    """Everything a connection is made with. All times are in seconds, all sizes in bytes.

    ``timeout`` is the default for calls, flushes and state operations. The outbox holds what was published and not yet
    taken by the server: ``outbox_messages`` and ``outbox_bytes`` bound it, and a publisher that finds it full waits at
    most ``outbox_timeout``. ``jetstream_domain`` names the JetStream domain (ADR-19) that holds state, files and
    commands, or ``jetstream_prefix`` the subject below which another account's API is imported.
    ``workers`` threads run the handlers of subscriptions and watches. ``wait`` is for how long no server need be there
    as the connection is made (infinity: for ever); with ``lazy`` it is made when it is first used.
    ``tls_first`` is for servers that expect the TLS handshake before they say anything (``handshake_first``).
    Without ``discover`` only the servers given are connected to, and none of which a cluster tells. A client that is
    refused as it comes back, as while a secret is exchanged, is closed after ``refusal_timeout`` seconds of refusals.
    ``password`` and ``token`` may be functions, ``creds`` and ``nkey`` files, texts or functions; functions are asked
    at each connect, and must return soon.
    With ``bulk_connection`` files travel on a connection of their own, so that calls do not wait behind them; it is
    made with the first file, and closed when there was none for 30 s. None means: where a server is a gateway
    (``quic://``).
    ``middleware`` are functions around what the client does, outermost first; see `lightlink.middleware`.
    ``on_error`` is called, on a thread of the library, with every error that no caller is there to get.
    """

    servers: tuple[str, ...] = attrs.field(default=(DEFAULT_URL,), converter=_servers)
    name: str = attrs.field(default="client", validator=field(string))
    user: str | None = attrs.field(default=None, validator=_text_or_none)
    password: Secret | None = attrs.field(default=None, repr=False, validator=_text_or_function)
    token: Secret | None = attrs.field(default=None, repr=False, validator=_text_or_function)
    creds: Key | None = attrs.field(default=None, repr=_shown, converter=_key)
    nkey: Key | None = attrs.field(default=None, repr=_shown, converter=_key)
    tls: TLS | None = attrs.field(default=None)
    inbox_prefix: str | None = attrs.field(default=None, validator=_subject_or_none)
    jetstream_domain: str | None = attrs.field(default=None, validator=_token_or_none)
    jetstream_prefix: str | None = attrs.field(default=None, validator=_subject_or_none)
    timeout: float = _time(5.0)
    connect_timeout: float = _time(5.0)
    reconnect_wait: float = _time(0.1)
    reconnect_wait_max: float = _time(4.0)
    ping_interval: float = _time(10.0)
    outbox_messages: int = attrs.field(default=65_536, validator=field(integer))
    outbox_bytes: int = attrs.field(default=64 * 1024 * 1024, validator=field(integer))
    outbox_timeout: float = _time(5.0)
    workers: int = attrs.field(default=8, validator=field(integer))
    wait: float = attrs.field(default=0.0, validator=field(seconds_or_zero))
    discover: bool = attrs.field(default=True, validator=_flag)
    tls_first: bool = attrs.field(default=False, validator=_flag)
    refusal_timeout: float = attrs.field(default=60.0, validator=field(seconds_or_zero))
    lazy: bool = attrs.field(default=False, validator=_flag)
    bulk_connection: bool | None = attrs.field(default=None, validator=attrs.validators.optional(_flag))
    on_error: Callable[[Exception], object] | None = attrs.field(default=None, repr=False, validator=_callable_or_none)
    middleware: tuple[Middleware, ...] = attrs.field(default=(), repr=False, eq=False, converter=_middleware)

    def __attrs_post_init__(self) -> None:
        self._take_credentials_out_of_urls()
        if (self.password is None) != (self.user is None):
            present, missing = ("password", "user") if self.user is None else ("user", "password")
            raise InvalidOption(present, f"is given without {missing}")
        ways = [name for name in ("user", "token", "creds", "nkey") if getattr(self, name) is not None]
        if len(ways) > 1:
            raise InvalidOption(" and ".join(ways), "choose one way to prove who you are")
        if self.jetstream_domain is not None and self.jetstream_prefix is not None:
            raise InvalidOption("jetstream_domain and jetstream_prefix", "choose one way to say where JetStream is")
        if self.tls is not None and not isinstance(self.tls, TLS):
            raise InvalidOption("tls", "must be lightlink.TLS(...)", type(self.tls).__name__)
        self._check_gateways()
        for option in ("creds", "nkey"):
            path = getattr(self, option)
            if isinstance(path, Path) and not path.is_file():
                raise InvalidOption(option, "no such file", str(path))

    def _check_gateways(self) -> None:
        hosts = [urlsplit(server).hostname for server in self.servers if server.startswith("quic://")]
        if self.tls is not None and self.tls.inner_hostname in hosts:
            # It could play nats-server with the certificate it has, and read everything.
            raise InvalidOption("tls.inner_hostname", "must not be the name of a gateway", self.tls.inner_hostname)
        places = [server.partition("://")[2] for server in self.servers]
        if hosts and len({*places}) < len({*self.servers}):
            raise InvalidOption("url", "names one host and port with two schemes; give the gateway another port")

    @property
    def has_bulk_connection(self) -> bool:
        """Whether files travel on a connection of their own."""
        if self.bulk_connection is None:
            return any(url.startswith("quic://") for url in self.servers)
        return self.bulk_connection

    @property
    def wants_tls(self) -> bool:
        """Whether a server that does not speak TLS must be refused."""
        # Behind a gateway without TLS the gateway would read everything.
        return (
            self.tls_first or self.tls is not None or any(url.startswith(("tls://", "quic://")) for url in self.servers)
        )

    @property
    def jetstream_api(self) -> str:
        """What the subjects of JetStream's API begin with: ``$JS.API``, a domain's, or an import's (ADR-1, ADR-19)."""
        if self.jetstream_domain is not None:
            return f"$JS.{self.jetstream_domain}.API"
        return self.jetstream_prefix or DEFAULT_JETSTREAM_API

    @classmethod
    def resolve(
        cls, url: str | Sequence[str] | None = None, *, context: str | None = None, **settings: Any
    ) -> ConnectOptions:
        """Return options from arguments, else the environment, else the selected NATS context, else the defaults.

        ``context`` names a NATS context to use, before the environment; a setting that is None counts as not given.
        Raises InvalidOption.
        """
        given = {name: value for name, value in {"servers": url, **settings}.items() if value is not None}
        cls.check_names(given)
        if context is not None:
            given = _over(given, read_context(context))
        given = _over(given, _read_environment())
        if "servers" not in given:
            given = _over(given, read_context())
        return cls(**given)

    @classmethod
    def check_names(cls, settings: Iterable[str], others: Iterable[str] = ()) -> None:
        """Raise InvalidOption for a setting that there is not; ``others`` are names that may have been meant too."""
        names = {field.name for field in attrs.fields(cls)}
        for unknown in sorted({*settings} - names - {"context"}):
            import difflib  # noqa: PLC0415 - for mistakes only

            close = difflib.get_close_matches(unknown, [*names, *others], 1)
            raise InvalidOption(unknown, "no such setting" + (f"; did you mean {close[0]}?" if close else ""))

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

    Contexts live in ``$XDG_CONFIG_HOME/nats/context/<name>.json``; ``NATS_CONTEXT`` or ``nats/context.txt`` selects
    one. Raises InvalidOption when a context that was asked for cannot be read.
    """
    try:
        folder = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "nats"
    except RuntimeError:  # a user without a home, as in many containers
        folder = Path("/nonexistent")
    selected = name or os.environ.get("NATS_CONTEXT")
    if not selected:
        try:
            selected = (folder / "context.txt").read_text().strip()
        except OSError:
            return {}
        if not selected:
            return {}
    if not isinstance(selected, str) or "/" in selected or selected.startswith("."):
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


def _over(upper: Mapping[str, Any], lower: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings from two places; an identity in the upper one, in a URL too, replaces that of the lower one."""
    if {"user", "token", "creds", "nkey"} & upper.keys() or "@" in str(upper.get("servers", "")):
        lower = {name: value for name, value in lower.items() if name not in _IDENTITY}
    return {**lower, **upper}


# What a context may hold and this library would ignore: it would go elsewhere, or as somebody else, than it was told.
_UNSUPPORTED_IN_CONTEXT = {
    "nsc": "; use creds instead",
    "user_jwt": "; use creds instead",
    "user_seed": "; use creds or nkey instead",
    "socks_proxy": "",
}


def _from_context(content: Mapping[str, Any]) -> dict[str, Any]:
    for unsupported, instead in _UNSUPPORTED_IN_CONTEXT.items():
        if content.get(unsupported):
            raise InvalidOption("context", f"{unsupported} is not supported{instead}")
    names = {"url": "servers", "user": "user", "password": "password", "token": "token", "creds": "creds"}
    names |= {"nkey": "nkey", "inbox_prefix": "inbox_prefix"}
    names |= {"jetstream_domain": "jetstream_domain", "jetstream_api_prefix": "jetstream_prefix"}
    names |= {"tls_first": "tls_first"}
    settings = {ours: content[theirs] for theirs, ours in names.items() if content.get(theirs)}
    if "user" in settings and "password" not in settings:
        settings["token"] = settings.pop("user")
    files = {name: content[name] for name in ("ca", "cert", "key") if content.get(name)}
    if files:
        settings["tls"] = TLS(**files)
    return settings


def _read_environment() -> dict[str, Any]:
    """Return settings from ``LIGHTLINK_URL``, else ``NATS_URL``, and ``LIGHTLINK_TLS_CA``, ``_CERT`` and ``_KEY``."""
    settings: dict[str, Any] = {}
    if url := os.environ.get("LIGHTLINK_URL") or os.environ.get("NATS_URL"):
        settings["servers"] = url
    files = {name: os.environ.get(f"LIGHTLINK_TLS_{name.upper()}") for name in ("ca", "cert", "key")}
    given = {name: value for name, value in files.items() if value}
    if given:
        settings["tls"] = TLS(**given)
    return settings


def _split_url(server: str) -> tuple[str, tuple[str, str | None] | None]:
    """Return a server's URL with scheme and port and without credentials, and the credentials."""
    # Nothing of the user information may reach a message: it may hold a password.
    # Also not where a comma in a password has cut it off from its host.
    shown = re.sub(r"^((?:\w+://)?[^:/]*):(?!\d*/?$|//).*", r"\1:...", server.rpartition("@")[2])
    try:
        parts: SplitResult = urlsplit(server if "://" in server else f"nats://{server}")
        port = parts.port
    except ValueError as exc:
        raise InvalidOption("url", "is not a URL such as nats://host:4222", shown) from exc
    if parts.scheme not in DEFAULT_PORTS:
        raise InvalidOption("url", "must start with nats://, tls:// or quic://", shown)
    if port == 0:
        raise InvalidOption("url", "names the port 0, on which no server listens", shown)
    odd = parts.path not in ("", "/") or parts.query or parts.fragment or re.search(r"\s", server)
    if not parts.hostname or odd:
        raise InvalidOption("url", "must be of the form nats://host:port", shown)
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    plain = f"{parts.scheme}://{host}:{port or DEFAULT_PORTS[parts.scheme]}"
    if parts.username is None:
        return plain, None
    password = None if parts.password is None else unquote(parts.password)
    return plain, (unquote(parts.username), password)
