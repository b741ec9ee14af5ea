"""``lightlink gateway``: the QUIC edge."""

from __future__ import annotations

import contextlib
import datetime
import logging
import os
from pathlib import Path
from typing import Any

import click

from lightlink.cli.terminal.options import json_option, to_json
from lightlink.cli.terminal.printing import say
from lightlink.contrib.systemd import notify
from lightlink.gateway import Gateway, GatewayOptions
from lightlink.gateway.health import HealthServer
from lightlink.protocol.text import joined

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_WHOLE = click.IntRange(min=1)


@click.command()
@click.option("--listen", default="0.0.0.0:8474", show_default=True, metavar="HOST:PORT", help="UDP; port 0: any.")
@click.option(
    "--upstream", default="tls://127.0.0.1:4222", show_default=True, metavar="URL", help="The nats-server behind it."
)
@click.option("--cert", type=_FILE, required=True, help="The gateway's certificate (certs issue --role gateway).")
@click.option("--key", type=_FILE, required=True, help="The key of that certificate.")
@click.option(
    "--reset-key",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File with the secret by which clients hear that it was started again; made if missing.",
)
@click.option("--health", metavar="HOST:PORT", help="Serve /healthz and /metrics there over HTTP.")
@click.option("--max-connections", type=_WHOLE, help="QUIC connections in all.  [default: 4096]")
@click.option("--max-per-address", type=_WHOLE, help="QUIC connections from one address.  [default: 256]")
@click.option("--drain-timeout", type=click.FloatRange(min=0), default=5.0, show_default=True, metavar="SECONDS")
@json_option
def gateway(health: str | None, drain_timeout: float, as_json: bool, **given: Any) -> None:
    """Carry NATS connections of agents on bad or roaming links, over QUIC, to a nats-server, until SIGTERM.

    It holds no credentials: each client's TLS with nats-server runs inside, where the gateway cannot read it. Several
    of these stand behind one DNS name. With --json the log is JSON, one record a line.
    """
    _log_to_stderr(as_json=as_json)
    edge = Gateway(GatewayOptions(**{name: value for name, value in given.items() if value is not None}))
    with contextlib.ExitStack() as stack:
        stack.enter_context(edge)
        served = None if health is None else stack.enter_context(HealthServer(edge, health)).url
        address = joined(*edge.address)
        if as_json:
            say(to_json({"url": f"quic://{address}", "pid": os.getpid(), "health": served}))
        else:
            where = f", health on {served}" if served else ""
            say(f"gateway on {address} (UDP) to {edge.options.upstream}{where} (process {os.getpid()})")
        notify("READY=1", f"STATUS=gateway to {edge.options.upstream}")
        edge.run(drain_timeout)
        notify("STOPPING=1")


def _log_to_stderr(*, as_json: bool) -> None:
    handler = logging.StreamHandler()
    if as_json:
        handler.setFormatter(_JsonFormatter())
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])


class _JsonFormatter(logging.Formatter):
    """One JSON object a record, with what a gateway knows of a connection."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        facts: dict[str, Any] = {
            "time": datetime.datetime.fromtimestamp(record.created, datetime.timezone.utc).isoformat(),
            "level": record.levelname.lower(),
            "message": record.getMessage().removeprefix("lightlink: "),
        }
        for name in ("event", "address", "to", "reason"):
            if hasattr(record, name):
                facts[name] = getattr(record, name)
        if record.exc_info:
            facts["trace"] = self.formatException(record.exc_info)
        return to_json(facts)
