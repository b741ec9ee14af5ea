"""``lightlink services``: what runs, asked for by service discovery (ADR-32)."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import attrs
import click
from rich.console import Console
from rich.table import Table

from lightlink.cli.terminal.options import SECONDS, json_option, link_options, print_data
from lightlink.cli.terminal.printing import say
from lightlink.errors import ServiceUnavailable
from lightlink.protocol.text import visible

if TYPE_CHECKING:
    import lightlink
    from lightlink.cli.terminal.options import Link
    from lightlink.rpc.discovery import MethodInfo, RunningService

_WATCH_SECONDS = 2.0


@click.command()
@click.argument("name", required=False)
@click.option("--timeout", type=SECONDS, default=2.0, show_default=True, metavar="SECONDS", help="Wait for answers.")
@click.option("--watch", is_flag=True, help="Show it again every two seconds, until Ctrl-C.")
@click.option("--wait", type=SECONDS, metavar="SECONDS", help="Wait at most this long until the service NAME is there.")
@click.option("--method", "methods", multiple=True, metavar="METHOD", help="With --wait: a method that it has to have.")
@click.option("--require", default="", metavar="VERSION", help="With --wait: a version such as '>=1.2,<2'.")
@json_option
@link_options
def services(
    link: Link,
    name: str | None,
    timeout: float,
    watch: bool,
    wait: float | None,
    methods: tuple[str, ...],
    require: str,
    as_json: bool,
) -> None:
    """List the services that run, or show the methods of the one called NAME.

    Exit code 5 says that NAME is not there:

        lightlink services math --wait 30 --method add --require '>=1.2'
    """
    if name is None and (wait is not None or methods or require):
        raise click.UsageError("--wait, --method and --require are about one service: name it")
    if wait is None and (methods or require):
        raise click.UsageError("--method and --require go with --wait")
    with link.connect() as client:
        if wait is not None and name is not None:
            client.wait_for(name, *methods, version=require, timeout=wait)
        if watch:
            _watch(client, name, timeout, as_json=as_json)
            return
        found = client.services(name, timeout=timeout) if name is None else [client.service(name).info(timeout=timeout)]
    show(found, detailed=name is not None, as_json=as_json)


def show(found: list[RunningService], *, detailed: bool, as_json: bool) -> None:
    """Print services: as JSON one a line, else as a table, with ``detailed`` one of the methods."""
    if as_json:
        for each in found:
            print_data(facts(each), as_json=True)
    elif detailed:
        for each in found:
            say(f"{each.name} {', '.join(each.versions)}  {each.description}".rstrip())
            _print(_methods(each))
    else:
        _print(_table(found))


def facts(service: RunningService) -> dict[str, Any]:
    """Return what is known of a service, for JSON."""
    return {
        "name": service.name,
        "description": service.description,
        "digest": service.digest,
        "instances": [{**attrs.asdict(each), "methods": sorted(each.methods)} for each in service.instances],
        "methods": [
            {
                "name": method.name,
                "subject": method.subject,
                "signature": f"{method.name}{method.signature}",
                "description": method.description.text,
                "arguments": method.description.arguments,
                "result": method.description.result,
                "digest": method.description.digest,
                "metadata": method.metadata,
                **attrs.asdict(method.stats),
            }
            for method in service.methods.values()
        ],
    }


def _watch(client: lightlink.Client, name: str | None, timeout: float, *, as_json: bool) -> None:
    while True:
        found = client.services(name, timeout=timeout)
        if not as_json:
            click.clear()  # which does nothing but on a terminal
        show(found, detailed=name is not None, as_json=as_json)
        time.sleep(_WATCH_SECONDS)


def _table(found: list[RunningService]) -> Table:
    table = Table("service", "version", "instances", "hosts", "methods", "requests", "errors")
    for each in found:
        errors = sum(method.stats.errors for method in each.methods.values())
        counts = map(str, (len(each.instances), ", ".join(each.hosts), len(each.methods), each.requests, errors))
        table.add_row(*map(visible, (each.name, ", ".join(each.versions), *counts)))
    return table


def _methods(service: RunningService) -> Table:
    table = Table("method", "what it does", "requests", "errors", "mean, p99")
    for method in service.methods.values():
        stats = method.stats
        times = [stats.processing_time / stats.requests] if stats.requests else []
        times += [] if stats.p99 is None else [stats.p99]
        took = ", ".join(f"{1000 * each:.1f}" for each in times) + (" ms" if times else "")
        told = (f"{method.name}{method.signature}", _first_line(method), str(stats.requests), str(stats.errors), took)
        table.add_row(*map(visible, told))
    return table


def _first_line(method: MethodInfo) -> str:
    return method.description.text.partition("\n")[0]


def _print(table: Table) -> None:
    Console(soft_wrap=False, markup=False).print(table, markup=False)


def list_methods(client: lightlink.Client, name: str, timeout: float, *, as_json: bool) -> None:
    """Print the methods of a service; raises ServiceUnavailable."""
    found = client.service(name).info(timeout=timeout)
    if not found.methods:
        raise ServiceUnavailable(name, "any method", "it tells of no methods")
    show([found], detailed=True, as_json=as_json)
