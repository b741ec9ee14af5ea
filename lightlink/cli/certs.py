"""``lightlink certs``: certificates and the server configuration for mutual TLS."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.table import Table

import lightlink
from lightlink.certs import (
    CA_DAYS,
    LEAF_DAYS,
    CertificateAuthority,
    config_settings,
    reload_server,
    remake_config,
    server_config,
)
from lightlink.certs.signing import check_server
from lightlink.cli.terminal.exits import report
from lightlink.cli.terminal.options import json_option, to_json
from lightlink.cli.terminal.printing import say
from lightlink.concurrency.deadline import Deadline
from lightlink.protocol.edge import INNER_NAME
from lightlink.protocol.permissions import ROLES
from lightlink.protocol.subjects import FILES_BUCKET, STATE_BUCKET

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from lightlink.certs import CertificateInfo

_directory = click.argument("directory", metavar="DIR", type=click.Path(file_okay=False, path_type=Path))
_days = click.option("--days", type=int, default=LEAF_DAYS, show_default=True, help="How long it is valid.")
_RIGHTS = ("publish", "subscribe", "calls", "state", "files", "streams", "consume", "inbox", "group")
_names = click.argument("names", nargs=-1, required=True, metavar="NAME...")
_FILE = click.Path(dir_okay=False, path_type=Path)
_config = click.option("--config", type=_FILE, help="Make this configuration again.")
_pid = click.option("--pid", type=click.IntRange(min=1), help="Reload the nats-server with this process id.")
_force = click.option("--force", is_flag=True, help="Replace files that are there.")

_RELOAD_SECONDS = 30.0
# Not a role in NATS: it has a certificate for its clients, and no identity.
_GATEWAY = "gateway"


@click.group()
def certs() -> None:
    """Make certificates, and a nats-server configuration that gives each identity what it needs.

    From nothing to a server that only knows its own:

    \b
        lightlink certs init certs/ --host localhost --host 127.0.0.1
        lightlink certs issue certs/ user-service --role service
        lightlink certs issue certs/ web --role client
        lightlink certs server-config certs/ > nats.conf
        nats-server --config nats.conf
    """  # noqa: D301 - \b is click's mark for lines to be left as they are


@certs.command()
@_directory
@click.option(
    "--host",
    "hosts",
    multiple=True,
    default=("localhost", "127.0.0.1"),
    show_default=True,
    metavar="NAME",
    help="Name or address by which clients reach the server; may be repeated.",
)
@click.option(
    "--gateway", "gateways", multiple=True, metavar="NAME", help="Make a QUIC gateway's certificate too, for this host."
)
@click.option("--name", default="LightLink CA", show_default=True, help="Name of the CA.")
@click.option("--ca-days", type=int, default=CA_DAYS, show_default=True, help="How long the CA is valid.")
@_days
@_force
@json_option
def init(
    directory: Path,
    hosts: tuple[str, ...],
    gateways: tuple[str, ...],
    name: str,
    ca_days: int,
    days: int,
    force: bool,
    as_json: bool,
) -> None:
    """Make a CA and a server certificate in DIR, with --gateway that of a QUIC gateway too.

    The server's holds the name by which clients know it behind a gateway, nats.lightlink.internal.

    With --force the CA is replaced, and everything it issued is worthless: issue it again.
    """
    # Before there is a new CA: a slip in --host would leave it alone, and with --force the old one lost for nothing.
    check_server(hosts, days)
    if gateways:
        check_server(gateways, days)
    authority = CertificateAuthority.create(directory, name=name, days=ca_days, force=force)
    server = authority.issue_server(hosts, days=days, force=force)
    made = [authority.info, server]
    if gateways:
        made.append(authority.issue_gateway(gateways, days=days, force=force))
    _show(made, as_json=as_json)


_role = click.option(
    "--role", type=click.Choice([*ROLES, _GATEWAY]), default="client", show_default=True, help="What it may do."
)
_GRANTED: tuple[Callable[[Callable[..., None]], Callable[..., None]], ...] = (
    click.option("--publish", multiple=True, metavar="SUBJECT", help="Events it may publish; a client: events.>."),
    click.option("--subscribe", multiple=True, metavar="SUBJECT", help="Events it may subscribe to."),
    click.option(
        "--call", "calls", multiple=True, metavar="SERVICE", help="Services it may call; a client: all ('*')."
    ),
    click.option("--state", is_flag=True, help=f"It may use the state bucket {STATE_BUCKET}."),
    click.option(
        "--state-bucket", "state_buckets", multiple=True, metavar="NAME", help="It may use this state bucket."
    ),
    click.option("--files", is_flag=True, help=f"It may use the file store {FILES_BUCKET}."),
    click.option("--files-bucket", "files_buckets", multiple=True, metavar="NAME", help="It may use this file store."),
    click.option("--stream", "streams", multiple=True, metavar="NAME", help="It may make this stream, and replay it."),
    click.option("--consume", multiple=True, metavar="STREAM", help="It may handle this stream's events."),
    click.option(
        "--inbox", type=click.Choice(["plain"]), help="Not LightLink's client: its replies come below _INBOX itself."
    ),
    click.option(
        "--group", type=click.Choice(["none"]), help="Not LightLink's service: it subscribes without a queue group."
    ),
)


def rights_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options for what is granted in a role; `rights` takes their values."""
    for option in reversed(_GRANTED):
        command = option(command)
    return command


