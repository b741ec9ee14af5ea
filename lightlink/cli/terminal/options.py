"""What the commands share: how to reach NATS, JSON on the command line, and how data is printed."""

from __future__ import annotations

import functools
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import attrs
import click
import msgspec
from rich.console import Console
from rich.highlighter import JSONHighlighter

import lightlink
from lightlink.cli.terminal.printing import say
from lightlink.errors import DecodeError, EncodeError
from lightlink.protocol import codec
from lightlink.protocol.text import visible_json

if TYPE_CHECKING:
    from collections.abc import Callable

SECONDS = click.FloatRange(min=0, min_open=True)

json_option = click.option("--json", "as_json", is_flag=True, help="Print data as JSON, one value a line.")


# How to reach NATS --------------------------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class Link:
    """The connection options of the command line. None leaves the choice to the library: environment, NATS context."""

    url: str | None = None
    context: str | None = None
    tls_ca: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    tls_hostname: str | None = None
    tls_inner_hostname: str | None = None
    user: str | None = None
    password: str | None = attrs.field(default=None, repr=False)
    token: str | None = attrs.field(default=None, repr=False)
    creds: Path | None = None
    nkey: Path | None = None

    def settings(self) -> dict[str, Any]:
        """Return what was given, as arguments for `lightlink.connect` or `lightlink.Service`."""
        values = attrs.asdict(self, recurse=False)
        tls = {name: values.pop(f"tls_{name}") for name in ("ca", "cert", "key", "hostname", "inner_hostname")}
        if any(tls.values()):
            # What is given here alone would leave out the others, which the environment may name.
            for part in ("ca", "cert", "key"):
                tls[part] = tls[part] or os.environ.get(f"LIGHTLINK_TLS_{part.upper()}") or None
            values["tls"] = lightlink.TLS(**{name: value for name, value in tls.items() if value})
        return {name: value for name, value in values.items() if value is not None}

    def arguments(self) -> list[str]:
        """Return what was given as it would stand on a command line."""
        given = attrs.asdict(self, recurse=False, filter=lambda _, value: value is not None)
        return [f"--{name.replace('_', '-')}={value}" for name, value in given.items()]

    def connect(self, **more: Any) -> lightlink.Client:
        """Connect; raises ConnectError."""
        return lightlink.connect(**self.settings(), **more, name="lightlink-cli")


_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)

_LINK_OPTIONS: tuple[Callable[[Callable[..., None]], Callable[..., None]], ...] = (
    click.option("--url", metavar="URL", help="Server or servers; default: LIGHTLINK_URL, NATS_URL, NATS context."),
    click.option("--context", metavar="NAME", help="A NATS context, as made by `nats context`."),
    click.option("--user", metavar="NAME", help="User name."),
    click.option("--password", metavar="TEXT", help="Password of that user."),
    click.option("--token", metavar="TEXT", help="Token."),
    click.option("--creds", type=_FILE, help="Credentials file (JWT and nkey)."),
    click.option("--nkey", type=_FILE, help="File with an nkey seed."),
    click.option("--tls-ca", type=_FILE, help="Authorities that sign servers (PEM)."),
    click.option("--tls-cert", type=_FILE, help="Our certificate (PEM)."),
    click.option("--tls-key", type=_FILE, help="The key of our certificate (PEM)."),
    click.option("--tls-hostname", metavar="NAME", help="Name in the server's certificate, if the URL has another."),
    click.option(
        "--tls-inner-hostname", metavar="NAME", help="Name in the nats-server's certificate behind a gateway (quic://)."
    ),
)


def link_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options for a connection, and hand them over as its argument ``link``."""

    @functools.wraps(command)
    def with_link(**values: Any) -> None:
        given = {field.name: values.pop(field.name) for field in attrs.fields(Link)}
        command(link=Link(**given), **values)

    wrapped: Callable[..., None] = with_link
    for option in reversed(_LINK_OPTIONS):
        wrapped = option(wrapped)
    return wrapped


# JSON on the command line -------------------------------------------------------------------------------------------


def json_object(ctx: click.Context, param: click.Parameter, value: str) -> dict[str, Any]:
    """Return the object in an argument, in standard input for ``-``; a usage error if it is none."""
    arguments: dict[str, Any] = _decode(read_argument(value), dict[str, Any], ctx, param)
    return arguments


def json_bytes(ctx: click.Context, param: click.Parameter | None, value: str) -> bytes:
    """Return an argument's bytes, those of standard input for ``-``; a usage error if they are not JSON."""
    data = read_argument(value)
    _decode(data, Any, ctx, param)
    return data


def read_argument(value: str) -> bytes:
    """Return an argument's bytes, those of standard input for ``-``."""
    return standard_input().read() if value == "-" else value.encode("utf-8", "surrogateescape")


def standard_input() -> BinaryIO:
    """Return standard input; a usage error where the process was started without one."""
    if sys.stdin is None:
        raise click.UsageError("there is no standard input to read from")
    return sys.stdin.buffer


def _decode(data: bytes, as_type: Any, ctx: click.Context, param: click.Parameter | None) -> Any:
    try:
        return codec.decode(data, "", as_type)
    except DecodeError as exc:
        start = data[:60].decode("utf-8", "replace")
        raise click.BadParameter(f"{exc.reason}: {start}", ctx, param, param_hint="JSON") from exc


# Output -------------------------------------------------------------------------------------------------------------


def print_data(value: Any, *, as_json: bool) -> None:
    """Print a value as JSON: on one line, or laid out and coloured for a reader."""
    text = to_json(value)
    if as_json:
        say(text)
    else:
        # Not `print_json`, which would read what was made harmless, and print it as it had been.
        Console(soft_wrap=True).print(JSONHighlighter()(msgspec.json.format(text, indent=2)))


def to_json(value: Any) -> str:
    """Return a value as JSON text that a terminal does not obey; what JSON cannot carry becomes its repr."""
    try:
        return visible_json(codec.encode_json(value).decode())
    except EncodeError:
        return visible_json(codec.encode_json(repr(value)).decode())
