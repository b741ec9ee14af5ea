"""``lightlink server``: a nats-server for development."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from lightlink.cli.terminal.options import json_option, to_json
from lightlink.cli.terminal.printing import say
from lightlink.errors import ServerError
from lightlink.server import EmbeddedCluster, EmbeddedServer

if TYPE_CHECKING:
    from collections.abc import Mapping

_FOLDER = click.Path(file_okay=False, path_type=Path)
_FILE = click.Path(dir_okay=False, path_type=Path)
_READABLE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command()
@click.option("--port", type=click.IntRange(0, 65535), default=4222, show_default=True, help="0 takes any free one.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--store-dir", type=_FOLDER, help="Keep JetStream's data here; default: a temporary folder.")
@click.option("--tls", "certificates", type=_FOLDER, help="Mutual TLS with what `lightlink certs` made in this folder.")
@click.option("--config", type=_READABLE, help="nats-server configuration, instead.")
@click.option("--log-file", type=_FILE, help="Append the server's log to this file.")
@click.option("--jetstream/--no-jetstream", default=True, show_default=True, help="State, files and commands need it.")
@click.option(
    "--cluster", "size", type=click.IntRange(2, 9), metavar="N", help="Run N servers as a cluster, from --port upwards."
)
@json_option
@click.pass_context
def server(
    context: click.Context,
    port: int,
    host: str,
    store_dir: Path | None,
    certificates: Path | None,
    config: Path | None,
    log_file: Path | None,
    jetstream: bool,
    size: int | None,
    as_json: bool,
) -> None:
    """Run a nats-server until Ctrl-C or SIGTERM.

    It prints the server's address once it takes clients. With --tls it knows the identities that are in the folder as
    it starts: start it again after issuing more. With --cluster there are several, with JetStream replicated among
    them, and each may be killed to see what happens.
    """
    if size is not None:
        _refuse_beside_cluster(context)
        _run_cluster(EmbeddedCluster(size=size, port=port), as_json=as_json)
        return
    if certificates and config:
        raise click.UsageError("--tls and --config do not go together")
    settings: dict[str, Any] = {"host": host, "store_dir": store_dir, "log_file": log_file, "jetstream": jetstream}
    _run_server(EmbeddedServer(port=port, config=config, tls=certificates, **settings), as_json=as_json)


def _run_server(embedded: EmbeddedServer, *, as_json: bool) -> None:
    try:
        with embedded:
            _announce(embedded, as_json=as_json)
            while embedded.running:
                time.sleep(0.2)
            raise ServerError(f"the nats-server at {embedded.url} ended by itself")
    except (KeyboardInterrupt, SystemExit):
        # Being asked to stop is how a server ends well.
        return


def _refuse_beside_cluster(context: click.Context) -> None:
    for parameter in context.command.params:
        name = parameter.name or ""
        given = context.get_parameter_source(name) is ParameterSource.COMMANDLINE
        if given and name not in ("port", "size", "as_json"):
            raise click.UsageError(f"--cluster and {parameter.opts[0]} do not go together")


def _run_cluster(cluster: EmbeddedCluster, *, as_json: bool) -> None:
    try:
        with cluster:
            facts = [{"name": node.name, "url": node.url, "pid": node.pid} for node in cluster.nodes]
            if as_json:
                say(to_json({"urls": cluster.urls, "nodes": facts}))
            else:
                say(f"a cluster at {','.join(cluster.urls)}; Ctrl-C stops it")
                for fact in facts:
                    say("  {name}: {url} (process {pid})".format(**fact))
            running = cluster.nodes
            while running:
                time.sleep(0.2)
                for node in running:
                    if not node.running:
                        say(f"{node.name} at {node.url} has ended", err=True)
                running = tuple(node for node in running if node.running)
            raise ServerError("all servers of the cluster ended by themselves")
    except (KeyboardInterrupt, SystemExit):
        return


def _announce(embedded: EmbeddedServer, *, as_json: bool) -> None:
    identities = {} if embedded.tls is None else _identities(embedded.tls)
    if as_json:
        facts = {"url": embedded.url, "pid": embedded.pid, "jetstream": embedded.jetstream}
        say(to_json(facts | ({"identities": identities} if embedded.tls else {})))
        return
    kept = f", data in {embedded.store_dir}" if embedded.jetstream else ""
    say(f"nats-server at {embedded.url} (process {embedded.pid}{kept}); Ctrl-C stops it")
    if embedded.tls is not None:
        _tell_how_to_connect(embedded.url, embedded.tls, identities)


def _identities(certificates: Path) -> dict[str, str]:
    from lightlink.certs import CertificateAuthority  # noqa: PLC0415 - cryptography takes long to import

    return {info.name: info.role for info in CertificateAuthority.load(certificates).list() if info.role is not None}


def _tell_how_to_connect(url: str, certificates: Path, identities: Mapping[str, str]) -> None:
    if not identities:
        say(f"nobody may connect yet: lightlink certs issue {certificates} NAME, then start it again")
        return
    say("known to it: " + ", ".join(f"{name} ({role})" for name, role in identities.items()))
    name = next(iter(identities))
    say(
        f"connect with: --url {url} --tls-ca {certificates}/ca.pem "
        f"--tls-cert {certificates}/{name}.pem --tls-key {certificates}/{name}.key"
    )
