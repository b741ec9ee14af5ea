"""``lightlink fleet``: a fleet from its first key to the last revocation."""

from __future__ import annotations

import contextlib
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lightlink.certs import CertificateAuthority
from lightlink.certs.files import PRIVATE, write_file
from lightlink.cli.certs import rights, rights_options
from lightlink.cli.command import labels, managing
from lightlink.cli.processes.serving import serve
from lightlink.cli.terminal.options import SECONDS, json_option, link_options, to_json
from lightlink.cli.terminal.printing import say
from lightlink.fleet import Fleet, FleetDirectory, Responder, fleet_config
from lightlink.fleet.move import move_store
from lightlink.fleet.responder import USER_SECONDS
from lightlink.fleet.signer import CERTIFICATE_DAYS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lightlink.cli.terminal.options import Link
    from lightlink.fleet import Entry, Identity, TokenRecord

_FOLDER = click.Path(file_okay=False, path_type=Path)
_directory = click.argument("directory", metavar="DIR", type=_FOLDER)
_HOSTS = ("localhost", "127.0.0.1")
# How long a responder finishes what was begun.
_DRAIN_SECONDS = 5.0
# An admin's certificate is made where the key of the authority is.
_ENROLLED = ("agent", "service", "client", "manager")

_SERVER: tuple[Callable[[Callable[..., None]], Callable[..., None]], ...] = (
    click.option("--listen", "host", default="0.0.0.0", show_default=True, help="Address to listen on."),  # noqa: S104
    click.option("--port", type=int, default=4222, show_default=True, help="-1 takes any free one."),
    click.option("--store-dir", type=_FOLDER, default="jetstream", show_default=True, help="JetStream's data."),
    click.option("--accounts-dir", type=_FOLDER, default="accounts", show_default=True, help="Agents' accounts."),
)


def _server(command: Callable[..., None]) -> Callable[..., None]:
    for option in reversed(_SERVER):
        command = option(command)
    return command


@click.group()
def fleet() -> None:
    """Thousands of agents: let in by certificate, enrolled by token, revoked in a second.

    \b
        lightlink fleet init fleet/ --host nats.example.com
        nats-server --config fleet/nats.conf
        lightlink fleet auth fleet/ --url tls://nats.example.com:4222
        lightlink fleet token a-0815 --label site=berlin
        lightlink agent enroll TOKEN                      (on the machine)
        lightlink fleet revoke a-0815

    All but init, server-config and auth ask the responders, as the admin whose certificate --tls-cert names.
    """  # noqa: D301 - \b is click's mark for lines to be left as they are


@fleet.command()
@_directory
@click.option(
    "--host", "hosts", multiple=True, default=_HOSTS, show_default=True, metavar="NAME", help="Names of the server."
)
@click.option("--certs", type=_FOLDER, help="A certificate directory in use: its server and identities go on.")
@_server
def init(directory: Path, hosts: tuple[str, ...], certs: Path | None, **server: Any) -> None:
    """Make a fleet in DIR: keys, authority, the admin `ops`, a `manager`, and the nats-server's configuration."""
    FleetDirectory.create(directory, hosts, certs=certs)
    authority = CertificateAuthority.load(directory)
    authority.issue("ops", "admin")
    authority.issue("manager", "manager")
    config = directory.absolute() / "nats.conf"
    write_file(config, fleet_config(directory, **server).encode(), mode=PRIVATE, replace=False)
    say(f"made in {directory}; keep ca.key and operator.seed off the server, responder/ goes where responders run")
    say(f"next: nats-server --config {directory / 'nats.conf'}")
    say(f"      lightlink fleet auth {directory / 'responder'}")


@fleet.command("server-config")
@_directory
@_server
def server_config(directory: Path, **server: Any) -> None:
    """Print the nats-server configuration for the fleet in DIR. It does not change with the fleet."""
    click.echo(fleet_config(directory, **server), nl=False)


@fleet.command()
@_directory
@click.option(
    "--store-dir", type=_FOLDER, default="jetstream", show_default=True, help="Of the server, which is stopped."
)
def move(directory: Path, store_dir: Path) -> None:
    """Give what a server of a certificate directory has stored to the fleet in DIR; see docs/fleet.md."""
    say(f"moved to {move_store(directory, store_dir)}; next: nats-server --config {directory / 'nats.conf'}")


@fleet.command()
@_directory
@click.option("--url", metavar="URL", help="Server or servers; default: LIGHTLINK_URL, NATS_URL.")
@click.option(
    "--life", type=SECONDS, default=USER_SECONDS, show_default=True, help="Seconds until a server asks again."
)
@click.option(
    "--days", type=click.IntRange(1, 825), default=CERTIFICATE_DAYS, show_default=True, help="Of certificates."
)
@click.option("--replicas", type=click.IntRange(1, 5), default=1, show_default=True, help="Of the fleet's buckets.")
def auth(directory: Path, url: str | None, **settings: Any) -> None:
    """Run a responder of the fleet in DIR, or with its folder responder/, until Ctrl-C or SIGTERM.

    It lets identities in, enrolls machines and puts out who is revoked. Run two or more. Without one, who is connected
    goes on, and who is not waits.
    """
    serve(Responder(directory, url, **settings), "fleet: this responder answers", _DRAIN_SECONDS)