def rights(grants: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of `CertificateAuthority.issue` for the options of `rights_options`."""
    return {
        "publish": grants["publish"] or None,
        "subscribe": grants["subscribe"],
        "calls": grants["calls"] or None,
        "state": [STATE_BUCKET] * grants["state"] + [*grants["state_buckets"]],
        "streams": grants["streams"],
        "consume": grants["consume"],
        "files": [FILES_BUCKET] * grants["files"] + [*grants["files_buckets"]],
        "inbox": [grants["inbox"]] if grants["inbox"] else [],
        "group": [grants["group"]] if grants["group"] else [],
    }


@certs.command()
@_directory
@_names
@_role
@rights_options
@click.option("--host", "hosts", multiple=True, metavar="NAME", help="Make a server's certificate for these hosts.")
@_days
@_force
@json_option
def issue(
    directory: Path,
    names: tuple[str, ...],
    hosts: tuple[str, ...],
    days: int,
    force: bool,
    as_json: bool,
    role: str,
    **grants: Any,
) -> None:
    """Make the certificates and keys of the identities NAME in DIR, or with --host those of servers.

    With --role gateway and --host they are those of QUIC gateways (`lightlink gateway`), which never get the name by
    which clients know the server behind them.

    NAME is the NATS user; a service or an agent has the name of its identity. A role's permissions are listed in
    certs/README.md. --publish and --call replace what a client has by default; repeat an option for more.
    """
    authority = CertificateAuthority.load(directory)
    if role == _GATEWAY:
        if not hosts:
            raise click.UsageError("name the hosts by which clients reach the gateway: --host")
        made, faults = _each(names, lambda name: authority.issue_gateway(hosts, name=name, days=days, force=force))
    elif hosts:
        made, faults = _each(names, lambda name: authority.issue_server(hosts, name=name, days=days, force=force))
    else:
        given = {**rights(grants), "days": days, "force": force}
        made, faults = _each(names, lambda name: authority.issue(name, role, **given))
    _show(made, as_json=as_json)
    _raise(faults)


@certs.command()
@_directory
@_names
@_role
@rights_options
@click.option("--config", type=_FILE, required=True, help="The server's configuration, which is made again.")
@click.option("--pid", type=click.IntRange(min=1), required=True, help="Process id of the nats-server.")
@click.option("--url", metavar="URL", help="Where they are tried; default: as in the configuration.")
@_days
@json_option
def add(
    directory: Path,
    names: tuple[str, ...],
    config: Path,
    pid: int,
    url: str | None,
    days: int,
    as_json: bool,
    role: str,
    **grants: Any,
) -> None:
    """Let the identities NAME into a running server: issue them, make its configuration again, reload, and try them.

    It returns when each of them gets in. Who is connected stays connected.
    """
    authority = CertificateAuthority.load(directory)
    where = url or _server_url(authority, config)
    made, faults = _each(names, lambda name: authority.issue(name, role, **rights(grants), days=days))
    _show(made, as_json=as_json)
    if made:
        remake_config(config)
        reload_server(pid)
    for info in made:
        _wait_to_be_let_in(where, authority, info)
    _raise(faults)


def _server_url(authority: CertificateAuthority, config: Path) -> str:
    settings = config_settings(config)
    port, server = settings.get("port"), settings.get("server")
    hosts = next((info.hosts for info in authority.list() if info.name == server), ())
    hosts = tuple(host for host in hosts if host != INNER_NAME)
    if not hosts or not isinstance(port, int) or port < 1:
        raise click.UsageError(f"where the server listens is not in {config}; give --url")
    host = f"[{hosts[0]}]" if ":" in hosts[0] else hosts[0]
    return f"tls://{host}:{port}"


def _wait_to_be_let_in(url: str, authority: CertificateAuthority, info: CertificateInfo) -> None:
    """Return when the server lets an identity in; raises its refusal when it has not for half a minute."""
    tls = lightlink.TLS(authority.directory / "ca.pem", info.path, info.path.with_suffix(".key"))
    deadline = Deadline(_RELOAD_SECONDS)
    while True:
        try:
            lightlink.connect(url, tls=tls, name="lightlink-cli").close()
        except lightlink.AuthenticationError:
            # A large configuration takes the server a while.
            if deadline.is_over:
                raise
            time.sleep(0.1)
        else:
            return


@certs.command()
@_directory
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--expiring", is_flag=True, help="Only those that expire within 30 days or have expired.")
@click.option("--new-key", is_flag=True, help="Make new keys too; without it the keys need not be here.")
@_days
@json_option
def renew(directory: Path, names: tuple[str, ...], expiring: bool, new_key: bool, days: int, as_json: bool) -> None:
    """Renew certificates in DIR, with the same role and hosts.

    Clients pick a renewed file up when they next connect. Exchanging the CA is `init --force`.
    """
    authority = CertificateAuthority.load(directory)
    chosen = [*names]
    if expiring:
        chosen += [info.name for info in authority.expiring() if info.kind != "ca" and not info.fault]
    elif not names:
        raise click.UsageError("name what to renew, or give --expiring")
    renewed, faults = _each(chosen, lambda name: authority.renew(name, days=days, new_key=new_key))
    _show(renewed, as_json=as_json)
    _raise(faults)


@certs.command()
@_directory
@_names
@_config
@_pid
@json_option
def revoke(directory: Path, names: tuple[str, ...], config: Path | None, pid: int | None, as_json: bool) -> None:
    """Take access away from the identities NAME, and end their connections.

    Their certificates move to DIR/revoked. With --config and --pid the server puts them out at once; without, make the
    configuration again and reload each server. A name that was revoked cannot be issued again before its certificate
    has ended; revoking it once more tells the server again.
    """
    authority = CertificateAuthority.load(directory)
    before = {info.name: info for info in authority.revoked()}

    def revoke_one(name: str) -> CertificateInfo:
        try:
            return authority.revoke(name)
        except lightlink.InvalidOption:
            if name not in before:
                raise
            return before[name]  # the last attempt may have ended before the server was told

    revoked, faults = _each(names, revoke_one)
    _show(revoked, as_json=as_json)
    if revoked and config is not None:
        remake_config(config)
    if revoked and pid is not None:
        reload_server(pid)
    if revoked and (config is None or pid is None):
        report("they are let in until the server has its configuration made again and is reloaded", kind="warning")
    _raise(faults)


@certs.command(name="list")
@_directory
@json_option
def list_(directory: Path, as_json: bool) -> None:
    """List the certificates in DIR, with a warning for each that ends within 30 days."""
    _show(CertificateAuthority.load(directory).list(), as_json=as_json)


@certs.command(name="server-config")
@_directory
@click.option("--host", default="0.0.0.0", show_default=True, help="Address to listen on.")  # noqa: S104
@click.option("--port", type=int, default=4222, show_default=True, help="-1 takes any free one.")
@click.option(
    "--store-dir",
    type=click.Path(file_okay=False, path_type=Path),
    default="jetstream",
    show_default=True,
    help="Where JetStream keeps its data.",
)
@click.option("--max-payload", type=int, default=1024 * 1024, show_default=True, metavar="BYTES")
@click.option("--max-connections", type=int, help="Default: 10,000, or twice the identities if more.")
@click.option("--server", default="server", show_default=True, metavar="NAME", help="The server's certificate.")
def server_config_(directory: Path, **settings: Any) -> None:
    """Print a nats-server configuration for the certificates in DIR.

    Make it again after issuing an identity, and reload the server. To take access away: lightlink certs revoke.
    """
    click.echo(server_config(directory, **settings), nl=False)


@certs.command("reload")
@click.argument("pid", type=click.IntRange(min=1), metavar="PID")
def reload_(pid: int) -> None:
    """Have the nats-server with the process id PID take its configuration again.

    After `server-config` was printed into its file. The server is told twice, without which an agent that was added
    hears nothing; connections of others stay.
    """
    reload_server(pid)
    say(f"nats-server (process {pid}) reloads its configuration")


def _each(
    names: Iterable[str], work: Callable[[str], CertificateInfo]
) -> tuple[list[CertificateInfo], list[lightlink.LightLinkError]]:
    """Do something for each name, also after one that fails: what was done is done, and has to be shown and followed.

    Returns what was done, and what went wrong, for `_raise`.
    """
    done, faults = [], []
    for name in dict.fromkeys(names):
        try:
            done.append(work(name))
        except lightlink.LightLinkError as exc:
            faults.append(exc)
    return done, faults


def _raise(faults: list[lightlink.LightLinkError]) -> None:
    """Say what went wrong with `_each`, every reason once; raises the last of them."""
    told = list({str(fault): fault for fault in faults}.values())
    for fault in told[:-1]:
        report(str(fault))
    if told:
        raise told[-1]


# Output -------------------------------------------------------------------------------------------------------------


def _show(found: Iterable[CertificateInfo], *, as_json: bool) -> None:
    found = list(found)
    if as_json:
        for info in found:
            say(to_json(_facts(info)))
    elif found:
        Console(soft_wrap=True).print(_table(found))
    _warn(found)


def _facts(info: CertificateInfo) -> dict[str, Any]:
    grant = info.grant
    rights = {} if grant is None else {side: getattr(grant, side) for side in _RIGHTS if getattr(grant, side)}
    return {
        "name": info.name,
        "kind": info.kind,
        "role": info.role,
        "hosts": info.hosts,
        **rights,
        "not_before": info.not_before,
        "not_after": info.not_after,
        "days_left": info.days_left,
        "serial": f"{info.serial:x}",
        "path": str(info.path),
        "warning": info.warning,
    }


def _table(found: Iterable[CertificateInfo]) -> Table:
    table = Table("name", "role", "until", "days", "for", box=None, pad_edge=False, header_style="bold")
    for info in found:
        facts = _facts(info)
        rights = [f"{side} {' '.join(facts[side])}" for side in ("hosts", *_RIGHTS) if facts.get(side)]
        until = info.not_after.strftime("%Y-%m-%d")
        table.add_row(info.name, info.role or info.kind, until, str(info.days_left), "; ".join(rights))
    return table


def _warn(found: Iterable[CertificateInfo]) -> None:
    for info in found:
        if info.warning:
            report(f"{info.path} {info.warning}", kind="warning")