@fleet.command()
@click.argument("name")
@click.option("--role", type=click.Choice(_ENROLLED), default="agent", show_default=True, help="What it may do.")
@rights_options
@click.option("--hours", type=click.FloatRange(0, 720, min_open=True), default=1.0, show_default=True)
@click.option("--label", "label", multiple=True, metavar="NAME=VALUE", callback=labels, help="A label of the agent.")
@click.option("--approve", is_flag=True, help="The machine waits until its fingerprint is accepted.")
@click.option("--server", "urls", multiple=True, metavar="URL", help="Where the machine connects; default: as here.")
@json_option
@link_options
def token(
    link: Link,
    name: str,
    role: str,
    hours: float,
    label: dict[str, str],
    approve: bool,
    urls: tuple[str, ...],
    as_json: bool,
    **grants: Any,
) -> None:
    """Print a token with which the machine NAME enrolls, once.

    With another --role than agent it is for a service, a client or a manager; what that may do is said as to
    `certs issue`.
    """
    granted = {option: values for option, values in rights(grants).items() if values}
    with _asking(link) as asked:
        text = asked.token(name, role=role, rights=granted, hours=hours, labels=label, approve=approve, urls=urls)
    say(to_json({"name": name, "token": text}) if as_json else text)


@fleet.command()
@json_option
@link_options
def pending(link: Link, as_json: bool) -> None:
    """Print the requests that wait for `accept` or `reject`."""
    with _asking(link) as asked:
        found = asked.pending()
    for each in found:
        say(to_json(each) if as_json else _request(each))


def _which(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command what tells a request: the fingerprint, and more where one key is used for several."""
    command = link_options(command)
    command = click.option("--id", "token", default="", help="Its id, as `pending --json` tells it.")(command)
    command = click.option("--name", default="", help="Whose request, where several have this fingerprint.")(command)
    return click.argument("fingerprint")(command)


@fleet.command()
@_which
def accept(link: Link, fingerprint: str, **which: str) -> None:
    """Let the machine that shows this FINGERPRINT have its certificate."""
    with _asking(link) as asked:
        say(f"accepted {asked.accept(fingerprint, **which).name}")


@fleet.command()
@_which
def reject(link: Link, fingerprint: str, **which: str) -> None:
    """Refuse the machine that shows this FINGERPRINT."""
    with _asking(link) as asked:
        say(f"rejected {asked.reject(fingerprint, **which).name}")


@fleet.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option("--reason", default="", help="For the audit.")
@link_options
def revoke(link: Link, names: tuple[str, ...], reason: str) -> None:
    """Put identities out at once, and keep them out. A new token lets a machine in again."""
    with _asking(link) as asked:
        for name in dict.fromkeys(names):
            asked.revoke(name, reason)
            say(f"revoked {name}")


@fleet.command()
@click.argument("name")
@click.argument("assigned", nargs=-1, required=True, metavar="NAME=VALUE...", callback=labels)
@link_options
def label(link: Link, name: str, assigned: dict[str, str]) -> None:
    """Give the agent NAME labels, online or not. They count before its own; one without a value takes it away."""
    with managing(link) as manager:
        say(f"{name}{_marks(manager.assign_labels(name, assigned).labels)}")


@fleet.command("list")
@json_option
@link_options
def list_(link: Link, as_json: bool) -> None:
    """Print who was enrolled, renewed or revoked."""
    with _asking(link) as asked:
        found = asked.identities()
    for each in found:
        say(to_json(each) if as_json else _identity(each))


@fleet.command()
@click.option("--limit", type=click.IntRange(1, 10_000), default=100, show_default=True)
@json_option
@link_options
def audit(link: Link, limit: int, as_json: bool) -> None:
    """Print the last events of the fleet, oldest first."""
    with _asking(link) as asked:
        found = asked.audit(limit)
    for each in found:
        say(to_json(each) if as_json else _event(each))


@fleet.command()
@link_options
def status(link: Link) -> None:
    """Print the health of a responder."""
    with _asking(link) as asked:
        say(to_json(asked.status()))


@contextlib.contextmanager
def _asking(link: Link) -> Iterator[Fleet]:
    with link.connect() as client:
        yield Fleet(client)


# Output -------------------------------------------------------------------------------------------------------------


def _request(token: TokenRecord) -> str:
    expires = datetime.fromtimestamp(token.expires, timezone.utc)
    return f"{token.name}  {token.fingerprint}  until {expires:%Y-%m-%d %H:%M}Z{_marks(token.labels)}"


def _identity(identity: Identity) -> str:
    state = f"revoked {identity.revoked_at[:19]}Z {identity.reason}".rstrip() if identity.revoked else "enrolled"
    until = f"  until {identity.not_after[:10]}" if identity.not_after else ""
    return f"{identity.name}  {state}{until}{_marks(identity.labels)}"


def _event(entry: Entry) -> str:
    facts = "  ".join(f"{name}={value}" for name, value in sorted(entry.facts.items()) if value)
    return f"{entry.at[:23]}Z  {entry.what}  {entry.name}  {entry.why}  {facts}".rstrip()


def _marks(found: dict[str, str]) -> str:
    return "".join(f"  {name}={value}" for name, value in sorted(found.items()))
